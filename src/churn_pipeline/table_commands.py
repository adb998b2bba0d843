"""The commands of `kedro table`: draft a table's file, check the table, print its page."""

import os
import sys
from pathlib import Path

import click
from kedro.framework.startup import ProjectMetadata

from churn_pipeline.command_errors import Group


@click.group(cls=Group)
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
    """Report what stops training on the table NAME, and what deserves a look. Ends with code 1 if something stops it."""
    from churn_pipeline.table_check import check_table

    checked = check_table(metadata.project_path, name, os.environ.get("KEDRO_ENV"))
    click.echo(str(checked))
    sys.exit(1 if checked.stops else 0)


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
