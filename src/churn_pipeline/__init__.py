"""Customer churn: reproducible training, evaluation, packaging and serving."""

import logging
import os
import sys
from pathlib import Path

__version__ = "0.1.0"

# Warnings from libraries about their own code; a user of this project cannot act on them.
_UPSTREAM_WARNINGS = (
    "Add type hints to the `predict` method",
    "register_new_resolver() is deprecated",
    "IProgress not found",
    "Failed to resolve installed pip version",  # in an environment that uv made; nobody installs a model from conda.yaml
)


def prepare_own_project() -> None:
    """Call `prepare` if the current folder belongs to a checkout of this project.

    Kedro calls this at every command, in every project that shares this environment; other projects stay as they are.
    """
    import tomllib

    project = _find_project()
    if project is None:
        return
    try:
        content = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError:
        return  # Kedro reports the broken file next
    if content.get("tool", {}).get("kedro", {}).get("package_name") == __name__:
        prepare()


def prepare() -> None:
    """Set up this process: the checkout's own code, its logging, no telemetry, and no warnings from upstream code."""
    if sys.platform == "win32":
        sys.exit("churn-pipeline does not run on Windows itself: install it in WSL 2 (docs/how_to/install.md).")
    project = _find_project()
    _use_code_of(project)
    _use_logging_of(project)
    disable_telemetry()
    # kedro-mlflow and Kedro start `mlflow` and `jupyter` by name, also if the environment is not activated.
    programs = str(Path(sys.executable).parent)
    path = os.environ.get("PATH", os.defpath)
    if path.split(os.pathsep)[0] != programs:
        os.environ["PATH"] = os.pathsep.join([programs, path])
    # Child processes such as kedro-viz's server read the same filter from here.
    os.environ.setdefault("PYTHONWARNINGS", ",".join(f"ignore:{start}" for start in _UPSTREAM_WARNINGS))
    # MLflow's messages go to the project's log.
    os.environ.setdefault("MLFLOW_CONFIGURE_LOGGING", "false")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # MLflow would ask the server for each trial and print its address. RecordHooks logs the address of the run.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    # A lost tracking server ends a command after 1 minute instead of 4, and one that hangs after 7 instead of 20.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "5")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    # Waiting threads sleep: spinning slows boosting twentyfold on cores that other processes use too.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    logging.captureWarnings(True)
    for name in ("py.warnings", "mlflow.utils.environment"):
        logging.getLogger(name).addFilter(_is_own_warning)


def disable_telemetry() -> None:
    """Switch off the usage statistics of Kedro, kedro-viz, MLflow and BentoML, unless the user has decided otherwise.

    MLflow reads the variable when it is imported, the others when they would send.
    """
    os.environ.setdefault("DO_NOT_TRACK", "true")
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "true")


def _find_project() -> Path | None:
    # Imported here: the service runs without Kedro.
    from kedro.utils import find_kedro_project

    project: Path | None = find_kedro_project(Path.cwd())
    return project


def _use_code_of(project: Path | None) -> None:
    # In another checkout, Kedro would run the installed code but record this checkout's commit.
    code = project and project / "src" / "churn_pipeline"
    if code and code.is_dir():
        __path__[:] = [str(code)]


def _use_logging_of(project: Path | None) -> None:
    # Kedro looks for conf/logging.yml in the working directory only. A file named by the user is already in use.
    if os.environ.get("KEDRO_LOGGING_CONFIG"):
        return

    from churn_pipeline.installation import project_file

    file = project_file(project or Path.cwd(), "conf/logging.yml")
    if file.parents[1] == Path.cwd() or not file.is_file():
        return
    if "kedro.framework.project" not in sys.modules:
        os.environ["KEDRO_LOGGING_CONFIG"] = str(file)  # Kedro reads it when it is imported
        return

    import yaml
    from kedro.framework.project import configure_logging

    configure_logging(yaml.safe_load(file.read_text(encoding="utf-8")))


def _is_own_warning(record: logging.LogRecord) -> bool:
    return not any(words in record.getMessage() for words in _UPSTREAM_WARNINGS)
