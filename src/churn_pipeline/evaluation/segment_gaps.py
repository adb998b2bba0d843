"""Gaps: how far the levels of a segment lie apart in each metric, and which gaps are more than chance."""

from collections.abc import Collection

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from churn_pipeline.evaluation.predictions import Probabilities
from churn_pipeline.evaluation.segments import ALL, FAIRNESS

# Shares of contacts may differ between segments such as contract types; for protected attributes, every difference matters
COMPARED = ("auc", "profit", "calibration_gap")


def gaps(table: pd.DataFrame, protected: Collection[str] = (), confidence_level: float = 0.95) -> pd.DataFrame:
    """Compute the gap between the highest and the lowest level of each segment, in each metric that is compared.

    Parameters
    ----------
    table
        Result of `segment_metrics`, at the same `confidence_level`.
    protected
        Segments that are protected attributes. They are compared in `FAIRNESS`, others in `COMPARED`.
    confidence_level
        Coverage of each gap's interval. The interval is widened for the number of pairs of levels (Bonferroni), because the
        two levels that lie furthest apart were selected from all pairs. It is not widened for the number of gaps.

    Returns
    -------
    pandas.DataFrame
        Columns segment, metric, gap (highest minus lowest), lower, upper, highest, lowest (levels), p_value and significant.
        The p-value is corrected for the pairs of levels and for the number of gaps in the table (Holm). So no gap at all is
        significant in `confidence_level` of the tables in which levels do not differ.

    References
    ----------
    Zou & Donner (2008), "Construction of confidence limits about effect measures", Statistics in Medicine 27: limits of a
    difference from the limits of its parts; for shares, this is Newcombe's (1998) hybrid score interval.
    Holm (1979), "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics 6.
    """
    scored = table[(table["note"] == "") & (table["segment"] != ALL) & table["value"].notna()]
    rows = []
    for (segment, metric), levels in scored.groupby(["segment", "metric"], sort=False):
        if len(levels) >= 2 and metric in (FAIRNESS if segment in protected else COMPARED):
            rows.append((segment, metric, *_gap(levels, confidence_level)))
    names = ["segment", "metric", "gap", "lower", "upper", "highest", "lowest", "p_value"]
    found = pd.DataFrame(rows, columns=names)
    found["p_value"] = holm(found["p_value"].to_numpy(np.float64))
    return found.assign(significant=found["p_value"] < 1 - confidence_level)


def _gap(levels: pd.DataFrame, confidence_level: float) -> tuple[float, float, float, str, str, float]:
    """Gap, limits, highest and lowest level, and the p-value before Holm's correction."""
    by_value = levels.sort_values("value", kind="stable")
    lowest, highest = by_value["level"].iloc[0], by_value["level"].iloc[-1]
    low, high = by_value[["value", "lower", "upper"]].to_numpy()[[0, -1]]
    pairs = len(levels) * (len(levels) - 1) / 2
    z = stats.norm.ppf((1 + confidence_level) / 2)
    wider = stats.norm.ppf(1 - (1 - confidence_level) / 2 / pairs) / z
    gap = high[0] - low[0]
    below, above = _margin(high[0] - high[1], low[2] - low[0]), _margin(high[2] - high[0], low[0] - low[1])
    p_value = min(1.0, pairs * two_sided(gap, below / z))
    return gap, gap - wider * below, gap + wider * above, highest, lowest, p_value


def two_sided(difference: float, standard_error: float) -> float:
    """Two-sided p-value of a normal test; 1 for no difference."""
    if not difference:
        return 1.0
    with np.errstate(divide="ignore"):
        return float(2 * stats.norm.sf(np.abs(np.divide(difference, standard_error))))


def holm(p_values: npt.ArrayLike) -> Probabilities:
    """Correct p-values of shape (m,) for their number: significant ones are wrong in any way only as often as a single one."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    corrected = np.empty(p.size)
    corrected[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1)))
    return corrected


def _margin(one: float, other: float) -> float:
    """Combine the margins of two intervals; a margin is negative if a percentile interval excludes its value."""
    return float(np.hypot(max(one, 0.0), max(other, 0.0)))
