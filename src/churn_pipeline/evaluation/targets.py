"""Whom to contact, with a control share left alone by chance, and what the contact earned once outcomes are known.

A model tells who will leave, not whom a contact keeps. Only customers who were worth contacting and were not, picked
by chance, show what the contact did: contact those with ``control`` False, leave those with ``control`` True as they
are, and when the label's horizon has passed give both to `measured_effect`.
"""

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field
from scipy import stats

from churn_pipeline.evaluation.metrics import Probabilities
from churn_pipeline.evaluation.profit import CostModel, expected_profit


class TargetSettings(BaseModel):
    """How a target list is drawn.

    Attributes
    ----------
    max_customers
        At most so many contacts; no limit by default.
    max_spend
        At most so much money, as expected: contacts, and offers to those who will take them.
    control_share
        Share of the list that is left alone.
    campaign
        Name of the campaign. It keys the control group, so that not the same customers are left alone each time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_customers: int | None = Field(default=None, ge=1)
    max_spend: float | None = Field(default=None, gt=0)
    control_share: float = Field(default=0.1, ge=0, lt=1)
    campaign: str = Field(default="campaign", min_length=1)


def target_list(
    ids: npt.ArrayLike, p: npt.ArrayLike, value: npt.ArrayLike, costs: CostModel, settings: TargetSettings
) -> pd.DataFrame:
    """Current customers worth contacting, those first who promise most.

    Parameters
    ----------
    ids : array-like of shape (n,)
        A key for each customer, each once.
    p : array-like of shape (n,)
        Churn probabilities.
    value : float or array-like of shape (n,)
        What a saved customer is worth.
    costs, settings
        The cost model, and how the list is drawn.

    Returns
    -------
    pandas.DataFrame
        Columns rank, id, churn_probability, value, expected_profit, expected_spend, control. Only customers whose
        expected profit is above zero; as many as the budget lasts for. Controls cost nothing and are not counted
        against it.

    Raises
    ------
    ValueError
        When an id is missing or there twice, a probability is outside [0, 1], or a value is missing or negative.
    """
    listed = _scored(ids, p, value, costs)
    listed = listed[listed["expected_profit"] > 0]
    # The id settles a tie: the order of the table that came in must not
    listed = listed.assign(tie=listed["id"].astype(str)).sort_values(
        ["expected_profit", "tie"], ascending=[False, True], ignore_index=True
    )
    control = np.array([is_control(key, settings) for key in listed["id"]], dtype=bool)
    contact = ~control
    within = np.ones(len(listed), dtype=bool)
    if settings.max_customers is not None:
        within &= np.cumsum(contact) <= settings.max_customers
    if settings.max_spend is not None:
        within &= np.cumsum(contact * listed["expected_spend"].to_numpy()) <= settings.max_spend
    listed = listed.assign(control=control, rank=np.arange(1, len(listed) + 1))[_up_to_last_contact(within, contact)]
    return listed[["rank", "id", "churn_probability", "value", "expected_profit", "expected_spend", "control"]]


def _scored(ids: npt.ArrayLike, p: npt.ArrayLike, value: npt.ArrayLike, costs: CostModel) -> pd.DataFrame:
    keys, probabilities = pd.Series(ids).reset_index(drop=True), np.asarray(p, dtype=np.float64)
    if keys.isna().any() or keys.duplicated().any():
        raise ValueError(
            f"{keys.isna().sum():,} ids are missing and {keys.dropna().duplicated().sum():,} are there more than once. "
            "Score each customer once, at the latest date."
        )
    if probabilities.shape != keys.shape or not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise ValueError(f"Give one churn probability in [0, 1] for each of the {keys.size:,} customers.")
    values = np.broadcast_to(np.asarray(value, dtype=np.float64), keys.shape)
    if not (np.isfinite(values) & (values >= 0)).all():
        raise ValueError("A customer's value is missing or negative. Give 0 for one who is worth nothing.")
    taken = probabilities * costs.acceptance + (1 - probabilities)
    return pd.DataFrame(
        {
            "id": keys,
            "churn_probability": probabilities,
            "value": values,
            "expected_profit": expected_profit(probabilities, values, costs),
            "expected_spend": costs.contact_cost + costs.offer_cost * taken,
        }
    )


def _up_to_last_contact(within: npt.NDArray[np.bool_], contact: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """End at the last contact that the budget lasts for: controls below it would be compared with nobody."""
    last = np.flatnonzero(within & contact)
    if not last.size:
        return np.zeros_like(within)
    whole = bool(within.all())
    return np.asarray((np.arange(within.size) <= last[-1]) | whole)


def is_control(key: object, settings: TargetSettings) -> bool:
    """Whether a customer is left alone in a campaign: by a hash, so that every run and machine says the same."""
    text = f"{settings.campaign}\0{key}".encode()
    digest = hashlib.blake2b(text, digest_size=8, person=b"control").digest()
    return int.from_bytes(digest, "big") < settings.control_share * 2**64


@dataclass(frozen=True)
class Effect:
    """What a campaign did, per contacted customer, against customers left alone by chance.

    Attributes
    ----------
    contacted, control
        How many customers.
    churn_contacted, churn_control
        Churn shares.
    prevented, prevented_error, prevented_lower, prevented_upper
        Churn that the contact prevented: the difference of the shares, its standard error and interval.
    profit, profit_error, profit_lower, profit_upper
        Value kept by that, less what was spent.
    """

    contacted: int
    control: int
    churn_contacted: float
    churn_control: float
    prevented: float
    prevented_error: float
    prevented_lower: float
    prevented_upper: float
    profit: float
    profit_error: float
    profit_lower: float
    profit_upper: float


def measured_effect(
    churned: npt.ArrayLike,
    control: npt.ArrayLike,
    value: npt.ArrayLike,
    spent: npt.ArrayLike,
    level: float = 0.95,
) -> Effect:
    """Estimate what the contact earned, when the outcomes of a target list have come.

    Everyone on the list belongs in: whoever was to be contacted and could not be reached too, or the two groups are
    no longer alike.

    Parameters
    ----------
    churned : array-like of shape (n,)
        1 for a customer of the list who churned, 0 for one who stayed.
    control : array-like of shape (n,)
        The list's column: True for customers left alone.
    value : float or array-like of shape (n,)
        What a kept customer is worth.
    spent : float or array-like of shape (n,)
        What contact and offer came to; that of controls is not looked at.
    level
        Share of repetitions in which the intervals shall hold the true effect.

    Raises
    ------
    ValueError
        When shapes differ, an outcome is neither 0 nor 1, or a group has fewer than two customers.

    References
    ----------
    Imbens & Rubin (2015), "Causal Inference for Statistics, Social, and Biomedical Sciences", chapter 6: the
    difference of means and its standard error, with Welch's degrees of freedom for the interval.
    """
    y, left_alone = np.asarray(churned, dtype=np.float64), np.asarray(control, dtype=bool)
    if y.ndim != 1 or y.shape != left_alone.shape or not np.isin(y, (0, 1)).all():
        raise ValueError("Give for each customer of the list whether it churned, as 0 or 1, and whether it is control.")
    if min(left_alone.sum(), (~left_alone).sum()) < 2:
        raise ValueError("An effect needs at least two customers contacted and two left alone.")
    worth, cost = (np.broadcast_to(np.asarray(of, dtype=np.float64), y.shape) for of in (value, spent))
    kept = worth * (1 - y) - np.where(left_alone, 0, cost)
    prevented = _difference(1 - y[~left_alone], 1 - y[left_alone], level)
    profit = _difference(kept[~left_alone], kept[left_alone], level)
    shares = float(y[~left_alone].mean()), float(y[left_alone].mean())
    return Effect(int((~left_alone).sum()), int(left_alone.sum()), *shares, *prevented, *profit)


def _difference(a: Probabilities, b: Probabilities, level: float) -> tuple[float, float, float, float]:
    """Mean of a less that of b, its standard error, and Welch's interval."""
    va, vb = a.var(ddof=1) / a.size, b.var(ddof=1) / b.size
    mean, error = float(a.mean() - b.mean()), math.sqrt(va + vb)
    if error == 0:
        return mean, 0.0, mean, mean
    df = (va + vb) ** 2 / (va**2 / (a.size - 1) + vb**2 / (b.size - 1))
    reach = float(stats.t.ppf((1 + level) / 2, df)) * error
    return mean, error, mean - reach, mean + reach


def detectable_effect(
    contacted: int, control: int, churn_share: float, power: float = 0.8, level: float = 0.95
) -> float:
    """The smallest prevented churn, as a difference of shares, that a campaign of that size is likely to show.

    A list whose controls are too few will end in "we do not know"; look before it is sent.

    Parameters
    ----------
    contacted, control
        How many customers, each at least 1.
    churn_share
        Churn expected without a contact: the mean churn probability of the list.
    power
        How likely it shall be that the effect shows.
    level
        Of the interval that shall leave out zero.

    References
    ----------
    Bloom (1995), "Minimum Detectable Effects", Evaluation Review 19(5).
    """
    if min(contacted, control) < 1:
        return math.inf
    error = math.sqrt(churn_share * (1 - churn_share) * (1 / contacted + 1 / control))
    return float(stats.norm.ppf((1 + level) / 2) + stats.norm.ppf(power)) * error
