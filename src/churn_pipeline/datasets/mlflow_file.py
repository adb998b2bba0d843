"""Files that are also logged to MLflow, wherever they are stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlflow
from kedro.io import AbstractDataset

from churn_pipeline.datasets.files import StoredFile


class MlflowFileDataset(AbstractDataset[Any, Any]):
    """Saves a file through another dataset, and logs it as an artifact of the active MLflow run.

    kedro-mlflow's ``MlflowArtifactDataset`` logs a file on this machine only: at ``s3://…`` it saves the file, then fails.

    Parameters
    ----------
    dataset
        The Kedro dataset of the file, with its ``filepath`` and, if needed, its ``credentials``.
    artifact_path
        The folder among the run's artifacts.
    metadata
        Kedro plugins read it.

    Examples
    --------
    >>> from churn_pipeline.datasets import MlflowFileDataset
    >>> file = {"type": "json.JSONDataset", "filepath": "data/08_reporting/gate.json"}
    >>> gate = MlflowFileDataset(dataset=file, artifact_path="reports")
    """

    def __init__(
        self, dataset: dict[str, Any], artifact_path: str | None = None, metadata: dict[str, Any] | None = None
    ) -> None:
        self._dataset = AbstractDataset.from_config("artifact", dataset)
        self._file = StoredFile(dataset["filepath"], dataset.get("credentials"))
        self._artifact_path = artifact_path
        self.metadata = metadata

    @property
    def preview(self) -> Callable[..., Any]:
        """kedro-viz' preview of the file; absent if the dataset of the file has none."""
        preview: Callable[..., Any] = self._dataset.preview  # type: ignore[attr-defined]
        return preview

    def load(self) -> Any:
        """Read the file."""
        return self._dataset.load()

    def save(self, data: Any) -> None:
        """Write the file, and log it if a run is active (tracking may be disabled)."""
        self._dataset.save(data)
        if mlflow.active_run() is not None:
            with self._file.on_this_machine() as path:
                mlflow.log_artifact(str(path), self._artifact_path)

    def _exists(self) -> bool:
        return bool(self._dataset.exists())

    def _release(self) -> None:
        self._dataset.release()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._file.address, "artifact_path": self._artifact_path}
