"""The questions of `kedro table new`: file, target, churned value, id and costs, each with a guess as its default."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import click
import pandas as pd

from churn_pipeline.contract import draft_names as names
from churn_pipeline.contract.draft import draft, read_for_draft, sheets, typed_columns
from churn_pipeline.contract.draft_roles import NO_ID, Choices, GuessedRoles, guess_roles
from churn_pipeline.contract.draft_target import OptionError
from churn_pipeline.contract.draft_text import quoted
from churn_pipeline.contract.errors import TableError
from churn_pipeline.contract.guesses import DraftedColumn

NONE = NO_ID[0]
ID_QUESTION = f"Column that identifies a customer ({' or '.join(NO_ID)} if there is none)"
NUMBER = re.compile(r"0*[1-9]\d*(\.\d+)?|0*\.0*[1-9]\d*|0+\.0*[1-9]\d*")
AMOUNT = click.FloatRange(min=0)
POSITIVE = click.FloatRange(min=0, min_open=True)
SHARE = click.FloatRange(min=0, max=1, min_open=True)
COSTS = re.compile(r"^# costs:.*\n(?:#  .*\n)*", re.MULTILINE)


def ask_file() -> Path:
    """Ask for the file until there is one."""
    asked: Path = click.prompt(
        "File with the customers (CSV, Excel, Parquet)", type=click.Path(exists=True, dir_okay=False, path_type=Path)
    )
    return asked


def ask(file: Path) -> tuple[pd.DataFrame, str]:
    """Ask for sheet, roles and costs of the table in a file; an answer that does not fit repeats the question.

    Returns
    -------
    table : pandas.DataFrame
        The raw table.
    text : str
        The table file.
    """
    table, source = read_for_draft(file, _ask_sheet(file))
    columns = typed_columns(table, source)
    target = _ask("Column that says who churned", columns, Choices(), lambda guess: guess.target.column, "target")
    positive = _ask("Its value for churned customers", columns, target, lambda guess: guess.target.positive, "positive")
    chosen = _ask(ID_QUESTION, columns, positive, lambda guess: guess.id or NONE, "id")
    costs = _ask_costs(columns, guess_roles(columns, chosen))
    return table, COSTS.sub(lambda _: costs, draft(table, source, chosen), count=1)


def _ask_sheet(file: Path) -> str | None:
    """Ask for the sheet of a workbook with several sheets."""
    known = sheets(file)
    if len(known) <= 1:
        return None
    asked: str = click.prompt("Sheet with the customers", default=known[0], type=click.Choice(known))
    return asked


def _ask(
    question: str,
    columns: dict[str, DraftedColumn],
    chosen: Choices,
    guess: Callable[[GuessedRoles], object],
    key: Literal["target", "positive", "id"],
) -> Choices:
    """Ask one question until the answer fits the table, and return the choices with it."""
    try:
        default = str(guess(guess_roles(columns, chosen)))
    except TableError:  # no column can be the target
        default = None
    while True:
        answer = click.prompt(question, default=default)
        if answer == default == NONE:
            return chosen
        answered = replace(chosen, **{key: answer})
        try:
            guess_roles(columns, answered)
        except OptionError as error:
            click.echo(str(error).removeprefix("--"))
        else:
            return answered


def _ask_costs(columns: dict[str, DraftedColumn], roles: GuessedRoles) -> str:
    """Ask for the cost model, and return its lines in the table file."""
    numeric = [name for name in columns if columns[name].column.kind == "numeric" and name not in roles.ignored]
    default = next((name for name in numeric if names.MONEY.search(names.words(name))), "500")
    value = _ask_value(numeric, default)
    if value in numeric:
        months = click.prompt("Months that a saved customer stays", default=12.0, type=POSITIVE)
        value = f"{{column: {quoted(value)}, months: {months:g}}}"
    offer = click.prompt("Cost of an accepted offer", default=50.0, type=AMOUNT)
    contact = click.prompt("Cost of a contact", default=5.0, type=AMOUNT)
    acceptance = click.prompt("Share of contacted churners who accept and stay", default=0.3, type=SHARE)
    currency = click.prompt("Currency", default="€")
    return (
        f"costs:\n  value: {value}  # what a saved customer is worth\n  offer_cost: {offer:g}  # per accepted offer\n"
        f"  contact_cost: {contact:g}  # per contact\n  acceptance: {acceptance:g}\n  currency: {quoted(currency)}\n"
    )


def _ask_value(numeric: list[str], default: str) -> str:
    while True:
        answer: str = click.prompt("What a saved customer is worth: a number, or a column per month", default=default)
        if answer in numeric or NUMBER.fullmatch(answer):
            return answer
        click.echo(
            f"{answer} is neither a positive number nor a numeric column: {', '.join(numeric) or 'there is none'}"
        )
