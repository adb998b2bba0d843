"""Rows of the hold-out: their key, and tables matched to them by key."""

import pandas as pd

from churn_pipeline.contract.errors import TableError
from churn_pipeline.contract.table import Contract

ROW = "row"


def holdout_keys(customers: pd.DataFrame, contract: Contract) -> pd.DataFrame:
    """Key of each held-out row.

    Returns
    -------
    pandas.DataFrame
        The contract's key columns. If the contract has no id, the column ``row``: the row number in the hold-out, from 0.
        The index is that of `customers`.
    """
    if contract.key:
        return customers[list(contract.key)]
    return pd.DataFrame({ROW: range(len(customers))}, index=customers.index, dtype="int64")


def match_to_holdout(table: pd.DataFrame, customers: pd.DataFrame, contract: Contract, subject: str) -> pd.DataFrame:
    """Put the rows of a table into the order of the held-out customers, by key.

    Parameters
    ----------
    table
        Contains the key columns of `holdout_keys`. Further rows are ignored.
    customers
        Held-out customers, of shape (n, …).
    contract
        Contract of the table of customers.
    subject
        What the table is, for the error message.

    Returns
    -------
    pandas.DataFrame
        The columns of `table`, n rows in the order of `customers`, with an index from 0.

    Raises
    ------
    TableError
        If `table` lacks a key column or a held-out customer, or a key occurs twice.
    """
    keys = holdout_keys(customers, contract)
    names = [str(name) for name in keys]
    missing = [name for name in names if name not in table]
    if missing:
        raise TableError(subject, f"lacks the key column {', '.join(missing)}: make it again")
    if table.duplicated(names).any():
        raise TableError(subject, f"contains a row twice, by {', '.join(names)}")
    # The table may have been read from a file without types
    try:
        typed = table.astype({name: keys[name].dtype for name in names})
    except (TypeError, ValueError):  # its message quotes a customer's id
        raise TableError(subject, f"has other types than the customers in {', '.join(names)}: make it again") from None
    matched = keys.merge(typed, on=names, how="left", indicator=True)
    absent = int((matched["_merge"] == "left_only").sum())
    if absent:
        raise TableError(subject, f"lacks {absent:,} of {len(keys):,} held-out customers: make both from the same data")
    return matched[list(table)]
