"""Evaluation pipeline: metrics on the hold-out, profit, segments, gate, target list, plots, model card and registration."""

from kedro.pipeline import Node, Pipeline

from churn_pipeline.evaluation import summary
from churn_pipeline.pipelines.boxes import box
from churn_pipeline.pipelines.evaluation import decision, nodes, promotion, report, training_profile
from churn_pipeline.pipelines.table_costs import cost_model

PREDICTED_CUSTOMERS = ["holdout_predictions", "holdout_customers", "contract"]
SETTINGS = ["params:evaluation", "params:decision", "params:seed"]


def create_pipeline() -> Pipeline:
    """Evaluate ``chosen_model`` on the hold-out, and register it as the challenger."""
    boxes = [
        box("evaluation", _evaluation()),
        box("decision", [*_profit(), *_promotion()]),
        box("report", [*_plots(), *_texts(), *_registration()]),
    ]
    return Pipeline(boxes, tags="evaluation")


def _evaluation() -> list[Node]:
    return [
        Node(
            nodes.predict,
            ["chosen_model", "holdout_features", "holdout_label", "holdout_customers", "contract"],
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
                "holdout_groups",
            ],
            ["metrics", "logged_metrics"],
            name="evaluate",
        ),
        Node(
            nodes.measure_importance,
            [
                "chosen_model",
                "holdout_features",
                "holdout_label",
                "params:evaluation",
                "params:seed",
                "holdout_groups",
            ],
            "importance",
            name="measure_importance",
        ),
    ]


def _profit() -> list[Node]:
    return [
        Node(cost_model, ["contract", "params:costs"], "cost_model", name="costs"),
        Node(
            decision.join_holdout,
            [*PREDICTED_CUSTOMERS, "cost_model", "holdout_groups"],
            "holdout",
            name="join_holdout",
        ),
        Node(decision.decision_rule, ["holdout", "cost_model"], "decision_rule", name="decision_rule"),
        Node(
            decision.evaluate_profit,
            ["holdout", "cost_model", *SETTINGS],
            ["profit", "logged_profit", "profit_curve", "sensitivity"],
            name="evaluate_profit",
        ),
        Node(
            decision.evaluate_segments,
            ["holdout", "holdout_customers", "contract", "cost_model", *SETTINGS],
            ["segments", "segment_gaps"],
            name="evaluate_segments",
        ),
    ]


def _promotion() -> list[Node]:
    return [
        Node(
            promotion.describe_holdout_use,
            ["contract", "params:split", "data_report", "model_report", "evaluations"],
            "holdout_use",
            name="describe_holdout_use",
        ),
        Node(
            promotion.score_baselines,
            ["champion", "anchor", "holdout_features", "holdout_use"],
            "baselines",
            name="score_baselines",
        ),
        Node(
            promotion.apply_gate,
            ["holdout", "baselines", "holdout_use", "train_label", "cost_model", "params:gate"],
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


def _plots() -> list[Node]:
    return [
        Node(
            nodes.draw_plots,
            ["holdout_predictions", "true_probabilities", "metrics", "holdout_customers", "contract", "holdout_groups"],
            ["roc_plot", "precision_recall_plot", "reliability_plot", "gain_plot"],
            name="draw_plots",
        ),
        Node(
            report.draw_profit_plots,
            ["profit", "decision_rule", "profit_curve", "sensitivity"],
            ["profit_plot", "sensitivity_plot"],
            name="draw_profit_plots",
        ),
        Node(
            report.draw_score_plots,
            [*PREDICTED_CUSTOMERS, "decision_rule", "params:evaluation", "holdout_groups"],
            ["lift_plot", "scores_plot"],
            name="draw_score_plots",
        ),
        Node(
            report.draw_comparison_plots,
            ["importance", "run_report"],
            ["importance_plot", "segments_plot", "leaderboard_plot"],
            name="draw_comparison_plots",
        ),
    ]


def _texts() -> list[Node]:
    return [
        Node(
            report.collect_results,
            ["metrics", "profit", "segments", "segment_gaps", "gate", "decision_rule", "params:evaluation"],
            "holdout_results",
            name="collect_results",
        ),
        Node(
            report.collect_report,
            ["data_report", "leaderboard", "choice", "model_report", "holdout_results", "contract", "params:seed"],
            "run_report",
            name="collect_report",
        ),
        Node(report.write_card, "run_report", "model_card", name="write_card"),
        Node(summary.run_description, "run_report", "run_description", name="write_run_description"),
        Node(summary.summarise, "run_report", "summary", name="summarise"),
    ]


def _registration() -> list[Node]:
    return [
        Node(
            training_profile.profile_training,
            ["chosen_model", "train_features", "contract"],
            "training_profile",
            name="profile_training",
        ),
        Node(
            report.draw_holdout_sample,
            [
                *("chosen_model", "holdout_features", "holdout_customers", "contract", "decision_rule"),
                "params:holdout_sample",
            ],
            "holdout_sample",
            name="holdout_sample",
        ),
        Node(
            report.record_model,
            [
                "chosen_model",
                "onnx_model",
                "contract",
                "model_card",
                "training_profile",
                "holdout_sample",
                "run_report",
            ],
            "registered_model@logged",
            name="record_model",
        ),
    ]
