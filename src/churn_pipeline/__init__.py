"""Customer churn: explored, trained, evaluated, shipped and watched, every number reproducible."""

import logging
import os
import sys
from pathlib import Path

__version__ = "0.1.0"

# kedro-mlflow defines a model class at import that mlflow 3 has advice for, Kedro 1.7 registers its resolvers by a name
# that omegaconf 2.4 has deprecated, and in a notebook tqdm asks for widgets to draw its bars with, which Optuna does not
# show here: nothing that the person at the keyboard could mend.
_UPSTREAM = (
    "Add type hints to the `predict` method",
    "register_new_resolver() is deprecated",
    "IProgress not found",
)


def prepare() -> None:
    """Quieten the stack; Kedro calls this before it loads its plugins.

    Python's warnings go to the log, without those that are upstream's, and nothing is sent to anyone: kedro-telemetry
    reads ``.telemetry`` in the working directory only, and commands start in any folder of the project.
    """
    project = _project()
    _take_code_of(project)
    _log_as_said_in(project)
    os.environ.setdefault("KEDRO_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "true")
    # kedro-mlflow and Kedro start `mlflow` and `jupyter` by name, also where nobody activated the environment.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    # Processes that they start, such as kedro-viz's server, read the same filter from here.
    os.environ.setdefault("PYTHONWARNINGS", ",".join(f"ignore:{start}" for start in _UPSTREAM))
    # What MLflow says goes to the project's log, as all else does, and not beside it in colours.
    os.environ.setdefault("MLFLOW_CONFIGURE_LOGGING", "false")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # Threads that wait for each other sleep: spinning, they slow boosting twentyfold on cores that others use too.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").addFilter(_is_ours)


def _project() -> Path | None:
    # Imported here: the service has no Kedro.
    from kedro.utils import find_kedro_project

    found: Path | None = find_kedro_project(Path.cwd())
    return found


def _take_code_of(project: Path | None) -> None:
    # Another checkout, with the environment of this one: Kedro finds this package imported and would run, and record as that
    # checkout's commit, what is installed.
    code = project and project / "src" / "churn_pipeline"
    if code and code.is_dir():
        __path__[:] = [str(code)]


def _log_as_said_in(project: Path | None) -> None:
    # Kedro looks for conf/logging.yml in the working directory only; a file that the person chose is in use already.
    if os.environ.get("KEDRO_LOGGING_CONFIG"):
        return

    import yaml
    from kedro.framework.project import LOGGING

    if project and project != Path.cwd() and (project / "conf" / "logging.yml").is_file():
        LOGGING.configure(yaml.safe_load((project / "conf" / "logging.yml").read_text(encoding="utf-8")))


def _is_ours(record: logging.LogRecord) -> bool:
    return not any(words in record.getMessage() for words in _UPSTREAM)
