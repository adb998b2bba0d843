"""Drafts a table file from data, for a person to check and edit. Guesses are marked."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd

from churn_pipeline.contract.errors import TableError
from churn_pipeline.contract.guesses import DraftedColumn, GuessedRoles, draft_column, guess_roles

NA_VALUES = ("NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "?", "-")
UNPRINTABLE = re.compile(r"[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")  # YAML does not allow these


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
    words = sorted({word for name in table for word in _na_values(table[name])})
    if words:
        arguments["na_values"] = words
        table = table.mask(table.isin(words))
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


def _na_values(cells: pd.Series) -> set[str]:
    """Words for missing values in a column that otherwise holds numbers."""
    text = cells.dropna().astype(str).str.strip()
    words = set(text.unique()) & set(NA_VALUES)
    rest = text[~text.isin(words) & (text != "")]
    return words if words and len(rest) and pd.to_numeric(rest, errors="coerce").notna().all() else set()


def draft(table: pd.DataFrame, source: dict[str, Any]) -> str:
    """The YAML text of a table file for this table: types, bounds, levels, missing values, and guessed roles.

    Raises
    ------
    TableError
        When no column can be the target.
    """
    columns = {str(name): draft_column(table[name]) for name in table}
    roles = guess_roles(columns)
    target = columns[roles.target]
    target.column = target.column.model_copy(update={"nullable": False})
    lines = [
        "# Drafted from the data: check and correct it, and describe the columns. Guesses are marked.",
        'description: ""',
        "source:",
        *_yaml_lines(source, 2),
        "label:",
        '  meaning: "What the target means, when it was observed and over which horizon: please write it"',
        '  observed: ""',
        '  horizon: ""',
        "roles:",
        *_role_lines(roles),
        "columns:",
    ]
    for name, drafted in columns.items():
        lines += _column_lines(name, drafted)
    return "\n".join(lines) + "\n"


def _quoted(value: Any) -> str:
    return UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(value, ensure_ascii=False))


def _yaml_lines(content: dict[str, Any], indent: int) -> list[str]:
    lines = []
    for key, value in content.items():
        if isinstance(value, dict):
            lines += [f"{' ' * indent}{key}:", *_yaml_lines(value, indent + 2)]
        else:
            lines.append(f"{' ' * indent}{key}: {_quoted(value)}")
    return lines


def _role_lines(roles: GuessedRoles) -> list[str]:
    check = "" if roles.has_target_name else ": please check"
    lines = [
        f"  id: {_quoted(roles.id)}  # guessed"
        if roles.id
        else "  # id: none found; rows are then identified by their feature values",
        f"  target: {{column: {_quoted(roles.target)}, positive: {_quoted(roles.positive)}}}  # guessed{check}",
        f"  protected: {_quoted(roles.protected)}  # guessed: for audit, not inputs of the model",
    ]
    if roles.date:
        lines.append(f"  date: {_quoted(roles.date)}  # guessed")
    if roles.ignored:
        lines.append(f"  ignored: {_quoted(roles.ignored)}  # guessed: dates and free text")
    return lines


def _column_lines(name: str, drafted: DraftedColumn) -> list[str]:
    remark = f"  # {'; '.join(drafted.remarks)}" if drafted.remarks else ""
    lines = [f"  {_quoted(name)}:{remark}", f"    dtype: {drafted.column.dtype}"]
    if drafted.column.nullable:
        lines.append("    nullable: true")
    if drafted.column.isin is not None:
        lines.append(f"    isin: {_quoted(list(drafted.column.isin))}")
    if drafted.column.in_range is not None:
        bounds = drafted.column.in_range
        lines.append(f"    in_range: {{min_value: {bounds.min_value}, max_value: {bounds.max_value}}}")
    return lines
