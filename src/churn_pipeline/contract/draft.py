"""Drafts a table file from data, for a person to check and edit. Guesses are marked."""

import csv
import gzip
import lzma
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
from python_calamine import CalamineError

from churn_pipeline.contract.draft_roles import Choices, guess_roles
from churn_pipeline.contract.draft_text import file_text, quoted
from churn_pipeline.contract.errors import TableError
from churn_pipeline.contract.guesses import DraftedColumn, draft_column

EXCEL = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods")
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


def read_for_draft(path: Path, sheet: str | None = None) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read a CSV, Parquet or Excel file unchanged, and return the Kedro dataset that reads it.

    Parameters
    ----------
    path
        The file; CSV may be compressed, for example as ``.zip`` or ``.gz``.
    sheet
        The sheet of an Excel workbook; the first one by default.

    Returns
    -------
    table : pandas.DataFrame
    source : dict
        Configuration of the Kedro dataset.

    Raises
    ------
    TableError
        When the file does not exist, is of another kind, or has no rows.
    """
    suffix = path.suffix.lower()
    if sheet is not None and suffix not in EXCEL:
        raise TableError(f"The file {path.name}", "has no sheets: only an Excel workbook has them")
    if suffix in (".parquet", ".pq"):
        return _read_parquet(path), {"type": "pandas.ParquetDataset", "filepath": str(path)}
    if suffix in EXCEL:
        table, source = _read_excel(path, sheet)
    else:
        table, source = _read_csv(path)
    if table.empty:
        raise TableError(f"The file {path.name}", "has no rows")
    words = {str(name): found for name in table if (found := _na_values(table[name]))}
    if words:
        source["load_args"]["na_values"] = words
        for name, found in words.items():
            table[name] = table[name].mask(table[name].isin(found))
    return table, source


def _read_csv(path: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    arguments: dict[str, Any] = {"dtype": "str", "keep_default_na": False}
    try:
        try:
            head = _head(path, "utf-8-sig")
        except UnicodeDecodeError:
            arguments["encoding"] = "latin-1"
            head = _head(path, "latin-1")
        if "\x00" in head:
            raise TableError(f"The file {path.name}", "is not a text file: give a CSV, Excel or Parquet file")
        separator = _separator(head)
        if separator != ",":
            arguments["sep"] = separator
        table = pd.read_csv(path, **arguments)
    except FileNotFoundError:
        raise TableError(f"The file {path.name}", "does not exist") from None
    except (pd.errors.EmptyDataError, pd.errors.ParserError) as error:
        raise TableError(f"The file {path.name}", f"cannot be read as one table: {error}") from None
    except (ValueError, EOFError, zipfile.BadZipFile, gzip.BadGzipFile, lzma.LZMAError) as error:
        if isinstance(error, TableError):
            raise
        raise TableError(f"The file {path.name}", "must be an archive of exactly one CSV file: unpack it") from None
    return table, {"type": "pandas.CSVDataset", "filepath": str(path), "load_args": arguments}


def _head(path: Path, encoding: str) -> str:
    """The beginning of a text file, after all of it has been decoded."""
    with fsspec.open(str(path), "rb", compression="infer") as opened:
        return str(opened.read().decode(encoding)[:20_000])


def sheets(path: Path) -> list[str]:
    """The sheets of an Excel workbook; none for another kind of file.

    Raises
    ------
    TableError
        When the workbook does not exist or cannot be read.
    """
    if path.suffix.lower() not in EXCEL:
        return []
    with _excel_errors(path), pd.ExcelFile(path, engine="calamine") as book:
        return [str(name) for name in book.sheet_names]


def _read_excel(path: Path, sheet: str | None) -> tuple[pd.DataFrame, dict[str, Any]]:
    arguments: dict[str, Any] = {"engine": "calamine", "dtype": "str", "keep_default_na": False}
    known = sheets(path)
    if sheet is not None:
        arguments["sheet_name"] = sheet
        if sheet not in known:
            raise TableError(f"--sheet {sheet}", f"is not a sheet; the sheets are {', '.join(known)}")
    with _excel_errors(path):
        table = pd.read_excel(path, **arguments)
    return table, {"type": "pandas.ExcelDataset", "filepath": str(path), "load_args": arguments}


@contextmanager
def _excel_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise TableError(f"The file {path.name}", "does not exist") from None
    except (CalamineError, zipfile.BadZipFile, ValueError):
        raise TableError(f"The file {path.name}", "is not an Excel workbook, or is truncated") from None


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


def typed_columns(table: pd.DataFrame, source: dict[str, Any]) -> dict[str, DraftedColumn]:
    """The columns of a raw table with their guessed contracts and typed cells."""
    columns = {str(name): draft_column(table[name]) for name in table}
    for name, words in source.get("load_args", {}).get("na_values", {}).items():
        columns[name].remarks.append(f"{', '.join(map(quoted, words))} counts as missing")
    return columns


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
    columns = typed_columns(table, source)
    roles = guess_roles(columns, choices)
    target = columns[roles.target.column]
    target.column = target.column.model_copy(update={"nullable": False})
    if roles.id is not None:
        # New customers get higher numbers.
        identity = columns[roles.id]
        identity.column = identity.column.model_copy(update={"in_range": None})
        identity.remarks = [remark for remark in identity.remarks if not remark.startswith("seen ")]
    return file_text(source, columns, roles)
