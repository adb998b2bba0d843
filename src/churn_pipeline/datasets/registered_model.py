"""Models in MLflow's registry: registering a trained model, and reading a registered version."""

import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import mlflow
import numpy as np
from kedro.io import AbstractDataset, DatasetError
from mlflow.entities.model_registry import ModelVersion
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec

from churn_pipeline.contract.errors import ProjectError
from churn_pipeline.datasets.mlflow_run import remove_group
from churn_pipeline.datasets.skops_dataset import SkopsDataset
from churn_pipeline.evaluation.model_record import ModelRecord, RegisteredVersion
from churn_pipeline.modelling.trusted_types import TRUSTED_TYPES

CLASSES = 2
# Folders of artifacts beside a registered model: texts and binary files.
DOCUMENTS = "documents"
FILES = "files"
# MLflow's error codes for a model, alias or version that does not exist.
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def check_name(name: str) -> str:
    """Return a registered model's name, if MLflow accepts it; checked before the training and not at its end.

    Raises
    ------
    ProjectError
        If it has a character that MLflow rejects.
    """
    if "/" in name or ":" in name:
        raise ProjectError(
            f"The name '{name}' of the registered model", "has a / or : in it: correct model_name in globals.yml"
        )
    return name


def is_absent(error: mlflow.exceptions.MlflowException, name: str) -> bool:
    """Return whether an error means that a registered model, or its alias or version, does not exist.

    A server with MLflow's logins answers a question about an alias of a missing model with "permission denied", except to
    administrators. It answers a question about the model itself.
    """
    if error.error_code != "PERMISSION_DENIED":
        return error.error_code in ABSENT
    try:
        mlflow.MlflowClient().get_registered_model(name)
    except mlflow.exceptions.MlflowException as answer:
        return answer.error_code in ABSENT
    return False


def model_signature(record: ModelRecord) -> ModelSignature:
    """MLflow's signature of `predict_proba`: one named column per input, one array of shape (n, 2) as output."""
    inputs: list[ColSpec | TensorSpec] = [ColSpec(DataType.double, name) for name in record.numeric]
    inputs += [ColSpec(DataType.string, name) for name in record.categorical]
    outputs = Schema([TensorSpec(np.dtype("float64"), (-1, CLASSES), "probabilities")])
    return ModelSignature(inputs=Schema(inputs), outputs=outputs)


