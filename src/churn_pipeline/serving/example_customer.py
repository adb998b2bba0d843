"""A fictitious customer for documents and forms."""

from collections.abc import Iterator
from typing import Any

from churn_pipeline.contract.table import Column
from churn_pipeline.serving.bundle import Bundle, TrainingProfile
from churn_pipeline.serving.column_rules import ColumnRule


def example_customer(bundle: Bundle) -> dict[str, Any]:
    """Build a fictitious valid customer from the examples in the contract, the medians and the most frequent levels.

    Parameters
    ----------
    bundle
        The served bundle. The examples in its contract are used first.

    Returns
    -------
    dict
        JSON values by column. A column without any known valid value is left out.
    """
    customer: dict[str, Any] = {}
    for name in bundle.request_columns:
        column = bundle.contract.columns[name]
        valid = [
            value for value in _values(name, column, bundle.training_profile) if ColumnRule(column).is_valid(value)
        ]
        customer |= {name: valid[0]} if valid else {}
    return customer


def _values(name: str, column: Column, training_profile: TrainingProfile) -> Iterator[Any]:
    """Plausible values of a column, the best ones first."""
    yield column.example
    if name in training_profile.numeric and (quantiles := training_profile.numeric[name].quantiles):
        median = quantiles[len(quantiles) // 2]
        yield {"int64": int, "bool": bool}.get(column.dtype, _readable)(median)
        yield median  # the rounded median may lie outside narrow bounds
    elif name in training_profile.categorical:
        shares = training_profile.categorical[name].levels
        for level in sorted(shares, key=lambda level: -shares[level]):
            yield int(level) if column.dtype == "int64" and level else level
    yield from column.isin or ()
    lengths = column.str_length
    longest, shortest = (lengths.max_value, lengths.min_value) if lengths else (None, None)
    yield from (column.default, "example"[:longest].ljust(shortest or 0, "e"), 1, False)


def _readable(number: float) -> float:
    """A number rounded to two decimals, or to three significant digits below one."""
    return float(f"{number:.3g}") if abs(number) < 1 else round(number, 2)
