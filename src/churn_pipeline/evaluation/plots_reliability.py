"""Reliability diagram without bins (CORP): the isotonic recalibration against the churn probability.

As in `plots`, the title states the finding and the figure is made without pyplot.
"""

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from churn_pipeline.evaluation.figures import (
    DASHED,
    DOTTED,
    MODEL,
    REFERENCE,
    SOLID,
    empty,
    label,
    legend,
    shares,
    style,
    thin,
)
from churn_pipeline.evaluation.metrics import calibration_error
from churn_pipeline.evaluation.miscalibration import (
    consistency_band,
    recalibrate,
    tally_miscalibration,
)
from churn_pipeline.evaluation.predictions import (
    Probabilities,
    Tally,
    check_predictions,
    descending_ranks,
    equal_mass_bins,
    tally,
)


def reliability_plot(
    y: npt.ArrayLike,
    p: npt.ArrayLike,
    by_chance: float | None = None,
    truth: npt.ArrayLike | None = None,
    groups: npt.ArrayLike | None = None,
    confidence_level: float = 0.95,
) -> Figure:
    """Plot the reliability diagram: the churn share, by isotonic regression, against the churn probability.

    The band shows where the curve of a calibrated model lies, pointwise. The dots are equal-mass bins. A histogram below shows
    the number of customers by churn probability.

    Parameters
    ----------
    y, p : array-like of shape (n,)
        Labels (1 for churned) and churn probabilities.
    by_chance
        Result of `miscalibration_by_chance`, for the title.
    truth : array-like of shape (n,), optional
        The true churn probabilities, if known; their mean in each bin is drawn as well.
    groups : array-like of shape (n,), optional
        Group key of each row, for the band.
    confidence_level
        Share of calibrated models within the band, at each churn probability.

    Raises
    ------
    ValueError
        If predictions are invalid.

    References
    ----------
    Dimitriadis, Gneiting & Jordan (2021), "Stable reliability diagrams for probabilistic classifiers", PNAS 118(8).
    """
    labels, probabilities = check_predictions(y, p)
    counted = tally(labels, probabilities)
    figure = empty(height=7.2)
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    style(axes, _title(counted, by_chance))
    at, lower, upper = consistency_band(probabilities, groups, confidence_level)
    name = f"calibrated models: {confidence_level:.0%} at each point"
    axes.fill_between(at, lower, upper, color=REFERENCE, alpha=0.18, lw=0, label=name)
    axes.plot([0, 1], [0, 1], label="perfect", **DOTTED)
    if truth is not None:
        _draw_true_bins(axes, probabilities, check_predictions(labels, truth)[1])
    _draw_bins(axes, counted, f"equal-mass bins: calibration error {calibration_error(labels, probabilities):.3f}")
    axes.plot(
        *thin(counted.p, recalibrate(counted)), drawstyle="steps-mid", label="model: isotonic regression", **SOLID
    )
    label(axes, "", f"churn share (mean {labels.mean():.1%})")
    legend(axes, "lower right")
    style(below)
    below.hist(probabilities, bins=np.linspace(0, 1, 41).tolist(), color=MODEL, alpha=0.6)
    below.yaxis.set_major_formatter("{x:,.0f}")
    label(below, f"churn probability (mean {probabilities.mean():.1%})", "customers")
    shares(axes)
    axes.set_xlim(-0.02, 1.02)  # room for a bin at the edge
    axes.set_ylim(-0.02, 1.02)
    return figure


def _title(counted: Tally, by_chance: float | None) -> str:
    value = tally_miscalibration(counted)
    if by_chance is None:
        return f"Reliability: miscalibration {value:.4f}"
    return f"Reliability: miscalibration {value:.4f} (up to {by_chance:.4f} by chance)"


def _draw_bins(axes: Axes, counted: Tally, name: str) -> None:
    assigned = equal_mass_bins(counted)
    customers = np.bincount(assigned, weights=counted.customers)
    filled = customers > 0  # a large tie can leave a bin empty
    predicted, churned = (
        np.bincount(assigned, weights=of)[filled] / customers[filled]
        for of in (counted.p * counted.customers, counted.churned)
    )
    axes.plot(predicted, churned, "o", ms=5, mfc="white", mec=MODEL, label=name)


def _draw_true_bins(axes: Axes, p: Probabilities, truth: Probabilities) -> None:
    _, rank = descending_ranks(p)
    assigned = equal_mass_bins(tally(np.zeros(p.size, dtype=np.int64), p))[rank]
    customers = np.bincount(assigned)
    filled = customers > 0
    predicted, true = (np.bincount(assigned, weights=each)[filled] / customers[filled] for each in (p, truth))
    axes.plot(predicted, true, label="true churn probability in the same bins", **DASHED)
