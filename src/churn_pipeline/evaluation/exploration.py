"""What goes with churn, before there is a model: churn shares by level, and how close a model comes to a known truth."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from scipy import stats
from scipy.special import rel_entr

from churn_pipeline.evaluation.figures import DOTTED, MODEL, empty, short, style
from churn_pipeline.evaluation.metrics import check_predictions
from churn_pipeline.evaluation.segments import MIN_ROWS

MOST_LEVELS = 10  # of a feature, in a plot


def churn_shares(levels: "pd.Series[str]", churned: npt.ArrayLike, level: float = 0.95) -> pd.DataFrame:
    """Churn share of each level with its interval.

    Parameters
    ----------
    levels : Series of shape (n,)
        As `churn_pipeline.evaluation.segments.segment_levels` gives them.
    churned : array-like of shape (n,)
        1 for a customer who churned, 0 for one who stayed.
    level
        Of Wilson's interval.

    Returns
    -------
    pandas.DataFrame
        Columns level, customers, churned (the share), lower, upper; a row for each level that has customers, in their order.
    """
    counted = pd.Series(np.asarray(churned), index=levels.index).groupby(levels, observed=True).agg(["size", "sum"])
    tests = [stats.binomtest(int(k), int(n)) for n, k in counted.itertuples(index=False)]
    limits = [test.proportion_ci(level, method="wilson") for test in tests]
    return pd.DataFrame(
        {
            "level": counted.index.astype(str),
            "customers": counted["size"].to_numpy(),
            "churned": (counted["sum"] / counted["size"]).to_numpy(),
            "lower": [limit.low for limit in limits],
            "upper": [limit.high for limit in limits],
        }
    )


def churn_shares_plot(shares: Mapping[str, pd.DataFrame], overall: float) -> Figure:
    """Churn share by level, a panel for each feature, beside the churn share of all.

    Parameters
    ----------
    shares
        Tables of `churn_shares` by feature. Of a feature with many levels, those with most customers are drawn.
    overall
        Churn share of all customers.
    """
    tables = {
        name: table.loc[table["customers"].nlargest(MOST_LEVELS).index.sort_values()] for name, table in shares.items()
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
    """Between which levels churn runs, those of few customers left out."""
    every = pd.concat([table.assign(feature=name) for name, table in tables.items()], ignore_index=True)
    every = every[every["customers"] >= MIN_ROWS]
    if every.empty:
        return f"Churn is {overall:.1%}"
    low, high = every.loc[every["churned"].idxmin()], every.loc[every["churned"].idxmax()]
    ends = [f"{row['churned']:.0%} ({short(row['feature'], 26)}: {short(row['level'], 26)})" for row in (low, high)]
    return f"Churn runs from {ends[0]} to {ends[1]}"


def closeness(truth: npt.ArrayLike, p: npt.ArrayLike) -> dict[str, float]:
    """How close churn probabilities come to the true ones, where those are known.

    Nothing here depends on who happened to churn, so that small differences show on few customers.

    Parameters
    ----------
    truth, p : array-like of shape (n,)
        The true churn probabilities, and a model's.

    Returns
    -------
    dict of str to float
        ``distance``: the mean of how far the two are apart; ``bias``: the mean of p less that of the truth;
        ``excess_log_loss``: by how much the log loss to expect is above the least that can be reached.

    Raises
    ------
    ValueError
        When shapes differ, or a probability is missing or outside [0, 1].
    """
    probabilities = check_predictions(np.zeros(np.shape(p), dtype=np.int64), p)[1]
    true = check_predictions(np.zeros(probabilities.shape, dtype=np.int64), truth)[1]
    eps = np.finfo(np.float64).eps
    held = np.clip(probabilities, eps, 1 - eps)  # as in log_loss: certain and wrong is not infinite
    return {
        "distance": float(np.abs(probabilities - true).mean()),
        "bias": float(probabilities.mean() - true.mean()),
        "excess_log_loss": float((rel_entr(true, held) + rel_entr(1 - true, 1 - held)).mean()),
    }
