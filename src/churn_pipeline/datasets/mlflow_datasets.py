"""What kedro-mlflow has no dataset for: tags and grouped metrics of the active run, and registered models."""

import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from churn_pipeline.datasets.skops_dataset import SkopsDataset
from churn_pipeline.evaluation.model_record import ModelRecord
from churn_pipeline.modelling.candidates import TRUSTED_TYPES

logger = logging.getLogger(__name__)

DOCUMENTS = "documents"
CLASSES = 2
# What MLflow answers where there is no such model, and no such alias or version.
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


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


class MlflowMetricsDataset(AbstractDataset[dict[str, float], NoReturn]):
    """Metrics of the active MLflow run, in groups, which MLflow tells by the slashes of a name.

    The ends of intervals, and the best that can be reached, have groups of their own, so that the first shows what a person
    compares runs by.

    Examples
    --------
    >>> from churn_pipeline.datasets import MlflowMetricsDataset
    >>> MlflowMetricsDataset(prefix="holdout").save({"auc": 0.85, "auc_lower": 0.83})  # doctest: +SKIP
    """

    GROUPS = {"_lower": "intervals/", "_upper": "intervals/", "_best_possible": "best_possible/"}  # noqa: RUF012

    def __init__(self, prefix: str, metadata: dict[str, Any] | None = None) -> None:
        self._prefix = prefix
        self._logging_activated = True
        self.metadata = metadata

    def save(self, data: dict[str, float]) -> None:
        """Log the metrics; without an active run (tracking switched off) there is nowhere to."""
        if self._logging_activated and mlflow.active_run() is not None:
            mlflow.log_metrics({self._grouped(name): value for name, value in data.items()})

    def load(self) -> NoReturn:
        """Refused: a node reads metrics where they were written as a table."""
        raise DatasetError("Metrics are logged, and never read by a node: read the table of them instead.")

    def _grouped(self, name: str) -> str:
        group = next((group for ending, group in self.GROUPS.items() if name.endswith(ending)), "")
        return f"{self._prefix}/{group}{name}"

    def _describe(self) -> dict[str, Any]:
        return {"prefix": self._prefix}


def plain_name(metric: str) -> str:
    """A logged metric's name without its group, as runs had it before there were groups.

    Examples
    --------
    >>> plain_name("holdout/intervals/auc_lower"), plain_name("holdout.auc_lower")
    ('holdout.auc_lower', 'holdout.auc_lower')
    """
    prefix, *group = metric.split("/")
    return f"{prefix}.{group[-1]}" if group else metric


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
        The alias that a save moves, and that a load follows.
    pip_requirements
        What the model needs to be loaded; given, so that MLflow does not start a process to guess it.
    optional
        Whether a load gives None where no version has the alias.
    code_path
        The package that the model's own steps are in, kept with the model, so that it loads where it is not installed.
    required_tags
        Tags without which a run registers nothing: a version is only as good as what its run can be rebuilt from.
    description
        Of the registered model.

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
        required_tags: Sequence[str] = (),
        description: str = "",
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._name, self._alias, self._optional, self._description = name, alias, optional, description
        self._required_tags = tuple(required_tags)
        self._pip_requirements, self._code_path = pip_requirements, code_path
        self._logging_activated = True
        self.metadata = metadata

    def save(self, data: ModelRecord) -> None:
        """Log, register and alias; without an active run (tracking switched off) there is nothing to log to."""
        run = mlflow.active_run()
        if not self._logging_activated or run is None:
            return
        tags = mlflow.get_run(run.info.run_id).data.tags
        if lacking := [name for name in self._required_tags if name not in tags]:
            logger.warning(
                "%s gets no new version: this run cannot be rebuilt, as it has no %s. `kedro run --pipelines training` has all",
                self._name,
                " and no ".join(lacking),
            )
            return
        logged = mlflow.sklearn.log_model(
            data.model,
            name="model",
            serialization_format="skops",
            skops_trusted_types=list(TRUSTED_TYPES),
            signature=model_signature(data),
            input_example=data.example,
            pip_requirements=self._pip_requirements,
            code_paths=[self._code_path] if self._code_path else None,
            pyfunc_predict_fn="predict_proba",
            registered_model_name=self._name,
        )
        client, version = mlflow.MlflowClient(), logged.registered_model_version
        with tempfile.TemporaryDirectory() as folder:
            for name, text in data.documents.items():
                (Path(folder) / name).write_text(text, encoding="utf-8")
            if data.documents:
                client.log_model_artifacts(logged.model_id, folder, DOCUMENTS)
        for key, value in data.metadata.items():
            client.set_model_version_tag(self._name, str(version), key, value)
        client.update_registered_model(self._name, self._description)
        client.update_model_version(self._name, str(version), data.run_description)
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
            if self._optional and error.error_code in ABSENT:
                return None
            raise
        return SkopsDataset(filepath=f"{folder}/model.skops").load()

    def _describe(self) -> dict[str, Any]:
        return {"name": self._name, "alias": self._alias}


