"""Fictitious customers, made from the contract alone."""

from typing import Any

import pandas as pd

from churn_pipeline.contract.cells import final_dtype
from churn_pipeline.contract.table import Column, Contract, Lengths


def example_value(column: Column) -> str | int | float | bool:
    """A valid value of the column: the contract's example, the first level, or the middle of the bounds."""
    if column.example is not None:
        return column.example
    if column.isin is not None:
        return column.isin[0]
    if column.dtype == "str":
        return _text(column.str_length or Lengths(min_value=0))
    if column.dtype == "bool":
        return False
    if column.dtype == "datetime64[ns]":
        return "2026-01-31"
    low, high = _bounds(column)
    middle = low + (high - low) / 2 if high > low else low
    if column.dtype == "int64":
        return round(middle)
    return round(middle, 2) if low < round(middle, 2) < high else middle


def _text(lengths: Lengths) -> str:
    return "example"[: lengths.max_value].ljust(lengths.min_value or 0, "e")


def _bounds(column: Column) -> tuple[float, float]:
    lows = [column.greater_than, column.greater_than_or_equal_to]
    highs = [column.less_than, column.less_than_or_equal_to]
    if column.in_range is not None:
        lows, highs = [*lows, column.in_range.min_value], [*highs, column.in_range.max_value]
    low = max((float(value) for value in lows if value is not None), default=None)
    high = min((float(value) for value in highs if value is not None), default=None)
    if low is None:
        low = 0.0 if high is None or high >= 0 else high - 2
    return low, low + 2 if high is None else high


def example_customers(contract: Contract, rows: int = 1) -> pd.DataFrame:
    """Fictitious valid customers, with the column types of ``customers``."""
    values: dict[str, Any] = {name: [example_value(column)] * rows for name, column in contract.columns.items()}
    return pd.DataFrame(values).astype({name: final_dtype(column) for name, column in contract.columns.items()})
