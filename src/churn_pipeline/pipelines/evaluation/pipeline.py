"""Evaluation: the chosen model judged on the hold-out, in money and by segment; gate, model card, target list, registry."""

from kedro.pipeline import Node, Pipeline

from churn_pipeline.pipelines.boxes import box
from churn_pipeline.pipelines.evaluation import decision, nodes, reference

JUDGED = ["holdout_predictions", "holdout_customers"]
HOW = ["params:judgement", "params:decision", "params:seed"]


def create_pipeline() -> Pipeline:
    """Judge ``chosen_model`` on the hold-out, and register it as the challenger."""
    boxes = [box("judgement", _judgement()), box("decision", _decision()), box("report", _report())]
    return Pipeline(boxes, tags="evaluation")


def _judgement() -> list[Node]:
    return [
        Node(
            nodes.predict,
            ["chosen_model", "holdout_features", "holdout_label"],
            "holdout_predictions",
            name="predict_holdout",
        ),
        Node(nodes.find_reachable, ["holdout_customers", "truth", "contract"], "reachable", name="find_reachable"),
        Node(
            nodes.judge,
            ["holdout_predictions", "reachable", "holdout_customers", "contract", "params:judgement", "params:seed"],
            ["metrics", "logged_metrics"],
            name="judge",
        ),
        Node(
            decision.measure_importance,
            ["chosen_model", "holdout_features", "holdout_label", "params:decision", "params:seed"],
            "importance",
            name="measure_importance",
        ),
    ]


def _decision() -> list[Node]:
    return [
        Node(decision.cost_block, ["contract", "params:costs"], "cost_block", name="cost_block"),
        Node(
            decision.judge_money,
            [*JUDGED, "contract", "cost_block", *HOW],
            ["money", "logged_money", "profit_curve", "sensitivity"],
            name="judge_money",
        ),
        Node(
            decision.judge_segments,
            [*JUDGED, "contract", "cost_block", *HOW],
            ["segments", "segment_gaps"],
            name="judge_segments",
        ),
        Node(
            decision.judge_champion,
            [
                "holdout_predictions",
                "champion",
                "holdout_features",
                "holdout_customers",
                "train_label",
                "contract",
                "cost_block",
                "params:gate",
                "params:seed",
            ],
            ["gate", "logged_gate", "gate_tags"],
            name="judge_champion",
        ),
        Node(
            decision.list_targets,
            ["chosen_model", "customers", "contract", "cost_block", "params:targets"],
            "target_list",
            name="list_targets",
        ),
    ]


def _report() -> list[Node]:
    return [
        Node(
            nodes.draw_plots,
            ["holdout_predictions", "reachable", "metrics"],
            ["roc_plot", "precision_recall_plot", "reliability_plot", "gain_plot"],
            name="draw_plots",
        ),
        Node(
            decision.draw_decision_plots,
            [
                *JUDGED,
                "cost_block",
                "profit_curve",
                "sensitivity",
                "importance",
                "segments",
                "leaderboard",
                "choice",
                "params:judgement",
            ],
            [
                "profit_plot",
                "sensitivity_plot",
                "lift_plot",
                "scores_plot",
                "importance_plot",
                "segments_plot",
                "leaderboard_plot",
            ],
            name="draw_decision_plots",
        ),
        Node(
            decision.write_card,
            [
                "data_report",
                "choice",
                "metrics",
                "money",
                "segments",
                "segment_gaps",
                "cost_block",
                "gate",
                "model_report",
                "params:judgement",
                "params:seed",
            ],
            "model_card",
            name="write_card",
        ),
        Node(
            nodes.write_note,
            ["data_report", "choice", "metrics", "money", "gate", "params:judgement"],
            "note",
            name="write_note",
        ),
        Node(
            nodes.summarise,
            ["data_report", "leaderboard", "choice", "metrics", "money", "gate", "contract", "params:judgement"],
            "summary",
            name="summarise",
        ),
        Node(
            reference.summarise_training,
            ["chosen_model", "train_features", "contract"],
            "reference",
            name="summarise_training",
        ),
        Node(
            nodes.record_model,
            ["chosen_model", "contract", "data_report", "model_report", "gate", "model_card", "reference", "note"],
            "registered_model@logged",
            name="record_model",
        ),
    ]