@dataclass(frozen=True)
class RegisteredVersion:
    """A registered version of a model, with all that the run which trained it said of it.

    Attributes
    ----------
    name, version
        Of the registered model.
    created
        When it was registered.
    model
        The fitted pipeline.
    documents
        Texts by file name, as they were logged beside the model.
    run_id, tags, metrics
        Of the run; metrics by their plain names.
    """

    name: str
    version: str
    created: datetime
    model: Any
    documents: Mapping[str, str]
    run_id: str
    tags: Mapping[str, str]
    metrics: Mapping[str, float]


class RegisteredVersionDataset(AbstractDataset[NoReturn, RegisteredVersion]):
    """Reads a version of a registered model: the champion, else the challenger, or the one that is named.

    Parameters
    ----------
    name
        The registered model's name.
    select
        An alias, or a version's number; None for the champion, else the challenger.

    Examples
    --------
    >>> from churn_pipeline.datasets import RegisteredVersionDataset
    >>> seventh = RegisteredVersionDataset(name="churn", select=7).load()  # doctest: +SKIP
    """

    def __init__(self, name: str, select: str | int | None = None, metadata: dict[str, Any] | None = None) -> None:
        self._name = name
        self._wanted = ("champion", "challenger") if select is None else (str(select),)
        self.metadata = metadata

    def load(self) -> RegisteredVersion:
        """The version, its model built from our own list of trusted types.

        Raises
        ------
        ProjectError
            When there is no such version.
        DatasetError
            When the model's file holds types that are not trusted.
        """
        client = mlflow.MlflowClient()
        found = self._find(client)
        folder = Path(mlflow.artifacts.download_artifacts(f"models:/{self._name}/{found.version}"))
        run = mlflow.get_run(str(found.run_id))
        return RegisteredVersion(
            name=self._name,
            version=str(found.version),
            created=datetime.fromtimestamp(found.creation_timestamp / 1000, UTC),
            model=SkopsDataset(filepath=str(folder / "model.skops")).load(),
            documents={file.name: file.read_text(encoding="utf-8") for file in (folder / DOCUMENTS).glob("*")},
            run_id=run.info.run_id,
            tags=run.data.tags,
            metrics={plain_name(name): value for name, value in run.data.metrics.items()},
        )

    def _find(self, client: mlflow.MlflowClient) -> ModelVersion:
        for wanted in self._wanted:
            find = client.get_model_version if wanted.isdecimal() else client.get_model_version_by_alias
            try:
                return find(self._name, wanted)
            except mlflow.exceptions.MlflowException as error:
                if error.error_code not in ABSENT:
                    raise
        raise ProjectError(
            f"The model '{self._name}'",
            f"has no version {' or '.join(self._wanted)} in the registry: train one (`kedro run --pipelines training`), "
            "or name another by `--params packaging.model=…`",
        )

    def save(self, data: NoReturn) -> None:
        """A version is registered by a training."""
        raise DatasetError("A registered version is only ever read.")

    def _describe(self) -> dict[str, Any]:
        return {"name": self._name, "select": " or ".join(self._wanted)}
