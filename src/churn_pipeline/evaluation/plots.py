"""Plots of churn probabilities against what happened. Each gives a new `matplotlib.figure.Figure`.

Every title states the finding. Figures are made without pyplot, so that they need no display, share no state
between threads, and are freed with their last reference.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from churn_pipeline.evaluation.figures import (
    DASHED,
    DOTTED,
    MODEL,
    SOLID,
    Interval,
    empty,
    label,
    legend,
    one_axes,
    shares,
    style,
    thin,
    with_interval,
)
from churn_pipeline.evaluation.metrics import (
    Labels,
    Probabilities,
    Tally,
    auc,
    average_precision,
    calibration_error,
    check_predictions,
    descending_ranks,
    equal_mass_bins,
    gain_curve,
    lift_top_decile,
    tally,
)


def roc_plot(
    y: npt.ArrayLike, p: npt.ArrayLike, interval: Interval | None = None, truth: npt.ArrayLike | None = None
) -> Figure:
    """ROC curve: churners found against stayers picked by mistake.

    Parameters
    ----------
    y, p : array-like of shape (n,)
        Who churned, and the churn probabilities.
    interval
        Limits of the AUC, for the title.
    truth : array-like of shape (n,), optional
        The true churn probabilities where they are known, as in a simulation: the best curve that can be
        reached.

    Raises
    ------
    ValueError
        On predictions that no metric is defined on, or a single class.
    """
    labels, probabilities = check_predictions(y, p)
    value = auc(labels, probabilities)
    figure, axes = one_axes(f"ROC: AUC {with_interval(value, interval)}")
    axes.plot([0, 1], [0, 1], label="guessing: 0.500", **DOTTED)
    if truth is not None:
        true_probabilities = check_predictions(labels, truth)[1]
        axes.plot(
            *_roc_curve(labels, true_probabilities),
            label=f"best possible: {auc(labels, true_probabilities):.3f}",
            **DASHED,
        )
    axes.plot(*_roc_curve(labels, probabilities), label=f"model: {value:.3f}", **SOLID)
    label(axes, "stayers picked by mistake (false positive rate)", "churners found (true positive rate)")
    shares(axes)
    legend(axes, "lower right")
    return figure


def _roc_curve(y: Labels, p: Probabilities) -> tuple[Probabilities, Probabilities]:
    counted = tally(y, p)
    picked = np.concatenate(([0], np.cumsum(counted.stayed)))
    found = np.concatenate(([0], np.cumsum(counted.churned)))
    return thin(picked / picked[-1], found / found[-1])


def precision_recall_plot(
    y: npt.ArrayLike, p: npt.ArrayLike, interval: Interval | None = None, truth: npt.ArrayLike | None = None
) -> Figure:
    """Precision–recall curve, in steps: no straight line between two thresholds can be reached.

    Parameters
    ----------
    y, p : array-like of shape (n,)
        Who churned, and the churn probabilities.
    interval
        Limits of the average precision, for the title.
    truth : array-like of shape (n,), optional
        The true churn probabilities where they are known: the best curve that can be reached.

    Raises
    ------
    ValueError
        On predictions that no metric is defined on, or when nobody churned.

    References
    ----------
    Davis & Goadrich (2006), "The Relationship Between Precision-Recall and ROC Curves", ICML.
    """
    labels, probabilities = check_predictions(y, p)
    value = average_precision(labels, probabilities)
    figure, axes = one_axes(f"Precision–recall: average precision {with_interval(value, interval)}")
    share = labels.mean()
    axes.plot([0, 1], [share, share], label=f"guessing: {share:.3f}", **DOTTED)
    if truth is not None:
        true_probabilities = check_predictions(labels, truth)[1]
        name = f"best possible: {average_precision(labels, true_probabilities):.3f}"
        axes.plot(*_precision_recall_curve(labels, true_probabilities), drawstyle="steps-pre", label=name, **DASHED)
    curve = _precision_recall_curve(labels, probabilities)
    axes.plot(*curve, drawstyle="steps-pre", label=f"model: {value:.3f}", **SOLID)
    label(axes, "churners found (recall)", "churners among those picked (precision)")
    shares(axes)
    legend(axes, "upper right")
    return figure


def _precision_recall_curve(y: Labels, p: Probabilities) -> tuple[Probabilities, Probabilities]:
    counted = tally(y, p)
    found = np.cumsum(counted.churned)
    precision = found / np.cumsum(counted.customers)
    recall = np.concatenate(([0], found / found[-1]))
    return thin(recall, np.concatenate((precision[:1], precision)))


def reliability_plot(
    y: npt.ArrayLike,
    p: npt.ArrayLike,
    interval: Interval | None = None,
    truth: npt.ArrayLike | None = None,
    level: float = 0.95,
) -> Figure:
    """Reliability diagram: the churn share of each bin of equal mass against its churn probability.

    Beneath, how many customers have each probability. The bins' intervals are Wilson's.

    Parameters
    ----------
    y, p : array-like of shape (n,)
        Who churned, and the churn probabilities.
    interval
        Limits of the calibration error, for the title.
    truth : array-like of shape (n,), optional
        The true churn probabilities where they are known: what each bin's churn share would be without luck.
    level
        Of the bins' intervals.

    Raises
    ------
    ValueError
        On predictions that no metric is defined on.

    References
    ----------
    Wilson (1927), "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22.
    """
    labels, probabilities = check_predictions(y, p)
    figure = empty(height=7.2)
    axes, beneath = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    error = with_interval(calibration_error(labels, probabilities), interval)
    style(axes, f"Reliability: calibration error {error}")
    axes.plot([0, 1], [0, 1], label="perfect", **DOTTED)
    if truth is not None:
        _draw_true_bins(axes, probabilities, check_predictions(labels, truth)[1])
    _draw_bins(axes, _bins(tally(labels, probabilities), level), level)
    label(axes, "", f"churned (mean {labels.mean():.1%})")
    legend(axes, "upper left")
    style(beneath)
    beneath.hist(probabilities, bins=np.linspace(0, 1, 41).tolist(), color=MODEL, alpha=0.6)
    beneath.yaxis.set_major_formatter("{x:,.0f}")
    label(beneath, f"churn probability (mean {probabilities.mean():.1%})", "customers")
    shares(axes)
    axes.set_xlim(-0.02, 1.02)  # room for a bin at the edge
    axes.set_ylim(-0.02, 1.02)
    return figure


@dataclass(frozen=True)
class _Bins:
    """Mean churn probability, churn share and its limits, each of shape (bins,)."""

    predicted: Probabilities
    churned: Probabilities
    lower: Probabilities
    upper: Probabilities


def _bins(counted: Tally, level: float) -> _Bins:
    place = equal_mass_bins(counted)
    customers = np.bincount(place, weights=counted.customers)
    churned = np.bincount(place, weights=counted.churned)
    predicted = np.bincount(place, weights=counted.p * counted.customers)
    held = customers > 0  # a large tie can leave a bin empty
    customers, churned, predicted = customers[held], churned[held], predicted[held]
    tests = [stats.binomtest(int(k), int(n)) for k, n in zip(churned, customers, strict=True)]
    limits = np.array([test.proportion_ci(level, method="wilson") for test in tests])
    return _Bins(predicted / customers, churned / customers, limits[:, 0], limits[:, 1])


def _draw_bins(axes: Axes, bins: _Bins, level: float) -> None:
    # Wilson's limits hold the share itself, up to rounding
    reach = np.maximum([bins.churned - bins.lower, bins.upper - bins.churned], 0)
    axes.errorbar(
        bins.predicted,
        bins.churned,
        yerr=reach,
        fmt="o",
        ms=6,
        color=MODEL,
        ecolor=MODEL,
        elinewidth=1.5,
        capsize=3,
        label=f"model: bins of equal mass, {level:.0%} intervals",
    )


def _draw_true_bins(axes: Axes, p: Probabilities, truth: Probabilities) -> None:
    _, rank = descending_ranks(p)
    place = equal_mass_bins(tally(np.zeros(p.size, dtype=np.int64), p))[rank]
    customers = np.bincount(place)
    held = customers > 0
    predicted, true = (np.bincount(place, weights=of)[held] / customers[held] for of in (p, truth))
    axes.plot(predicted, true, label="true churn probability of the same bins", **DASHED)


def gain_plot(
    y: npt.ArrayLike,
    p: npt.ArrayLike,
    interval: Interval | None = None,
    truth: npt.ArrayLike | None = None,
) -> Figure:
    """Cumulative gain: churners reached against customers contacted, highest churn probability first.

    Parameters
    ----------
    y, p : array-like of shape (n,)
        Who churned, and the churn probabilities.
    interval
        Limits of the lift in the top decile, for the title.
    truth : array-like of shape (n,), optional
        The true churn probabilities where they are known: the best curve that can be reached.

    Raises
    ------
    ValueError
        On predictions that no metric is defined on, or when nobody churned.
    """
    labels, probabilities = check_predictions(y, p)
    lift = lift_top_decile(labels, probabilities)
    value = with_interval(lift, interval, digits=2)
    figure, axes = one_axes(f"Gain: top 10% hold {lift / 10:.0%} of churners, lift {value}")
    axes.plot([0, 1], [0, 1], label="guessing: lift 1.00", **DOTTED)
    share = labels.mean()
    axes.plot(
        [0, share, 1],
        [0, 1, 1],
        color="black",
        lw=1,
        ls="-.",
        label=f"perfect foresight: lift {min(10, 1 / share):.2f}",
    )
    if truth is not None:
        true_probabilities = check_predictions(labels, truth)[1]
        name = f"best possible: lift {lift_top_decile(labels, true_probabilities):.2f}"
        axes.plot(*thin(*gain_curve(tally(labels, true_probabilities))), label=name, **DASHED)
    axes.plot(*thin(*gain_curve(tally(labels, probabilities))), label=f"model: lift {lift:.2f}", **SOLID)
    axes.plot([0.1], [lift / 10], "o", ms=7, color=MODEL, clip_on=False)
    label(axes, "customers contacted, highest churn probability first", "churners reached")
    shares(axes)
    legend(axes, "lower right")
    return figure
