"""Guesses for a drafted table file: the type, bounds and levels of each column, and the roles of the columns."""

import math
import re
import sys
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from churn_pipeline.contract.cells import read_cells
from churn_pipeline.contract.errors import TableError
from churn_pipeline.contract.table import Column, Dtype

MAX_LEVELS = 60
MAX_REPEATED_SHARE = 0.05
TARGET_NAME = re.compile(r"churn|attrition|exited|cancel|left|leav|target|label|response", re.IGNORECASE)
ID_NAME = re.compile(
    r"(^|[^a-z])id([^a-z]|$)|(?-i:(?<![A-Z])ID$|[a-z]Id$)|(customer|client|subscriber|user|member).?id$|"
    r"customer.?(no|number|key)|account.?(no|number)|msisdn|uuid",
    re.IGNORECASE,
)
PROTECTED_NAME = re.compile(
    r"(^|[^a-z])(gender|sex|age|race|ethnicity|religion|nationality|marital.?status|disability|senior.?citizen)([^a-z]|$)|"
    r"^(gender|sex|age|seniorcitizen|maritalstatus)$",
    re.IGNORECASE,
)
LEADING_ZERO = re.compile(r"\s*[+-]?0\d+\s*")
POSITIVE_LEVELS = ("yes", "1", "true", "churn", "churned", "exited", "left", "y", "attrited customer", "true.")


@dataclass
class DraftedColumn:
    """A column of the data: its drafted contract, its typed cells, and remarks for the person who edits the draft."""

    column: Column
    cells: pd.Series
    remarks: list[str] = field(default_factory=list)

    @property
    def distinct(self) -> int:
        """Number of distinct values, without missing cells."""
        return int(self.cells.nunique())

    @property
    def is_unique(self) -> bool:
        """Whether no cell is missing and no value is repeated."""
        return self.distinct == len(self.cells)


@dataclass(frozen=True)
class GuessedRoles:
    """The roles of a draft; ``has_target_name`` is false if the target's name does not suggest churn."""

    target: str
    positive: str | int | bool
    has_target_name: bool
    id: str | None
    date: str | None
    protected: list[str]
    ignored: list[str]


def draft_column(raw: pd.Series) -> DraftedColumn:
    """Guess the contract of one column from its raw cells."""
    for dtype in _candidate_dtypes(raw):
        cells, unreadable = read_cells(raw, Column(dtype=dtype))
        if not unreadable.any() and (cells.notna().any() or dtype == "str"):
            break
    checks: dict[str, Any] = {}
    remarks = []
    distinct = cells.dropna().unique()
    if dtype == "str" and 0 < len(distinct) <= MAX_LEVELS and len(distinct) <= max(2, len(cells) // 2):
        checks["isin"] = tuple(sorted(map(str, distinct)))
    elif dtype == "int64" and 0 < len(distinct) <= 2:
        checks["isin"] = tuple(sorted(int(level) for level in distinct))
    elif dtype in ("int64", "float64") and len(distinct):
        low, high = float(cells.min()), float(cells.max())
        checks["in_range"] = {
            "min_value": _padded_bound(low, dtype, up=False),
            "max_value": _padded_bound(high, dtype, up=True),
        }
        remarks.append(f"seen {low:g} … {high:g}")
    missing = float(cells.isna().mean())
    if missing:
        remarks.append(f"{missing:.2%} missing")
    if dtype == "str" and "isin" not in checks:
        remarks.append(f"{len(distinct):,} levels")
    return DraftedColumn(Column(dtype=dtype, nullable=missing > 0, **checks), cells, remarks)


def _candidate_dtypes(raw: pd.Series) -> tuple[Dtype, ...]:
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
        return ("str",)  # a code, not a number: 007 differs from 7
    return ("int64", "float64", "datetime64[ns]", "str")


def _padded_bound(value: float, dtype: str, up: bool) -> int | float:
    """A bound with headroom: twice the lowest or highest value, rounded away from 0 to 1, 2 or 5 × 10ⁿ.

    The lower bound is 0 if no value is negative, and the upper bound is 0 if none is positive.
    """
    if (not up and value >= 0) or (up and value <= 0):
        return 0
    size = min(2 * abs(value), sys.float_info.max)
    power = 10.0 ** max(math.floor(math.log10(size)), -300)
    rounded = min(next(step for step in (1, 2, 5, 10) if step * power >= size) * power, sys.float_info.max)
    bound = math.copysign(rounded, value)
    return round(bound) if dtype == "int64" or bound.is_integer() else bound


def guess_roles(columns: dict[str, DraftedColumn]) -> GuessedRoles:
    """Guess the roles of all columns from their names and cells.

    Raises
    ------
    TableError
        When no column can be the target.
    """
    target, positive, has_target_name = _guess_target(columns)
    identity = _guess_id(columns, target)
    dates = [name for name, drafted in columns.items() if drafted.column.kind == "date"]
    complete_dates = [name for name in dates if not columns[name].column.nullable]
    date = complete_dates[0] if complete_dates and identity and not columns[identity].is_unique else None
    repeated_id_columns: list[str] = []
    if identity and _repeated_share(columns, identity, date) > MAX_REPEATED_SHARE:
        repeated_id_columns, identity, date = [identity], None, None
    taken = {target, identity, date, *repeated_id_columns}
    protected = [name for name in columns if PROTECTED_NAME.search(name) and name not in taken]
    unsuitable_columns = [name for name, drafted in columns.items() if name in dates or _is_free_text(drafted)]
    ignored = repeated_id_columns + [name for name in unsuitable_columns if name not in {*taken, *protected}]
    return GuessedRoles(target, positive, has_target_name, identity, date, protected, ignored)


def _guess_target(columns: dict[str, DraftedColumn]) -> tuple[str, str | int | bool, bool]:
    binary = [
        name
        for name, drafted in columns.items()
        if drafted.distinct == 2 and drafted.column.dtype in ("str", "int64", "bool")
    ]
    if not binary:
        raise TableError(
            "No target was found", "the table needs a column with two values that marks the customers who churned"
        )
    named = [name for name in binary if TARGET_NAME.search(name)]
    target = (named or binary)[-1]
    shares = columns[target].cells.value_counts()
    levels = {str(level).lower(): level for level in shares.index}
    positive = next((levels[word] for word in POSITIVE_LEVELS if word in levels), shares.index[-1])
    kind = {"int64": int, "bool": bool}.get(columns[target].column.dtype, str)
    return target, kind(positive), bool(named)


def _guess_id(columns: dict[str, DraftedColumn], target: str) -> str | None:
    for name, drafted in columns.items():
        if name == target or drafted.column.dtype not in ("str", "int64") or drafted.cells.isna().any():
            continue
        has_id_name = ID_NAME.search(name) and drafted.distinct > len(drafted.cells) / 50
        if has_id_name or (drafted.is_unique and drafted.column.dtype == "str"):
            return name
    return None


def _repeated_share(columns: dict[str, DraftedColumn], *key: str | None) -> float:
    """Share of rows whose id, or id and date, is not unique."""
    cells = pd.DataFrame({name: columns[name].cells for name in key if name})
    return float(cells.duplicated(keep=False).mean())


def _is_free_text(drafted: DraftedColumn) -> bool:
    is_text = drafted.column.dtype == "str" and drafted.column.isin is None
    return is_text and drafted.distinct > 0.5 * len(drafted.cells)