class RegisteredModelDataset(AbstractDataset[ModelRecord, Any]):
    """Logs a model to the active MLflow run as skops, registers it, and moves an alias to the new version.

    Parameters
    ----------
    name
        The registered model's name.
    alias
        The alias that a save moves and that a load follows.
    optional
        Whether a load returns None if no version has the alias.
    required_tags
        Tags that the run must have before a model is registered: without them, the run cannot be rebuilt.
    description
        Description of the registered model.
    save_args
        Further arguments of `mlflow.sklearn.log_model`. Give ``pip_requirements``, otherwise MLflow starts a process to
        guess them, and ``code_paths`` with the package that defines the model's own steps.

    Examples
    --------
    >>> from churn_pipeline.datasets import RegisteredModelDataset
    >>> model = RegisteredModelDataset(name="churn", alias="champion").load()  # doctest: +SKIP
    """

    def __init__(
        self,
        name: str,
        alias: str,
        optional: bool = False,
        required_tags: Sequence[str] = (),
        description: str = "",
        save_args: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._name, self._alias, self._optional, self._description = check_name(name), alias, optional, description
        self._required_tags, self._save_args = tuple(required_tags), save_args or {}
        self.metadata = metadata

    def save(self, data: ModelRecord) -> None:
        """Log and register the model and move the alias; do nothing without an active run (tracking is disabled).

        Raises
        ------
        ProjectError
            If the run lacks a required tag.
        """
        run = mlflow.active_run()
        if run is None:
            return
        self._check_tags(mlflow.get_run(run.info.run_id).data.tags)
        logged = mlflow.sklearn.log_model(
            data.model,
            name="model",
            serialization_format="skops",
            skops_trusted_types=list(TRUSTED_TYPES),
            signature=model_signature(data),
            input_example=data.example,
            pyfunc_predict_fn="predict_proba",
            registered_model_name=self._name,
            **self._save_args,
        )
        client, version = mlflow.MlflowClient(), str(logged.registered_model_version)
        texts = {name: text.encode() for name, text in data.documents.items()}
        for folder, contents in ((DOCUMENTS, texts), (FILES, data.files)):
            _log_beside_model(client, logged.model_id, folder, contents)
        for key, value in data.metadata.items():
            client.set_model_version_tag(self._name, version, key, value)
        client.update_registered_model(self._name, self._description)
        client.update_model_version(self._name, version, data.run_description)
        client.set_registered_model_alias(self._name, self._alias, version)

    def _check_tags(self, tags: Mapping[str, str]) -> None:
        missing = [name for name in self._required_tags if name not in tags]
        if missing:
            raise ProjectError(
                f"The model '{self._name}' was not registered",
                f"this run lacks the tags {', '.join(missing)}, so it could not be rebuilt. Run the whole pipeline "
                "(`kedro run --pipelines training`), or evaluate without registering (`kedro run --pipelines evaluation`)",
            )

    def load(self) -> Any:
        """Load the fitted pipeline under the alias, with our own list of trusted types instead of the model file's.

        Raises
        ------
        DatasetError
            If the file contains types that are not trusted.
        """
        try:
            folder = mlflow.artifacts.download_artifacts(f"models:/{self._name}@{self._alias}")
        except mlflow.exceptions.MlflowException as error:
            if self._optional and is_absent(error, self._name):
                return None
            raise
        return SkopsDataset(filepath=f"{folder}/model.skops").load()

    def _describe(self) -> dict[str, Any]:
        return {"name": self._name, "alias": self._alias}


def _log_beside_model(client: mlflow.MlflowClient, model_id: str, folder: str, contents: Mapping[str, bytes]) -> None:
    if not contents:
        return
    with tempfile.TemporaryDirectory() as local:
        for name, content in contents.items():
            (Path(local) / name).write_bytes(content)
        client.log_model_artifacts(model_id, local, folder)


class RegisteredVersionDataset(AbstractDataset[NoReturn, RegisteredVersion | None]):
    """Reads a version of a registered model: by default the champion, or the challenger if there is no champion.

    Parameters
    ----------
    name
        The registered model's name.
    select
        An alias or a version's number; None for the default.
    optional
        Whether a load returns None if there is no such version.
    reports
        Names of artifacts of the training run, in its folder ``reports``, that are loaded as documents too.

    Examples
    --------
    >>> from churn_pipeline.datasets import RegisteredVersionDataset
    >>> seventh = RegisteredVersionDataset(name="churn", select=7).load()  # doctest: +SKIP
    """

    def __init__(
        self,
        name: str,
        select: str | int | None = None,
        optional: bool = False,
        reports: Sequence[str] = (),
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._name, self._optional, self._reports = check_name(name), optional, tuple(reports)
        self._choices = ("champion", "challenger") if select is None else (str(select),)
        self.metadata = metadata

    def load(self) -> RegisteredVersion | None:
        """Load the version; its model is loaded with our own list of trusted types.

        Raises
        ------
        ProjectError
            If there is no such version, and it is not optional.
        DatasetError
            If the model's file contains types that are not trusted.
        """
        version = self._find(mlflow.MlflowClient())
        if version is None:
            return None
        folder = Path(mlflow.artifacts.download_artifacts(f"models:/{self._name}/{version.version}"))
        run = mlflow.get_run(str(version.run_id))
        documents = {file.name: file.read_text(encoding="utf-8") for file in (folder / DOCUMENTS).glob("*")}
        for report in self._reports:
            documents[report] = mlflow.artifacts.load_text(f"runs:/{version.run_id}/reports/{report}")
        return RegisteredVersion(
            name=self._name,
            version=str(version.version),
            created=datetime.fromtimestamp(version.creation_timestamp / 1000, UTC),
            model=SkopsDataset(filepath=str(folder / "model.skops")).load(),
            documents=documents,
            files={file.name: file.read_bytes() for file in (folder / FILES).glob("*")},
            run_id=run.info.run_id,
            tags=run.data.tags,
            version_tags=dict(version.tags),
            metrics={remove_group(name): value for name, value in run.data.metrics.items()},
        )

    def _find(self, client: mlflow.MlflowClient) -> ModelVersion | None:
        for choice in self._choices:
            find = client.get_model_version if choice.isdecimal() else client.get_model_version_by_alias
            try:
                return find(self._name, choice)
            except mlflow.exceptions.MlflowException as error:
                if not is_absent(error, self._name):
                    raise
        if self._optional:
            return None
        raise ProjectError(
            f"The model '{self._name}'",
            f"has no version {' or '.join(self._choices)} in the registry: train one (`kedro run --pipelines training`), "
            "or choose another by `--params packaging.model=…`",
        )

    def save(self, data: NoReturn) -> None:
        """Raise an error: only training registers versions."""
        raise DatasetError("A registered version is only ever read.")

    def _describe(self) -> dict[str, Any]:
        return {"name": self._name, "select": " or ".join(self._choices)}
