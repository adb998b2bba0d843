"""Refit: a registered version → the same model, fitted on the current training customers."""

from kedro.pipeline import Node, Pipeline

from churn_pipeline.pipelines.boxes import box
from churn_pipeline.pipelines.modelling.nodes import convert_chosen
from churn_pipeline.pipelines.refit import nodes


def create_pipeline() -> Pipeline:
    """Make ``chosen_model`` from a registered version; between data engineering and evaluation, it replaces modelling."""
    return Pipeline(
        [
            box(
                "refit",
                [
                    Node(
                        nodes.refit,
                        ["refit_version", "train_features", "train_label", "train_groups"],
                        ["chosen_model", "leaderboard", "choice"],
                        name="refit",
                    ),
                    Node(
                        convert_chosen,
                        ["chosen_model", "choice", "contract"],
                        ["onnx_model", "model_report", "model_tags"],
                        name="convert_to_onnx",
                    ),
                ],
            )
        ],
        tags="refit",
    )
