"""Drafts a table file from data, for a person to check and edit. Guesses are marked."""

import csv
import re
from pathlib import Path
from typing import Any

import pandas as pd

from churn_pipeline.contract.draft_roles import Choices, guess_roles
from churn_pipeline.contract.draft_text import file_text, quoted
from churn_pipeline.contract.errors import TableError
from churn_pipeline.contract.guesses import draft_column

# Words for a missing value, in lower case
NA_VALUES = (
    *("na", "n/a", "n.a.", "#n/a", "nan", "null", "none", "nil", "?", "-", "--", ".", "unknown", "missing"),
    *("not available", "not applicable", "undefined", "empty"),
)
# Words among numbers that are values, not missing ones
VALUES = ("unlimited", "never", "zero", "no", "yes", "free", "infinite", "inf", "infinity", "true", "false", "all")
MAX_STRAY_SHARE = 0.05
MIN_NUMBERS = 10
GUESS_ALL = Choices()


def read_for_draft(path: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read a CSV or Parquet file unchanged, and return the Kedro dataset that reads it.

    Returns
    -------
    table : pandas.DataFrame
    source : dict
        Configuration of the Kedro dataset.

    Raises
    ------
    TableError
        When the file does not exist, is neither CSV nor Parquet, or has no rows.
    """
    if path.suffix.lower() in (".parquet", ".pq"):
        return _read_parquet(path), {"type": "pandas.ParquetDataset", "filepath": str(path)}
    arguments: dict[str, Any] = {"dtype": "str", "keep_default_na": False}
    try:
        try:
            head = path.read_text(encoding="utf-8-sig")[:20_000]
        except UnicodeDecodeError:
            arguments["encoding"] = "latin-1"
            head = path.read_text(encoding="latin-1")[:20_000]
        if "\x00" in head:
            raise TableError(f"The file {path.name}", "is not a text file: give a CSV or Parquet file")
        separator = _separator(head)
        if separator != ",":
            arguments["sep"] = separator
        table = pd.read_csv(path, **arguments)
    except FileNotFoundError:
        raise TableError(f"The file {path.name}", "does not exist") from None
    except (pd.errors.EmptyDataError, pd.errors.ParserError) as error:
        raise TableError(f"The file {path.name}", f"cannot be read as one table: {error}") from None
    if table.empty:
        raise TableError(f"The file {path.name}", "has no rows")
    words = {str(name): found for name in table if (found := _na_values(table[name]))}
    if words:
        arguments["na_values"] = words
        for name, found in words.items():
            table[name] = table[name].mask(table[name].isin(found))
    return table, {"type": "pandas.CSVDataset", "filepath": str(path), "load_args": arguments}


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_parquet(path)
    except FileNotFoundError:
        raise TableError(f"The file {path.name}", "does not exist") from None
    except (OSError, ValueError):
        raise TableError(f"The file {path.name}", "is not a Parquet file, or is truncated") from None
    if table.empty:
        raise TableError(f"The file {path.name}", "has no rows")
    return table


def _separator(head: str) -> str:
    try:
        return csv.Sniffer().sniff(head, delimiters=",;\t|").delimiter
    except csv.Error:
        return ","


def _na_values(cells: pd.Series) -> list[str]:
    """Words for missing values in a column that otherwise holds numbers, as they are written in the file."""
    text = cells.dropna().astype(str)
    stripped = text.str.strip()
    filled = stripped[stripped != ""]
    numeric = pd.to_numeric(filled, errors="coerce").notna() & ~filled.str.lower().isin(NA_VALUES)
    others = set(filled[~numeric].unique())
    if not others or not numeric.any():
        return []
    strays = {word for word in others if word.lower() not in NA_VALUES}
    if strays and not _is_stray_word(strays, filled, numeric):
        return []
    return sorted(text[stripped.isin(others)].unique())


def _is_stray_word(strays: set[str], filled: pd.Series, numeric: pd.Series) -> bool:
    """Whether a single unusual word stands in a few cells among many different numbers."""
    (word, *more) = strays
    return (
        not more
        and bool(re.fullmatch(r"[^\W\d_]+", word))
        and word.lower() not in VALUES
        and float((filled == word).mean()) <= MAX_STRAY_SHARE
        and filled[numeric].nunique() >= MIN_NUMBERS
    )


def draft(table: pd.DataFrame, source: dict[str, Any], choices: Choices = GUESS_ALL) -> str:
    """The YAML text of a table file for this table: types, bounds, levels, missing values, and guessed roles.

    Parameters
    ----------
    table
        The raw table.
    source
        Configuration of the Kedro dataset that reads it.
    choices
        Roles that are given instead of guessed.

    Raises
    ------
    TableError
        When no column can be the target, or a choice does not fit the table.
    """
    columns = {str(name): draft_column(table[name]) for name in table}
    for name, words in source.get("load_args", {}).get("na_values", {}).items():
        columns[name].remarks.append(f"{', '.join(map(quoted, words))} counts as missing")
    roles = guess_roles(columns, choices)
    target = columns[roles.target.column]
    target.column = target.column.model_copy(update={"nullable": False})
    return file_text(source, columns, roles)
