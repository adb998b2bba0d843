"""How a run appears in MLflow: its name, tags and parameters."""

import ast
import json
import logging
import os
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import mlflow
from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node
from kedro_mlflow.config.kedro_mlflow_config import KedroMlflowConfig
from kedro_mlflow.framework.hooks import MlflowHook
from kedro_mlflow.framework.hooks.utils import _assert_mlflow_enabled
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from pydantic import BaseModel

from churn_pipeline.contract.errors import ProjectError
from churn_pipeline.datasets.raw_table_dataset import causes
from churn_pipeline.tracking_server import check_servers, is_unreachable, single_attempt, without_password

logger = logging.getLogger(__name__)

# What kedro-mlflow would tag a run with although it does not describe the run: a local path, a time, an object's address.
UNTAGGED = ("project_path", "run_id", "runner")
# Tags of kedro-mlflow that are set if only a part of a pipeline was run.
PARTIAL_RUN_TAGS = ("from_nodes", "to_nodes", "node_names", "from_inputs", "to_outputs", "namespaces", "tags")
# Declared candidates are not logged; the search logs what it tuned, under tuned.<candidate>.
DECLARED_CANDIDATES = "candidates."
RUN_ID = "MLFLOW_RUN_ID"


class TrackingConfig(KedroMlflowConfig):  # type: ignore[misc]
    """kedro-mlflow's configuration, which asks the tracking server for nothing until a run is recorded."""

    def open_experiment(self) -> None:
        """Check the tracking server, then find or create the experiment.

        Raises
        ------
        ProjectError
            If the server cannot be used.
        """
        check_servers(self.server.mlflow_tracking_uri, self.server.mlflow_registry_uri)
        super()._set_experiment()

    def _set_experiment(self) -> None:
        """Do nothing; kedro-mlflow calls this for every command, also for those that record nothing."""


class TrackingHook(MlflowHook):  # type: ignore[misc]
    """kedro-mlflow's hook, which logs each setting as a parameter of its own and no local path.

    If ``MLFLOW_RUN_ID`` is exported, or ``tracking.run.id`` is set in mlflow.yml, it continues that run and leaves it open.

    It replaces the hook that kedro-mlflow registers (see DISABLE_HOOKS_FOR_PLUGINS in settings.py). kedro-mlflow 2.0 has no
    option for either: https://github.com/Galileo-Galilei/kedro-mlflow/issues/442.
    """

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Configure MLflow without a request to the tracking server, unless a run is open already."""
        self._already_active_mlflow = mlflow.active_run() is not None
        if self._already_active_mlflow:
            super().after_context_created(context)
            return
        self.mlflow_config = TrackingConfig.model_validate(context.config_loader["mlflow"])
        self.mlflow_config.setup(context)
        context.__setattr__("mlflow", self.mlflow_config)  # `kedro mlflow ui` reads it

    @hook_impl
    def before_pipeline_run(
        self, run_params: dict[str, Any], pipeline: Pipeline, catalog: CatalogProtocol[Any, Any]
    ) -> None:
        """Start a run, or continue one; no tag names a path on this machine."""
        names = run_params.get("pipeline_names") or ["__default__"]
        if not self._already_active_mlflow and _assert_mlflow_enabled(names, self.mlflow_config):
            self.mlflow_config.open_experiment()
        self.run_id = None  # kedro-mlflow keeps the last run's in a process that runs several pipelines
        # MLflow would tag the run with the path of the program that was started.
        os.environ.setdefault("MLFLOW_RUN_CONTEXT", json.dumps({"mlflow.source.name": "kedro run"}))
        run = continued_run(self.mlflow_config, run_params)
        self._continues = run is not None
        tags = {name: value for name, value in run_params.items() if name not in UNTAGGED}
        if run is not None:
            options = self.mlflow_config.tracking.run
            options.id, options.name = run.info.run_id, run.info.run_name
            if is_tagged(run):  # of the whole run, not of this task
                tags = dict.fromkeys(tags) | {"pipeline_names": pipelines_of(run)}
        super().before_pipeline_run(tags, pipeline, catalog)

    @hook_impl
    def after_pipeline_run(
        self, run_params: dict[str, Any], pipeline: Pipeline, catalog: CatalogProtocol[Any, Any]
    ) -> None:
        """End the run, unless this process continues a run that other tasks use too."""
        if self._continues and self.run_id is not None:
            # Without this, MLflow would mark the run as finished when the process ends.
            mlflow.end_run(mlflow.get_run(self.run_id).info.status)
        else:
            super().after_pipeline_run(run_params, pipeline, catalog)

    @hook_impl
    def before_node_run(
        self, node: Node, catalog: CatalogProtocol[Any, Any], inputs: dict[str, Any], is_async: bool
    ) -> None:
        """Log the node's parameters, a settings model as one parameter for each setting."""
        parameters = {name: value for name, value in inputs.items() if name.startswith("params:")}
        datasets = {name: value for name, value in inputs.items() if name not in parameters and name != "parameters"}
        super().before_node_run(node, catalog, datasets, is_async)
        if self.run_id is not None:
            for name, value in parameters.items():
                log_parameter(self.sanitize_param_name(name.removeprefix("params:")), value)

    @hook_impl
    def on_pipeline_error(
        self,
        error: Exception,
        run_params: dict[str, Any],
        pipeline: Pipeline,
        catalog: CatalogProtocol[Any, Any],
    ) -> None:
        """End the run as failed. If the tracking server was lost, try it only once."""
        if not any(is_unreachable(cause) for cause in causes(error)):
            super().on_pipeline_error(error, run_params, pipeline, catalog)
            return
        with single_attempt():
            try:
                super().on_pipeline_error(error, run_params, pipeline, catalog)
            except MlflowException:
                logger.warning("MLflow shows run %s as running: the tracking server did not answer", self.run_id)


