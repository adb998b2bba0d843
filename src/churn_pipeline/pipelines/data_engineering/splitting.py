"""Splits customers into training and hold-out, and into folds, by id, features and date, so that nothing leaks."""

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
TWIN = "set aside: same features as a held-out customer"
EARLY = "set aside: row of a held-out customer before the hold-out period"
LATE = "set aside: row in the hold-out period, or label unknown at its start"
NOT_IN_FOLD, FOLD_TRAIN, FOLD_VALIDATE = 0, 1, 2


class SplitSettings(BaseModel):
    """How customers are split into training and hold-out, and into folds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    holdout_share: float = Field(gt=0, lt=1, description="Share of customers to hold out.")
    holdout_latest: float = Field(
        gt=0,
        lt=1,
        description="Only with a date: the latest share of rows, in which held-out customers are evaluated.",
    )
    folds: int = Field(ge=2)


def stable_fraction(rows: pd.DataFrame, rotation: int = 0) -> np.ndarray:
    """A number in [0, 1) for each row, which depends on the row's cells only.

    It is computed from an 8-byte BLAKE2b hash (RFC 7693) of the cells' text. It does not depend on the machine, on library
    versions or on other rows, so a customer who was held out once stays held out until the hold-out is rotated.

    Parameters
    ----------
    rows
        Rows whose cells are hashed.
    rotation
        Number of rotations; each gives other numbers.

    Returns
    -------
    numpy.ndarray of float64, shape (n_rows,)
    """
    salt = f"{rotation}\x1f" if rotation else ""
    texts = (map(str, rows[name].tolist()) for name in rows.columns)
    hashes = (
        hashlib.blake2b((salt + "\x1f".join(cells)).encode(), digest_size=8).digest()
        for cells in zip(*texts, strict=True)
    )
    # a float has 53 bits: with all 64 the result could be rounded up to 1
    return (np.frombuffer(b"".join(hashes), dtype=">u8") >> 11).astype("float64") / 2.0**53


def feature_groups(customers: pd.DataFrame, contract: Contract) -> np.ndarray:
    """Group numbers, equal for rows with identical features; int64 of shape (n_rows,)."""
    hashes = pd.util.hash_pandas_object(customers[list(contract.features)], index=False)
    return pd.factorize(hashes)[0].astype("int64")


def customer_groups(customers: pd.DataFrame, contract: Contract) -> np.ndarray:
    """Group numbers, equal for rows that must stay together: rows of one customer, and rows with identical features.

    The groups are the connected components of the graph that connects each row's customer with its features.

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


def holdout_key(contract: Contract) -> tuple[str, ...]:
    """The columns whose cells decide who is held out: the id, or without an id the features."""
    return (contract.roles.id,) if contract.roles.id else contract.features


def sides(customers: pd.DataFrame, contract: Contract, settings: SplitSettings) -> pd.Series:
    """The side of each row: ``train``, ``hold-out``, or the reason why it is set aside.

    A stable hash of the id, or without an id of the features, decides who is held out. Rows of other customers with the
    same features as a held-out row are set aside. If the contract has a date, the hold-out has the latest rows of the
    held-out customers, and training has the other customers' rows whose label was known when the hold-out period began.
    """
    roles = contract.roles
    key = customers[list(holdout_key(contract))]
    held_out = stable_fraction(key, contract.holdout_rotation) < settings.holdout_share
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
    """Cross-validation folds of the training customers: one column per fold; 1 = training, 2 = validation, 0 = unused.

    All rows of a customer, and rows with identical features, are on the same side of a fold. With a date, folds move
    forward in time: each validates on a later period and trains on rows whose label was known when that period began.

    Raises
    ------
    TableError
        When a class has fewer groups of customers than there are folds, or is missing from one side of a fold.
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
        check_disjoint(
            groups[table[name] == FOLD_TRAIN], groups[table[name] == FOLD_VALIDATE], f"the validation side of {name}"
        )
        for part, code in (("train", FOLD_TRAIN), ("validation", FOLD_VALIDATE)):
            if churn[table[name] == code].nunique() < 2:
                raise TableError(
                    "The customers cannot be cross-validated",
                    f"the {part} side of {name} has one class only: provide more data or reduce `split.folds`",
                )
    return table


def check_disjoint(train: np.ndarray, other: np.ndarray, other_name: str) -> None:
    """Check that no customer is on both sides of a split; otherwise every score on the other side would be too good.

    Parameters
    ----------
    train, other
        The customers (ids, or groups from `customer_groups`) of the rows on either side.
    other_name
        The name of the other side in the error.

    Raises
    ------
    TableError
        When a customer is on both sides. It reports the number of such customers, not their ids.
    """
    shared = np.intersect1d(train, other)
    if len(shared):
        raise TableError(
            "The split leaks customers",
            f"{len(shared):,} training customers are also in {other_name}, by their id or by identical features: every score "
            "would be too good. This is a bug in the split: fix pipelines/data_engineering/splitting.py",
        )


def _grouped_folds(groups: np.ndarray, churn: np.ndarray, number: int, seed: int) -> list[np.ndarray]:
    # Stratified by whether any row of the group churned.
    has_churned = np.zeros(groups.max() + 1, dtype=np.int8)
    np.maximum.at(has_churned, groups, churn.astype(np.int8))
    fewest = int(np.bincount(has_churned, minlength=2).min())
    if fewest < number:
        raise TableError(
            "The customers cannot be cross-validated",
            f"{number} folds need {number} groups of customers of each class, and one class has {fewest}: "
            "provide more data or reduce `split.folds`",
        )
    splitter = StratifiedKFold(number, shuffle=True, random_state=seed)
    result = []
    for _, validating in splitter.split(has_churned, has_churned):
        in_fold = np.zeros(len(has_churned), dtype=bool)
        in_fold[validating] = True
        result.append(np.where(in_fold[groups], FOLD_VALIDATE, FOLD_TRAIN).astype("int8"))
    return result


def _forward_folds(dates: pd.Series, groups: np.ndarray, horizon_days: int, number: int) -> list[np.ndarray]:
    days = np.sort(dates.unique())
    number = min(number, len(days) - 1)
    periods: Sequence[np.ndarray] = np.array_split(days, number + 1)
    bucket = (stable_fraction(pd.DataFrame({"group": groups})) * number).astype("int64")
    known = dates + pd.Timedelta(days=horizon_days)
    result = []
    for fold, period in enumerate(periods[1:]):
        validates = dates.isin(period).to_numpy() & (bucket == fold)
        trains = (known <= period[0]).to_numpy() & (dates < period[0]).to_numpy() & (bucket != fold)
        result.append(np.select([validates, trains], [FOLD_VALIDATE, FOLD_TRAIN], NOT_IN_FOLD).astype("int8"))
    return result
