"""What churn probabilities are worth: the profit of contacting customers, and at what churn probability to start.

A churner who is contacted accepts the offer with probability `acceptance`, stays, and is worth `value` less
the offer; a stayer takes the offer too, and would have stayed without. Every contact costs. So contacting a
customer earns::

    churner    acceptance * (value - offer_cost) - contact_cost
    stayer                             -offer_cost - contact_cost

and not contacting earns nothing. Profits here are per customer of the base, contacted or not, so that those of
two hold-outs can be compared.

References
----------
Neslin, Gupta, Kamakura, Lu & Mason (2006), "Defection Detection", Journal of Marketing Research 43(2): the model.
Verbeke, Dejaeger, Martens, Hur & Baesens (2012), "New insights into churn prediction in the telecommunication
sector: A profit driven data mining approach", European Journal of Operational Research 218(1): its maximum.
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

from churn_pipeline.evaluation.bootstrap import check_request, percentile_limits, resamples
from churn_pipeline.evaluation.metrics import Labels, Probabilities, check_predictions

FACTORS = (0.5, 0.8, 1.0, 1.25, 2.0)
# A threshold that no churn probability reaches, and a finite number all the same
NOBODY = float(np.nextafter(1, 2))
Budget = int | float
Mask = npt.NDArray[np.bool_]


class ValueColumn(BaseModel):
    """A customer's value read from a column: what it holds for one month, times the months that a saved one stays."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str
    months: float = Field(default=1, gt=0)


