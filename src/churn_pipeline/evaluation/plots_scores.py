"""Plots of the churn probabilities by class and by tenth of the customers.

As in `plots`, titles state the finding and figures are made without pyplot.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from churn_pipeline.evaluation.figures import (
    BEST_POSSIBLE,
    DOTTED,
    MODEL,
    Interval,
    label,
    legend,
    one_axes,
    with_interval,
)
from churn_pipeline.evaluation.intervals import effective_rows, wilson_interval
from churn_pipeline.evaluation.metrics import lift_top_decile
from churn_pipeline.evaluation.predictions import Labels, Probabilities, check_predictions, gain_curve, tally


def lift_plot(
    y: npt.ArrayLike,
    p: npt.ArrayLike,
    interval: Interval | None = None,
    confidence_level: float = 0.95,
    groups: npt.NDArray[np.generic] | None = None,
) -> Figure:
    """Plot the lift of each tenth of customers, highest churn probability first, with Wilson intervals.

    Ties are treated as in `lift_top_decile`.

    Parameters
    ----------
    y, p : array-like of shape (n,)
        Labels (1 for churned) and churn probabilities.
    interval
        Limits of the lift in the top decile, for the title.
    confidence_level
        Coverage of the bars' intervals.
    groups : ndarray of shape (n,), optional
        Group key of each row; rows with the same key are not treated as independent.
    """
    labels, probabilities = check_predictions(y, p)
    value = lift_top_decile(labels, probabilities)
    figure, axes = one_axes(f"Lift: top decile {with_interval(value, interval, digits=2)}")
    edges = np.linspace(0, 1, 11)
    lift = np.diff(np.interp(edges, *gain_curve(tally(labels, probabilities)))) * 10
    share = labels.mean()
    rate = np.clip(lift * share, 0, 1)
    lower, upper = wilson_interval(rate, _rows_of_tenths(labels, probabilities, groups), confidence_level)
    errors = np.array([rate - lower, upper - rate]) / share
    tenths = np.arange(1, 11)
    axes.bar(tenths, lift, color=MODEL, alpha=0.75, width=0.8, label="model")
    axes.errorbar(tenths, lift, yerr=errors, fmt="none", ecolor="black", elinewidth=1, capsize=3)
    axes.axhline(1, label=f"random selection: 1.00 ({share:.1%} churned)", **DOTTED)
    for tenth, height, above in zip(tenths, lift, errors[1], strict=True):
        axes.annotate(
            f"{height:.2f}", (tenth, height + above), (0, 3), textcoords="offset points", ha="center", fontsize=9
        )
    axes.set_xticks(tenths)
    axes.grid(visible=False, axis="x")
    axes.set_ylim(0, float((lift + errors[1]).max()) * 1.1)
    label(axes, "tenth of customers, highest churn probability first", "lift: churn share relative to all customers")
    legend(axes, "upper right")
    return figure


def _rows_of_tenths(
    labels: Labels, probabilities: Probabilities, groups: npt.NDArray[np.generic] | None
) -> Probabilities:
    """Number of independent rows in each tenth, highest churn probability first, of shape (10,)."""
    if groups is None:
        return np.full(10, labels.size / 10)
    tenths = np.array_split(np.argsort(-probabilities, kind="stable"), 10)
    return np.array([effective_rows(labels[rows] == 1, groups[rows]) if rows.size else 1.0 for rows in tenths])


def score_plot(y: npt.ArrayLike, p: npt.ArrayLike, threshold: float | None = None, bins: int = 40) -> Figure:
    """Plot the distribution of churn probabilities for churners and for stayers, each normalised to 1.

    Parameters
    ----------
    y, p : array-like of shape (n,)
        Labels (1 for churned) and churn probabilities.
    threshold
        The break-even at the mean value, drawn as a line.
    bins
        Number of bins of equal width.
    """
    labels, probabilities = check_predictions(y, p)
    medians = [float(np.median(probabilities[labels == kind])) if (labels == kind).any() else np.nan for kind in (1, 0)]
    title = f"Scores: median {medians[0]:.2f} churned, {medians[1]:.2f} stayed"
    figure, axes = one_axes(title if np.isfinite(medians).all() else "Scores", height=5.0, width=7.2)
    edges = np.linspace(0, 1, bins + 1)
    looks: list[tuple[int, str, dict[str, Any]]] = [
        (0, "stayed", {"color": MODEL, "alpha": 0.45}),
        (1, "churned", {"color": BEST_POSSIBLE, "histtype": "step", "lw": 2}),
    ]
    for kind, name, look in looks:
        scores = probabilities[labels == kind]
        if scores.size:
            weights = np.full(scores.size, 1 / scores.size)
            axes.hist(scores, edges.tolist(), weights=weights, label=f"{name}: {scores.size:,}", **look)
    if threshold is not None:
        axes.axvline(threshold, color="black", lw=1, ls="--", label=f"break-even at the mean value: {threshold:.3f}")
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    label(axes, "churn probability", "share of the class")
    legend(axes, "upper right")
    return figure
