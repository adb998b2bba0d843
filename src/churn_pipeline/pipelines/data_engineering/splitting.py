"""Who is held out and who validates whom: by customer, features and time, so that no row leaks into another's fold."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedKFold

from churn_pipeline.contract.errors import TableError
from churn_pipeline.contract.table import Contract

TRAIN, HOLDOUT = "train", "hold-out"
TWIN = "set aside: its features are those of a held-out customer"
EARLY = "set aside: a held-out customer before the hold-out begins"
LATE = "set aside: after the hold-out begins, or its label was not yet known then"
NOT_IN_FOLD, FOLD_TRAIN, FOLD_VALIDATE = 0, 1, 2


class SplitSettings(BaseModel):
    """How customers are held out and folded."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    holdout_share: float = Field(gt=0, lt=1, description="Share of customers that are held out.")
    holdout_latest: float = Field(
        gt=0,
        lt=1,
        description="With a date: share of rows, the latest ones, in which held-out customers are evaluated.",
    )
    folds: int = Field(ge=2)


def stable_fraction(rows: pd.DataFrame) -> np.ndarray:
    """A number in [0, 1) for each row that depends on the row's cells alone.

    The first 8 bytes of BLAKE2b (RFC 7693) of the cells' text: the same on every machine, in every version and
    whatever other rows there are, so that a customer who was held out once is held out for ever.

    Returns
    -------
    numpy.ndarray of float64, shape (n_rows,)
    """
    texts = (map(str, rows[name].tolist()) for name in rows.columns)
    hashes = (
        hashlib.blake2b("\x1f".join(cells).encode(), digest_size=8).digest() for cells in zip(*texts, strict=True)
    )
    # 53 bits are what a float holds: all 64 could round up to 1
    return (np.frombuffer(b"".join(hashes), dtype=">u8") >> 11).astype("float64") / 2.0**53


def feature_groups(customers: pd.DataFrame, contract: Contract) -> np.ndarray:
    """The same number for rows with identical features, int64 of shape (n_rows,)."""
    hashes = pd.util.hash_pandas_object(customers[list(contract.features)], index=False)
    return pd.factorize(hashes)[0].astype("int64")


def customer_groups(customers: pd.DataFrame, contract: Contract) -> np.ndarray:
    """The same number for rows that must stay together: one customer's rows, and rows with identical features.

    These are the connected components of the graph that joins each row's customer with its features.

    Returns
    -------
    numpy.ndarray of int64, shape (n_rows,)
    """
    features = feature_groups(customers, contract)
    if contract.roles.id is None:
        return features
    ids = pd.factorize(customers[contract.roles.id])[0]
    size = len(customers)
    edges = coo_array((np.ones(size, dtype=np.int8), (ids, ids.max() + 1 + features)), shape=(2 * size, 2 * size))
    components = connected_components(edges, directed=False)[1]
    return pd.factorize(components[ids])[0].astype("int64")


def sides(customers: pd.DataFrame, contract: Contract, settings: SplitSettings) -> pd.Series:
    """Where each row goes: ``train``, ``hold-out``, or set aside with the reason.

    A customer is held out by the stable hash of the id, else of the features. Rows of other customers whose features
    are identical to a held-out row's are set aside. Where the contract has a date, held-out customers are evaluated from
    a date on, and the others are trained on rows whose label was known by then.
    """
    roles = contract.roles
    held_out = stable_fraction(customers[[roles.id] if roles.id else list(contract.features)]) < settings.holdout_share
    side = np.where(held_out, HOLDOUT, TRAIN).astype(object)
    if roles.date is not None:
        dates: pd.Series[Any] = customers[roles.date]
        begin: Any = dates.quantile(1 - settings.holdout_latest, interpolation="nearest")
        known = dates + pd.Timedelta(days=contract.label.horizon_days)
        side[held_out & (dates < begin)] = EARLY
        side[~held_out & ((known > begin) | (dates >= begin))] = LATE
    features = feature_groups(customers, contract)
    twins = np.isin(features, features[side == HOLDOUT]) & (side == TRAIN)
    side[twins] = TWIN
    return pd.Series(side, index=customers.index, name="side")


