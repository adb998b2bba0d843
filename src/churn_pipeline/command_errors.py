"""How a command ends that fails or is interrupted: with one message that says how to fix it.

Only defects end in a traceback. Mistakes in the command, configuration or files, and faults of the machine, do not.
"""

import errno
import logging
import os
import re
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from types import ModuleType
from typing import Any

import click
from yaml import YAMLError

from churn_pipeline import progress
from churn_pipeline.error_messages import (
    configuration_mistake,
    dataset_mistake,
    origin,
    parameter_mistakes,
    storage_mistake,
)

logger = logging.getLogger(__name__)

INTERRUPTED = 130
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
SAVING = re.compile(r"(?P<name>\S+): Failed while saving data to dataset")
# Modules of Kedro that reject a command with a message for the user, as a built-in exception.
VALIDATING_MODULES = (
    "kedro.config.",
    "kedro.framework.context.",
    "kedro.framework.session.",
    "kedro.pipeline.pipeline",
    "kedro.runner.runner",
    "kedro.utils",
)
SEE = "`kedro registry list` lists the pipelines, `kedro registry describe NAME` the nodes of one; see also `kedro run --help`."


class Command(click.Command):
    """A command that ends in a message if the user can fix the error, and with exit code 130 after Ctrl-C."""

    after_interruption = "The same command starts over."

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            where = progress.hide()
            _end_recording("KILLED")
            _print_error(f"Stopped{where}. {self.after_interruption}")
            sys.exit(INTERRUPTED)
        except click.exceptions.Exit:
            raise
        except Exception as error:
            # Kedro calls no error hook if a hook before or after the run fails.
            progress.hide()
            _end_recording("FAILED", error)
            if isinstance(error, click.ClickException):
                raise
            message = actionable(error)
            if message is None or os.environ.get("CHURN_TRACEBACK"):
                raise
            _print_error(message)
            click.echo("(Set CHURN_TRACEBACK=1 to see the traceback.)", err=True)
            sys.exit(1)


class RunCommand(Command):
    """``kedro run``; an interrupted search can be resumed."""

    after_interruption = "The same command resumes: finished trials of a search are kept, everything else runs again."


class Group(click.Group):
    """A group of commands that end like `Command`."""

    command_class = Command


def _print_error(message: str) -> None:
    # click itself leaves out colours in a pipe, but does not read NO_COLOR.
    click.secho(f"\n{message}", fg=None if os.environ.get("NO_COLOR") else "red", err=True)


def _end_recording(status: str, reason: Exception | None = None) -> None:
    """End open MLflow runs with a status; otherwise MLflow marks them as finished when the process ends."""
    mlflow: ModuleType | None = sys.modules.get("mlflow")
    if mlflow is None or mlflow.active_run() is None:
        return
    from churn_pipeline.datasets.raw_table_dataset import causes
    from churn_pipeline.tracking_server import is_unreachable, single_attempt

    try:
        with single_attempt() if reason and any(map(is_unreachable, causes(reason))) else nullcontext():
            while mlflow.active_run() is not None:
                mlflow.end_run(status)
    except Exception as error:
        # The store itself may have failed; the first error is the one to report.
        logger.warning("The MLflow run could not be marked as %s (%s)", status, type(error).__name__)


def actionable(error: BaseException) -> str | None:
    """Return the message to show for an error; None for a defect, which needs its traceback."""
    from churn_pipeline.contract.errors import ProjectError
    from churn_pipeline.datasets.raw_table_dataset import causes
    from churn_pipeline.modelling.onnx_graph import OnnxConversionError

    chain = list(causes(error))
    for cause in chain:
        if isinstance(cause, ProjectError | OnnxConversionError):
            return str(cause)
    if any(isinstance(cause, OSError) and cause.errno in DISK_FULL for cause in chain):
        return _explain_full_disk(chain)
    message = next((message for cause in chain if (message := _explain(cause)) is not None), None)
    return message or storage_mistake(chain)


def _explain(error: BaseException) -> str | None:
    from kedro.config import MissingConfigException
    from kedro.io import DatasetError
    from kedro.validation.exceptions import ParameterValidationError
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, ParameterValidationError):
        return parameter_mistakes(str(error))
    if isinstance(error, OmegaConfBaseException | YAMLError | MissingConfigException):
        return configuration_mistake(error)
    if isinstance(error, TypeError) and "incompatible container" in str(error):
        return configuration_mistake(error)
    if isinstance(error, DatasetError) and (message := dataset_mistake(error)):
        return message
    if isinstance(error, KeyError) and "Unable to find credentials" in str(error):
        return f"The catalog has a mistake:\n  - {error.args[0].split(':')[0]}: add them to conf/local/credentials.yml"
    if type(error).__module__ == "mlflow.exceptions":
        return _explain_server(error)
    if isinstance(error, OSError):
        return _explain_system(error)
    if type(error).__module__.startswith("sqlalchemy.") and hasattr(error, "orig"):
        return _explain_database(error.orig)
    # A message for the user; a dataset error with a cause only wraps another error.
    if isinstance(error, DatasetError) and error.__cause__ is None:
        return str(error)
    if isinstance(error, ValueError | LookupError | AttributeError | ImportError) and origin(error).startswith(
        VALIDATING_MODULES
    ):
        return f"{error}\n{SEE}"
    return None


def _explain_server(error: BaseException) -> str | None:
    from churn_pipeline.tracking_server import explain

    return explain(error)


def _explain_full_disk(chain: Sequence[BaseException]) -> str:
    # An error from writing to an open file does not name the file, but Kedro's names the dataset.
    name = next((found["name"] for error in chain if (found := SAVING.match(str(error)))), None)
    what = f"the dataset '{name}'" if name else "a file"
    return (
        f"The disk is full: {what} could not be written. Free space and run the same command again; finished trials of a "
        "search are kept."
    )


def _explain_system(error: OSError) -> str | None:
    """Explain an error about a file or folder; other system errors are defects."""
    if error.filename is None or error.strerror is None:
        return None
    if isinstance(error, FileNotFoundError):
        return f"{error.filename} does not exist: run the node that writes it first, or the whole pipeline."
    return f"{error.filename} cannot be used: {error.strerror}."


def _explain_database(error: BaseException) -> str:
    # Only messages about the connection and the file are free of rows' values.
    # SQLite's plain DatabaseError is about the file.
    is_safe = (
        any(kind.__name__ == "OperationalError" for kind in type(error).__mro__) or type(error) is sqlite3.DatabaseError
    )
    reason = str(error).partition("\n")[0] if is_safe else ""
    return (
        f"A database cannot be used: {reason or type(error).__name__}. Runs are in mlruns/mlflow.db or MLFLOW_TRACKING_URI, "
        "studies in data/06_models/<table>/studies.db or CHURN_STUDIES; a table may come from another one."
    )
