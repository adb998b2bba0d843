"""Packaging: a registered version → its ONNX model → the equivalence check → a Bento."""

from kedro.pipeline import Node, Pipeline

from churn_pipeline.pipelines.boxes import box
from churn_pipeline.pipelines.packaging import nodes, rows


def create_pipeline() -> Pipeline:
    """Build a Bento of ``registered_model@version``, in the same run only after training has registered it."""
    return Pipeline([box("packaging", [*_onnx_conversion(), _build()])], tags="packaging")


def _onnx_conversion() -> list[Node]:
    return [
        Node(
            nodes.accept_version,
            ["registered_model@version", "contract"],
            ["packaged_version", "packaged_tags"],
            name="accept_version",
        ),
        Node(nodes.load_onnx_model, ["packaged_version", "contract"], "packaged_model", name="load_onnx_model"),
        Node(
            rows.choose_rows,
            ["packaged_version", "holdout_sample", "last_holdout", "contract", "params:holdout_sample"],
            "equivalence_rows",
            name="choose_rows",
        ),
        Node(
            nodes.check_equivalence,
            [
                *("packaged_version", "packaged_model", "equivalence_rows", "contract"),
                *("params:packaging", "params:seed"),
            ],
            "equivalence_report",
            name="check_equivalence",
        ),
    ]


def _build() -> Node:
    return Node(
        nodes.collect_content,
        ["packaged_version", "packaged_model", "contract", "equivalence_report", "serving_lock", "signing_key"],
        "bento",
        name="build_bento",
    )
