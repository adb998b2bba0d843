"""Target list with a random control group, and the effect of the contact once outcomes are known.

A model predicts who will leave, not who is retained by a contact. Only a random control group shows the effect of the
contact: contact the customers with ``control`` False, do not contact those with ``control`` True, and pass both to
`measured_effect` when the label's horizon has passed.
"""

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field
from scipy import stats

from churn_pipeline.costs import CostModel, check_values, expected_profit
from churn_pipeline.evaluation.intervals import t_margin
from churn_pipeline.evaluation.predictions import Probabilities


class TargetSettings(BaseModel):
    """How a target list is drawn.

    Attributes
    ----------
    max_customers
        Largest number of contacts; no limit by default.
    max_spend
        Largest expected spend on contacts and accepted offers; no limit by default.
    control_share
        Share of the list that is not contacted.
    campaign
        Name of the campaign. Each campaign draws another control group.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_customers: int | None = Field(default=None, ge=1)
    max_spend: float | None = Field(default=None, gt=0)
    control_share: float = Field(default=0.1, ge=0, lt=1)
    campaign: str = Field(default="campaign", min_length=1)


def target_list(
    ids: npt.ArrayLike, p: npt.ArrayLike, value: npt.ArrayLike, costs: CostModel, settings: TargetSettings
) -> pd.DataFrame:
    """List the customers worth contacting, highest expected profit first.

    Parameters
    ----------
    ids : array-like of shape (n,)
        Unique key of each customer.
    p : array-like of shape (n,)
        Churn probabilities.
    value : float or array-like of shape (n,)
        Value of a retained customer.
    costs, settings
        The cost model, and the limits of the list.

    Returns
    -------
    pandas.DataFrame
        Columns rank, id, churn_probability, value, expected_profit, expected_spend, control. It holds customers with an
        expected profit above 0, up to the budget. Control customers do not count against the budget.

    Raises
    ------
    ValueError
        If an id is missing or repeated, a probability is outside [0, 1], or a value is missing or negative.
    """
    listed = _scored(ids, p, value, costs)
    listed = listed[listed["expected_profit"] > 0]
    # Ties are ordered by id, so that the order of the input does not matter
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
            f"{keys.isna().sum():,} ids are missing and {keys.dropna().duplicated().sum():,} are repeated. "
            "Score each customer once, at the latest date."
        )
    if probabilities.shape != keys.shape or not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise ValueError(f"Pass one churn probability in [0, 1] for each of the {keys.size:,} customers.")
    values = check_values(value, keys.size)
    accepted = probabilities * costs.acceptance + (1 - probabilities)
    return pd.DataFrame(
        {
            "id": keys,
            "churn_probability": probabilities,
            "value": values,
            "expected_profit": expected_profit(probabilities, values, costs),
            "expected_spend": costs.contact_cost + costs.offer_cost * accepted,
        }
    )


def _up_to_last_contact(within: npt.NDArray[np.bool_], contact: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Cut the list after the last contact within the budget, so that no control customer ranks below all contacts."""
    last = np.flatnonzero(within & contact)
    if not last.size:
        return np.zeros_like(within)
    whole = bool(within.all())
    return np.asarray((np.arange(within.size) <= last[-1]) | whole)


def is_control(key: object, settings: TargetSettings) -> bool:
    """Whether a customer is in the control group of the campaign; decided by a hash, so the same in every run."""
    text = f"{settings.campaign}\0{key}".encode()
    digest = hashlib.blake2b(text, digest_size=8, person=b"control").digest()
    return int.from_bytes(digest, "big") < settings.control_share * 2**64


@dataclass(frozen=True)
class Effect:
    """Effect of a campaign per contacted customer, compared with the random control group.

    Attributes
    ----------
    contacted, control
        Number of customers.
    churn_contacted, churn_control
        Churn shares.
    prevented, prevented_error, prevented_lower, prevented_upper
        Churn prevented by the contact: the difference of the shares, its standard error and interval.
    profit, profit_error, profit_lower, profit_upper
        Retained value minus spend, with standard error and interval.
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
    confidence_level: float = 0.95,
) -> Effect:
    """Estimate the effect of the contact from the outcomes of a target list.

    Pass every customer on the list, including those who could not be contacted. Otherwise the two groups are no longer
    comparable.

    Parameters
    ----------
    churned : array-like of shape (n,)
        1 for a customer of the list who churned, 0 for one who stayed.
    control : array-like of shape (n,)
        The list's column: True for customers who were not contacted.
    value : float or array-like of shape (n,)
        Value of a retained customer.
    spent : float or array-like of shape (n,)
        Spend on contact and offer; ignored for the control group.
    confidence_level
        Coverage of the intervals.

    Raises
    ------
    ValueError
        If shapes differ, an outcome is neither 0 nor 1, or a group has fewer than two customers.

    References
    ----------
    Imbens & Rubin (2015), "Causal Inference for Statistics, Social, and Biomedical Sciences", chapter 6: the
    difference of means and its standard error, with Welch's degrees of freedom for the interval.
    """
    y, not_contacted = np.asarray(churned, dtype=np.float64), np.asarray(control, dtype=bool)
    if y.ndim != 1 or y.shape != not_contacted.shape or not np.isin(y, (0, 1)).all():
        raise ValueError("Pass for each customer on the list whether it churned (0 or 1) and whether it is control.")
    if min(not_contacted.sum(), (~not_contacted).sum()) < 2:
        raise ValueError("An effect needs at least two contacted customers and two control customers.")
    worth, cost = (np.broadcast_to(np.asarray(each, dtype=np.float64), y.shape) for each in (value, spent))
    earned = worth * (1 - y) - np.where(not_contacted, 0, cost)
    prevented = _difference(1 - y[~not_contacted], 1 - y[not_contacted], confidence_level)
    profit = _difference(earned[~not_contacted], earned[not_contacted], confidence_level)
    shares = float(y[~not_contacted].mean()), float(y[not_contacted].mean())
    return Effect(int((~not_contacted).sum()), int(not_contacted.sum()), *shares, *prevented, *profit)


def _difference(a: Probabilities, b: Probabilities, confidence_level: float) -> tuple[float, float, float, float]:
    """Mean of a minus mean of b, its standard error, and Welch's interval."""
    va, vb = a.var(ddof=1) / a.size, b.var(ddof=1) / b.size
    mean, error = float(a.mean() - b.mean()), math.sqrt(va + vb)
    if error == 0:
        return mean, 0.0, mean, mean
    df = (va + vb) ** 2 / (va**2 / (a.size - 1) + vb**2 / (b.size - 1))
    margin = t_margin(error, df, confidence_level)
    return mean, error, mean - margin, mean + margin


def detectable_effect(
    contacted: int, control: int, churn_share: float, power: float = 0.8, confidence_level: float = 0.95
) -> float:
    """Smallest prevented churn, as a difference of shares, that a campaign of this size is likely to detect.

    Check it before a list is sent: with too few control customers, the effect will not be significant.

    Parameters
    ----------
    contacted, control
        Number of customers in each group, at least 1.
    churn_share
        Churn expected without a contact: the mean churn probability of the list.
    power
        Probability of detecting the effect.
    confidence_level
        Coverage of the interval that must exclude 0.

    References
    ----------
    Bloom (1995), "Minimum Detectable Effects", Evaluation Review 19(5).
    """
    if min(contacted, control) < 1:
        return math.inf
    error = math.sqrt(churn_share * (1 - churn_share) * (1 / contacted + 1 / control))
    return float(stats.norm.ppf((1 + confidence_level) / 2) + stats.norm.ppf(power)) * error
