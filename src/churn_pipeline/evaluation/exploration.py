"""Data exploration: churn shares by level, and the distance between a model and known true churn probabilities."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from scipy.special import rel_entr

from churn_pipeline.evaluation.figures import DOTTED, MODEL, empty, short, style
from churn_pipeline.evaluation.intervals import wilson_interval
from churn_pipeline.evaluation.predictions import check_predictions
from churn_pipeline.evaluation.segments import MIN_ROWS

MAX_LEVELS = 10  # per feature, in a plot


def churn_shares(levels: "pd.Series[str]", churned: npt.ArrayLike, confidence_level: float = 0.95) -> pd.DataFrame:
    """Compute the churn share of each level with its Wilson interval.

    Parameters
    ----------
    levels : Series of shape (n,)
        Result of `churn_pipeline.evaluation.segment_levels.segment_levels`.
    churned : array-like of shape (n,)
        1 for a customer who churned, 0 for one who stayed.
    confidence_level
        Coverage of the intervals.

    Returns
    -------
    pandas.DataFrame
        Columns level, customers, churned (the share), lower, upper; one row per level with customers, in their order.
    """
    counted = pd.Series(np.asarray(churned), index=levels.index).groupby(levels, observed=True).agg(["size", "sum"])
    share = (counted["sum"] / counted["size"]).to_numpy()
    lower, upper = wilson_interval(share, counted["size"].to_numpy(), confidence_level)
    return pd.DataFrame(
        {
            "level": counted.index.astype(str),
            "customers": counted["size"].to_numpy(),
            "churned": share,
            "lower": lower,
            "upper": upper,
        }
    )


def churn_shares_plot(shares: Mapping[str, pd.DataFrame], overall: float) -> Figure:
    """Plot churn share by level, one panel per feature, with the churn share of all customers.

    Parameters
    ----------
    shares
        Results of `churn_shares` by feature. Of a feature with many levels, only the most frequent are drawn.
    overall
        Churn share of all customers.
    """
    tables = {
        name: table.loc[table["customers"].nlargest(MAX_LEVELS).index.sort_values()] for name, table in shares.items()
    }
    columns = min(2, len(tables))
    grid = [list(tables.items())[first : first + columns] for first in range(0, len(tables), columns)]
    heights = [1.0 + 0.3 * max(len(table) for _, table in row) for row in grid]
    figure = empty(height=0.7 + sum(heights), width=4.6 * columns + 0.6)
    figure.suptitle(_extremes(tables, overall), fontsize=13, x=0.01, ha="left")
    panels = figure.subplots(len(grid), columns, sharex=True, squeeze=False, height_ratios=heights)
    for place, axes in enumerate(panels.flat):
        if place >= len(tables):
            axes.set_axis_off()
            continue
        name, table = list(tables.items())[place]
        style(axes)
        axes.set_title(short(name, 26), fontsize=12, loc="left")
        axes.axvline(overall, **DOTTED)
        at, share = np.arange(len(table)), table["churned"].to_numpy()
        reach = np.maximum([share - table["lower"], table["upper"] - share], 0)
        axes.errorbar(share, at, xerr=reach, fmt="o", ms=6, color=MODEL, elinewidth=1.5, capsize=3)
        names = [f"{short(row.level, 26)} ({row.customers:,})" for row in table.itertuples()]
        axes.set_yticks(at, names)
        axes.set_ylim(len(table) - 0.5, -0.5)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.tick_params(labelsize=10, labelbottom=True)
    figure.supxlabel(f"churn share; dotted: all customers, {overall:.1%}", fontsize=12)
    return figure


def _extremes(tables: Mapping[str, pd.DataFrame], overall: float) -> str:
    """The levels with the lowest and the highest churn share, ignoring those with few customers."""
    every = pd.concat([table.assign(feature=name) for name, table in tables.items()], ignore_index=True)
    every = every[every["customers"] >= MIN_ROWS]
    if every.empty:
        return f"Churn is {overall:.1%}"
    low, high = every.loc[every["churned"].idxmin()], every.loc[every["churned"].idxmax()]
    ends = [f"{row['churned']:.0%} ({short(row['feature'], 26)}: {short(row['level'], 26)})" for row in (low, high)]
    return f"Churn ranges from {ends[0]} to {ends[1]}"


def closeness(truth: npt.ArrayLike, p: npt.ArrayLike) -> dict[str, float]:
    """Measure the distance between churn probabilities and the true ones.

    It does not depend on the labels, so small differences are visible on few customers.

    Parameters
    ----------
    truth, p : array-like of shape (n,)
        The true churn probabilities, and those of a model.

    Returns
    -------
    dict of str to float
        ``distance``: mean absolute difference; ``bias``: mean of p minus mean of the truth; ``excess_log_loss``: expected
        log loss minus the lowest possible one.

    Raises
    ------
    ValueError
        If shapes differ, or a probability is missing or outside [0, 1].
    """
    probabilities = check_predictions(np.zeros(np.shape(p), dtype=np.int64), p)[1]
    true = check_predictions(np.zeros(probabilities.shape, dtype=np.int64), truth)[1]
    eps = np.finfo(np.float64).eps
    clipped = np.clip(probabilities, eps, 1 - eps)  # as in log_loss
    return {
        "distance": float(np.abs(probabilities - true).mean()),
        "bias": float(probabilities.mean() - true.mean()),
        "excess_log_loss": float((rel_entr(true, clipped) + rel_entr(1 - true, 1 - clipped)).mean()),
    }
