"""Draft a table file from a table, so that a person edits instead of writing. What is guessed is marked as a guess."""

import csv
import json
import math
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from churn_pipeline.contract.cells import read_cells
from churn_pipeline.contract.errors import TableError
from churn_pipeline.contract.table import Column, Dtype

MOST_LEVELS = 60
MISSING_WORDS = ("NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "?", "-")
TARGET_NAME = re.compile(r"churn|attrition|exited|cancel|left|leav|target|label|response", re.IGNORECASE)
ID_NAME = re.compile(
    r"(^|[^a-z])id([^a-z]|$)|(?-i:(?<![A-Z])ID$|[a-z]Id$)|(customer|client|subscriber|user|member).?id$|"
    r"customer.?(no|number|key)|account.?(no|number)|msisdn|uuid",
    re.IGNORECASE,
)
UNPRINTABLE = re.compile(r"[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")  # to YAML
MOST_REPEATED = 0.05
LEADING_ZERO = re.compile(r"\s*[+-]?0\d+\s*")
PROTECTED_NAME = re.compile(
    r"(^|[^a-z])(gender|sex|age|race|ethnicity|religion|nationality|marital.?status|disability|senior.?citizen)([^a-z]|$)|"
    r"^(gender|sex|age|seniorcitizen|maritalstatus)$",
    re.IGNORECASE,
)
POSITIVES = ("yes", "1", "true", "churn", "churned", "exited", "left", "y", "attrited customer", "true.")


@dataclass
class _Drafted:
    """A column as it was seen: its part of the contract, and what to tell the person who edits it."""

    column: Column
    cells: pd.Series
    remarks: list[str] = field(default_factory=list)

    @property
    def distinct(self) -> int:
        return int(self.cells.nunique())


def read_for_draft(path: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read a CSV or Parquet file as it lies there, and say how Kedro is to read it.

    Returns
    -------
    table : pandas.DataFrame
    source : dict
        The Kedro dataset for the table file.

    Raises
    ------
    TableError
        When it is neither, or empty.
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
            raise TableError(f"The file {path.name}", "is no text: give a CSV or a Parquet file")
        separator = _separator(head)
        if separator != ",":
            arguments["sep"] = separator
        table = pd.read_csv(path, **arguments)
    except FileNotFoundError:
        raise TableError(f"The file {path.name}", "is not there") from None
    except (pd.errors.EmptyDataError, pd.errors.ParserError) as error:
        raise TableError(f"The file {path.name}", f"is not one table: {error}") from None
    if table.empty:
        raise TableError(f"The file {path.name}", "has no rows")
    words = sorted({word for name in table for word in _missing_words(table[name])})
    if words:
        arguments["na_values"] = words
        table = table.mask(table.isin(words))
    return table, {"type": "pandas.CSVDataset", "filepath": str(path), "load_args": arguments}


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_parquet(path)
    except FileNotFoundError:
        raise TableError(f"The file {path.name}", "is not there") from None
    except (OSError, ValueError):
        raise TableError(f"The file {path.name}", "is no Parquet file, or was cut off") from None
    if table.empty:
        raise TableError(f"The file {path.name}", "has no rows")
    return table


def _separator(head: str) -> str:
    try:
        return csv.Sniffer().sniff(head, delimiters=",;\t|").delimiter
    except csv.Error:
        return ","


def _missing_words(cells: pd.Series) -> set[str]:
    """Words for 'missing' in a column that otherwise holds numbers."""
    text = cells.dropna().astype(str).str.strip()
    found = set(text.unique()) & set(MISSING_WORDS)
    rest = text[~text.isin(found) & (text != "")]
    return found if found and len(rest) and pd.to_numeric(rest, errors="coerce").notna().all() else set()


def draft(table: pd.DataFrame, source: dict[str, Any]) -> str:
    """The YAML text of a table file for this table: types, bounds, levels, what is missing, and guessed roles."""
    columns = {str(name): _draft_column(table[name]) for name in table}
    target, positive, sure = _guess_target(columns)
    identity = _guess_id(columns, target)
    dates = [name for name, seen in columns.items() if seen.column.kind == "date"]
    whole = [name for name in dates if not columns[name].column.nullable]
    date = whole[0] if whole and identity and columns[identity].distinct < len(table) else None
    if identity and _repeated(columns, identity, date) > MOST_REPEATED:
        returning, identity, date = [identity], None, None
    else:
        returning = []
    named = (target, identity, date, *returning)
    protected = [name for name in columns if PROTECTED_NAME.search(name) and name not in named]
    unfit = [name for name, seen in columns.items() if name in dates or _is_free_text(seen)]
    ignored = returning + [name for name in unfit if name not in (*named, *protected)]
    columns[target].column = columns[target].column.model_copy(update={"nullable": False})
    lines = [
        "# Drafted from the table: read it, correct it, and describe the columns. Guesses are marked.",
        'description: ""',
        "source:",
        *_yaml_lines(source, 2),
        "label:",
        '  meaning: "What the target means, when it was observed and over which horizon: please write it"',
        '  observed: ""',
        '  horizon: ""',
        "roles:",
        f"  id: {_quoted(identity)}  # guessed"
        if identity
        else "  # id: none was found; rows are then known by their features",
        f"  target: {{column: {_quoted(target)}, positive: {_quoted(positive)}}}  # guessed{'' if sure else ': please check'}",
        f"  protected: {_quoted(protected)}  # guessed: for audit, not inputs of the model",
        *([f"  date: {_quoted(date)}  # guessed"] if date else []),
        *([f"  ignored: {_quoted(ignored)}  # guessed: dates and free text"] if ignored else []),
        "columns:",
    ]
    for name, seen in columns.items():
        lines += _column_lines(name, seen)
    return "\n".join(lines) + "\n"


def _draft_column(raw: pd.Series) -> _Drafted:
    for dtype in _candidates(raw):
        cells, unreadable = read_cells(raw, Column(dtype=dtype))
        if not unreadable.any() and (cells.notna().any() or dtype == "str"):
            break
    checks: dict[str, Any] = {}
    remarks = []
    distinct = cells.dropna().unique()
    if dtype == "str" and 0 < len(distinct) <= MOST_LEVELS and len(distinct) <= max(2, len(cells) // 2):
        checks["isin"] = tuple(sorted(map(str, distinct)))
    elif dtype == "int64" and 0 < len(distinct) <= 2:
        checks["isin"] = tuple(sorted(int(level) for level in distinct))
    elif dtype in ("int64", "float64") and len(distinct):
        low, high = float(cells.min()), float(cells.max())
        checks["in_range"] = {"min_value": _wide(low, dtype, up=False), "max_value": _wide(high, dtype, up=True)}
        remarks.append(f"seen {low:g} … {high:g}")
    missing = float(cells.isna().mean())
    if missing:
        remarks.append(f"{missing:.2%} missing")
    if dtype == "str" and "isin" not in checks:
        remarks.append(f"{len(distinct):,} levels")
    return _Drafted(Column(dtype=dtype, nullable=missing > 0, **checks), cells, remarks)


def _candidates(raw: pd.Series) -> tuple[Dtype, ...]:
    by_kind: dict[str, tuple[Dtype, ...]] = {
        "b": ("bool",),
        "i": ("int64",),
        "u": ("int64",),
        "f": ("int64", "float64"),
        "M": ("datetime64[ns]",),
    }
    if raw.dtype.kind in by_kind:
        return by_kind[raw.dtype.kind]
    words = set(raw.dropna().astype(str).str.strip().str.lower().unique()[:10])
    if words and words <= {"true", "false"}:
        return ("bool",)
    if raw.dropna().astype(str).str.fullmatch(LEADING_ZERO).any():
        return ("str",)  # a code: 007 is not 7
    return ("int64", "float64", "datetime64[ns]", "str")


def _wide(value: float, dtype: str, up: bool) -> int | float:
    """A bound with room beyond what was seen: 0 where nothing is negative, else twice as far, as 1, 2 or 5 × 10ⁿ."""
    if (not up and value >= 0) or (up and value <= 0):
        return 0
    size = min(2 * abs(value), sys.float_info.max)
    power = 10.0 ** max(math.floor(math.log10(size)), -300)
    nice = min(next(step for step in (1, 2, 5, 10) if step * power >= size) * power, sys.float_info.max)
    bound = math.copysign(nice, value)
    return round(bound) if dtype == "int64" or bound.is_integer() else bound


def _guess_target(columns: dict[str, _Drafted]) -> tuple[str, str | int | bool, bool]:
    binary = [
        name for name, seen in columns.items() if seen.distinct == 2 and seen.column.dtype in ("str", "int64", "bool")
    ]
    if not binary:
        raise TableError("No target was found", "a table needs a column of two values that says who churned")
    named = [name for name in binary if TARGET_NAME.search(name)]
    target = (named or binary)[-1]
    shares = columns[target].cells.value_counts()
    levels = {str(level).lower(): level for level in shares.index}
    positive = next((levels[word] for word in POSITIVES if word in levels), shares.index[-1])
    kind = {"int64": int, "bool": bool}.get(columns[target].column.dtype, str)
    return target, kind(positive), bool(named)


def _guess_id(columns: dict[str, _Drafted], target: str) -> str | None:
    for name, seen in columns.items():
        if name == target or seen.column.dtype not in ("str", "int64") or seen.cells.isna().any():
            continue
        named, distinct = ID_NAME.search(name), seen.distinct == len(seen.cells)
        if (named and seen.distinct > len(seen.cells) / 50) or (distinct and seen.column.dtype == "str"):
            return name
    return None


def _repeated(columns: dict[str, _Drafted], *key: str | None) -> float:
    """The share of rows that an id, or id and date, does not name alone."""
    cells = pd.DataFrame({name: columns[name].cells for name in key if name})
    return float(cells.duplicated(keep=False).mean())


def _is_free_text(seen: _Drafted) -> bool:
    return seen.column.dtype == "str" and seen.column.isin is None and seen.distinct > 0.5 * len(seen.cells)


def _quoted(value: Any) -> str:
    return UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))


def _yaml_lines(content: dict[str, Any], indent: int) -> list[str]:
    lines = []
    for key, value in content.items():
        if isinstance(value, dict):
            lines += [f"{' ' * indent}{key}:", *_yaml_lines(value, indent + 2)]
        else:
            lines.append(f"{' ' * indent}{key}: {_quoted(value)}")
    return lines


def _column_lines(name: str, seen: _Drafted) -> list[str]:
    remark = f"  # {'; '.join(seen.remarks)}" if seen.remarks else ""
    lines = [f"  {_quoted(name)}:{remark}", f"    dtype: {seen.column.dtype}"]
    if seen.column.nullable:
        lines.append("    nullable: true")
    if seen.column.isin is not None:
        lines.append(f"    isin: {_quoted(list(seen.column.isin))}")
    if seen.column.in_range is not None:
        bounds = seen.column.in_range
        lines.append(f"    in_range: {{min_value: {bounds.min_value}, max_value: {bounds.max_value}}}")
    return lines
