"""Kedro hooks: the configuration in use, the record of a run in MLflow, and progress on the terminal."""

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
from churn_pipeline.configuration import TableConfigLoader, use_configuration
from churn_pipeline.datasets.files import StoredFile
from churn_pipeline.progress import History, RunProgress

logger = logging.getLogger(__name__)


class ConfigurationHooks:
    """Builds pipelines from the configuration of the current run."""

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Remember the context's configuration; Kedro builds the pipelines next."""
        loader = _loader_of(context)
        loader.check_runtime_params()
        use_configuration(loader)


class RecordHooks:
    """Tags the MLflow run with its code version and environment, and logs the record needed to reproduce it."""

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Keep the context; it has the table and the environment of the run."""
        self._context = context

    @hook_impl(trylast=True)
    def before_pipeline_run(self) -> None:
        """Name and tag the run that `TrackingHook` has just started."""
        import mlflow

        from churn_pipeline.record import code_state

        active = mlflow.active_run()
        if active is None:
            return
        self._name(active.info.run_id)
        mlflow.set_tags(
            {
                **code_state(Path(self._context.project_path)),
                "table": self._loader.table,
                "environment": self._context.env or "local",
                "python": platform.python_version(),
            }
        )

    @hook_impl(tryfirst=True)
    def after_pipeline_run(self, pipeline: Pipeline, catalog: CatalogProtocol[Any, Any]) -> None:
        """Log the record and the run's description before `TrackingHook` ends the run."""
        import mlflow

        from churn_pipeline.record import ARTIFACT, make_record
        from churn_pipeline.tracking import log_table

        active = mlflow.active_run()
        if active is None:
            return
        run = mlflow.get_run(active.info.run_id)
        record = make_record(
            run, self._loader["parameters"], self._loader.runtime_params or {}, self._loader.table_text
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
        return _loader_of(self._context)


class ProgressHooks:
    """Shows progress, logs slow nodes and prints the run's summary at the end."""

    SLOW_SECONDS = 0.5

    def __init__(self) -> None:
        self._begun: dict[str, float] = {}

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Open the file with the node durations of the last run."""
        loader = _loader_of(context)
        self._results = f"{loader.data_root}/08_reporting/{loader.table}/"
        local = StoredFile(f"{loader.data_root}/.node_seconds.json").local_path
        # A stored duration is not worth a request to a server.
        self._history = History(Path(context.project_path) / local if local else None, loader.table)

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline) -> None:
        """Start timing and show the progress line on a terminal."""
        title = "+".join(run_params.get("pipeline_names") or ["run"])
        self._progress = RunProgress(title, [node.name for node in pipeline.nodes], self._history.read())
        progress.show(self._progress)

    @hook_impl
    def before_dataset_loaded(self, node: Node) -> None:
        """Move the progress line to the node whose first input is being loaded."""
        self._progress.begin(node.name)

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        """Move the progress line to a node without inputs, and start timing the node's own work."""
        self._progress.begin(node.name)
        self._begun[node.name] = time.perf_counter()

    @hook_impl
    def after_node_run(self, node: Node) -> None:
        """Log the node's duration if it was slow."""
        took = time.perf_counter() - self._begun.pop(node.name)
        if took >= self.SLOW_SECONDS:
            logger.info("%-44s %6.1f s", node.name, took)

    @hook_impl(tryfirst=True)
    def on_pipeline_error(self) -> None:
        """Remove the progress line; the error is printed next."""
        progress.hide()

    @hook_impl(trylast=True)
    def after_pipeline_run(self, pipeline: Pipeline, catalog: CatalogProtocol[Any, Any]) -> None:
        """Save the node durations, and print the summary if the run produced one."""
        progress.hide()
        self._progress.end_node()
        self._history.write(self._progress.seconds)
        if "summary" in pipeline.all_outputs():
            print(f"\n{catalog.load('summary')}", flush=True)
            print(f"  {self._results}   model_card.md, target_list.csv, leaderboard, metrics, plots", flush=True)


def _loader_of(context: KedroContext) -> TableConfigLoader:
    loader = context.config_loader
    assert isinstance(loader, TableConfigLoader)
    return loader
