"""What cuts across the pipelines: the configuration in use, the record of a run in MLflow, and what a person sees."""

import hashlib
import logging
import subprocess
import time
from pathlib import Path
from typing import Any

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from churn_pipeline.configuration import use_configuration

logger = logging.getLogger(__name__)
LOCK = Path("requirements") / "requirements.lock"


class ConfigurationHooks:
    """Lets pipelines be built from the configuration of the run that is under way."""

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Remember the context's configuration before the pipelines are built from it."""
        use_configuration(context.config_loader)


class RecordHooks:
    """Writes to the MLflow run what names its code and its environment; data and model name themselves."""

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Keep the context: the run's record names its table and environment."""
        self._context = context

    @hook_impl(trylast=True)
    def before_pipeline_run(self) -> None:
        """Tag the run that kedro-mlflow has just started."""
        import mlflow

        if mlflow.active_run() is None:
            return
        project = Path(self._context.project_path)
        mlflow.set_tags(
            {
                **code_state(project),
                "digest.lock": file_digest(project / LOCK),
                "table": self._context.params["table"],
                "environment": self._context.env or "local",
            }
        )


def code_state(project: Path) -> dict[str, str]:
    """The commit that is checked out and whether the tree differs from it, as tags; ``unknown`` without git."""
    commit = _git(project, "rev-parse", "HEAD")
    changed = _git(project, "status", "--porcelain")
    return {
        "git.commit": commit or "unknown",
        "git.dirty": "unknown" if changed is None else str(bool(changed)).lower(),
    }


def _git(project: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(project), *words], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes; ``unknown`` where there is no such file."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "unknown"


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
            pass
