"""What cuts across the pipelines: the configuration in use, the record of a run in MLflow, and what a person sees."""

import logging
import platform
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from churn_pipeline import progress
from churn_pipeline.configuration import TableConfigLoader, find_server, use_configuration
from churn_pipeline.progress import History, RunProgress

logger = logging.getLogger(__name__)


class ConfigurationHooks:
    """Lets pipelines be built from the configuration of the run that is under way."""

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Remember the context's configuration before the pipelines are built from it."""
        loader = context.config_loader
        assert isinstance(loader, TableConfigLoader)
        loader.check_runtime_params()
        use_configuration(loader)

    @hook_impl(specname="after_context_created", tryfirst=True)
    def find_tracking_server(self, context: KedroContext) -> None:
        """Ask once whether the tracking server is there: MLflow itself asks for minutes."""
        server = context.config_loader["mlflow"].get("server") or {}
        find_server(server.get("mlflow_tracking_uri"))


class RecordHooks:
    """Writes to the MLflow run what names its code and its environment, and at the end the record that rebuilds it."""

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Keep the context: the run's record names its table and environment."""
        self._context = context

    @hook_impl(trylast=True)
    def before_pipeline_run(self) -> None:
        """Name and tag the run that kedro-mlflow has just started."""
        import mlflow
        from kedro_mlflow.framework.hooks.mlflow_hook import mlflow_hook

        from churn_pipeline.record import LOCK, code_state, file_digest
        from churn_pipeline.tracking import NOISE, log_parameter

        active = mlflow.active_run()
        if active is None:
            return
        # kedro-mlflow 2.0 writes a settings model as one long string, and has no setting for it.
        mlflow_hook._log_param = log_parameter
        written = mlflow.get_run(active.info.run_id).data.tags
        for name in written.keys() & set(NOISE):
            mlflow.delete_tag(name)
        self._name(active.info.run_id)
        project = Path(self._context.project_path)
        mlflow.set_tags(
            {
                **code_state(project),
                "digest.lock": file_digest(project / LOCK),
                "table": self._loader.table,
                "environment": self._context.env or "local",
                "python": platform.python_version(),
            }
        )

    @hook_impl(tryfirst=True)
    def after_pipeline_run(self, pipeline: Pipeline, catalog: CatalogProtocol[Any, Any]) -> None:
        """Write the record and what the run came to, before kedro-mlflow ends the run."""
        import mlflow

        from churn_pipeline.record import ARTIFACT, make_record
        from churn_pipeline.tracking import log_table

        active = mlflow.active_run()
        if active is None:
            return
        run = mlflow.get_run(active.info.run_id)
        record = make_record(
            run, self._loader["parameters"], self._loader.runtime_params or {}, self._loader.table_file
        )
        mlflow.log_dict(record.model_dump(mode="json"), ARTIFACT)
        self._name(active.info.run_id)
        if "data" in record.digests:
            log_table(record.table, record.digests["data"])
        if "run_description" in pipeline.all_outputs():
            mlflow.set_tag("mlflow.note.content", catalog.load("run_description"))

    def _name(self, run_id: str) -> None:
        import mlflow

        from churn_pipeline.tracking import run_name

        run = mlflow.get_run(run_id)
        began = datetime.fromtimestamp(run.info.start_time / 1000).astimezone()
        name = run_name(self._loader.table, run.data.tags.get("pipeline_names", ""), began, run.data.tags)
        mlflow.set_tag("mlflow.runName", name)

    @property
    def _loader(self) -> TableConfigLoader:
        loader = self._context.config_loader
        assert isinstance(loader, TableConfigLoader)
        return loader


class ProgressHooks:
    """How far the run is, a line for each node that took a while, and at the end what a person wants to read."""

    SHOWN_SECONDS = 0.5

    def __init__(self) -> None:
        self._begun: dict[str, float] = {}

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Keep where the last run's times are."""
        loader = context.config_loader
        assert isinstance(loader, TableConfigLoader)
        self._history = History(Path(context.project_path) / "data" / ".node_seconds.json", loader.table)

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline) -> None:
        """Start the clock, and the line on a terminal."""
        title = "+".join(run_params.get("pipeline_names") or ["run"])
        self._progress = RunProgress(title, [node.name for node in pipeline.nodes], self._history.read())
        progress.show(self._progress)

    @hook_impl
    def before_dataset_loaded(self, node: Node) -> None:
        """Go on to the node that asks for its first input."""
        self._progress.begin(node.name)

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        """Go on to a node without inputs; and start the clock of its own work."""
        self._progress.begin(node.name)
        self._begun[node.name] = time.perf_counter()

    @hook_impl
    def after_node_run(self, node: Node) -> None:
        """Say that the node is done, where it took a while."""
        took = time.perf_counter() - self._begun.pop(node.name)
        if took >= self.SHOWN_SECONDS:
            logger.info("%-44s %6.1f s", node.name, took)

    @hook_impl(tryfirst=True)
    def on_pipeline_error(self) -> None:
        """Take the line away: the error comes next."""
        progress.hide()

    @hook_impl(trylast=True)
    def after_pipeline_run(self, pipeline: Pipeline, catalog: CatalogProtocol[Any, Any]) -> None:
        """Remember what the nodes took, and print the summary where the run made one."""
        progress.hide()
        self._progress.end_node()
        self._history.write(self._progress.seconds)
        if "summary" in pipeline.all_outputs():
            print(f"\n{catalog.load('summary')}", flush=True)
