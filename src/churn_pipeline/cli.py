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

if TYPE_CHECKING:
    from kedro.framework.context import KedroContext


@click.group(name="churn_pipeline", cls=Group)
def cli() -> None:
    """Customer churn: tables, training, evaluation."""


run = RunCommand(kedro_run.name, params=kedro_run.params, callback=kedro_run.callback, help=kedro_run.help)
cli.add_command(run)


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


@cli.group(cls=Group)
def table() -> None:
    """Draft a customer table's file, check the table, or print its page."""


@table.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", help="Name of the table; defaults to the file's name.")
@click.option("--shared", is_flag=True, help="Write to conf/base/tables (committed) instead of conf/local/tables.")
@click.option("--force", is_flag=True, help="Overwrite an existing table file.")
@click.option("--target", help="Column that says who churned, instead of a guess.")
@click.option("--positive", help="Value of the target that means churned, instead of a guess.")
@click.option("--id", help="Column that identifies a customer, instead of a guess.")
@click.pass_obj
def draft(
    metadata: ProjectMetadata, /, file: Path, name: str | None, shared: bool, force: bool, **choices: str | None
) -> None:
    """Draft a table file from a CSV or Parquet FILE: types, bounds, levels, missing values, guessed roles."""
    from churn_pipeline.contract import draft as drafting
    from churn_pipeline.contract.draft_roles import Choices
    from churn_pipeline.contract.schema import read_contract

    name = name or "".join(letter if letter.isalnum() else "_" for letter in file.stem).lower()
    path = metadata.project_path / "conf" / ("base" if shared else "local") / "tables" / f"{name}.yml"
    if path.exists() and not force:
        raise click.ClickException(f"{_shown(path)} already exists: edit it, or overwrite it with --force")
    content, source = drafting.read_for_draft(file.resolve())
    text = drafting.draft(content, source, Choices(**choices))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    contract = read_contract(path)
    roles = contract.roles
    click.echo(f"Drafted {_shown(path)} from {len(content):,} rows and {content.shape[1]} columns.")
    click.echo(
        f"Guessed: target '{roles.target.column}' (churn = {roles.target.positive!r}), id {roles.id or 'none'}, "
        f"protected {', '.join(roles.protected) or 'none'}, ignored {', '.join(roles.ignored) or 'none'}."
    )
    click.echo(
        f"Next: correct the file, then\n  kedro table check {name}\n"
        f"  kedro run --pipelines training --params table={name}"
    )


@table.command()
@click.argument("name")
@click.pass_obj
def check(metadata: ProjectMetadata, name: str) -> None:
    """Validate every row of the table NAME against its contract, without training."""
    from churn_pipeline.contract.validation import validate_table

    with _context(metadata, table=name) as context:
        catalog = context.catalog
        contract = catalog.load("contract")
        validated = validate_table(catalog.load("raw_customers"), contract)
    valid, invalid = len(validated.customers), len(validated.quarantine)
    click.echo(f"{valid + invalid:,} rows: {valid:,} valid, {invalid:,} invalid.")
    for finding in validated.findings:
        click.echo(f"  - {finding}")
    sys.exit(1 if validated.findings else 0)


@table.command()
@click.argument("name")
@click.pass_obj
def page(metadata: ProjectMetadata, name: str) -> None:
    """Print a Markdown page of the table NAME: its columns, rules and roles."""
    from churn_pipeline.contract.page import contract_page
    from churn_pipeline.contract.schema import read_contract

    folders = [metadata.project_path / "conf" / env / "tables" for env in ("local", "base")]
    file = next(
        (folder / f"{name}.yml" for folder in folders if (folder / f"{name}.yml").is_file()),
        folders[-1] / f"{name}.yml",
    )
    click.echo(contract_page(read_contract(file)), nl=False)


def _shown(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


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

    _configure_tracking(metadata)
    promote_version(name, version, force, reset_anchor)


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
