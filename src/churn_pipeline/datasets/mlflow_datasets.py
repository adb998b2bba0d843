"""What kedro-mlflow has no dataset for: tags of the active run, and a registered model under an alias."""

from dataclasses import dataclass
from typing import Any

import mlflow
import pandas as pd
import skops.io
from kedro.io import AbstractDataset, DatasetError
from mlflow.models import ModelSignature

from churn_pipeline.modelling.candidates import TRUSTED_TYPES


class MlflowTagsDataset(AbstractDataset[dict[str, str], dict[str, str]]):
    """Tags of the active MLflow run.

    Examples
    --------
    >>> from churn_pipeline.datasets import MlflowTagsDataset
    >>> MlflowTagsDataset(prefix="data").save({"digest": "3f2a…"})  # doctest: +SKIP
    """

    def __init__(self, prefix: str = "", metadata: dict[str, Any] | None = None) -> None:
        self._prefix = f"{prefix}." if prefix else ""
        self._logging_activated = True
        self.metadata = metadata

    def load(self) -> dict[str, str]:
        """The active run's tags under the prefix, without it."""
        run = mlflow.active_run()
        if run is None:
            raise DatasetError("There is no active MLflow run to read tags from.")
        tags = mlflow.get_run(run.info.run_id).data.tags
        return {name.removeprefix(self._prefix): value for name, value in tags.items() if name.startswith(self._prefix)}

    def save(self, data: dict[str, str]) -> None:
        """Set the tags; without an active run (tracking switched off) there is nothing to set."""
        if self._logging_activated and mlflow.active_run() is not None:
            mlflow.set_tags({f"{self._prefix}{name}": str(value) for name, value in data.items()})

    def _describe(self) -> dict[str, Any]:
        return {"prefix": self._prefix}


@dataclass(frozen=True)
class ModelRecord:
    """A fitted model with what MLflow needs to know of it.

    Attributes
    ----------
    model
        The fitted scikit-learn pipeline.
    example
        Input rows that were made up from the contract, so that no customer is written to the registry.
    signature
        Names and types of inputs and outputs.
    metadata
        Digests and the like, kept with the registered version as tags.
    """

    model: Any
    example: pd.DataFrame
    signature: ModelSignature
    metadata: dict[str, str]


class RegisteredModelDataset(AbstractDataset[ModelRecord, Any]):
    """Logs a model to the active MLflow run as skops, registers it, and moves an alias to the new version.

    Parameters
    ----------
    name
        The registered model's name.
    alias
        The alias that a save moves, and that a load follows.
    pip_requirements
        What the model needs to be loaded; given, so that MLflow does not start a process to guess it.
    optional
        Whether a load gives None where no version has the alias.
    code_path
        The package that the model's own steps are in, kept with the model, so that it loads where it is not installed.

    Examples
    --------
    >>> from churn_pipeline.datasets import RegisteredModelDataset
    >>> model = RegisteredModelDataset(name="churn", alias="champion").load()  # doctest: +SKIP
    """

    def __init__(
        self,
        name: str,
        alias: str,
        pip_requirements: str | None = None,
        code_path: str | None = None,
        optional: bool = False,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._name, self._alias, self._optional = name, alias, optional
        self._pip_requirements, self._code_path = pip_requirements, code_path
        self._logging_activated = True
        self.metadata = metadata

    def save(self, data: ModelRecord) -> None:
        """Log, register and alias; without an active run (tracking switched off) there is nothing to log to."""
        if not self._logging_activated or mlflow.active_run() is None:
            return
        logged = mlflow.sklearn.log_model(
            data.model,
            name="model",
            serialization_format="skops",
            skops_trusted_types=list(TRUSTED_TYPES),
            signature=data.signature,
            input_example=data.example,
            pip_requirements=self._pip_requirements,
            code_paths=[self._code_path] if self._code_path else None,
            pyfunc_predict_fn="predict_proba",
            registered_model_name=self._name,
        )
        client, version = mlflow.MlflowClient(), logged.registered_model_version
        for key, value in data.metadata.items():
            client.set_model_version_tag(self._name, str(version), key, value)
        client.set_registered_model_alias(self._name, self._alias, str(version))

    def load(self) -> Any:
        """The fitted pipeline under the alias, built from our own list of trusted types and not the model file's.

        Raises
        ------
        DatasetError
            When the file holds types that are not trusted.
        """
        try:
            folder = mlflow.artifacts.download_artifacts(f"models:/{self._name}@{self._alias}")
        except mlflow.exceptions.MlflowException as error:
            if self._optional and error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise
        file = f"{folder}/model.skops"
        unknown = sorted(set(skops.io.get_untrusted_types(file=file)) - set(TRUSTED_TYPES))
        if unknown:
            raise DatasetError(f"The registered model holds types that are not trusted: {', '.join(unknown)}")
        return skops.io.load(file, trusted=list(TRUSTED_TYPES))

    def _describe(self) -> dict[str, Any]:
        return {"name": self._name, "alias": self._alias}