class CostModel(BaseModel):
    """The cost model.

    Attributes
    ----------
    value
        What a saved customer is worth before the offer: one number, or a column's.
    offer_cost
        Of an offer that is taken.
    contact_cost
        Of a contact, whatever comes of it.
    acceptance
        Share of contacted churners who accept the offer and stay.
    acceptance_sample
        How well that share is known: as if it had been seen on so many churners. Only EMPC asks. At an acceptance
        of 0.3, 20 gives the Beta(6, 14) of its authors.
    currency
        For labels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: Annotated[float, Field(gt=0)] | ValueColumn
    offer_cost: float = Field(ge=0)
    contact_cost: float = Field(ge=0)
    acceptance: float = Field(gt=0, le=1)
    acceptance_sample: float = Field(default=20, gt=0)
    currency: str = ""

    def values(self, customers: pd.DataFrame) -> Probabilities:
        """What each customer is worth, of shape (n,).

        Raises
        ------
        ValueError
            When the column is missing, or a value in it is missing or negative.
        """
        if not isinstance(self.value, ValueColumn):
            return np.full(len(customers), self.value)
        if self.value.column not in customers:
            raise ValueError(f"The cost model takes values from the column '{self.value.column}', which is not there.")
        return _check_values(customers[self.value.column].to_numpy(np.float64) * self.value.months, len(customers))


def _check_values(value: npt.ArrayLike, n: int) -> Probabilities:
    """Customer values of shape (n,), one number for all among them."""
    values = np.asarray(value, dtype=np.float64)
    if values.ndim == 0:
        values = np.full(n, values)
    if values.shape != (n,):
        raise ValueError(f"There are values of shape {values.shape} for {n:,} customers; give one for each, or one.")
    bad = ~(np.isfinite(values) & (values >= 0))
    if bad.any():
        raise ValueError(
            f"{bad.sum():,} of {n:,} customer values are missing or negative (first at position {bad.argmax()}). "
            "Give 0 for a customer who is worth nothing."
        )
    return values


def if_churner(value: npt.ArrayLike, costs: CostModel) -> Probabilities:
    """Profit of contacting a customer who would churn, over both answers to the offer; of the shape of `value`."""
    return costs.acceptance * (np.asarray(value, dtype=np.float64) - costs.offer_cost) - costs.contact_cost


def if_stayer(costs: CostModel) -> float:
    """Profit of contacting a customer who would stay anyway: never above zero."""
    return -costs.offer_cost - costs.contact_cost


def expected_profit(p: npt.ArrayLike, value: npt.ArrayLike, costs: CostModel) -> Probabilities:
    """Profit to expect of contacting each customer with churn probability `p`, of shape (n,)."""
    probabilities = np.asarray(p, dtype=np.float64)
    return probabilities * if_churner(value, costs) + (1 - probabilities) * if_stayer(costs)


def break_even(value: npt.ArrayLike, costs: CostModel) -> Probabilities:
    """The churn probability from which contacting a customer of that value pays.

    Where probabilities are calibrated, no other threshold earns more, and as nothing is fitted nothing is
    overstated when the same hold-out evaluates it.

    Returns
    -------
    ndarray of the shape of `value`
        In [0, 1]; `NOBODY` where even a certain churner is not worth the contact.

    References
    ----------
    Elkan (2001), "The Foundations of Cost-Sensitive Learning", IJCAI: the threshold from the costs alone.
    """
    loss = -if_stayer(costs)
    gain = np.asarray(if_churner(value, costs))
    reached = np.divide(loss, gain + loss, out=np.full(gain.shape, NOBODY), where=gain > 0)
    return np.asarray(np.where(gain > 0, reached, NOBODY))


def contacts(p: npt.ArrayLike, value: npt.ArrayLike, costs: CostModel, threshold: float | None = None) -> Mask:
    """Who is contacted, of shape (n,).

    Parameters
    ----------
    threshold
        Contact from this churn probability on, whatever the customer's value; by default, from each customer's own
        break-even on.
    """
    probabilities = np.asarray(p, dtype=np.float64)
    return np.asarray(probabilities >= (break_even(value, costs) if threshold is None else threshold))


def outcome(y: npt.ArrayLike, value: npt.ArrayLike, costs: CostModel) -> Probabilities:
    """Profit of contacting each customer, knowing who churned but not who accepts, of shape (n,)."""
    return np.where(np.asarray(y) == 1, if_churner(value, costs), if_stayer(costs))


def realised_profit(
    y: npt.ArrayLike, p: npt.ArrayLike, value: npt.ArrayLike, costs: CostModel, threshold: float | None = None
) -> float:
    """Profit per customer of contacting whom `contacts` names, given who churned."""
    labels, probabilities = check_predictions(y, p)
    values = _check_values(value, labels.size)
    return float((outcome(labels, values, costs) * contacts(probabilities, values, costs, threshold)).mean())


@dataclass(frozen=True)
class _Ranked:
    """Customers by falling churn probability; a tie is contacted together or not at all.

    With acceptance γ, contacting all down to a cut earns ``γ * kept - spent``, summed over them.
    """

    p: Probabilities  # of each cut, (k,)
    last: npt.NDArray[np.intp]  # row that a cut ends at, (k,)
    y: Labels  # from here on (n,), sorted
    kept: Probabilities
    spent: Probabilities
    order: npt.NDArray[np.intp]

    def down_to(self, of: Probabilities | Labels, times: npt.NDArray[np.int64] | None) -> Probabilities:
        """Sums of a column from the top to each cut, (k,), with rows counted as often as they were drawn."""
        summed = np.cumsum(of if times is None else of * times)
        return np.asarray(summed[self.last], dtype=np.float64)


def _rank(y: Labels, p: Probabilities, value: Probabilities, costs: CostModel) -> _Ranked:
    order = np.argsort(-p, kind="stable")
    y, p, value = y[order], p[order], value[order]
    last = np.flatnonzero(np.append(np.diff(p) != 0, True))
    kept = y * (value - costs.offer_cost)
    spent = np.asarray(costs.contact_cost + (1 - y) * costs.offer_cost, dtype=np.float64)
    return _Ranked(p[last], last, y, kept, spent, order)


def best_threshold(y: npt.ArrayLike, p: npt.ArrayLike, value: npt.ArrayLike, costs: CostModel) -> float:
    """The threshold that would have earned most on these rows.

    Of rows that evaluate the model this is hindsight: the best of many thresholds by luck, and its profit on the same
    rows overstated. Choose on out-of-fold predictions, or take `break_even`, which needs none.

    Returns
    -------
    float
        A churn probability of a row, or `NOBODY`.
    """
    labels, probabilities = check_predictions(y, p)
    ranked = _rank(labels, probabilities, _check_values(value, labels.size), costs)
    return _best_cut(ranked, costs.acceptance, None)[0]


def _best_cut(ranked: _Ranked, acceptance: float, times: npt.NDArray[np.int64] | None) -> tuple[float, float]:
    """The best threshold and its profit, summed over rows."""
    profit = acceptance * ranked.down_to(ranked.kept, times) - ranked.down_to(ranked.spent, times)
    best = int(profit.argmax())
    return (float(ranked.p[best]), float(profit[best])) if profit[best] > 0 else (NOBODY, 0.0)


def empc(y: npt.ArrayLike, p: npt.ArrayLike, value: npt.ArrayLike, costs: CostModel) -> tuple[float, float]:
    """Expected maximum profit for customer churn: what the ranking earns where acceptance is not known for sure.

    Acceptance is drawn from a beta distribution around the assumed one, and for each draw the best share of
    customers is contacted, by falling `p`. The authors take one value for all customers; with a value for each,
    the same expectation is computed of their sums.

    Returns
    -------
    empc : float
        Per customer of the base. Overstated, as the best cut is picked in hindsight.
    share : float
        Share of customers contacted, expected over acceptance.

    References
    ----------
    Verbraken, Verbeke & Baesens (2013), "A Novel Profit Maximizing Metric for Measuring Classification
    Performance of Customer Churn Prediction Models", IEEE TKDE 25(5).
    """
    labels, probabilities = check_predictions(y, p)
    return _empc(_rank(labels, probabilities, _check_values(value, labels.size), costs), costs, None)


def _empc(ranked: _Ranked, costs: CostModel, times: npt.NDArray[np.int64] | None) -> tuple[float, float]:
    """E[max over cuts of γ kept - spent]: an upper envelope of lines in γ, integrated piece by piece.

    Sorted by slope, the lines on the envelope are the corners of the greatest convex minorant of (kept, spent), and
    its slopes, which isotonic regression gives, are the acceptances at which the next line takes over.
    """
    ones = np.ones(ranked.y.size)
    total = ranked.down_to(ones, times)[-1]
    lines = [np.append(0, ranked.down_to(of, times)) for of in (ranked.kept, ranked.spent, ones)]
    kept, spent, contacted = _lowest_of_each_slope(*lines)
    width = np.diff(kept)
    takes_over = isotonic_regression(np.diff(spent) / width, weights=width).x if width.size else np.empty(0)
    surpassed, likely = _beta_beyond(takes_over, costs)
    value = costs.acceptance * kept[0] - spent[0] + (width * surpassed).sum()
    return float(value / total), float((contacted[0] + (np.diff(contacted) * likely).sum()) / total)


def _lowest_of_each_slope(kept: Probabilities, spent: Probabilities, contacted: Probabilities) -> list[Probabilities]:
    order = np.lexsort((spent, kept))
    first = np.append(True, np.diff(kept[order]) > 0)
    return [of[order][first] for of in (kept, spent, contacted)]


def _beta_beyond(at: Probabilities, costs: CostModel) -> tuple[Probabilities, Probabilities]:
    """E[max(γ - at, 0)] and P(γ > at) for acceptance γ; certain where it is 1."""
    mean, alpha = costs.acceptance, costs.acceptance * costs.acceptance_sample
    beta = costs.acceptance_sample - alpha
    x = np.clip(at, 0, 1)
    if beta <= 0:
        return np.maximum(1 - at, 0), (at < 1).astype(np.float64)
    likely = 1 - betainc(alpha, beta, x)
    return mean * (1 - betainc(alpha + 1, beta, x)) - at * likely, likely


def profit_metrics(
    y: npt.ArrayLike,
    p: npt.ArrayLike,
    value: npt.ArrayLike,
    costs: CostModel,
    budgets: Sequence[Budget] = (0.05, 0.1, 0.2),
    threshold: float | None = None,
    n_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    groups: npt.ArrayLike | None = None,
) -> pd.DataFrame:
    """What the model is worth on a set of customers, with percentile bootstrap intervals.

    Resamples are those of `bootstrap_metrics` with the same seed. Profits are per customer of the base.

    Parameters
    ----------
    y, p : array-like of shape (n,)
        Who churned, and the churn probabilities.
    value : float or array-like of shape (n,)
        What a saved customer is worth.
    costs
        The cost model.
    budgets
        How many customers can be contacted: shares below 1, or numbers of these customers.
    threshold
        As in `contacts`; chosen elsewhere.
    n_resamples, level, seed, groups
        As in `bootstrap_metrics`.

    Returns
    -------
    pandas.DataFrame
        Columns metric, value, lower, upper, with the metrics

        - ``precision_at_…``, ``lift_at_…``: of each budget, ties shared as in `lift_top_decile`;
        - ``contacted_share``, ``profit``: of contacting whom `contacts` names;
        - ``promised_profit``: what `p` said that this would earn;
        - ``profit_of_contacting_all``: without a model;
        - ``hindsight_threshold``, ``hindsight_profit``: the threshold that earns most on these very rows. Its
          interval says how far a threshold picked on so few rows can be trusted; its profit is overstated;
        - ``empc``, ``empc_share``: as in `empc`.

    Raises
    ------
    ValueError
        On predictions or values that cannot be evaluated, a single class, or a budget that is no budget.
    """
    labels, probabilities = check_predictions(y, p)
    values = _check_values(value, labels.size)
    check_request(labels, n_resamples, level)
    shares = {_budget_name(budget): _budget_share(budget, labels.size) for budget in budgets}
    evaluated = _ProfitSample(labels, probabilities, values, costs, threshold, shares)
    found = evaluated.metrics(None)
    drawn = {name: np.empty(n_resamples) for name in found}
    for i, rows in enumerate(resamples(labels, groups, n_resamples, seed)):
        for name, number in evaluated.metrics(np.bincount(rows, minlength=labels.size)).items():
            drawn[name][i] = number
    return pd.DataFrame(
        [(name, number, *percentile_limits(drawn[name], level)) for name, number in found.items()],
        columns=["metric", "value", "lower", "upper"],
    )


def _budget_name(budget: Budget) -> str:
    return f"{budget * 100:g}pct" if isinstance(budget, float) and budget <= 1 else f"{budget:g}"


def _budget_share(budget: Budget, n: int) -> float:
    share = budget if isinstance(budget, float) and budget <= 1 else budget / n
    if not 0 < share <= 1:
        raise ValueError(
            f"A budget of {budget:g} cannot be evaluated on {n:,} customers. Give a share between 0 and 1, such as 0.1, "
            "or a number of these customers."
        )
    return share


class _ProfitSample:
    """Customers and a way to contact them; its metrics for any number of times that each was drawn."""

    def __init__(
        self,
        y: Labels,
        p: Probabilities,
        value: Probabilities,
        costs: CostModel,
        threshold: float | None,
        shares: dict[str, float],
    ) -> None:
        self.costs, self.shares = costs, shares
        self.ranked = _rank(y, p, value, costs)
        contacted = contacts(p, value, costs, threshold)
        earned = outcome(y, value, costs)
        self.means = {
            "contacted_share": contacted.astype(np.float64),
            "profit": contacted * earned,
            "promised_profit": contacted * expected_profit(p, value, costs),
            "profit_of_contacting_all": earned,
        }

    def metrics(self, times: npt.NDArray[np.int64] | None) -> dict[str, float]:
        ranked = self.ranked
        n = ranked.y.size if times is None else int(times.sum())
        by_rank = None if times is None else times[ranked.order]
        of = {name: float((row if times is None else row * times).sum() / n) for name, row in self.means.items()}
        threshold, profit = _best_cut(ranked, self.costs.acceptance, by_rank)
        value, share = _empc(ranked, self.costs, by_rank)
        hindsight = {"hindsight_threshold": threshold, "hindsight_profit": profit / n}
        return {**self._at_budgets(by_rank), **of, **hindsight, "empc": value, "empc_share": share}

    def _at_budgets(self, times: npt.NDArray[np.int64] | None) -> dict[str, float]:
        churned = np.append(0, self.ranked.down_to(self.ranked.y, times))
        contacted = np.append(0, self.ranked.down_to(np.ones(self.ranked.y.size), times))
        n, found = contacted[-1], {}
        for name, share in self.shares.items():
            reached = np.interp(share * n, contacted, churned)
            found[f"precision_at_{name}"] = float(reached / (share * n))
            found[f"lift_at_{name}"] = float(reached / (share * churned[-1]))
        return found


def profit_curve(
    y: npt.ArrayLike,
    p: npt.ArrayLike,
    value: npt.ArrayLike,
    costs: CostModel,
    points: int = 200,
    n_resamples: int = 500,
    level: float = 0.95,
    seed: int = 0,
    groups: npt.ArrayLike | None = None,
) -> pd.DataFrame:
    """Profit against threshold, with a pointwise bootstrap band.

    Returns
    -------
    pandas.DataFrame
        Columns threshold (rising, from 0 to 1), contacted_share, profit, lower, upper; at most `points` rows,
        spread evenly over thresholds and over customers.
    """
    labels, probabilities = check_predictions(y, p)
    check_request(labels, n_resamples, level)
    earned = outcome(labels, _check_values(value, labels.size), costs)
    spread = np.quantile(probabilities, np.linspace(0, 1, points // 2))
    thresholds = np.unique(np.concatenate((spread, np.linspace(0, 1, points - points // 2))))
    # Each customer is contacted up to the highest threshold that the churn probability reaches
    reached = np.searchsorted(thresholds, probabilities, side="right") - 1

    def curve(weights: Probabilities) -> Probabilities:
        at = np.bincount(reached, weights=weights, minlength=thresholds.size)
        return np.asarray(np.cumsum(at[::-1])[::-1] / labels.size)

    drawn = np.empty((n_resamples, thresholds.size))
    for i, rows in enumerate(resamples(labels, groups, n_resamples, seed)):
        times = np.bincount(rows, minlength=labels.size)
        drawn[i] = curve(earned * times) * (labels.size / rows.size)
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


def sensitivity(
    y: npt.ArrayLike,
    p: npt.ArrayLike,
    value: npt.ArrayLike,
    costs: CostModel,
    factors: Sequence[float] = FACTORS,
) -> pd.DataFrame:
    """What comes of it when one assumption of the cost model is wrong by a factor.

    Each customer is contacted from the own break-even on.

    Returns
    -------
    pandas.DataFrame
        A row for each parameter and factor, with columns

        - parameter, factor, setting (for values: their mean; acceptance never passes 1);
        - threshold: break-even at the mean value;
        - contacted_share, profit: contacting by the changed costs;
        - profit_if_kept: contacting as by the costs assumed, while the changed ones are true. What lies between is
          the price of the wrong assumption.
    """
    labels, probabilities = check_predictions(y, p)
    values = _check_values(value, labels.size)
    kept = contacts(probabilities, values, costs)
    rows = []
    for parameter in ("value", "offer_cost", "contact_cost", "acceptance"):
        for factor in factors:
            true_costs, true_values = _changed(parameter, factor, costs, values)
            contacted = contacts(probabilities, true_values, true_costs)
            earned = outcome(labels, true_values, true_costs)
            rows.append(
                {
                    "parameter": parameter,
                    "factor": factor,
                    "setting": true_values.mean() if parameter == "value" else getattr(true_costs, parameter),
                    "threshold": float(break_even(true_values.mean(), true_costs)),
                    "contacted_share": contacted.mean(),
                    "profit": (contacted * earned).mean(),
                    "profit_if_kept": (kept * earned).mean(),
                }
            )
    return pd.DataFrame(rows)


def _changed(parameter: str, factor: float, costs: CostModel, values: Probabilities) -> tuple[CostModel, Probabilities]:
    if parameter == "value":
        return costs, values * factor
    setting = getattr(costs, parameter) * factor
    return costs.model_copy(update={parameter: min(setting, 1.0) if parameter == "acceptance" else setting}), values
