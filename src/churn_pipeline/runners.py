"""Kedro's runners: those that would lose records are refused, and each thread of the others has the MLflow run."""

from typing import Any

import mlflow
from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol, SharedMemoryDataCatalog

from churn_pipeline.contract.errors import ProjectError


class RunnerHooks:
    """Refuses runners that would lose records, and continues the MLflow run in each thread of `ThreadRunner`."""

    def __init__(self) -> None:
        self._run_id: str | None = None

    @hook_impl
    def after_catalog_created(self, catalog: CatalogProtocol[Any, Any]) -> None:
        """Refuse `ParallelRunner`; Kedro makes a catalog of this class only for it."""
        if isinstance(catalog, SharedMemoryDataCatalog):
            raise ProjectError(
                "ParallelRunner",
                "cannot run in several processes what is recorded as one MLflow run: use SequentialRunner or ThreadRunner",
            )

    @hook_impl(trylast=True)
    def before_pipeline_run(self) -> None:
        """Remember the run that `TrackingHook` has just started; None if tracking is disabled."""
        active = mlflow.active_run()
        self._run_id = active.info.run_id if active is not None else None

    @hook_impl(tryfirst=True)
    def before_dataset_loaded(self) -> None:
        """Continue the run in this thread. kedro-mlflow does so only after a node's inputs are loaded.

        In a new thread, MLflow has no active run. A study that is loaded without one records no trial.
        """
        if self._run_id is not None and mlflow.active_run() is None:
            mlflow.start_run(run_id=self._run_id)

    @hook_impl(tryfirst=True)
    def before_node_run(self, is_async: bool) -> None:
        """Refuse asynchronous runners."""
        refuse_async(is_async)


def refuse_async(is_async: bool) -> None:
    """Refuse to load and save datasets asynchronously: Kedro then saves in threads without an MLflow run.

    Raises
    ------
    ProjectError
        If `is_async` is true.
    """
    if is_async:
        raise ProjectError(
            "--async",
            "would lose tags, metrics and artifacts: leave it out, and use SequentialRunner or ThreadRunner",
        )
