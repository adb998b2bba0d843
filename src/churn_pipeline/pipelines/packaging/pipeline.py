"""Packaging: the champion (else the challenger, or a version that is named) → compiled → proven → a Bento."""

from kedro.pipeline import Node, Pipeline

from churn_pipeline.pipelines.boxes import box
from churn_pipeline.pipelines.packaging import nodes


def create_pipeline() -> Pipeline:
    """Build a Bento of ``registered_model@version``; after a training in the same run, since it is what that one logs."""
    return Pipeline([box("onnx_conversion", _onnx_conversion()), _build()], tags="packaging")


def _onnx_conversion() -> list[Node]:
    return [
        Node(
            nodes.accept,
            ["registered_model@version", "contract"],
            ["packaged_version", "packaged_tags"],
            name="accept_version",
        ),
        Node(
            nodes.convert_version,
            ["packaged_version", "contract"],
            "packaged_model",
            name="convert_version",
        ),
        Node(
            nodes.check_equivalence,
            [
                "packaged_version",
                "packaged_model",
                "holdout_features",
                "contract",
                "params:packaging",
                "params:seed",
            ],
            "equivalence_report",
            name="check_equivalence",
        ),
    ]


def _build() -> Node:
    return Node(
        nodes.gather,
        ["packaged_version", "packaged_model", "contract", "equivalence_report", "serving_lock"],
        "bento",
        name="build_bento",
    )
