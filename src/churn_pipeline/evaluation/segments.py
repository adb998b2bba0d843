"""Metrics by protected attribute and by segment: which customers the model serves worse."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from churn_pipeline.costs import CostModel, Mask, contacts
from churn_pipeline.evaluation.bootstrap import Resampling, bootstrap_metrics
from churn_pipeline.evaluation.holdout import Holdout
from churn_pipeline.evaluation.intervals import effective_rows, mean_with_error, t_margin, wilson_interval
from churn_pipeline.evaluation.profit import Budget, profit_metrics
from churn_pipeline.evaluation.segment_levels import segment_levels

ALL = "all customers"
MIN_ROWS = 30
SEGMENT_RESAMPLING = Resampling(resamples=300)
# Demographic parity, equal opportunity, equalised odds, predictive parity, calibration
FAIRNESS = ("contacted_share", "true_positive_rate", "false_positive_rate", "precision", "calibration_gap")
Estimate = tuple[float, float, float]


@dataclass(frozen=True)
class SegmentScoring:
    """What is computed for each level of a segment.

    Attributes
    ----------
    costs
        The cost model.
    metrics
        Names that `resolve_metric` accepts.
    budgets, threshold
        As in `profit_metrics`; a budget is a share of each level's customers.
    min_rows
        Levels with fewer distinct customers are listed but not scored: their metrics would be noise and could reveal a
        person.
    """

    costs: CostModel
    metrics: tuple[str, ...] = ("auc", "log_loss")
    budgets: tuple[Budget, ...] = (0.1,)
    threshold: float | None = None
    min_rows: int = MIN_ROWS


def segment_metrics(
    holdout: Holdout,
    segments: Mapping[str, "pd.Series[str]"],
    scoring: SegmentScoring,
    resampling: Resampling = SEGMENT_RESAMPLING,
) -> pd.DataFrame:
    """Compute metrics with intervals for all customers and for each level of each segment.

    Parameters
    ----------
    holdout
        Labels, churn probabilities, values and group keys of n rows.
    segments
        By name, the levels of a protected attribute or another segment, each of shape (n,), from `segment_levels`.
    scoring
        Cost model, metrics, budgets and the smallest level to score.
    resampling
        Number of resamples, confidence level and seed.

    Returns
    -------
    pandas.DataFrame
        Columns segment, level, rows, churn_share, metric, value, lower, upper, note. A level that is not scored (too few
        customers, or one class only) has one row, and `note` gives the reason. The metrics are those of `scoring`, those
        of `profit_metrics`, and

        - ``true_positive_rate``, ``false_positive_rate``: share of churners and of stayers who are contacted;
        - ``precision``: share of contacted customers who churned;
        - ``calibration_gap``: mean churn probability minus churn share.

        Shares have Wilson intervals. If customers have several rows, the intervals are those of the effective number of rows.

    Raises
    ------
    ValueError
        If a segment does not have n levels.

    References
    ----------
    Hardt, Price & Srebro (2016), "Equality of Opportunity in Supervised Learning", NeurIPS.
    """
    rows = holdout.y.size
    scores = _Scores(holdout, scoring, resampling)
    tables = [scores.table(np.ones(rows, dtype=bool), ALL, ALL)]
    for name, levels in segments.items():
        if len(levels) != rows:
            raise ValueError(f"Segment '{name}' has {len(levels):,} levels for {rows:,} customers.")
        column = levels if isinstance(levels.dtype, pd.CategoricalDtype) else segment_levels(levels)
        for level in column.cat.categories:
            within = (column == level).to_numpy()
            if within.any():
                tables.append(scores.table(within, name, str(level)))
    return pd.concat(tables, ignore_index=True)


class _Scores:
    """Computes the rows of the table for one level at a time."""

    def __init__(self, holdout: Holdout, scoring: SegmentScoring, resampling: Resampling) -> None:
        self.holdout, self.scoring, self.resampling = holdout, scoring, resampling
        self.contacted = contacts(holdout.p, holdout.value, scoring.costs, scoring.threshold)

    def table(self, within: Mask, segment: str, level: str) -> pd.DataFrame:
        note = self._reason_not_scored(within)
        table = (
            pd.DataFrame({"metric": [""], "value": np.nan, "lower": np.nan, "upper": np.nan})
            if note
            else self._metrics(within)
        )
        # The churn share of a single customer would be the label
        share = np.nan if note else self.holdout.y[within].mean()
        front = {"segment": segment, "level": level, "rows": int(within.sum()), "churn_share": share}
        return pd.DataFrame({**front, **table, "note": note})

    def _reason_not_scored(self, within: Mask) -> str:
        if self.holdout.count_customers(within) < max(self.scoring.min_rows, 2):
            return f"fewer than {self.scoring.min_rows} customers"
        labels = self.holdout.y[within]
        return "one class only" if labels.min() == labels.max() else ""

    def _metrics(self, within: Mask) -> pd.DataFrame:
        level, scoring = self.holdout.select(within), self.scoring
        profit = profit_metrics(level, scoring.costs, scoring.budgets, scoring.threshold, self.resampling)
        tables = [
            bootstrap_metrics(level.y, level.p, scoring.metrics, self.resampling, level.groups),
            # The share's Wilson interval replaces this one, which has no width if no customer or every customer is contacted
            profit[profit["metric"] != "contacted_share"],
        ]
        rows = [(name, *estimate) for name, estimate in self._fairness(within).items()]
        return pd.concat(
            [*tables, pd.DataFrame(rows, columns=["metric", "value", "lower", "upper"])], ignore_index=True
        )

    def _fairness(self, within: Mask) -> dict[str, Estimate]:
        churned = self.holdout.y == 1
        return {
            "contacted_share": self._share(self.contacted, within),
            "true_positive_rate": self._share(self.contacted, within & churned),
            "false_positive_rate": self._share(self.contacted, within & ~churned),
            "precision": self._share(churned, within & self.contacted),
            "calibration_gap": self._calibration_gap(within),
        }

    def _share(self, hits: Mask, among: Mask) -> Estimate:
        """Share of hits with its Wilson interval; NaN if there are no rows."""
        if not among.any():
            return np.nan, np.nan, np.nan
        share = float(hits[among].mean())
        groups = self.holdout.groups
        n = float(among.sum()) if groups is None else effective_rows(hits[among], groups[among])
        lower, upper = wilson_interval(share, n, self.resampling.confidence_level)
        return share, float(lower), float(upper)

    def _calibration_gap(self, within: Mask) -> Estimate:
        excess = self.holdout.p[within] - self.holdout.y[within]
        groups = None if self.holdout.groups is None else self.holdout.groups[within]
        mean, error = mean_with_error(excess, groups)
        customers = excess.size if groups is None else len(pd.unique(groups))
        margin = t_margin(error, customers - 1, self.resampling.confidence_level)
        return mean, mean - margin, mean + margin
