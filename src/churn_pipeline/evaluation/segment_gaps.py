"""Gaps: how far the levels of a segment lie apart in each metric."""

import numpy as np
import pandas as pd
from scipy import stats

from churn_pipeline.evaluation.segments import ALL


def gaps(table: pd.DataFrame, confidence_level: float = 0.95) -> pd.DataFrame:
    """Compute the gap between the highest and the lowest level of each segment, in each metric.

    Parameters
    ----------
    table
        Result of `segment_metrics`, at the same `confidence_level`.
    confidence_level
        Coverage of the gap's interval. The interval is widened for the number of pairs of levels (Bonferroni), because the
        two levels that lie furthest apart were selected from all pairs.

    Returns
    -------
    pandas.DataFrame
        Columns segment, metric, gap (highest minus lowest), lower, upper, highest, lowest (levels), beyond_noise (whether
        the interval excludes 0).

    References
    ----------
    Zou & Donner (2008), "Construction of confidence limits about effect measures", Statistics in Medicine 27: limits of a
    difference from the limits of its parts; for shares, this is Newcombe's (1998) hybrid score interval.
    """
    scored = table[(table["note"] == "") & (table["segment"] != ALL) & table["value"].notna()]
    rows = []
    for (segment, metric), group in scored.groupby(["segment", "metric"], sort=False):
        if len(group) < 2:
            continue
        by_value = group.sort_values("value", kind="stable")
        lowest, highest = by_value["level"].iloc[0], by_value["level"].iloc[-1]
        low, high = by_value[["value", "lower", "upper"]].to_numpy()[[0, -1]]
        pairs = len(group) * (len(group) - 1) / 2
        wider = stats.norm.ppf(1 - (1 - confidence_level) / 2 / pairs) / stats.norm.ppf((1 + confidence_level) / 2)
        gap = high[0] - low[0]
        lower = gap - wider * _margin(high[0] - high[1], low[2] - low[0])
        upper = gap + wider * _margin(high[2] - high[0], low[0] - low[1])
        rows.append((segment, metric, gap, lower, upper, highest, lowest, lower > 0))
    names = ["segment", "metric", "gap", "lower", "upper", "highest", "lowest", "beyond_noise"]
    return pd.DataFrame(rows, columns=names)


def _margin(one: float, other: float) -> float:
    """Combine the margins of two intervals; a margin is negative if a percentile interval excludes its value."""
    return float(np.hypot(max(one, 0.0), max(other, 0.0)))
