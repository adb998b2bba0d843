"""The commands of `kedro table`: draft a table's file, check the table, print its page."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click
from kedro.framework.startup import ProjectMetadata

from churn_pipeline.command_errors import Group
from churn_pipeline.installation import conf_source

if TYPE_CHECKING:
    import pandas as pd


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
@click.option("--id", help="Column that identifies a customer, instead of a guess; none if there is none.")
@click.option("--sheet", help="Sheet of an Excel workbook; defaults to the first.")
@click.pass_obj
def draft(
    metadata: ProjectMetadata,
    /,
    file: Path,
    name: str | None,
    shared: bool,
    force: bool,
    sheet: str | None,
    **choices: str | None,
) -> None:
    """Draft a table file from a CSV, Excel or Parquet FILE: types, bounds, levels, missing values, guessed roles.

    FILE can also be a YAML file with a `source`, such as a database table.
    """
    from churn_pipeline.contract import draft as drafting
    from churn_pipeline.contract.draft_roles import Choices

    name = name or _name_of(file)
    path = _new_file(metadata, name, shared=shared, force=force)
    if file.suffix in (".yml", ".yaml"):
        content, source = _read_source(metadata.project_path, file)
    else:
        content, source = drafting.read_for_draft(file.resolve(), sheet)
    _write(path, drafting.draft(content, source, Choices(**choices)), name, f"{len(content):,} rows")


@table.command()
@click.option("--force", is_flag=True, help="Overwrite an existing table file.")
@click.pass_obj
def new(metadata: ProjectMetadata, /, force: bool) -> None:
    """Ask for file, target, churned value, id and costs, with guesses as defaults, and draft a table file."""
    from churn_pipeline import table_questions as questions

    file = questions.ask_file()
    name = click.prompt("Name of the table", default=_name_of(file))
    path = _new_file(metadata, name, shared=False, force=force)
    content, text = questions.ask(file.resolve())
    _write(path, text, name, f"{len(content):,} rows")


def _read_source(project: Path, file: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Load the raw table that a YAML file's ``source`` describes, with the project's credentials."""
    from kedro.io import DataCatalog
    from omegaconf import OmegaConf

    from churn_pipeline.configuration import LOADER_ARGS, TableConfigLoader, parse_table
    from churn_pipeline.contract.errors import TableError

    loader = TableConfigLoader(str(project / "conf"), env=os.environ.get("KEDRO_ENV"), **LOADER_ARGS)
    credentials = loader["credentials"]  # before the file is read, because this registers the resolvers
    content = parse_table(file.name, file.read_text(encoding="utf-8")) if file.is_file() else {}
    if "source" not in content:
        raise TableError(f"The file {file.name}", "does not exist or has no key `source`: write one into it")
    source = OmegaConf.to_container(content["source"], resolve=True)
    entry = {"type": "churn_pipeline.datasets.RawTableDataset", "dataset": source}
    raw = DataCatalog.from_config({"raw": entry}, credentials).load("raw")
    return raw, cast(dict[str, Any], OmegaConf.to_container(content["source"]))


def _new_file(metadata: ProjectMetadata, name: str, *, shared: bool, force: bool) -> Path:
    path: Path = metadata.project_path / "conf" / ("base" if shared else "local") / "tables" / f"{name}.yml"
    if path.exists() and not force:
        raise click.ClickException(f"{_shown(path)} already exists: edit it, or overwrite it with --force")
    return path


def _write(path: Path, text: str, name: str, rows: str) -> None:
    """Write a drafted table file, and say what was guessed and what comes next."""
    from churn_pipeline.contract.schema import read_contract

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    contract = read_contract(path)
    roles = contract.roles
    click.echo(f"Drafted {_shown(path)} from {rows} and {len(contract.columns)} columns.")
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
    from churn_pipeline.configuration import LOADER_ARGS, TableConfigLoader
    from churn_pipeline.contract.page import contract_page
    from churn_pipeline.contract.schema import read_contract

    loader = TableConfigLoader(conf_source(metadata.project_path), runtime_params={"table": name}, **LOADER_ARGS)
    click.echo(contract_page(read_contract(loader.table_file)), nl=False)


def _name_of(file: Path) -> str:
    """The table's name from its file's, without the suffix of its kind and of its compression."""
    stem = Path(file.stem).stem if file.suffix.lower() in (".zip", ".gz", ".bz2", ".xz", ".zst") else file.stem
    return "".join(letter if letter.isalnum() else "_" for letter in stem).lower()


def _shown(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
