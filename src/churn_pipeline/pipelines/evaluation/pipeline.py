"""Evaluation: hold-out predictions → metrics with intervals, plots, the registered model, the summary."""

from kedro.pipeline import Node, Pipeline

from churn_pipeline.pipelines.evaluation import nodes


def create_pipeline() -> Pipeline:
    """Judge ``chosen_model`` on the hold-out, and register it as the challenger."""
    return Pipeline(
        [
            Node(
                nodes.predict,
                ["chosen_model", "holdout_features", "holdout_label"],
                "holdout_predictions",
                name="predict_holdout",
            ),
            Node(nodes.find_reachable, ["holdout_customers", "truth", "contract"], "reachable", name="find_reachable"),
            Node(
                nodes.judge,
                [
                    "holdout_predictions",
                    "reachable",
                    "holdout_customers",
                    "contract",
                    "params:judgement",
                    "params:seed",
                ],
                ["metrics", "logged_metrics"],
                name="judge",
            ),
            Node(
                nodes.draw_plots,
                ["holdout_predictions", "reachable", "metrics"],
                ["roc_plot", "precision_recall_plot", "reliability_plot", "gain_plot"],
                name="draw_plots",
            ),
            Node(
                nodes.record_model,
                ["chosen_model", "contract", "data_report", "model_report"],
                "registered_model",
                name="record_model",
            ),
            Node(
                nodes.summarise,
                ["data_report", "leaderboard", "choice", "metrics", "contract", "params:judgement"],
                "summary",
                name="summarise",
            ),
        ],
        tags="evaluation",
    )