def folds(
    train: pd.DataFrame, churn: pd.Series, contract: Contract, settings: SplitSettings, seed: int
) -> pd.DataFrame:
    """Cross-validation folds of the training customers: a column a fold; 1 trains, 2 validates, 0 is not used.

    Customers with several rows, and rows with identical features, stay on one side of each fold. With a date, folds go
    forward in time: each validates on a later stretch, and trains on rows whose labels were known when it began.

    Raises
    ------
    TableError
        When there are fewer customers of a class than folds.
    """
    groups = customer_groups(train, contract)
    if contract.roles.date is not None and train[contract.roles.date].nunique() > 2:
        sides_by_fold = _forward_folds(train[contract.roles.date], groups, contract.label.horizon_days, settings.folds)
    else:
        sides_by_fold = _grouped_folds(groups, churn.to_numpy(), settings.folds, seed)
    table = pd.DataFrame(
        {f"fold_{number}": side for number, side in enumerate(sides_by_fold, start=1)}, index=train.index
    )
    for name in table:
        refuse_shared(
            groups[table[name] == FOLD_TRAIN], groups[table[name] == FOLD_VALIDATE], f"{name}'s validation side"
        )
        for part, code in (("train", FOLD_TRAIN), ("validation", FOLD_VALIDATE)):
            if churn[table[name] == code].nunique() < 2:
                raise TableError(
                    "The customers cannot be cross-validated",
                    f"the {part} side of {name} has one class only: give more data or set fewer `split.folds`",
                )
    return table


def refuse_shared(train: np.ndarray, apart: np.ndarray, where: str) -> None:
    """Refuse to go on when a customer is on both sides, whatever made the sides: what is measured there would be a lie.

    Parameters
    ----------
    train, apart
        The customers (groups of `customer_groups`, or ids) of the rows on either side.
    where
        What the other side is called.

    Raises
    ------
    TableError
        When some are the same. It tells how many, and not who.
    """
    shared = np.intersect1d(train, apart)
    if len(shared):
        raise TableError(
            "The customers are not kept apart",
            f"{len(shared):,} of those trained on are also on {where}, by their id or by identical features: every score "
            "would be too good. This is a fault of the split: mend pipelines/data_engineering/splitting.py",
        )


def _grouped_folds(groups: np.ndarray, churn: np.ndarray, number: int, seed: int) -> list[np.ndarray]:
    # Stratified by whether anyone in the group churned; a group's rows follow it.
    churns = np.zeros(groups.max() + 1, dtype=np.int8)
    np.maximum.at(churns, groups, churn.astype(np.int8))
    fewest = int(np.bincount(churns, minlength=2).min())
    if fewest < number:
        raise TableError(
            "The customers cannot be cross-validated",
            f"{number} folds need {number} groups of customers of "
            f"each class, and there are {fewest}: give more data or set fewer `split.folds`",
        )
    splitter = StratifiedKFold(number, shuffle=True, random_state=seed)
    result = []
    for _, validating in splitter.split(churns, churns):
        in_fold = np.zeros(len(churns), dtype=bool)
        in_fold[validating] = True
        result.append(np.where(in_fold[groups], FOLD_VALIDATE, FOLD_TRAIN).astype("int8"))
    return result


def _forward_folds(dates: pd.Series, groups: np.ndarray, horizon_days: int, number: int) -> list[np.ndarray]:
    days = np.sort(dates.unique())
    number = min(number, len(days) - 1)
    starts: Sequence[np.ndarray] = np.array_split(days, number + 1)
    bucket = (stable_fraction(pd.DataFrame({"group": groups})) * number).astype("int64")
    known = dates + pd.Timedelta(days=horizon_days)
    result = []
    for fold, stretch in enumerate(starts[1:]):
        validates = dates.isin(stretch).to_numpy() & (bucket == fold)
        trains = (known <= stretch[0]).to_numpy() & (dates < stretch[0]).to_numpy() & (bucket != fold)
        result.append(np.select([validates, trains], [FOLD_VALIDATE, FOLD_TRAIN], NOT_IN_FOLD).astype("int8"))
    return result
