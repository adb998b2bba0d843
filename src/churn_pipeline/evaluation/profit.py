"""Profit of contacting customers by their churn probability, and the break-even churn probability.

A contacted churner accepts the offer with probability `acceptance`, stays, and is worth `value` minus the offer. A
contacted stayer accepts the offer too, but would have stayed anyway. Every contact has a cost. So contacting a customer
earns::

    churner    acceptance * (value - offer_cost) - contact_cost
    stayer                             -offer_cost - contact_cost

and not contacting earns 0. Profits are per customer of the base, contacted or not, so that two hold-outs can be compared.

References
----------
Neslin, Gupta, Kamakura, Lu & Mason (2006), "Defection Detection", Journal of Marketing Research 43(2): the profit model.
Verbeke, Dejaeger, Martens, Hur & Baesens (2012), "New insights into churn prediction in the telecommunication
sector: A profit driven data mining approach", European Journal of Operational Research 218(1): the maximum profit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field
from scipy.optimize import isotonic_regression
from scipy.special import betainc

from churn_pipeline.evaluation.bootstrap import DEFAULT_RESAMPLING, Resampling
from churn_pipeline.evaluation.holdout import Holdout, check_values
from churn_pipeline.evaluation.intervals import basic_interval, percentile_interval
from churn_pipeline.evaluation.predictions import Labels, Probabilities, check_predictions

CURVE_RESAMPLING = Resampling(resamples=500)
FACTORS = (0.5, 0.8, 1.0, 1.25, 2.0)
# Finite, and above every churn probability
NO_CONTACT_THRESHOLD = float(np.nextafter(1, 2))
# The best threshold is selected on the rows that are evaluated
OVERSTATED = ("hindsight_profit", "empc")
Budget = int | float
Mask = npt.NDArray[np.bool_]


class ValueColumn(BaseModel):
    """Customer value from a column: the monthly amount times the months that a retained customer stays."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str
    months: float = Field(default=1, gt=0)


