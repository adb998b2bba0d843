"""Commands of this project beside Kedro's own, and a ``kedro run`` whose errors are for people."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from kedro.framework.cli.project import run as kedro_run
from kedro.framework.startup import ProjectMetadata

from churn_pipeline.mistakes import Group, RunCommand

if TYPE_CHECKING:
    from kedro.framework.context import KedroContext


@click.group(name="churn_pipeline", cls=Group)
def cli() -> None:
    """Customer churn: tables, training, evaluation."""


run = RunCommand(kedro_run.name, params=kedro_run.params, callback=kedro_run.callback, help=kedro_run.help)
cli.add_command(run)


@contextmanager
def _context(metadata: ProjectMetadata, **params: Any) -> "Iterator[KedroContext]":
    """The project's context."""
    from kedro.framework.session import KedroSession

    with KedroSession.create(metadata.project_path, runtime_params=params) as session:
        yield session.load_context()  # type: ignore[attr-defined]


def _find_store(metadata: ProjectMetadata) -> None:
    """Point MLflow at the store in use: kedro-mlflow does so when a context is loaded."""
    with _context(metadata):
        pass


@cli.group(cls=Group)
def table() -> None:
    """Customer tables: draft a table's file, check it, write its page."""


@table.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", help="The table's name; the file's own where none is given.")
@click.option("--shared", is_flag=True, help="Write to conf/base/tables, to be committed; else to conf/local/tables.")
@click.option("--force", is_flag=True, help="Write over a table file that is there already.")
@click.pass_obj
def draft(metadata: ProjectMetadata, file: Path, name: str | None, shared: bool, force: bool) -> None:
    """Draft the table file of a CSV or Parquet FILE: types, bounds, levels, what is missing, guessed roles."""
    from churn_pipeline.contract import draft as drafting
    from churn_pipeline.contract.schema import read_contract

    name = name or "".join(letter if letter.isalnum() else "_" for letter in file.stem).lower()
    target = metadata.project_path / "conf" / ("base" if shared else "local") / "tables" / f"{name}.yml"
    if target.exists() and not force:
        raise click.ClickException(f"{_shown(target)} is there already: edit it, or draft anew with --force")
    content, source = drafting.read_for_draft(file.resolve())
    text = drafting.draft(content, source)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    contract = read_contract(target)
    roles = contract.roles
    click.echo(f"Drafted {_shown(target)} from {len(content):,} rows and {content.shape[1]} columns.")
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
    """Read the table NAME and hold every row to its contract, without training."""
    from churn_pipeline.contract.validation import validate_table

    with _context(metadata, table=name) as context:
        catalog = context.catalog
        contract = catalog.load("contract")
        held = validate_table(catalog.load("raw_customers"), contract)
    click.echo(
        f"{len(held.customers) + len(held.quarantine):,} rows: {len(held.customers):,} keep the contract, "
        f"{len(held.quarantine):,} break it."
    )
    for finding in held.findings:
        click.echo(f"  - {finding}")
    sys.exit(1 if held.findings else 0)


@table.command()
@click.argument("name")
@click.pass_obj
def page(metadata: ProjectMetadata, name: str) -> None:
    """Print the page of the table NAME in Markdown: columns, rules and roles, from its contract."""
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
@click.option(
    "--data", type=click.Path(exists=True, path_type=Path), help="The raw table, where it lies elsewhere now."
)
@click.pass_obj
def reproduce(metadata: ProjectMetadata, run: str, data: Path | None) -> None:
    """Rebuild the MLflow RUN (its id, or a file record.json of it) from its commit, lock and data, and compare."""
    from churn_pipeline.reproduce import ReproduceError, main

    _find_store(metadata)
    try:
        sys.exit(main(run, metadata.project_path, data))
    except ReproduceError as error:
        raise click.ClickException(str(error)) from None


@cli.command()
@click.argument("name")
@click.option("--version", type=int, help="This version and not the challenger: how one rolls back.")
@click.option("--force", is_flag=True, help="Promote it although the gate did not pass it.")
@click.pass_obj
def promote(metadata: ProjectMetadata, name: str, version: int | None, force: bool) -> None:
    """Make the challenger of the table NAME its champion. Training never does: it is a decision apart."""
    import mlflow

    _find_store(metadata)
    client, model = mlflow.MlflowClient(), f"churn_{name}"
    try:
        chosen = (
            client.get_model_version_by_alias(model, "challenger")
            if version is None
            else client.get_model_version(model, str(version))
        )
    except mlflow.exceptions.MlflowException:
        if version is None:
            raise click.ClickException(f"There is no challenger of table '{name}': train it first.") from None
        raise click.ClickException(f"{model} has no version {version}: `kedro mlflow ui` shows which it has.") from None
    verdict = chosen.tags.get("gate", "unknown")
    if verdict not in ("first", "better", "no worse") and not force:
        raise click.ClickException(
            f"The gate says '{verdict}' of version {chosen.version}: not promoted (--force does it)."
        )
    client.set_registered_model_alias(model, "champion", chosen.version)
    click.echo(f"Version {chosen.version} of {model} is the champion now (gate: {verdict}).")