def continued_run(configuration: Any, run_params: dict[str, Any]) -> Run | None:
    """Return the run that this process is to continue; None if it starts a run of its own, or records nothing.

    Parameters
    ----------
    configuration
        kedro-mlflow's configuration.
    run_params
        The options of ``kedro run``.

    Raises
    ------
    ProjectError
        If there is no such run, it has finished, or it belongs to another experiment.
    """
    names = run_params.get("pipeline_names") or ["__default__"]
    is_disabled = set(names) <= set(configuration.tracking.disable_tracking.pipelines)
    run_id = configuration.tracking.run.id or os.environ.get(RUN_ID)
    if is_disabled or not run_id or mlflow.active_run() is not None:
        return None
    check_servers(configuration.server.mlflow_tracking_uri, configuration.server.mlflow_registry_uri)
    run = find_run(run_id)
    other = f"start another (`kedro mlflow-run start`), or unset {RUN_ID}"
    if run.info.lifecycle_stage == "deleted" or run.info.status == "FINISHED":
        raise ProjectError(f"The MLflow run {run_id} cannot be continued", f"it has been finished or deleted: {other}")
    if mlflow.get_experiment(run.info.experiment_id).name != configuration.tracking.experiment.name:
        problem = (
            "it belongs to another experiment: give each task the same table, environment and MLFLOW_EXPERIMENT_NAME"
        )
        raise ProjectError(f"The MLflow run {run_id} cannot be continued", f"{problem}, or {other}")
    return run


def find_run(run_id: str) -> Run:
    """Find a run by its id.

    Raises
    ------
    ProjectError
        If there is none.
    """
    try:
        return mlflow.get_run(run_id)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        problem = f"is not in this tracking store: check MLFLOW_TRACKING_URI, or unset {RUN_ID}"
        raise ProjectError(f"The MLflow run {run_id}", problem) from None


def is_tagged(run: Run) -> bool:
    """Whether a run already has the tags of ``kedro run``; one that another program created has none."""
    return "kedro_command" in run.data.tags


def pipelines_of(run: Run) -> list[str]:
    """Return the names of the pipelines that a run records; none for the default pipeline."""
    return list(ast.literal_eval(run.data.tags.get("pipeline_names", "[]")))


def has_pages(address: str) -> bool:
    """Return whether a tracking address is that of a server, which a browser can open."""
    return address.startswith(("http://", "https://"))


def page_of(run: Run) -> str | None:
    """Return the address of a run's page on the tracking server, without a login; None without a server."""
    server = mlflow.get_tracking_uri()
    if not has_pages(server):
        return None
    return f"{without_password(server).rstrip('/')}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"


def name_run(run: Run, table: str) -> None:
    """Name the active run by what it has logged so far."""
    began = datetime.fromtimestamp(run.info.start_time / 1000).astimezone()
    mlflow.set_tag("mlflow.runName", run_name(table, run.data.tags.get("pipeline_names", ""), began, run.data.tags))


def run_name(table: str, pipelines: str, began: datetime, tags: Mapping[str, str]) -> str:
    """Name a run by its result (lists cut names short), table, pipelines and start.

    Examples
    --------
    >>> tags = {"candidate": "splines+logistic", "packaged.version": "3"}
    >>> run_name("telco", "['__default__']", datetime(2026, 5, 4, 13, 7), tags)
    'blend of 2 · telco training+packaging of version 3 · 2026-05-04 13:07'
    """
    is_partial = any(tags.get(choice) for choice in PARTIAL_RUN_TAGS)
    words = (
        "a part"
        if is_partial
        else pipelines.strip("[]").replace("'", "").replace(", ", "+").replace("__default__", "training+packaging")
    )
    members = tags.get("candidate", "").split("+")
    candidate = members[0] if len(members) == 1 else f"blend of {len(members)}"
    version = f" of version {tags['packaged.version']}" if "packaged.version" in tags else ""
    parts = (candidate, f"{table} {words or 'training+packaging'}{version}", f"{began:%Y-%m-%d %H:%M}")
    return " · ".join(part for part in parts if part)


def log_table(table: str, digest: str) -> None:
    """Log the customer table of the active run by its name and digest, without any row."""
    named = MetaDataset(CodeDatasetSource(tags={}), name=table, digest=digest[:12])  # type: ignore[abstract]
    mlflow.log_input(named, context="training")


def log_parameter(name: str, value: Any) -> None:
    """Log a node's parameter to the active run, a settings model as one parameter for each setting.

    Raises
    ------
    ProjectError
        If another task of the run has logged another value.
    """
    if name.startswith(DECLARED_CANDIDATES):
        return
    settings = dict(flatten_parameter(name, value))
    try:
        mlflow.log_params(settings)
    except MlflowException as error:
        if error.error_code == "INVALID_PARAMETER_VALUE":
            problem = f"was not accepted: {error.message} All tasks of a run need the same configuration"
            raise ProjectError(f"The parameter {name} of the MLflow run", problem) from None
        # MLflow fails if another task writes the same parameter at the same moment. Then it is there now.
        mlflow.log_params(settings)


def flatten_parameter(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield a parameter's settings as dotted names and text; unset ones are left out.

    Examples
    --------
    >>> dict(flatten_parameter("choice", {"metrics": ["auc", "brier"], "margin": {"low": 0.1, "high": None}}))
    {'choice.metrics': 'auc, brier', 'choice.margin.low': '0.1'}
    """
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from flatten_parameter(f"{name}.{key}", inner)
    elif isinstance(value, list | tuple):
        yield from flatten_parameter(name, ", ".join(map(str, value)))
    elif value not in (None, ""):
        yield name, str(value)
