"""Splits customers into training and hold-out, and into folds, by customer and date, so that nothing leaks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from churn_pipeline.contract.errors import Finding, TableError
from churn_pipeline.contract.label import Label
from churn_pipeline.contract.table import Contract
from churn_pipeline.pipelines.data_engineering.identity import IdenticalRows, Identity

TRAIN, HOLDOUT = "train", "hold-out"
EARLY = "set aside: row of a held-out customer before the hold-out period"
LATE = "set aside: row in the hold-out period, or label unknown at its start"
FIXES = {
    EARLY: "Reduce `split.holdout_share`.",
    LATE: "Provide more dates, reduce `split.holdout_latest`, or check `label.horizon`. If the rest is enough, raise "
    "`split.max_set_aside`.",
}
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
    identical_rows: IdenticalRows = Field(
        default="auto", description="Only without an id: whether rows with identical features are one customer."
    )
    max_set_aside: float = Field(
        default=0.6, ge=0, lt=1, description="Share of rows set aside above which the run stops."
    )


def holdout_key(contract: Contract) -> tuple[str, ...]:
    """The columns whose cells decide who is held out: the id, or without an id the features."""
    return (contract.roles.id,) if contract.roles.id else contract.features


def sides(customers: pd.DataFrame, identity: Identity, contract: Contract, settings: SplitSettings) -> pd.Series:
    """The side of each row: ``train``, ``hold-out``, or the reason why it is set aside.

    A customer's stable number decides whether the customer is held out. If the contract has a date, the hold-out has the
    latest rows of the held-out customers, and training has the other customers' rows whose label was known when the
    hold-out period began.
    """
    held_out = identity.fractions < settings.holdout_share
    side = np.where(held_out, HOLDOUT, TRAIN).astype(object)
    if contract.roles.date is not None:
        dates: pd.Series[Any] = customers[contract.roles.date]
        begin: Any = dates.quantile(1 - settings.holdout_latest, interpolation="nearest")
        side[held_out & (dates < begin)] = EARLY
        side[~held_out & ((label_known(dates, contract.label) > begin) | (dates >= begin))] = LATE
    return pd.Series(side, index=customers.index, name="side")


def label_known(dates: pd.Series, label: Label) -> pd.Series:
    """The dates on which the labels of rows with these dates are known: after the horizon, in days or calendar months."""
    number, unit = label.horizon_parts
    return dates + (pd.DateOffset(months=number) if unit == "months" else pd.DateOffset(days=number))


def check_set_aside(side: pd.Series, table: str, settings: SplitSettings) -> None:
    """Check that enough rows are left for training and hold-out.

    Raises
    ------
    TableError
        When the share of rows that are set aside is above ``settings.max_set_aside``.
    """
    aside = side[~side.isin([TRAIN, HOLDOUT])]
    if len(aside) <= settings.max_set_aside * len(side):
        return
    findings = [
        Finding(f"{rows:,} rows {reason}", fix=FIXES[str(reason)]) for reason, rows in aside.value_counts().items()
    ]
    raise TableError(
        f"The table '{table}' cannot be split: {len(aside):,} of {len(side):,} rows ({len(aside) / len(side):.1%}) would be "
        f"set aside, more than {settings.max_set_aside:.1%} (`split.max_set_aside`)",
        findings,
    )


def folds(
    train: pd.DataFrame, churn: pd.Series, groups: np.ndarray, contract: Contract, settings: SplitSettings, seed: int
) -> pd.DataFrame:
    """Cross-validation folds of the training customers: one column per fold; 1 = training, 2 = validation, 0 = unused.

    All rows of a customer are on the same side of a fold. With a date, folds move forward in time: each validates on a
    later period and trains on rows whose label was known when that period began.

    Parameters
    ----------
    train, churn, groups
        Rows, labels (0/1) and customers (numbers) of the training rows.

    Raises
    ------
    TableError
        When a class has fewer customers than there are folds, or is missing from one side of a fold.
    """
    if contract.roles.date is not None and train[contract.roles.date].nunique() > 2:
        sides_by_fold = _forward_folds(train, churn.to_numpy(), groups, contract, settings.folds, seed)
    else:
        places = _fold_of_customers(groups, churn.to_numpy(), settings.folds, seed)
        sides_by_fold = [
            np.where(places == fold, FOLD_VALIDATE, FOLD_TRAIN).astype("int8") for fold in range(settings.folds)
        ]
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
        The customers (numbers) of the rows on either side.
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
            f"{len(shared):,} training customers are also in {other_name}: every score would be too good. "
            "This is a bug in the split: fix pipelines/data_engineering/splitting.py",
        )


def _fold_of_customers(groups: np.ndarray, churn: np.ndarray, number: int, seed: int) -> np.ndarray:
    """The fold of each row, from 0; folds are balanced by rows and by churn, and contain whole customers."""
    fewest = min(len(np.unique(groups[churn == label])) for label in (0, 1))
    if fewest < number:
        raise TableError(
            "The customers cannot be cross-validated",
            f"{number} folds need {number} customers of each class, and one class has {fewest}: "
            "provide more data or reduce `split.folds`",
        )
    # The grouped splitter takes two minutes for a million customers; if each has one row, the other one takes a second.
    repeated = len(np.unique(groups)) < len(groups)
    splitter = (StratifiedGroupKFold if repeated else StratifiedKFold)(number, shuffle=True, random_state=seed)
    places = np.empty(len(groups), dtype=np.int64)
    for fold, (_, validating) in enumerate(splitter.split(churn, churn, groups if repeated else None)):
        places[validating] = fold
    return places


def _forward_folds(
    train: pd.DataFrame, churn: np.ndarray, groups: np.ndarray, contract: Contract, number: int, seed: int
) -> list[np.ndarray]:
    dates = train[contract.roles.date]
    days = np.sort(dates.unique())
    number = min(number, len(days) - 1)
    periods: Sequence[np.ndarray] = np.array_split(days, number + 1)
    places = _fold_of_customers(groups, churn, number, seed)
    known = label_known(dates, contract.label)
    result = []
    for fold, period in enumerate(periods[1:]):
        validates = dates.isin(period).to_numpy() & (places == fold)
        trains = (known <= period[0]).to_numpy() & (dates < period[0]).to_numpy() & (places != fold)
        result.append(np.select([validates, trains], [FOLD_VALIDATE, FOLD_TRAIN], NOT_IN_FOLD).astype("int8"))
    return result
