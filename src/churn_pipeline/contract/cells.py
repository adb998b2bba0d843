"""Converts raw cells to typed columns, and typed columns to model inputs. Nothing here is fitted to data."""

import hashlib
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from churn_pipeline.contract.table import Column, Contract

TRUE_FALSE = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}
INT64 = np.iinfo(np.int64)
ZONE = r"[T ].*(?:[Zz]|[+-]\d\d(?::?\d\d)?)$"


def read_cells(raw: pd.Series, column: Column) -> tuple[pd.Series, pd.Series]:
    """Convert one column's raw cells to the type in its contract.

    A blank cell is missing; a missing cell gets the column's default, if there is one.

    Parameters
    ----------
    raw
        Cells as loaded by any dataset: text, numbers, booleans, dates.
    column
        The column's contract.

    Returns
    -------
    cells : pandas.Series
        object (str), Int64, float64, boolean or datetime64[ns]; missing if the raw cell is missing or unreadable.
    unreadable : pandas.Series of bool
        True for cells whose content cannot be converted to the type.
    """
    text: pd.Series[Any] = _shared_text(raw) if isinstance(raw.dtype, pd.StringDtype) else raw
    if raw.dtype.kind not in "biufM":
        text = text.map(_as_text, na_action="ignore")
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


def _shared_text(cells: pd.Series) -> pd.Series:
    """Arrow text as Python text, in which equal cells share one object: levels then take hardly any memory."""
    codes, levels = pd.factorize(cells)
    objects = np.append(levels.to_numpy(dtype=object), [None])  # a missing cell has the code -1
    return pd.Series(objects[codes], index=cells.index, name=cells.name, dtype=object)


def _as_text(cell: object) -> str:
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return cell if isinstance(cell, str) else str(cell)


def _strings(cells: pd.Series) -> pd.Series:
    if cells.dtype.kind in "biufM":
        # as objects, because mapping pandas' nullable integers converts them to floats and loses digits
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
        # float() is exact to the last bit, to_numeric is not always
        numbers[readable] = cells[readable].map(_exact_float).astype("float64")
    return numbers.where(np.isfinite(numbers))


def _exact_float(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:  # to_numeric accepts text with a zero byte
        return np.nan


def _integers(cells: pd.Series) -> pd.Series:
    if cells.dtype.kind == "u":
        return cells.astype("UInt64").where(cells <= INT64.max).astype("Int64")
    if cells.dtype.kind in "bi":
        return cells.astype("Int64")
    numbers = _floats(cells)
    whole = numbers.where((numbers == np.floor(numbers)) & (numbers.abs() <= 2.0**53)).astype("Int64")
    # floats cannot represent every integer beyond 2**53, but the text is exact
    long = numbers.abs() >= 2.0**53
    if cells.dtype.kind == "O" and long.any():
        # pandas would convert a list with a missing integer to floats
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
        text = text.where(text.str.match(r"\d", na=False))  # pandas parses 'now' and 'today' as dates
        # parsed separately, because pandas applies the time zone of the row above to a date without one
        zoned = text.str.contains(ZONE, na=False)
        dates = _iso_dates(text.where(zoned)).fillna(_iso_dates(text.where(~zoned)))
    return dates.dt.tz_localize(None).astype("datetime64[ns]")


def _iso_dates(text: pd.Series) -> pd.Series:
    return pd.to_datetime(text, errors="coerce", format="ISO8601", utc=True)


def final_dtype(column: Column) -> str:
    """The pandas type of a column in ``customers``; nullable integers and booleans need pandas' extension types."""
    if column.nullable and column.default is None:
        return {"int64": "Int64", "bool": "boolean", "str": "object"}.get(column.dtype, column.dtype)
    return {"str": "object"}.get(column.dtype, column.dtype)


def current_customers(customers: pd.DataFrame, contract: Contract) -> pd.DataFrame:
    """The customers who have not churned. If the table has dates, only rows of the latest date count."""
    current = churned(customers, contract) == 0
    if contract.roles.date is not None:
        dates = customers[contract.roles.date]
        current &= dates == dates.max()
    return customers.loc[current]


def model_inputs(customers: pd.DataFrame, contract: Contract) -> pd.DataFrame:
    """The features of customers as model inputs.

    Returns
    -------
    pandas.DataFrame
        Numeric features as float64 (missing: NaN), then categorical features as str (missing: '').
    """
    columns: dict[str, pd.Series] = {
        name: customers[name].astype("Float64").astype("float64") for name in contract.numeric
    }
    for name in contract.categorical:
        levels = customers[name]
        columns[name] = levels.map(str, na_action="ignore").astype(object).where(levels.notna(), "")
    return pd.DataFrame(columns, index=customers.index)


def churned(customers: pd.DataFrame, contract: Contract) -> pd.Series:
    """The target as int64: 1 for churned, 0 for stayed."""
    target = contract.roles.target
    return (customers[target.column] == target.positive).astype("int64").rename("churned")


def table_digest(table: pd.DataFrame) -> str:
    """SHA-256 over a table's column names and cells, in their order.

    Cells are hashed by `pandas.util.hash_pandas_object`, so the digest depends on the loaded content and not on the
    compression of the file.
    """
    return _digest(table, lambda cells: cells)


def raw_digest(raw: pd.DataFrame) -> str:
    """SHA-256 over a raw table's column names and the text of its cells, in their order.

    The same rows have the same digest in a CSV file, a Parquet file and a database, if the file contains the text that
    pandas writes. Timestamps with a zone count in UTC. A missing cell equals an empty one.
    """
    return _digest(raw, _text_cells)


def _digest(table: pd.DataFrame, cells_of: Callable[[pd.Series], pd.Series]) -> str:
    digest = hashlib.sha256("\x1f".join(map(str, table.columns)).encode())
    for name in table.columns:
        digest.update(pd.util.hash_pandas_object(cells_of(table[name]), index=False).to_numpy().tobytes())
    return digest.hexdigest()


def _text_cells(cells: pd.Series) -> pd.Series:
    if isinstance(cells.dtype, pd.DatetimeTZDtype):
        cells = cells.dt.tz_convert("UTC")
    return cells.astype(object).map(str, na_action="ignore").where(cells.notna(), "")
