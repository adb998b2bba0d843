"""Plots of churn probabilities against labels: ROC, precision–recall and gain.

Each function returns a new `matplotlib.figure.Figure` whose title states the finding. Figures are made without pyplot, so
they need no display, share no state between threads, and are freed with their last reference.
"""

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from churn_pipeline.evaluation.figures import (
    DASHED,
    DOTTED,
    MODEL,
    SOLID,
    Interval,
    label,
    legend,
    one_axes,
    shares,
    thin,
    with_interval,
)
from churn_pipeline.evaluation.metrics import auc, average_precision, lift_top_decile
from churn_pipeline.evaluation.predictions import (
    Labels,
    Probabilities,
    check_predictions,
    gain_curve,
    tally,
)


def roc_plot(
    y: npt.ArrayLike, p: npt.ArrayLike, interval: Interval | None = None, truth: npt.ArrayLike | None = None
) -> Figure:
    """Plot the ROC curve: true positive rate against false positive rate.

    Parameters
    ----------
    y, p : array-like of shape (n,)
        Labels (1 for churned) and churn probabilities.
    interval
        Limits of the AUC, for the title.
    truth : array-like of shape (n,), optional
        The true churn probabilities, if known, as in a simulation; they give the best possible curve.

    Raises
    ------
    ValueError
        If predictions are invalid, or only one class occurs.
    """
    labels, probabilities = check_predictions(y, p)
    value = auc(labels, probabilities)
    figure, axes = one_axes(f"ROC: AUC {with_interval(value, interval)}")
    axes.plot([0, 1], [0, 1], label="random: 0.500", **DOTTED)
    if truth is not None:
        true_probabilities = check_predictions(labels, truth)[1]
        axes.plot(
            *_roc_curve(labels, true_probabilities),
            label=f"best possible: {auc(labels, true_probabilities):.3f}",
            **DASHED,
        )
    axes.plot(*_roc_curve(labels, probabilities), label=f"model: {value:.3f}", **SOLID)
    label(axes, "false positive rate (stayers selected)", "true positive rate (churners found)")
    shares(axes)
    legend(axes, "lower right")
    return figure


def _roc_curve(y: Labels, p: Probabilities) -> tuple[Probabilities, Probabilities]:
    counted = tally(y, p)
    stayers = np.concatenate(([0], np.cumsum(counted.stayed)))
    churners = np.concatenate(([0], np.cumsum(counted.churned)))
    return thin(stayers / stayers[-1], churners / churners[-1])


def precision_recall_plot(
    y: npt.ArrayLike, p: npt.ArrayLike, interval: Interval | None = None, truth: npt.ArrayLike | None = None
) -> Figure:
    """Plot the precision–recall curve as steps, because points between two thresholds are not attainable.

    Parameters
    ----------
    y, p : array-like of shape (n,)
        Labels (1 for churned) and churn probabilities.
    interval
        Limits of the average precision, for the title.
    truth : array-like of shape (n,), optional
        The true churn probabilities, if known; they give the best possible curve.

    Raises
    ------
    ValueError
        If predictions are invalid, or no customer churned.

    References
    ----------
    Davis & Goadrich (2006), "The Relationship Between Precision-Recall and ROC Curves", ICML.
    """
    labels, probabilities = check_predictions(y, p)
    value = average_precision(labels, probabilities)
    figure, axes = one_axes(f"Precision–recall: average precision {with_interval(value, interval)}")
    share = labels.mean()
    axes.plot([0, 1], [share, share], label=f"random: {share:.3f}", **DOTTED)
    if truth is not None:
        true_probabilities = check_predictions(labels, truth)[1]
        name = f"best possible: {average_precision(labels, true_probabilities):.3f}"
        axes.plot(*_precision_recall_curve(labels, true_probabilities), drawstyle="steps-pre", label=name, **DASHED)
    curve = _precision_recall_curve(labels, probabilities)
    axes.plot(*curve, drawstyle="steps-pre", label=f"model: {value:.3f}", **SOLID)
    label(axes, "recall (churners found)", "precision (churners among those selected)")
    shares(axes)
    legend(axes, "upper right")
    return figure


def _precision_recall_curve(y: Labels, p: Probabilities) -> tuple[Probabilities, Probabilities]:
    counted = tally(y, p)
    found = np.cumsum(counted.churned)
    precision = found / np.cumsum(counted.customers)
    recall = np.concatenate(([0], found / found[-1]))
    return thin(recall, np.concatenate((precision[:1], precision)))


def gain_plot(
    y: npt.ArrayLike,
    p: npt.ArrayLike,
    interval: Interval | None = None,
    truth: npt.ArrayLike | None = None,
) -> Figure:
    """Plot cumulative gain: share of churners contacted against share of customers contacted, highest probability first.

    Parameters
    ----------
    y, p : array-like of shape (n,)
        Labels (1 for churned) and churn probabilities.
    interval
        Limits of the lift in the top decile, for the title.
    truth : array-like of shape (n,), optional
        The true churn probabilities, if known; they give the best possible curve.

    Raises
    ------
    ValueError
        If predictions are invalid, or no customer churned.
    """
    labels, probabilities = check_predictions(y, p)
    lift = lift_top_decile(labels, probabilities)
    value = with_interval(lift, interval, digits=2)
    figure, axes = one_axes(f"Gain: top 10% contain {lift / 10:.0%} of churners, lift {value}")
    axes.plot([0, 1], [0, 1], label="random: lift 1.00", **DOTTED)
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
    label(axes, "customers contacted, highest churn probability first", "churners contacted")
    shares(axes)
    legend(axes, "lower right")
    return figure
