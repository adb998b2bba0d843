"""Realised profit of contacting customers, with intervals.

Profits are per customer of the base, contacted or not, so that two hold-outs can be compared.

References
----------
Verbeke, Dejaeger, Martens, Hur & Baesens (2012), "New insights into churn prediction in the telecommunication
sector: A profit driven data mining approach", European Journal of Operational Research 218(1): the maximum profit.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from churn_pipeline.costs import CostModel, check_values, contact_profit, contacts, expected_profit
from churn_pipeline.evaluation.bootstrap import DEFAULT_RESAMPLING, Resampling
from churn_pipeline.evaluation.empc import empc_of_ranking
from churn_pipeline.evaluation.holdout import Holdout
from churn_pipeline.evaluation.intervals import basic_interval, percentile_interval
from churn_pipeline.evaluation.predictions import Probabilities, check_predictions
from churn_pipeline.evaluation.ranking import Counts, best_cut, rank_customers

# The best threshold is selected on the rows that are evaluated
OVERSTATED = ("hindsight_profit", "empc")
Budget = int | float


def realised_profit(
    y: npt.ArrayLike, p: npt.ArrayLike, value: npt.ArrayLike, costs: CostModel, threshold: float | None = None
) -> float:
    """Realised profit per customer when the customers selected by `contacts` are contacted."""
    labels, probabilities = check_predictions(y, p)
    values = check_values(value, labels.size)
    return float((contact_profit(labels, values, costs) * contacts(probabilities, values, costs, threshold)).mean())


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
        self.ranked = rank_customers(holdout.y, holdout.p, holdout.value, costs)
        contacted = contacts(holdout.p, holdout.value, costs, threshold)
        earned = contact_profit(holdout.y, holdout.value, costs)
        self.means = {
            "contacted_share": contacted.astype(np.float64),
            "profit": contacted * earned,
            "predicted_profit": contacted * expected_profit(holdout.p, holdout.value, costs),
            "profit_of_contacting_all": earned,
        }

    def compute(self, counts: Counts) -> dict[str, float]:
        """Compute the metrics; `counts`, of shape (n,), says how often each customer was drawn."""
        ranked = self.ranked
        n = ranked.y.size if counts is None else int(counts.sum())
        by_rank = None if counts is None else counts[ranked.order]
        means = {name: float((row if counts is None else row * counts).sum() / n) for name, row in self.means.items()}
        threshold, profit = best_cut(ranked, self.costs.acceptance, by_rank)
        value, share = empc_of_ranking(ranked, self.costs, by_rank)
        hindsight = {"hindsight_threshold": threshold, "hindsight_profit": profit / n}
        return {**self._at_budgets(by_rank), **means, **hindsight, "empc": value, "empc_share": share}

    def _at_budgets(self, counts: Counts) -> dict[str, float]:
        churned = np.append(0, self.ranked.sums(self.ranked.y, counts))
        contacted = np.append(0, self.ranked.sums(np.ones(self.ranked.y.size), counts))
        n, metrics = contacted[-1], {}
        for name, share in self.shares.items():
            churners = np.interp(share * n, contacted, churned)
            metrics[f"precision_at_{name}"] = float(churners / (share * n))
            metrics[f"lift_at_{name}"] = float(churners / (share * churned[-1]))
        return metrics
