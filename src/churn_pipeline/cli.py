"""Project commands in addition to Kedro's, and a ``kedro run`` with readable error messages."""

import sys
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from kedro.framework.cli.project import run as kedro_run
from kedro.framework.startup import ProjectMetadata

from churn_pipeline.command_errors import Group, RunCommand
from churn_pipeline.installation import CONF_SOURCE
from churn_pipeline.run_commands import mlflow_run, open_context
from churn_pipeline.runners import refuse_async
from churn_pipeline.table_commands import table

if TYPE_CHECKING:
    from churn_pipeline.configuration import TableConfigLoader


@click.group(name="churn_pipeline", cls=Group)
def cli() -> None:
    """Customer churn: tables, training, evaluation."""


def _with_variable(option: click.Parameter) -> click.Parameter:
    """The option ``--conf-source`` with CHURN_CONF_SOURCE as its default, which the other commands read too."""
    if option.name != "conf_source":
        return option
    changed = copy(option)
    changed.envvar = CONF_SOURCE
    return changed


def _run(**options: Any) -> Any:
    assert kedro_run.callback is not None
    # Before anything is started; `RunnerHooks` refuses the same in a session.
    refuse_async(bool(options["is_async"] or options["runner_params"].get("is_async")))
    return kedro_run.callback(**options)


_OPTIONS = [_with_variable(option) for option in kedro_run.params]
run = RunCommand(kedro_run.name, params=_OPTIONS, callback=_run, help=kedro_run.help)
cli.add_command(run)
cli.add_command(table)
cli.add_command(mlflow_run)


def _configure_tracking(metadata: ProjectMetadata, **params: Any) -> "TableConfigLoader":
    """Point MLflow at the configured store, check the server, and return the configuration."""
    import mlflow

    from churn_pipeline.configuration import TableConfigLoader
    from churn_pipeline.tracking_server import check_servers

    # kedro-mlflow configures MLflow when a context is loaded.
    with open_context(metadata, None, params) as context:
        check_servers(mlflow.get_tracking_uri(), mlflow.get_registry_uri())
        loader = context.config_loader
        assert isinstance(loader, TableConfigLoader)
        return loader


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
@click.option(
    "--force", is_flag=True, help="Promote a version that did not pass the gate, or whose verdict is superseded."
)
@click.option("--reset-anchor", is_flag=True, help="Make this version the anchor, whatever its verdict.")
@click.pass_obj
def promote(metadata: ProjectMetadata, name: str, version: int | None, force: bool, reset_anchor: bool) -> None:
    """Make the challenger of the table NAME its champion. Training never promotes a model."""
    from churn_pipeline.promotion import promote_version

    model = _configure_tracking(metadata, table=name).name_of("model")
    promote_version(name, model, version, force, reset_anchor)


@cli.command("rotate-holdout")
@click.argument("name")
@click.pass_obj
def rotate_holdout(metadata: ProjectMetadata, name: str) -> None:
    """Hold out other customers of the table NAME, and refit anchor, champion and challenger without them.

    The models keep their settings; nothing is searched. The table's file records the rotation.
    """
    from churn_pipeline.rotation import rotate

    _configure_tracking(metadata)
    versions = rotate(metadata.project_path, name)
    refitted = ", ".join(f"{alias} is version {version}" for alias, version in versions.items())
    click.echo(f"Table '{name}' holds out other customers now. Refitted: {refitted or 'nothing, there is no version'}.")


@cli.command("verify-bundle")
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--key",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File of the public key (PEM) that belongs to the private key of the signature.",
)
def verify(path: Path, key: Path) -> None:
    """Check that a bundle is signed and can be served; PATH is its folder, a Bento's folder or a .bento file.

    The service checks the same at its start, if CHURN_SERVING_SIGNATURE_KEY is set.
    """
    from churn_pipeline.serving.bundle import BundleError
    from churn_pipeline.verification import verify_bundle

    try:
        manifest = verify_bundle(path, key)
    except BundleError as error:
        raise click.ClickException(f"{path}: {error}") from None
    click.echo(f"The bundle is signed by this key: {manifest.model_name} version {manifest.model_version}.")
