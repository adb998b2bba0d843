"""How a command of this project ends when it cannot go on: with one message that a person can act on.

A traceback is for defects. What is told here is a mistake at the keyboard, in the configuration or in a file, something that
the machine lacks, or Ctrl-C.
"""

import logging
import os
import sys
import traceback
from types import ModuleType
from typing import Any

import click
from yaml import YAMLError

from churn_pipeline import progress

logger = logging.getLogger(__name__)

INTERRUPTED = 130
# Where Kedro itself refuses what it was asked for, and says why.
REFUSING = (
    "kedro.config.",
    "kedro.framework.context.",
    "kedro.framework.session.",
    "kedro.pipeline.pipeline",
    "kedro.runner.runner",
    "kedro.utils",
)
SEE = "See `kedro registry list` for the pipelines, `kedro registry describe NAME` for the nodes of one, `kedro run --help`."


class Command(click.Command):
    """A command that ends in a message wherever a person can mend what is wrong, and with 130 after Ctrl-C."""

    after_interruption = "The same command starts again."

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            where = progress.hide()
            _end_recording("KILLED")
            _say(f"Stopped{where}. {self.after_interruption}")
            sys.exit(INTERRUPTED)
        except click.exceptions.Exit:
            raise
        except Exception as error:
            # A hook before or after the run fails outside of what Kedro calls a pipeline error: nobody tidied up.
            progress.hide()
            _end_recording("FAILED")
            if isinstance(error, click.ClickException):
                raise
            message = actionable(error)
            if message is None or os.environ.get("CHURN_TRACEBACK"):
                raise
            _say(message)
            click.echo("(CHURN_TRACEBACK=1 shows where it happened.)", err=True)
            sys.exit(1)


class RunCommand(Command):
    """``kedro run``, which can be taken up again."""

    after_interruption = (
        "The same command goes on: trials of a search that have ended are kept, the rest is done again."
    )


class Group(click.Group):
    """A group of such commands."""

    command_class = Command


def _say(message: str) -> None:
    # click leaves colours out of what is piped; who wants none in a terminal says so by NO_COLOR.
    click.secho(f"\n{message}", fg=None if os.environ.get("NO_COLOR") else "red", err=True)


def _end_recording(status: str) -> None:
    """Mark what is open in MLflow: else MLflow would call it finished when the process ends."""
    mlflow: ModuleType | None = sys.modules.get("mlflow")
    try:
        while mlflow is not None and mlflow.active_run() is not None:
            mlflow.end_run(status)
    except Exception as error:
        # The store may be what failed in the first place, and that is what the person has to read.
        logger.warning("The MLflow run could not be marked as %s (%s)", status, type(error).__name__)


def actionable(error: BaseException) -> str | None:
    """The message for a person behind an error; None where it is a defect, whose traceback is wanted."""
    from churn_pipeline.contract.errors import ProjectError
    from churn_pipeline.datasets.raw_table_dataset import causes
    from churn_pipeline.modelling.onnx_graph import OnnxConversionError

    chain = list(causes(error))
    for cause in chain:
        if isinstance(cause, ProjectError | OnnxConversionError):
            return str(cause)
    return next((message for cause in chain if (message := _explain(cause)) is not None), None)


def _explain(error: BaseException) -> str | None:
    from kedro.config import MissingConfigException
    from kedro.io import DatasetError
    from kedro.validation.exceptions import ParameterValidationError
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, ParameterValidationError):
        return f"The configuration has mistakes:\n{error}"
    if isinstance(error, OmegaConfBaseException | YAMLError | MissingConfigException):
        return f"The configuration has mistakes:\n  - {error}"
    if isinstance(error, OSError):
        return _explain_system(error)
    if type(error).__module__.startswith("sqlalchemy.") and hasattr(error, "orig"):
        return f"The database of runs, mlruns/mlflow.db, or one of studies cannot be used: {error.orig}"
    # Raised for a person by whoever could not go on; what merely wraps another error says nothing of its own.
    if isinstance(error, DatasetError) and error.__cause__ is None:
        return str(error)
    if isinstance(error, ValueError | LookupError | AttributeError | ImportError) and _origin(error).startswith(
        REFUSING
    ):
        return f"{error}\n{SEE}"
    return None


def _explain_system(error: OSError) -> str | None:
    """Of a file or a folder; other errors of the system are no one's mistake here."""
    if error.filename is None or error.strerror is None:
        return None
    if isinstance(error, FileNotFoundError):
        return f"{error.filename} is not there: run what makes it first, or the pipeline as a whole."
    return f"{error.filename} cannot be used: {error.strerror}."


def _origin(error: BaseException) -> str:
    """The module that raised an error."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return str(frames[-1][0].f_globals.get("__name__", "")) if frames else ""
