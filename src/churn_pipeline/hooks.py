"""Kedro hooks: the configuration in use, the record of a run in MLflow, and progress on the terminal."""

import logging
import platform
import time
from pathlib import Path
from typing import Any

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node
from kedro.utils import is_kedro_project

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

    @hook_impl(specname="before_pipeline_run", tryfirst=True)
    def check_task(self, run_params: dict[str, Any], pipeline: Pipeline) -> None:
        """Check that this process may continue the MLflow run in ``MLFLOW_RUN_ID``, before `TrackingHook` opens it."""
        import mlflow

        from churn_pipeline.task_runs import check_task
        from churn_pipeline.tracking import continued_run

        run = continued_run(self._context.mlflow, run_params)  # type: ignore[attr-defined]  # kedro-mlflow sets it
        self._starts_run = run is None and mlflow.active_run() is None
        if run is not None:
            check_task(run, self._tags(), run_params, pipeline)

    @hook_impl(specname="before_pipeline_run", trylast=True)
    def end_killed_runs(self) -> None:
        """Tag the new run with this process, and end earlier runs whose process was killed."""
        import mlflow

        from churn_pipeline.killed_runs import end_killed_runs, tag_process

        active = mlflow.active_run()
        if active is not None and self._starts_run:
            tag_process()
            end_killed_runs(active.info.experiment_id)

    @hook_impl(trylast=True)
    def before_pipeline_run(self) -> None:
        """Name and tag the run that `TrackingHook` has just started, and log its address; a continued run has these tags."""
        import mlflow

        from churn_pipeline.tracking import name_run, page_of

        active = mlflow.active_run()
        if active is None:
            return
        run = mlflow.get_run(active.info.run_id)
        name_run(run, self._loader.table)
        if "git.commit" not in run.data.tags:
            mlflow.set_tags(self._tags())
        page = page_of(run)
        if page:
            logger.info("MLflow shows this run at %s", page)

    @hook_impl(tryfirst=True)
    def after_pipeline_run(self, pipeline: Pipeline, catalog: CatalogProtocol[Any, Any]) -> None:
        """Log the record and the run's description before `TrackingHook` ends the run."""
        import mlflow

        from churn_pipeline.task_runs import describe_run

        active = mlflow.active_run()
        if active is None:
            return
        describe_run(active.info.run_id, self._loader)
        if "run_description" in pipeline.all_outputs():
            mlflow.set_tag("mlflow.note.content", catalog.load("run_description"))

    def _tags(self) -> dict[str, str]:
        from churn_pipeline.task_runs import project_tags

        project = Path(self._context.project_path)
        return project_tags(project, self._loader.table, self._context.env, platform.python_version())

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
        self._project = Path(context.project_path)
        self._results = f"{loader.data_root}/08_reporting/{loader.table}/"
        local = StoredFile(f"{loader.data_root}/.node_seconds.json").local_path
        # A stored duration is not worth a request to a server.
        self._history = History(self._project / local if local else None, loader.table)

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
            print(f"\n{catalog.load('summary')}\n\n{next_steps(self._project, self._results)}", flush=True)


def next_steps(project: Path, results: str) -> str:
    """Say where to look at the results of a training.

    Kedro's own commands need a project, which an installed wheel lacks.

    Parameters
    ----------
    project
        The folder of the run.
    results
        Where its reports are stored.
    """
    import mlflow

    from churn_pipeline.tracking_server import without_password

    store, in_project = without_password(mlflow.get_tracking_uri()), is_kedro_project(project)
    runs = "kedro mlflow ui" if in_project else f"mlflow ui --backend-store-uri {store}"
    steps = {
        store if store.startswith("http") else runs: "runs, metrics, plots and the registered model (alias challenger)",
        **({"kedro viz": "the graph, with tables and plots on its nodes"} if in_project else {}),
        results: "model_card.md, target_list.csv, leaderboard, metrics, plots",
    }
    return "\n".join(["Look next:", *(f"  {step:<26}  {shown}" for step, shown in steps.items())])


def _loader_of(context: KedroContext) -> TableConfigLoader:
    loader = context.config_loader
    assert isinstance(loader, TableConfigLoader)
    return loader
