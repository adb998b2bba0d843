"""Processes of the service: the number of workers, their replacement, and the folders that they share.

``bentoml serve`` starts a parent process, which starts the workers.
"""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import TypeAdapter, ValidationError

from churn_pipeline.serving.settings import PREFIX, Settings

METRICS_FOLDER = "CHURN_METRICS_FOLDER"
WORKERS_FOLDER = "CHURN_WORKERS_FOLDER"
PROMETHEUS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"

_folders: list[tempfile.TemporaryDirectory[str]] = []  # each is deleted when this process ends


def worker_count(environment: Mapping[str, str] = os.environ) -> int:
    """Return the setting ``workers``, which BentoML needs when the service is defined.

    An invalid value counts as 1, because `Settings.from_environment` refuses it before a worker starts.
    """
    value = environment.get(f"{PREFIX}WORKERS") or Settings.model_fields["workers"].default
    try:
        number: int = TypeAdapter(Annotated[int, Settings.model_fields["workers"]]).validate_python(value)
    except ValidationError:
        return 1
    return number


def prepare_parent() -> None:
    """Prepare the parent process before it starts the workers.

    - BentoML replaces no dead worker if ``BENTOML_CONTAINERIZED`` is set, and the container keeps running with the others. The
      variable has no other effect, so it is removed.
    - BentoML empties one metrics folder per BENTOML_HOME at each start, even if another service is using it. Each start gets a
      folder of its own; `use_metrics_folder` selects it in the workers.
    - The workers agree on changes of the served bundles in a folder of this start, `workers_folder`.
    """
    os.environ.pop("BENTOML_CONTAINERIZED", None)
    _make_folder(METRICS_FOLDER, "churn-metrics-")
    _make_folder(WORKERS_FOLDER, "churn-workers-")


def use_metrics_folder() -> None:
    """Let a worker write its metrics to the folder of its parent. Call this before any metric is created."""
    if folder := os.environ.get(METRICS_FOLDER):
        os.environ[PROMETHEUS_FOLDER] = folder


def workers_folder() -> Path:
    """The folder in which the workers of this start agree. A service without a parent process makes its own."""
    if WORKERS_FOLDER not in os.environ:
        _make_folder(WORKERS_FOLDER, "churn-workers-")
    return Path(os.environ[WORKERS_FOLDER])


def _make_folder(variable: str, prefix: str) -> None:
    """Make a folder for this start and its workers, who read its path from an environment variable."""
    _folders.append(tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True))
    os.environ[variable] = _folders[-1].name
