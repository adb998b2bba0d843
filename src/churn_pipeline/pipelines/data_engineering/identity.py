"""Which rows belong to one customer: decided once on all valid rows, and used by the split, the folds and the intervals."""

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from churn_pipeline.contract.table import Contract

IdenticalRows = Literal["auto", "one_customer", "separate_customers"]
# Identical rows are one customer if chance explains less than this share of them.
MAX_CHANCE = 0.5
SEED = 0


@dataclass(frozen=True)
class Identity:
    """The customer of each row.

    Attributes
    ----------
    groups : ndarray of int64, shape (n_rows,)
        A number for each customer.
    fractions : ndarray of float64, shape (n_rows,)
        A stable number in [0, 1) for each customer, see `stable_fraction`.
    report : dict
        ``rule`` (``id``, ``identical rows`` or ``each row``) and ``reason``, a sentence; without an id also
        ``identical_share`` and ``identical_share_by_chance``.
    """

    groups: npt.NDArray[np.int64]
    fractions: npt.NDArray[np.float64]
    report: dict[str, Any]


def identify_customers(customers: pd.DataFrame, contract: Contract, identical_rows: IdenticalRows = "auto") -> Identity:
    """Decide which rows belong to one customer.

    With an id, rows with the same id are one customer. Without an id, rows with identical features are one customer if
    they are rarely identical by chance; otherwise each row is a customer of its own.

    Parameters
    ----------
    customers : DataFrame
        All valid rows of a table. A part of them could lead to another decision.
    contract : Contract
        Names the id and the features.
    identical_rows : {"auto", "one_customer", "separate_customers"}
        Only without an id: whether rows with identical features are one customer.

    Returns
    -------
    Identity
        In the order of `customers`.
    """
    if contract.roles.id is not None:
        ids = customers[[contract.roles.id]]
        reason = f"Rows with the same '{contract.roles.id}' are one customer."
        fractions = stable_fraction(ids, contract.holdout_rotation)
        return Identity(_numbers(ids[contract.roles.id]), fractions, {"rule": "id", "reason": reason})
    return _identify_by_features(customers[list(contract.features)], identical_rows, contract.holdout_rotation)


def _identify_by_features(features: pd.DataFrame, identical_rows: IdenticalRows, rotation: int) -> Identity:
    fractions = stable_fraction(features, rotation)
    groups = _numbers(fractions)
    identical, by_chance = _share_repeated(groups), share_by_chance(features)
    one_customer = by_chance < MAX_CHANCE * identical if identical_rows == "auto" else identical_rows == "one_customer"
    report = {
        "rule": "identical rows" if one_customer else "each row",
        "reason": _reason(identical, by_chance, one_customer, identical_rows),
        "identical_share": identical,
        "identical_share_by_chance": by_chance,
    }
    if one_customer:
        return Identity(groups, fractions, report)
    # The first of several identical rows keeps its number, so that the rule affects only the others.
    occurrence = pd.Series(groups).groupby(groups).cumcount().to_numpy()
    later = occurrence > 0
    numbered = features[later].reset_index(drop=True)
    fractions[later] = stable_fraction(pd.concat([numbered, pd.Series(occurrence[later])], axis=1), rotation)
    return Identity(np.arange(len(features), dtype=np.int64), fractions, report)


def share_by_chance(features: pd.DataFrame) -> float:
    """Estimate the share of rows that would have an identical row by chance.

    One column at a time is shuffled, and the others stay together. Shuffling leaves the share of rows that are identical
    by chance, but separates the rows of one customer. The lowest share over all columns counts, because a column with
    hardly any variation separates nothing.

    Parameters
    ----------
    features : DataFrame of shape (n_rows, n_columns)
        At least one column; not changed.

    Returns
    -------
    float
        Between 0 and 1. Shuffling has a fixed seed, so the same table gives the same share.
    """
    rng = np.random.default_rng(SEED)
    codes = []
    for column in (features[name] for name in features):
        levels = pd.factorize(column, use_na_sentinel=False)[0]
        codes.append(rng.integers(0, 2**63, levels.max(initial=0) + 1, dtype=np.uint64)[levels])
    # The sum of the columns' random codes (modulo 2^64) identifies a row, and a column is replaced in one step.
    rows = np.sum(codes, axis=0, dtype=np.uint64)
    return min(_share_repeated(rows - code + code[rng.permutation(len(code))]) for code in codes)


def stable_fraction(rows: pd.DataFrame, rotation: int = 0) -> npt.NDArray[np.float64]:
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
    texts = (map(str, column.tolist()) for _, column in rows.items())
    hashes = (
        hashlib.blake2b((salt + "\x1f".join(cells)).encode(), digest_size=8).digest()
        for cells in zip(*texts, strict=True)
    )
    # a float has 53 bits: with all 64 the result could be rounded up to 1
    return (np.frombuffer(b"".join(hashes), dtype=">u8") >> 11).astype("float64") / 2.0**53


def _numbers(values: Any) -> npt.NDArray[np.int64]:
    return np.asarray(pd.factorize(values)[0], dtype=np.int64)


def _share_repeated(values: npt.NDArray[Any]) -> float:
    if not len(values):
        return 0.0
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return float((counts[places] > 1).mean())


def _reason(identical: float, by_chance: float, one_customer: bool, setting: IdenticalRows) -> str:
    rule = "identical rows are one customer" if one_customer else "each row is a customer of its own"
    measured = f"{identical:.1%} of the rows have an identical row ({by_chance:.1%} would have one by chance)"
    chosen = "" if setting == "auto" else f", as set by `split.identical_rows: {setting}`"
    return f"The table has no id, so {rule}{chosen}: {measured}."