class CostModel(BaseModel):
    """Costs and earnings of contacting a customer.

    Attributes
    ----------
    value
        Value of a retained customer before the offer cost: one number, or a column.
    offer_cost
        Cost of an accepted offer.
    contact_cost
        Cost of every contact.
    acceptance
        Share of contacted churners who accept the offer and stay.
    acceptance_sample
        Certainty of `acceptance`, as the number of churners it was estimated from. Used only by EMPC. An acceptance of 0.3
        and a sample of 20 give Beta(6, 14), which the authors of EMPC use.
    currency
        Used in labels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: Annotated[float, Field(gt=0)] | ValueColumn
    offer_cost: float = Field(ge=0)
    contact_cost: float = Field(ge=0)
    acceptance: float = Field(gt=0, le=1)
    acceptance_sample: float = Field(default=20, gt=0)
    currency: str = ""

    def values(self, customers: pd.DataFrame) -> Probabilities:
        """Value of each customer if retained, of shape (n,).

        Raises
        ------
        ValueError
            If the column is missing, or a value in it is missing or negative.
        """
        if not isinstance(self.value, ValueColumn):
            return np.full(len(customers), self.value)
        if self.value.column not in customers:
            raise ValueError(f"The column '{self.value.column}', which the cost model takes values from, is missing.")
        return check_values(customers[self.value.column].to_numpy(np.float64) * self.value.months, len(customers))


def contact_profit_churner(value: npt.ArrayLike, costs: CostModel) -> Probabilities:
    """Expected profit of contacting a churner, averaged over accepting and declining; same shape as `value`."""
    return costs.acceptance * (np.asarray(value, dtype=np.float64) - costs.offer_cost) - costs.contact_cost


def contact_profit_stayer(costs: CostModel) -> float:
    """Profit of contacting a customer who would have stayed: never above 0."""
    return -costs.offer_cost - costs.contact_cost


def expected_profit(p: npt.ArrayLike, value: npt.ArrayLike, costs: CostModel) -> Probabilities:
    """Expected profit of contacting each customer with churn probability `p`, of shape (n,)."""
    probabilities = np.asarray(p, dtype=np.float64)
    return probabilities * contact_profit_churner(value, costs) + (1 - probabilities) * contact_profit_stayer(costs)


def break_even(value: npt.ArrayLike, costs: CostModel) -> Probabilities:
    """The churn probability at which contacting a customer with this value starts to pay.

    With calibrated probabilities this threshold is optimal. It is not fitted to data, so its profit on the hold-out is not
    overstated.

    Returns
    -------
    ndarray with the shape of `value`
        In [0, 1]; `NO_CONTACT_THRESHOLD` if contacting even a certain churner does not pay.

    References
    ----------
    Elkan (2001), "The Foundations of Cost-Sensitive Learning", IJCAI: the threshold follows from the costs alone.
    """
    loss = -contact_profit_stayer(costs)
    gain = np.asarray(contact_profit_churner(value, costs))
    threshold = np.divide(loss, gain + loss, out=np.full(gain.shape, NO_CONTACT_THRESHOLD), where=gain > 0)
    return np.asarray(np.where(gain > 0, threshold, NO_CONTACT_THRESHOLD))


def contacts(p: npt.ArrayLike, value: npt.ArrayLike, costs: CostModel, threshold: float | None = None) -> Mask:
    """Select the customers to contact, as a mask of shape (n,).

    Parameters
    ----------
    p, value : float or array-like of shape (n,)
        Churn probabilities and customer values.
    costs
        The cost model.
    threshold
        Contact customers with at least this churn probability. By default, the break-even of each customer's value.
    """
    probabilities = np.asarray(p, dtype=np.float64)
    return np.asarray(probabilities >= (break_even(value, costs) if threshold is None else threshold))


def contact_profit(y: npt.ArrayLike, value: npt.ArrayLike, costs: CostModel) -> Probabilities:
    """Profit of contacting each customer given the label, averaged over accepting and declining; of shape (n,)."""
    return np.where(np.asarray(y) == 1, contact_profit_churner(value, costs), contact_profit_stayer(costs))


def realised_profit(
    y: npt.ArrayLike, p: npt.ArrayLike, value: npt.ArrayLike, costs: CostModel, threshold: float | None = None
) -> float:
    """Realised profit per customer when the customers selected by `contacts` are contacted."""
    labels, probabilities = check_predictions(y, p)
    values = check_values(value, labels.size)
    return float((contact_profit(labels, values, costs) * contacts(probabilities, values, costs, threshold)).mean())


@dataclass(frozen=True)
class _Ranked:
    """Customers in descending order of churn probability, with a cut after each distinct probability.

    With acceptance γ, contacting all customers above a cut earns the sum of ``γ * retained - spent``.
    """

    p: Probabilities  # probability at each cut, (k,)
    last: npt.NDArray[np.intp]  # last row above each cut, (k,)
    y: Labels  # labels in that order, (n,); the following have the same shape and order
    retained: Probabilities  # value minus offer cost, if a churner accepts
    spent: Probabilities  # contact cost, plus the offer cost of a stayer
    order: npt.NDArray[np.intp]

    def sums(self, of: Probabilities | Labels, counts: npt.NDArray[np.int64] | None) -> Probabilities:
        """Sums of a column above each cut, (k,); `counts` says how often each row counts."""
        summed = np.cumsum(of if counts is None else of * counts)
        return np.asarray(summed[self.last], dtype=np.float64)


def _rank(y: Labels, p: Probabilities, value: Probabilities, costs: CostModel) -> _Ranked:
    order = np.argsort(-p, kind="stable")
    y, p, value = y[order], p[order], value[order]
    last = np.flatnonzero(np.append(np.diff(p) != 0, True))
    retained = y * (value - costs.offer_cost)
    spent = np.asarray(costs.contact_cost + (1 - y) * costs.offer_cost, dtype=np.float64)
    return _Ranked(p[last], last, y, retained, spent, order)


def _best_cut(ranked: _Ranked, acceptance: float, counts: npt.NDArray[np.int64] | None) -> tuple[float, float]:
    """The threshold that earns most on these rows, and its total profit."""
    profit = acceptance * ranked.sums(ranked.retained, counts) - ranked.sums(ranked.spent, counts)
    best = int(profit.argmax())
    return (float(ranked.p[best]), float(profit[best])) if profit[best] > 0 else (NO_CONTACT_THRESHOLD, 0.0)


def empc(y: npt.ArrayLike, p: npt.ArrayLike, value: npt.ArrayLike, costs: CostModel) -> tuple[float, float]:
    """Expected maximum profit for customer churn (EMPC): what the ranking earns if acceptance is uncertain.

    Acceptance has a beta distribution around the assumed one. For each acceptance the best share of customers is contacted,
    highest `p` first. The paper assumes one value for all customers. Here the customers' own values are summed first, and
    then the expectation over acceptance is taken.

    Returns
    -------
    empc : float
        Per customer of the base. Overstated, because the best cut is selected on the same rows.
    share : float
        Expected share of customers contacted.

    References
    ----------
    Verbraken, Verbeke & Baesens (2013), "A Novel Profit Maximizing Metric for Measuring Classification
    Performance of Customer Churn Prediction Models", IEEE TKDE 25(5).
    """
    labels, probabilities = check_predictions(y, p)
    return _empc(_rank(labels, probabilities, check_values(value, labels.size), costs), costs, None)


def _empc(ranked: _Ranked, costs: CostModel, counts: npt.NDArray[np.int64] | None) -> tuple[float, float]:
    """E[max over cuts of γ retained - spent]: the upper envelope of lines in γ, integrated piece by piece.

    Sorted by slope, the lines on the envelope are the corners of the greatest convex minorant of (retained, spent). Its
    slopes, computed by isotonic regression, are the acceptances at which the next line becomes the highest.
    """
    ones = np.ones(ranked.y.size)
    total = ranked.sums(ones, counts)[-1]
    lines = [np.append(0, ranked.sums(column, counts)) for column in (ranked.retained, ranked.spent, ones)]
    retained, spent, contacted = _lowest_of_each_slope(*lines)
    width = np.diff(retained)
    crossings = isotonic_regression(np.diff(spent) / width, weights=width).x if width.size else np.empty(0)
    excess, probability = _beta_above(crossings, costs)
    value = costs.acceptance * retained[0] - spent[0] + (width * excess).sum()
    return float(value / total), float((contacted[0] + (np.diff(contacted) * probability).sum()) / total)


def _lowest_of_each_slope(
    retained: Probabilities, spent: Probabilities, contacted: Probabilities
) -> list[Probabilities]:
    order = np.lexsort((spent, retained))
    first = np.append(True, np.diff(retained[order]) > 0)
    return [column[order][first] for column in (retained, spent, contacted)]


def _beta_above(at: Probabilities, costs: CostModel) -> tuple[Probabilities, Probabilities]:
    """E[max(γ - at, 0)] and P(γ > at) for acceptance γ, which is constant if its mean is 1."""
    mean, alpha = costs.acceptance, costs.acceptance * costs.acceptance_sample
    beta = costs.acceptance_sample - alpha
    x = np.clip(at, 0, 1)
    if beta <= 0:
        return np.maximum(1 - at, 0), (at < 1).astype(np.float64)
    probability = 1 - betainc(alpha, beta, x)
    return mean * (1 - betainc(alpha + 1, beta, x)) - at * probability, probability


def profit_metrics(
    holdout: Holdout,
    costs: CostModel,
    budgets: Sequence[Budget] = (0.05, 0.1, 0.2),
    threshold: float | None = None,
    resampling: Resampling = DEFAULT_RESAMPLING,
) -> pd.DataFrame:
    """Compute the profit of using the model on a set of customers, with bootstrap intervals.

    With the same seed, the resamples are those of `bootstrap_metrics`. Profits are per customer of the base.

    Parameters
    ----------
    holdout
        Labels, churn probabilities, values and group keys of n rows.
    costs
        The cost model.
    budgets
        Contact budgets: fractions of the customers, or absolute numbers.
    threshold
        As in `contacts`; must be selected on other data.
    resampling
        Number of resamples, confidence level and seed.

    Returns
    -------
    pandas.DataFrame
        Columns metric, value, lower, upper, with the metrics

        - ``precision_at_…``, ``lift_at_…``: for each budget, with ties as in `lift_top_decile`;
        - ``contacted_share``, ``profit``: when the customers selected by `contacts` are contacted;
        - ``predicted_profit``: the expected profit of the same contacts according to `p`;
        - ``profit_of_contacting_all``: without a model;
        - ``hindsight_threshold``, ``hindsight_profit``: the threshold that earns most on these rows. Its interval shows
          how uncertain a threshold selected on this many rows is; its profit is overstated;
        - ``empc``, ``empc_share``: as in `empc`.

    Raises
    ------
    ValueError
        If only one class occurs, or a budget is out of range.
    """
    labels = holdout.y
    resampling.check(labels)
    shares = {_budget_name(budget): _budget_share(budget, labels.size) for budget in budgets}
    calculator = _ProfitMetrics(holdout, costs, threshold, shares)
    metrics = calculator.compute(None)
    drawn = {name: np.empty(resampling.resamples) for name in metrics}
    for i, rows in enumerate(resampling.draw(labels, holdout.groups)):
        for name, number in calculator.compute(np.bincount(rows, minlength=labels.size)).items():
            drawn[name][i] = number
    level = resampling.confidence_level
    return pd.DataFrame(
        [(name, number, *_limits(name, number, drawn[name], level)) for name, number in metrics.items()],
        columns=["metric", "value", "lower", "upper"],
    )


def _limits(name: str, value: float, drawn: Probabilities, level: float) -> tuple[float, float]:
    return basic_interval(value, drawn, level) if name in OVERSTATED else percentile_interval(drawn, level)


def _budget_name(budget: Budget) -> str:
    return f"{budget * 100:g}pct" if isinstance(budget, float) and budget <= 1 else f"{budget:g}"


def _budget_share(budget: Budget, n: int) -> float:
    share = budget if isinstance(budget, float) and budget <= 1 else budget / n
    if not 0 < share <= 1:
        raise ValueError(
            f"A budget of {budget:g} cannot be evaluated on {n:,} customers. Use a fraction between 0 and 1, such as 0.1, "
            "or a number of customers."
        )
    return share


class _ProfitMetrics:
    """Customers plus a contact rule; computes the metrics for given bootstrap counts."""

    def __init__(self, holdout: Holdout, costs: CostModel, threshold: float | None, shares: dict[str, float]) -> None:
        self.costs, self.shares = costs, shares
        self.ranked = _rank(holdout.y, holdout.p, holdout.value, costs)
        contacted = contacts(holdout.p, holdout.value, costs, threshold)
        earned = contact_profit(holdout.y, holdout.value, costs)
        self.means = {
            "contacted_share": contacted.astype(np.float64),
            "profit": contacted * earned,
            "predicted_profit": contacted * expected_profit(holdout.p, holdout.value, costs),
            "profit_of_contacting_all": earned,
        }

    def compute(self, counts: npt.NDArray[np.int64] | None) -> dict[str, float]:
        """Compute the metrics; `counts`, of shape (n,), says how often each customer was drawn."""
        ranked = self.ranked
        n = ranked.y.size if counts is None else int(counts.sum())
        by_rank = None if counts is None else counts[ranked.order]
        means = {name: float((row if counts is None else row * counts).sum() / n) for name, row in self.means.items()}
        threshold, profit = _best_cut(ranked, self.costs.acceptance, by_rank)
        value, share = _empc(ranked, self.costs, by_rank)
        hindsight = {"hindsight_threshold": threshold, "hindsight_profit": profit / n}
        return {**self._at_budgets(by_rank), **means, **hindsight, "empc": value, "empc_share": share}

    def _at_budgets(self, counts: npt.NDArray[np.int64] | None) -> dict[str, float]:
        churned = np.append(0, self.ranked.sums(self.ranked.y, counts))
        contacted = np.append(0, self.ranked.sums(np.ones(self.ranked.y.size), counts))
        n, metrics = contacted[-1], {}
        for name, share in self.shares.items():
            churners = np.interp(share * n, contacted, churned)
            metrics[f"precision_at_{name}"] = float(churners / (share * n))
            metrics[f"lift_at_{name}"] = float(churners / (share * churned[-1]))
        return metrics


def profit_curve(
    holdout: Holdout, costs: CostModel, points: int = 200, resampling: Resampling = CURVE_RESAMPLING
) -> pd.DataFrame:
    """Compute profit by threshold, with a pointwise bootstrap band.

    Parameters
    ----------
    holdout, costs, resampling
        As in `profit_metrics`.
    points
        Largest number of thresholds.

    Returns
    -------
    pandas.DataFrame
        Columns threshold (ascending, from 0 to 1), contacted_share, profit, lower, upper; at most `points` rows. Half of
        the thresholds are evenly spaced, the others are quantiles of `p`.
    """
    labels, probabilities = holdout.y, holdout.p
    resampling.check(labels)
    earned = contact_profit(labels, holdout.value, costs)
    quantiles = np.quantile(probabilities, np.linspace(0, 1, points // 2))
    thresholds = np.unique(np.concatenate((quantiles, np.linspace(0, 1, points - points // 2))))
    # The highest threshold at which the customer is contacted
    highest = np.searchsorted(thresholds, probabilities, side="right") - 1

    def curve(weights: Probabilities) -> Probabilities:
        at = np.bincount(highest, weights=weights, minlength=thresholds.size)
        return np.asarray(np.cumsum(at[::-1])[::-1] / labels.size)

    drawn = np.empty((resampling.resamples, thresholds.size))
    for i, rows in enumerate(resampling.draw(labels, holdout.groups)):
        counts = np.bincount(rows, minlength=labels.size)
        drawn[i] = curve(earned * counts) * (labels.size / rows.size)
    level = resampling.confidence_level
    lower, upper = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return pd.DataFrame(
        {
            "threshold": thresholds,
            "contacted_share": curve(np.ones(labels.size)),
            "profit": curve(earned),
            "lower": lower,
            "upper": upper,
        }
    )


def sensitivity(holdout: Holdout, costs: CostModel, factors: Sequence[float] = FACTORS) -> pd.DataFrame:
    """Compute the profit if one assumption of the cost model is wrong by a factor.

    A customer is contacted if the churn probability is at least the break-even of that customer's value.

    Returns
    -------
    pandas.DataFrame
        One row per parameter and factor, with the columns

        - parameter, factor, setting (for values, their mean; acceptance is at most 1);
        - threshold: break-even at the mean value;
        - contacted_share, profit: if contacts follow the true costs;
        - profit_with_assumed_costs: if contacts follow the assumed costs, but the changed costs turn out to be the true
          ones. The difference between the two profits is the cost of the wrong assumption.
    """
    labels, probabilities, values = holdout.y, holdout.p, holdout.value
    assumed_contacts = contacts(probabilities, values, costs)
    rows = []
    for parameter in ("value", "offer_cost", "contact_cost", "acceptance"):
        for factor in factors:
            true_costs, true_values = _changed(parameter, factor, costs, values)
            contacted = contacts(probabilities, true_values, true_costs)
            earned = contact_profit(labels, true_values, true_costs)
            rows.append(
                {
                    "parameter": parameter,
                    "factor": factor,
                    "setting": true_values.mean() if parameter == "value" else getattr(true_costs, parameter),
                    "threshold": float(break_even(true_values.mean(), true_costs)),
                    "contacted_share": contacted.mean(),
                    "profit": (contacted * earned).mean(),
                    "profit_with_assumed_costs": (assumed_contacts * earned).mean(),
                }
            )
    return pd.DataFrame(rows)


def _changed(parameter: str, factor: float, costs: CostModel, values: Probabilities) -> tuple[CostModel, Probabilities]:
    if parameter == "value":
        return costs, values * factor
    setting = getattr(costs, parameter) * factor
    return costs.model_copy(update={parameter: min(setting, 1.0) if parameter == "acceptance" else setting}), values
