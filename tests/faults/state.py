"""The state that a training leaves: what a fault must not change."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run
from tests.conftest import Project

from churn_pipeline.datasets import RegisteredVersionDataset

MODEL = "churn_simulated"


def local_store(project: Project) -> str:
    """The address of the project's own MLflow database."""
    return f"sqlite:///{project.path}/mlruns/mlflow.db"


def final_state(store: str, experiment: str = MODEL) -> dict[str, Any]:
    """What the last finished training left: its model and metrics, and for each alias what its version has."""
    with _store(store):
        client = MlflowClient()
        [last, *_] = [run for run in trainings(client, experiment) if run.info.status == "FINISHED"]
        return {
            "model": last.data.tags.get("model_digest"),
            "metrics": dict(last.data.metrics),
            "aliases": {alias: _version(client, alias) for alias in aliases(client)},
        }


def trainings(client: MlflowClient, experiment: str = MODEL) -> list[Run]:
    """The runs of trainings, the newest first, without their trials."""
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return []
    runs = client.search_runs([found.experiment_id], order_by=["start_time DESC"])
    return [run for run in runs if "mlflow.parentRunId" not in run.data.tags]


def aliases(client: MlflowClient) -> dict[str, str]:
    """The version of each alias; none without a registered model."""
    names = {model.name for model in client.search_registered_models()}
    found = client.get_registered_model(MODEL).aliases if MODEL in names else {}
    return {alias: str(version) for alias, version in found.items()}


def _version(client: MlflowClient, alias: str) -> dict[str, Any]:
    """A version is complete if it loads with all its files, and its run ended well."""
    loaded = RegisteredVersionDataset(name=MODEL, select=alias).load()
    assert loaded is not None
    return {
        "model": loaded.version_tags["model_digest"],
        "documents": sorted(loaded.documents),
        "files": sorted(loaded.files),
        "tags": sorted(loaded.version_tags),
        "description": bool(client.get_model_version_by_alias(MODEL, alias).description),
    }


def bento(project: Project) -> tuple[str, bool]:
    """The version of the Bento packaged last, and whether its archive exists."""
    latest = project.path / "bentos/store/bentos" / MODEL / "latest"
    return latest.read_text(encoding="utf-8").strip(), (project.path / f"bentos/{MODEL}.bento").is_file()


def statuses(store: str, experiment: str = MODEL) -> list[str]:
    """The statuses of all trainings, the newest first."""
    return [run.info.status for run in trainings(MlflowClient(store), experiment)]


@contextmanager
def _store(address: str) -> Iterator[None]:
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(address)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)
