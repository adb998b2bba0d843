"""From raw cells to typed columns, and from typed columns to what a model takes. Nothing is learned here."""

import hashlib
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from churn_pipeline.contract.table import Column, Contract

TRUE_FALSE = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}
INT64 = np.iinfo(np.int64)
ZONE = r"[T ].*(?:[Zz]|[+-]\d\d(?::?\d\d)?)$"


def read_cells(raw: pd.Series, column: Column) -> tuple[pd.Series, pd.Series]:
    """Read one column's raw cells as its contract's type.

    A cell that holds nothing but blanks is missing; a missing cell becomes the column's default where it has one.

    Parameters
    ----------
    raw
        Cells as any dataset gives them: text, numbers, booleans, dates.
    column
        The column's part of the contract.

    Returns
    -------
    cells : pandas.Series
        object (str), Int64, float64, boolean or datetime64[ns]; missing where the cell is, or could not be read.
    unreadable : pandas.Series of bool
        The cells that hold something which is not of the type.
    """
    text: pd.Series[Any] = raw
    if raw.dtype.kind not in "biufM":
        text = raw.map(_as_text, na_action="ignore")
        text = text.mask(text.isna() | (text.map(str.strip, na_action="ignore") == ""), None)
    reader = {
        "str": _strings,
        "int64": _integers,
        "float64": _floats,
        "bool": _booleans,
        "datetime64[ns]": _dates,
    }[column.dtype]
    cells = reader(text)
    unreadable = cells.isna() & text.notna()
    if column.default is not None:
        cells = cells.mask(text.isna(), column.default)
        if column.dtype == "float64":
            cells = cells.astype("float64")
    return cells, unreadable


def _as_text(cell: object) -> str:
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return cell if isinstance(cell, str) else str(cell)


def _strings(cells: pd.Series) -> pd.Series:
    if cells.dtype.kind in "biufM":
        # as objects: pandas' nullable whole numbers become floats when mapped, and lose digits
        cells = cells.astype(object).map(_as_text, na_action="ignore")
    return cells.astype(object).mask(cells.isna(), None)


def _floats(cells: pd.Series) -> pd.Series:
    if cells.dtype.kind in "biuf":
        numbers = cells.astype("float64")
    elif cells.dtype.kind == "M":
        numbers = pd.Series(np.nan, index=cells.index)
    else:
        numbers = pd.to_numeric(cells, errors="coerce").astype("float64")
        readable = numbers.notna()
        # Python's own reading of a decimal is exact to the last bit, to_numeric's is not always
        numbers[readable] = cells[readable].map(_exact_float).astype("float64")
    return numbers.where(np.isfinite(numbers))


def _exact_float(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:  # to_numeric takes a zero byte for the end of the text
        return np.nan


def _integers(cells: pd.Series) -> pd.Series:
    if cells.dtype.kind == "u":
        return cells.astype("UInt64").where(cells <= INT64.max).astype("Int64")
    if cells.dtype.kind in "bi":
        return cells.astype("Int64")
    numbers = _floats(cells)
    whole = numbers.where((numbers == np.floor(numbers)) & (numbers.abs() <= 2.0**53)).astype("Int64")
    # beyond 2**53 a float is not every whole number, but the text is exact
    long = numbers.abs() >= 2.0**53
    if cells.dtype.kind == "O" and long.any():
        # an array of whole numbers from the start: pandas makes floats of a list in which one is missing
        whole[long] = pd.array([_long_integer(cell) for cell in cells[long]], dtype="Int64")
    return whole


def _long_integer(cell: str) -> int | None:
    number = Decimal(cell.strip())
    return int(number) if number == number.to_integral_value() and INT64.min <= number <= INT64.max else None


def _booleans(cells: pd.Series) -> pd.Series:
    if cells.dtype.kind == "M":
        return pd.Series(pd.NA, index=cells.index, dtype="boolean")
    if cells.dtype.kind == "b":
        return cells.astype("boolean")
    text = cells.map(_as_text, na_action="ignore").astype(object)
    return text.map(lambda cell: TRUE_FALSE.get(cell.strip().lower()), na_action="ignore").astype("boolean")


def _dates(cells: pd.Series) -> pd.Series:
    if cells.dtype.kind in "biuf":
        return pd.Series(pd.NaT, index=cells.index, dtype="datetime64[ns]")
    if cells.dtype.kind == "M":
        dates = pd.to_datetime(cells, utc=True)
        dates = dates.where(dates.dt.year.between(pd.Timestamp.min.year + 1, pd.Timestamp.max.year - 1))
    else:
        text = cells.astype(object).str.strip()
        text = text.where(text.str.match(r"\d", na=False))  # pandas reads 'now' and 'today' as dates
        # apart: pandas gives a date without a zone the zone of the row above it
        zoned = text.str.contains(ZONE, na=False)
        dates = _iso_dates(text.where(zoned)).fillna(_iso_dates(text.where(~zoned)))
    return dates.dt.tz_localize(None).astype("datetime64[ns]")


def _iso_dates(text: pd.Series) -> pd.Series:
    return pd.to_datetime(text, errors="coerce", format="ISO8601", utc=True)


def final_dtype(column: Column) -> str:
    """The pandas type of a column in ``customers``: nullable whole numbers and booleans need pandas' own types."""
    if column.nullable and column.default is None:
        return {"int64": "Int64", "bool": "boolean", "str": "object"}.get(column.dtype, column.dtype)
    return {"str": "object"}.get(column.dtype, column.dtype)


def model_inputs(customers: pd.DataFrame, contract: Contract) -> pd.DataFrame:
    """The features of customers as a candidate takes them.

    Returns
    -------
    pandas.DataFrame
        Numeric features first, float64 with NaN for missing; then categorical ones, str with '' for missing.
    """
    columns: dict[str, pd.Series] = {
        name: customers[name].astype("Float64").astype("float64") for name in contract.numeric
    }
    for name in contract.categorical:
        levels = customers[name]
        columns[name] = levels.map(str, na_action="ignore").astype(object).where(levels.notna(), "")
    return pd.DataFrame(columns, index=customers.index)


def churned(customers: pd.DataFrame, contract: Contract) -> pd.Series:
    """The target as int64: 1 for a customer who churned, 0 for one who stayed."""
    target = contract.roles.target
    return (customers[target.column] == target.positive).astype("int64").rename("churned")


def table_digest(table: pd.DataFrame) -> str:
    """SHA-256 over a table's column names and cells, in their order.

    Cells are hashed by `pandas.util.hash_pandas_object`, so the digest does not depend on how a file was
    formatted or compressed, only on what was read from it.
    """
    digest = hashlib.sha256("\x1f".join(map(str, table.columns)).encode())
    for name in table.columns:
        digest.update(pd.util.hash_pandas_object(table[name], index=False).to_numpy().tobytes())
    return digest.hexdigest()
