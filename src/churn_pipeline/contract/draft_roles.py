"""Guesses the roles of a drafted table's columns: id, date, protected attributes, and columns to ignore."""

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from churn_pipeline.contract import draft_names as names
from churn_pipeline.contract.draft_copies import copies_of_target
from churn_pipeline.contract.draft_target import GuessedTarget, OptionError, check_column, guess_target
from churn_pipeline.contract.guesses import MAX_LEVELS, MAX_PERSONAL_LEVELS, DraftedColumn

MAX_REPEATED_SHARE = 0.05
# As the chosen id: the table has none
NO_ID = ("none", "-")


@dataclass(frozen=True)
class Choices:
    """Roles chosen by a person instead of guessed.

    ``positive`` is the text of the value. An ``id`` of ``none`` or ``-`` means that the table has no id, unless it has a column
    of that name.
    """

    target: str | None = None
    positive: str | None = None
    id: str | None = None

    def decline_id(self, columns: Iterable[str]) -> bool:
        """Whether a person said that the table with these columns has no id."""
        return self.id is not None and self.id.lower() in NO_ID and self.id not in columns


@dataclass(frozen=True)
class GuessedRoles:
    """The roles of a draft; ``ignored`` gives the reason for each column."""

    target: GuessedTarget
    id: str | None
    date: str | None
    protected: list[str]
    ignored: dict[str, str]
    choices: Choices

    def features(self, columns: dict[str, DraftedColumn]) -> list[str]:
        """The columns without a role."""
        taken = {self.target.column, self.id, self.date, *self.protected, *self.ignored}
        return [name for name in columns if name not in taken]


def guess_roles(columns: dict[str, DraftedColumn], choices: Choices) -> GuessedRoles:
    """Guess the roles of all columns from their names and cells.

    Raises
    ------
    TableError
        When no column can be the target, or a choice does not fit the table.
    """
    target = guess_target(columns, choices.target, choices.positive)
    ignored = dict(copies_of_target(columns, target))
    if choices.id is not None and not choices.decline_id(columns):
        _check_id(choices.id, columns, target)
        ignored.pop(choices.id, None)
    identity, date = _guess_key(columns, target, choices, ignored)
    for name, drafted in columns.items():
        if name not in (target.column, identity, date) and name not in ignored:
            reason = reason_to_ignore(name, drafted)
            if reason and not (names.is_protected(name) and drafted.column.kind != "date"):
                ignored[name] = reason
    taken = {target.column, identity, date, *ignored}
    protected = [name for name in columns if names.is_protected(name) and name not in taken]
    in_order = {name: ignored[name] for name in columns if name in ignored}
    return GuessedRoles(target, identity, date, protected, in_order, choices)


def _check_id(name: str, columns: dict[str, DraftedColumn], target: GuessedTarget) -> None:
    check_column("--id", name, columns)
    if name == target.column:
        raise OptionError(f"--id {name}", "is the target: choose another column")
    if columns[name].cells.isna().any():
        raise OptionError(f"--id {name}", "cannot be the id: some of its cells are empty")


def _guess_key(
    columns: dict[str, DraftedColumn], target: GuessedTarget, choices: Choices, ignored: dict[str, str]
) -> tuple[str | None, str | None]:
    """The id and the date of a row. An id that is repeated for other reasons than the date is added to ``ignored``."""
    if choices.decline_id(columns):
        return None, None
    dates = [name for name, drafted in columns.items() if drafted.column.kind == "date" and name not in ignored]
    date = next((name for name in dates if not columns[name].column.nullable), None)
    candidates = [choices.id] if choices.id else _id_candidates(columns, target, ignored)
    for name in candidates:
        if columns[name].is_unique:
            return name, None
        if choices.id or _repeated_share(columns, name, date) <= MAX_REPEATED_SHARE:
            return name, date
        ignored[name] = "an id that is repeated, without a date that tells its rows apart"
    return None, None


def _id_candidates(columns: dict[str, DraftedColumn], target: GuessedTarget, ignored: dict[str, str]) -> list[str]:
    """Columns that can be the id, the likeliest first."""
    ranked = {name: _id_rank(name, drafted) for name, drafted in columns.items()}
    likely = [name for name, rank in ranked.items() if rank and name != target.column and name not in ignored]
    return sorted(likely, key=lambda name: ranked[name] or 0)


def _id_rank(name: str, drafted: DraftedColumn) -> int | None:
    if drafted.column.dtype not in ("str", "int64") or drafted.cells.isna().any():
        return None
    text = names.words(name)
    if names.ROW_NUMBER.search(text):
        return 5 if drafted.is_unique else None
    if names.CUSTOMER_ID.search(text) and drafted.distinct > len(drafted.cells) / 50:
        return 1
    if names.ID.search(text) and not names.PLACE_CODE.search(text) and drafted.distinct > len(drafted.cells) / 2:
        return 2
    if not drafted.is_unique or names.PLACE_CODE.search(text) or names.is_protected(name):
        return None
    if drafted.column.dtype == "str":
        return None if _has_blanks(drafted) else 3
    if names.QUANTITY.search(text):
        return None
    return 5 if drafted.counts_rows else 4


def _has_blanks(drafted: DraftedColumn) -> bool:
    return bool(drafted.cells.str.strip().str.contains(r"\s").mean() > 0.5)


def _repeated_share(columns: dict[str, DraftedColumn], *key: str | None) -> float:
    """Share of rows whose id, or id and date, is not unique."""
    cells = pd.DataFrame({name: columns[name].cells for name in key if name})
    return float(cells.duplicated(keep=False).mean())


def reason_to_ignore(name: str, drafted: DraftedColumn) -> str | None:
    """Why a column can hardly be a feature: a date, a row number, an id or free text; None if it can be one."""
    text = names.words(name)
    if drafted.column.kind == "date":
        return "a date"
    if drafted.column.dtype == "int64" and drafted.is_unique:
        if names.ROW_NUMBER.search(text):
            return "a row number"
        if names.QUANTITY.search(text) and not names.CUSTOMER_ID.search(text):
            return None
        return "a row number" if drafted.counts_rows else "different in every row, like an id"
    if drafted.column.dtype != "str" or drafted.column.isin is not None:
        return None
    rows = len(drafted.cells)
    if drafted.distinct > 0.5 * rows:
        return "free text, or different in nearly every row"
    is_code = names.PLACE_CODE.search(text) or drafted.is_code
    if names.PERSONAL_TEXT.search(text) and drafted.distinct > MAX_PERSONAL_LEVELS:
        return "names or free text"
    if drafted.distinct > max(MAX_LEVELS, 0.2 * rows) and not is_code:
        return "free text, or different in many rows"
    return None
