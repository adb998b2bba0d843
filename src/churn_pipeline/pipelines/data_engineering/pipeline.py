"""The data engineering pipeline: raw table → contract → customers → training and hold-out customers."""

from kedro.pipeline import Node, Pipeline

from churn_pipeline.pipelines.boxes import box
from churn_pipeline.pipelines.data_engineering import nodes

PARTS = ["train_customers", "holdout_customers", "set_aside_customers"]


def create_pipeline() -> Pipeline:
    """From ``raw_customers`` to features and label of the training and hold-out customers, and to the folds."""
    return Pipeline([box("validation", _validation()), box("split", _split())], tags="data_engineering")


def _validation() -> list[Node]:
    return [
        Node(
            nodes.validate_customers,
            ["raw_customers", "contract"],
            ["valid_rows", "quarantine", "contract_report"],
            name="validate_customers",
        ),
        Node(
            nodes.check_quarantine,
            ["valid_rows", "contract_report", "contract", "params:quarantine"],
            "customers",
            name="quarantine",
        ),
    ]


def _split() -> list[Node]:
    return [
        Node(
            nodes.split_customers,
            ["customers", "contract", "params:split"],
            [*PARTS, "train_groups", "holdout_groups", "split_report"],
            name="split_customers",
        ),
        Node(
            nodes.features_and_label,
            ["train_customers", "contract"],
            ["train_features", "train_label"],
            name="train_features_and_label",
        ),
        Node(
            nodes.features_and_label,
            ["holdout_customers", "contract"],
            ["holdout_features", "holdout_label"],
            name="holdout_features_and_label",
        ),
        Node(
            nodes.make_folds,
            ["train_customers", "train_label", "train_groups", "contract", "params:split", "params:seed"],
            "folds",
            name="make_folds",
        ),
        Node(
            nodes.check_leaks,
            ["train_features", "train_label", "train_groups", "params:leaks", "params:seed"],
            "leaks",
            name="leaks",
        ),
        Node(
            nodes.report_data,
            ["contract_report", "split_report", "holdout_customers", "leaks", "contract"],
            ["data_report", "data_digests"],
            name="report_data",
        ),
    ]
