"""What cuts across the pipelines: the configuration in use, the record of a run in MLflow, and what a person sees."""

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

from churn_pipeline.configuration import TableConfigLoader, use_configuration

logger = logging.getLogger(__name__)


class ConfigurationHooks:
    """Lets pipelines be built from the configuration of the run that is under way."""

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Remember the context's configuration before the pipelines are built from it."""
        use_configuration(context.config_loader)


class RecordHooks:
    """Writes to the MLflow run what names its code and its environment, and at the end the record that rebuilds it."""

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Keep the context: the run's record names its table and environment."""
        self._context = context

    @hook_impl(trylast=True)
    def before_pipeline_run(self) -> None:
        """Tag the run that kedro-mlflow has just started."""
        import mlflow

        from churn_pipeline.record import LOCK, code_state, file_digest

        if mlflow.active_run() is None:
            return
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
    def after_pipeline_run(self) -> None:
        """Write the record, before kedro-mlflow ends the run."""
        import mlflow

        from churn_pipeline.record import ARTIFACT, make_record

        active = mlflow.active_run()
        if active is None:
            return
        run = mlflow.get_run(active.info.run_id)
        record = make_record(
            run, self._loader["parameters"], self._loader.runtime_params or {}, self._loader.table_file
        )
        mlflow.log_dict(record.model_dump(mode="json"), ARTIFACT)

    @property
    def _loader(self) -> TableConfigLoader:
        loader = self._context.config_loader
        assert isinstance(loader, TableConfigLoader)
        return loader


class ProgressHooks:
    """A line for each node as it ends, and at the end of a training what a person wants to read."""

    def __init__(self) -> None:
        self._begin: dict[str, float] = {}

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        """Start the node's clock."""
        self._begin[node.name] = time.perf_counter()

    @hook_impl
    def after_node_run(self, node: Node) -> None:
        """Say that the node is done, and how long it took."""
        logger.info("%-44s %6.1f s", node.name, time.perf_counter() - self._begin.pop(node.name))

    @hook_impl(trylast=True)
    def after_pipeline_run(self, pipeline: Pipeline, catalog: CatalogProtocol[Any, Any]) -> None:
        """Print the summary where the run made one."""
        if "summary" in pipeline.all_outputs():
            print(f"\n{catalog.load('summary')}", flush=True)
