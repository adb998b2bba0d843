"""Project commands in addition to Kedro's, and a ``kedro run`` with readable error messages."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from kedro.framework.cli.project import run as kedro_run
from kedro.framework.startup import ProjectMetadata

from churn_pipeline.command_errors import Group, RunCommand
from churn_pipeline.table_commands import table

if TYPE_CHECKING:
    from kedro.framework.context import KedroContext


@click.group(name="churn_pipeline", cls=Group)
def cli() -> None:
    """Customer churn: tables, training, evaluation."""


run = RunCommand(kedro_run.name, params=kedro_run.params, callback=kedro_run.callback, help=kedro_run.help)
cli.add_command(run)
cli.add_command(table)


@contextmanager
def _context(metadata: ProjectMetadata, **params: Any) -> "Iterator[KedroContext]":
    """Open a session and yield the project's context."""
    from kedro.framework.session import KedroSession

    session = KedroSession.create(metadata.project_path, runtime_params=params)
    with session:
        yield session.load_context()


def _configure_tracking(metadata: ProjectMetadata) -> None:
    """Point MLflow at the configured store; kedro-mlflow does that when a context is loaded."""
    with _context(metadata):
        pass


@cli.command()
@click.argument("run")
@click.option("--data", type=click.Path(exists=True, path_type=Path), help="Path of the raw table, if it has moved.")
@click.pass_obj
def reproduce(metadata: ProjectMetadata, run: str, data: Path | None) -> None:
    """Rebuild an MLflow RUN (its id or its record.json) from its commit, lock file and data, and compare results."""
    from churn_pipeline.reproduce import ReproduceError, main

    _configure_tracking(metadata)
    try:
        sys.exit(main(run, metadata.project_path, data))
    except ReproduceError as error:
        raise click.ClickException(str(error)) from None


@cli.command()
@click.argument("name")
@click.option("--version", type=int, help="Promote this version instead of the challenger, for example to roll back.")
@click.option("--force", is_flag=True, help="Promote a version that did not pass the gate.")
@click.pass_obj
def promote(metadata: ProjectMetadata, name: str, version: int | None, force: bool) -> None:
    """Make the challenger of the table NAME its champion. Training never promotes a model."""
    import mlflow

    _configure_tracking(metadata)
    client, model = mlflow.MlflowClient(), f"churn_{name}"
    try:
        chosen = (
            client.get_model_version_by_alias(model, "challenger")
            if version is None
            else client.get_model_version(model, str(version))
        )
    except mlflow.exceptions.MlflowException:
        if version is None:
            raise click.ClickException(
                f"Table '{name}' has no challenger: train one first (kedro run --pipelines training)."
            ) from None
        raise click.ClickException(f"{model} has no version {version}: `kedro mlflow ui` lists its versions.") from None
    verdict = chosen.tags.get("gate", "unknown")
    if verdict not in ("first", "better", "no worse") and not force:
        raise click.ClickException(
            f"Version {chosen.version} was not promoted: its gate verdict is '{verdict}'. --force promotes it anyway."
        )
    client.set_registered_model_alias(model, "champion", chosen.version)
    click.echo(f"Version {chosen.version} of {model} is now the champion (gate: {verdict}).")
