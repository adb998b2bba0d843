"""The commands of `kedro mlflow-run`: one MLflow run for a pipeline whose boxes run as processes of their own."""

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from kedro.framework.cli.project import run as kedro_run
from kedro.framework.startup import ProjectMetadata

from churn_pipeline.command_errors import Group
from churn_pipeline.installation import conf_source

if TYPE_CHECKING:
    from kedro.framework.context import KedroContext
    from kedro.pipeline import Pipeline

RUN_ID = "MLFLOW_RUN_ID"
# As in `kedro run`, which parses them.
_OPTIONS = {option.name: option for option in kedro_run.params}
_CHOICES = ("pipelines", "env", "params")


def _with_choices(command: click.Command) -> click.Command:
    command.params += [_OPTIONS[name] for name in _CHOICES]
    return command


@click.group("mlflow-run", cls=Group)
def mlflow_run() -> None:
    r"""Record the processes of one pipeline in one MLflow run.

    An orchestrator starts the run, gives its id to each process as MLFLOW_RUN_ID, and ends it:

    \b
      export MLFLOW_RUN_ID=$(kedro mlflow-run start --pipelines training)
      kedro mlflow-run tasks --pipelines training     # the commands, in order
      kedro mlflow-run end

    A process that fails marks the run as FAILED and leaves it open: run the same command again.
    """


@_with_choices
@mlflow_run.command()
@click.pass_obj
def start(metadata: ProjectMetadata, /, pipelines: list[str], env: str | None, params: dict[str, Any]) -> None:
    """Start an MLflow run for all tasks of the pipelines, and print its id and nothing else.

    Give each task the same --env and --params.
    """
    os.environ.pop(RUN_ID, None)
    # MLflow prints the run's address.
    with redirect_stdout(sys.stderr), open_context(metadata, env, params) as context:
        run_id = _start(context, list(dict.fromkeys(pipelines)), params)
    click.echo(run_id)


@_with_choices
@mlflow_run.command()
@click.pass_obj
def tasks(metadata: ProjectMetadata, /, pipelines: list[str], env: str | None, params: dict[str, Any]) -> None:
    """Print a command for each box of the pipelines, in an order in which they can run."""
    from churn_pipeline.task_runs import combine

    with open_context(metadata, env, params):
        names = list(dict.fromkeys(pipelines))
        options = {"--pipelines": ",".join(names), "--env": env, "--params": ",".join(_flat("", params))}
        for box in task_options(combine(names)):
            given = [word for option, value in options.items() if value for word in (option, value)]
            click.echo(shlex.join(["kedro", "run", *given, *box]))


@mlflow_run.command()
@click.argument("run", envvar=RUN_ID)
@click.option(
    "--status",
    type=click.Choice(["FINISHED", "FAILED", "KILLED"]),
    default="FINISHED",
    show_default=True,
    help="How the run ended.",
)
@click.pass_obj
def end(metadata: ProjectMetadata, /, run: str, status: str) -> None:
    """End the MLflow RUN (its id; MLFLOW_RUN_ID by default), and complete its record.

    A run whose pipelines register or package a model can be FINISHED only after they have done so.
    """
    import mlflow

    from churn_pipeline.task_runs import runtime_params_of
    from churn_pipeline.tracking import find_run
    from churn_pipeline.tracking_server import check_servers

    os.environ.pop(RUN_ID, None)
    with open_context(metadata, None, {}):
        check_servers(mlflow.get_tracking_uri())
        found = find_run(run)
    environment = found.data.tags.get("environment", "local")
    with open_context(metadata, None if environment == "local" else environment, runtime_params_of(found)) as context:
        _end(context, run, status)


@contextmanager
def open_context(metadata: ProjectMetadata, env: str | None, params: dict[str, Any]) -> "Iterator[KedroContext]":
    """Open a session and yield the project's context."""
    from kedro.framework.session import KedroSession

    project = Path(metadata.project_path)
    session = KedroSession.create(project, conf_source=conf_source(project), env=env, runtime_params=params)
    with session:
        yield session.load_context()


def _start(context: "KedroContext", names: list[str], params: dict[str, Any]) -> str:
    """Open a run as `kedro run` of these pipelines does, and leave it."""
    import mlflow
    from kedro import __version__
    from kedro.framework.project import settings
    from kedro.io import DataCatalog
    from kedro.pipeline import Pipeline

    from churn_pipeline.contract.errors import ProjectError
    from churn_pipeline.hooks import RecordHooks
    from churn_pipeline.task_runs import combine
    from churn_pipeline.tracking import TrackingHook

    combine(names)
    options = {option: None for option in _OPTIONS if option not in _CHOICES} | {
        "env": context.env,
        "kedro_version": __version__,
        "pipeline_names": names,
        "runtime_params": params,
    }
    for kind in (TrackingHook, RecordHooks):
        hook = next(hook for hook in settings.HOOKS if isinstance(hook, kind))
        given = (options, Pipeline([]), DataCatalog()) if isinstance(hook, TrackingHook) else ()
        hook.before_pipeline_run(*given)
    active = mlflow.active_run()
    if active is None:
        raise ProjectError(f"The pipelines {', '.join(names)}", "are not recorded in MLflow (see conf/base/mlflow.yml)")
    mlflow.end_run("RUNNING")
    return str(active.info.run_id)


def _end(context: "KedroContext", run_id: str, status: str) -> None:
    import mlflow

    from churn_pipeline.configuration import TableConfigLoader
    from churn_pipeline.task_runs import check_complete, describe_run

    loader = context.config_loader
    assert isinstance(loader, TableConfigLoader)
    if status == "FINISHED":
        check_complete(mlflow.get_run(run_id))
    mlflow.set_experiment(experiment_id=mlflow.get_run(run_id).info.experiment_id)  # whatever the variables name
    mlflow.start_run(run_id=run_id)
    describe_run(run_id, loader)
    mlflow.end_run(status)


def task_options(pipeline: "Pipeline") -> Iterator[list[str]]:
    """Yield the options of ``kedro run`` that choose each box, after the boxes that it depends on."""
    groups = {group.name: group for group in pipeline.group_nodes_by("namespace")}
    for name in TopologicalSorter({name: group.dependencies for name, group in groups.items()}).static_order():
        yield ["--namespaces" if groups[name].type == "namespace" else "--nodes", name]


def _flat(prefix: str, value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(f"{prefix}.{key}" if prefix else str(key), inner)
    else:
        yield f"{prefix}={'null' if value is None else value}"
