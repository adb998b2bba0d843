"""Guesses the type, bounds and levels of each column of a drafted table file."""

import math
import sys
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from churn_pipeline.contract import draft_names as names
from churn_pipeline.contract.cells import read_cells
from churn_pipeline.contract.table import Column, Dtype

MAX_LEVELS = 60
MAX_PERSONAL_LEVELS = 12
MAX_OUTLIER_SHARE = 0.001
MIN_OUTLIER_ROWS = 100
MIN_CODE_DIGITS = 5
MIN_CODE_ROWS = 20
DAYS = (19000101, 21001231)  # days as integers, such as 20260131, are not codes
LEADING_ZERO = r"\s*[+-]?0\d+\s*"


@dataclass
class DraftedColumn:
    """A column of the data: its drafted contract, its typed cells, and remarks for the person who edits the draft."""

    column: Column
    cells: pd.Series
    remarks: list[str] = field(default_factory=list)
    is_code: bool = False

    @property
    def distinct(self) -> int:
        """Number of distinct values, without missing cells."""
        return int(self.cells.nunique())

    @property
    def is_unique(self) -> bool:
        """Whether no cell is missing and no value is repeated."""
        return self.distinct == len(self.cells)

    @property
    def counts_rows(self) -> bool:
        """Whether the column numbers the rows, from 0 or 1 or in the order of the file, without a gap."""
        if self.column.dtype != "int64" or not self.is_unique:
            return False
        low, high = int(self.cells.min()), int(self.cells.max())
        return high - low == len(self.cells) - 1 and (low in (0, 1) or self.cells.is_monotonic_increasing)


def draft_column(raw: pd.Series) -> DraftedColumn:
    """Guess the contract of one column from its name and its raw cells."""
    name = names.words(str(raw.name))
    dtype, cells = _typed(raw)
    remarks = []
    is_code = dtype == "int64" and _is_code(name, cells)
    if is_code:
        dtype = "str"
        cells, _ = read_cells(raw, Column(dtype=dtype))
        remarks.append("guessed: a code, not a number")
    checks: dict[str, Any] = {}
    distinct = cells.dropna().unique()
    if dtype == "str" and _has_levels(name, len(distinct), len(cells)):
        checks["isin"] = tuple(sorted(map(str, distinct)))
    elif dtype == "int64" and 0 < len(distinct) <= 2:
        checks["isin"] = tuple(sorted(int(level) for level in distinct))
    elif dtype in ("int64", "float64") and len(distinct):
        checks["in_range"], bound_remarks = _bounds(name, cells, dtype)
        remarks += bound_remarks
    missing = float(cells.isna().mean())
    if missing:
        remarks.append(f"{missing:.2%} missing")
    if dtype == "str" and "isin" not in checks:
        remarks.append(f"{len(distinct):,} levels")
    return DraftedColumn(Column(dtype=dtype, nullable=missing > 0, **checks), cells, remarks, is_code)


def _typed(raw: pd.Series) -> tuple[Dtype, pd.Series]:
    """The first type that reads every cell, and the typed cells."""
    for dtype in _candidate_dtypes(raw):
        cells, unreadable = read_cells(raw, Column(dtype=dtype))
        if not unreadable.any() and (cells.notna().any() or dtype == "str"):
            break
    return dtype, cells


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


def _has_levels(name: str, distinct: int, rows: int) -> bool:
    """Whether the draft lists the levels of a text column; it lists no long list of persons."""
    limit = MAX_PERSONAL_LEVELS if names.PERSONAL_TEXT.search(name) else MAX_LEVELS
    return 0 < distinct <= min(limit, max(2, rows // 2))


def _is_code(name: str, cells: pd.Series) -> bool:
    """Whether integers are codes: by their name, or because all have the same number of digits, as postcodes do."""
    numbers = cells.dropna()
    if numbers.nunique() <= 2 or numbers.min() < 0 or names.QUANTITY.search(name) or names.CUSTOMER_ID.search(name):
        return False
    if names.PLACE_CODE.search(name):
        return True
    if numbers.is_unique:
        return False
    digits = numbers.astype(str).str.len()
    same_length = len(numbers) >= MIN_CODE_ROWS and digits.min() == digits.max() >= MIN_CODE_DIGITS
    is_rounded = (numbers % 100 == 0).mean() > 0.5
    is_day = numbers.between(*DAYS).all()
    return bool(names.OTHER_CODE.search(name)) or bool(same_length and not is_rounded and not is_day)


def _bounds(name: str, cells: pd.Series, dtype: str) -> tuple[dict[str, int | float], list[str]]:
    """The bounds of a numeric column, and remarks about the values seen."""
    numbers = cells.dropna().astype("float64")
    low, high = float(numbers.min()), float(numbers.max())
    remarks = [f"seen {low:g} … {high:g}"]
    negative = int((numbers < 0).sum())
    if _is_small_outlier(numbers, negative):
        remarks.append(
            f"{negative} of {len(numbers):,} values below 0 will be invalid; correct the bound if they are not"
        )
        lower: int | float = 0
    else:
        lower = _padded_bound(low, dtype, up=False)
    upper = _padded_bound(high, dtype, up=True)
    if dtype == "float64" and lower == 0 and 0 < high <= 1 and (high > 0.5 or names.SHARE.search(name)):
        upper = 1
    elif names.PERCENTAGE.search(name) and lower == 0 and 1 < high <= 100:
        upper = 100
    return {"min_value": lower, "max_value": upper}, remarks


def _is_small_outlier(numbers: pd.Series, negative: int) -> bool:
    """Whether the negative numbers are few, and small beside the others."""
    allowed = max(1, MAX_OUTLIER_SHARE * len(numbers))
    return len(numbers) >= MIN_OUTLIER_ROWS and 0 < negative <= allowed and -numbers.min() <= 0.1 * numbers.median()


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
