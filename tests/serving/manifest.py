"""The manifest of a model that does not exist."""

from datetime import UTC, datetime

from churn_pipeline.serving.bundle import Manifest

MANIFEST = Manifest(
    table="invented",
    model_name="churn_invented",
    model_version="3",
    run_id="1" * 32,
    commit="2" * 40,
    created=datetime(2026, 1, 31, tzinfo=UTC),
    candidate="logistic_regression",
    model_digest="3" * 64,
    contract_digest="4" * 64,
    threshold=0.3,
    metrics={},
    files={},
)
