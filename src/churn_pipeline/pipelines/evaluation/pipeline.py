"""Evaluation: the chosen model evaluated on the hold-out, in money and by segment; gate, model card, target list, registry."""

from kedro.pipeline import Node, Pipeline

from churn_pipeline.pipelines.boxes import box
from churn_pipeline.pipelines.evaluation import decision, nodes, training_profile

HOLDOUT_ROWS = ["holdout_predictions", "holdout_customers"]
HOW = ["params:evaluation", "params:decision", "params:seed"]


def create_pipeline() -> Pipeline:
    """Evaluate ``chosen_model`` on the hold-out, and register it as the challenger."""
    boxes = [box("evaluation", _evaluation()), box("decision", _decision()), box("report", _report())]
    return Pipeline(boxes, tags="evaluation")


def _evaluation() -> list[Node]:
    return [
        Node(
            nodes.predict,
            ["chosen_model", "holdout_features", "holdout_label"],
            "holdout_predictions",
            name="predict_holdout",
        ),
        Node(
            nodes.find_true_probabilities,
            ["holdout_customers", "truth", "contract"],
            "true_probabilities",
            name="find_true_probabilities",
        ),
        Node(
            nodes.evaluate,
            [
                "holdout_predictions",
                "true_probabilities",
                "holdout_customers",
                "contract",
                "params:evaluation",
                "params:seed",
            ],
            ["metrics", "logged_metrics"],
            name="evaluate",
        ),
        Node(
            decision.measure_importance,
            ["chosen_model", "holdout_features", "holdout_label", "params:evaluation", "params:seed"],
            "importance",
            name="measure_importance",
        ),
    ]


def _decision() -> list[Node]:
    return [
        Node(decision.cost_model, ["contract", "params:costs"], "cost_model", name="costs"),
        Node(
            decision.evaluate_profit,
            [*HOLDOUT_ROWS, "contract", "cost_model", *HOW],
            ["profit", "logged_profit", "profit_curve", "sensitivity"],
            name="evaluate_profit",
        ),
        Node(
            decision.evaluate_segments,
            [*HOLDOUT_ROWS, "contract", "cost_model", *HOW],
            ["segments", "segment_gaps"],
            name="evaluate_segments",
        ),
        Node(
            decision.compare_with_champion,
            [
                "holdout_predictions",
                "champion",
                "holdout_features",
                "holdout_customers",
                "train_label",
                "contract",
                "cost_model",
                "params:gate",
                "params:seed",
            ],
            ["gate", "logged_gate", "gate_tags"],
            name="gate",
        ),
        Node(
            decision.list_targets,
            ["chosen_model", "customers", "contract", "cost_model", "params:targets"],
            "target_list",
            name="targets",
        ),
    ]


def _report() -> list[Node]:
    return [
        Node(
            nodes.draw_plots,
            ["holdout_predictions", "true_probabilities", "metrics"],
            ["roc_plot", "precision_recall_plot", "reliability_plot", "gain_plot"],
            name="draw_plots",
        ),
        Node(
            decision.draw_decision_plots,
            [
                *HOLDOUT_ROWS,
                "cost_model",
                "profit_curve",
                "sensitivity",
                "importance",
                "segments",
                "leaderboard",
                "choice",
                "params:evaluation",
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
                "profit",
                "segments",
                "segment_gaps",
                "cost_model",
                "gate",
                "model_report",
                "params:evaluation",
                "params:seed",
            ],
            "model_card",
            name="write_card",
        ),
        Node(
            nodes.write_run_description,
            ["data_report", "choice", "metrics", "profit", "gate", "params:evaluation"],
            "run_description",
            name="write_run_description",
        ),
        Node(
            nodes.summarise,
            ["data_report", "leaderboard", "choice", "metrics", "profit", "gate", "contract", "params:evaluation"],
            "summary",
            name="summarise",
        ),
        Node(
            training_profile.profile_training,
            ["chosen_model", "train_features", "contract"],
            "training_profile",
            name="profile_training",
        ),
        Node(
            nodes.record_model,
            [
                "chosen_model",
                "contract",
                "data_report",
                "model_report",
                "gate",
                "model_card",
                "training_profile",
                "run_description",
                "onnx_model",
            ],
            "registered_model@logged",
            name="record_model",
        ),
    ]
