"""Plots of profit, by threshold and by the assumptions of the cost model.

As in `plots`, titles state the finding and figures are made without pyplot.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from churn_pipeline.evaluation.figures import (
    BEST_POSSIBLE,
    DASHED,
    DOTTED,
    MODEL,
    SOLID,
    empty,
    label,
    legend,
    metric_title,
    style,
    with_interval,
)

# Colour, marker and line style of each parameter
LOOKS = ((MODEL, "o", "-"), (BEST_POSSIBLE, "s", "--"), ("#009E73", "^", "-."), ("#CC79A7", "D", ":"))


def profit_plot(
    curve: pd.DataFrame, threshold: float, decided: tuple[float, float, float] | None = None, currency: str = ""
) -> Figure:
    """Plot profit per customer by threshold, and below it the share of customers contacted.

    Parameters
    ----------
    curve
        Result of `profit_curve`.
    threshold
        The break-even at the mean value.
    decided
        Profit of the decision that is made, by each customer's own break-even, with its interval. If values differ, it is not
        on the curve. Without it, the title gives the profit at `threshold`.
    currency
        Used in the axis label.
    """
    at = [float(np.interp(threshold, curve["threshold"], curve[name])) for name in ("profit", "lower", "upper")]
    figure = empty(height=7.2)
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    value, lower, upper = decided or at
    style(axes, f"Profit: {with_interval(value, (lower, upper), digits=2)} per customer")
    _draw_profit_curve(axes, curve, None if decided is None else value)
    point = f"break-even at the mean value: {at[0]:.2f} at {threshold:.3f}"
    axes.plot([threshold], [at[0]], "o", ms=8, color=MODEL, ls="", label=point)
    below.plot(curve["threshold"], curve["contacted_share"], **SOLID)
    for panel in (below, axes):
        panel.axvline(threshold, color=MODEL, lw=1, ls="--")
    _crop_large_losses(axes, curve, at)
    label(axes, "", f"profit per customer{f', {currency}' if currency else ''}")
    style(below)
    label(below, "threshold on the churn probability", "contacted")
    below.set_xlim(0, 1)
    below.set_ylim(0, 1.02)
    below.xaxis.set_major_formatter(PercentFormatter(1.0))
    below.yaxis.set_major_formatter(PercentFormatter(1.0))
    legend(axes, "best")
    return figure


def _draw_profit_curve(axes: Axes, curve: pd.DataFrame, decided: float | None) -> None:
    axes.axhline(0, label="contact no one: 0.00", **DOTTED)
    everyone = curve["profit"].iloc[0]
    axes.axhline(everyone, label=f"contact everyone: {everyone:.2f}", color="black", lw=1, ls="-.")
    axes.fill_between(curve["threshold"], curve["lower"], curve["upper"], color=MODEL, alpha=0.15, lw=0)
    axes.plot(curve["threshold"], curve["profit"], label="one threshold for all, with interval", **SOLID)
    if decided is not None:
        axes.axhline(decided, label=f"each customer's own break-even: {decided:.2f}", **DASHED)
    best = curve.loc[curve["profit"].idxmax()]
    name = f"best in hindsight: {best['profit']:.2f} at {best['threshold']:.3f}"
    look: dict[str, Any] = {"ms": 7, "mfc": "white", "mec": BEST_POSSIBLE, "mew": 1.5, "ls": ""}
    axes.plot([best["threshold"]], [best["profit"]], "D", label=name, **look)


def _crop_large_losses(axes: Axes, curve: pd.DataFrame, at: Sequence[float]) -> None:
    """Limit the y axis if losses at low thresholds would flatten the rest of the curve."""
    top = max(curve["upper"].max(), at[2], 0)
    bottom = min(curve["lower"].min(), 0)
    if top > 0 and bottom < -1.5 * top:
        axes.set_ylim(-1.2 * top, 1.15 * top)


def sensitivity_plot(table: pd.DataFrame, currency: str = "") -> Figure:
    """Plot profit and threshold if one assumption of the cost model is wrong: one line per parameter, by factor.

    Parameters
    ----------
    table
        Result of `sensitivity`.
    currency
        Used in the axis label.
    """
    figure = empty(height=7.6, width=7.2)
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    swing = table.groupby("parameter")["profit"].agg(np.ptp)
    style(axes, f"Sensitivity: profit depends most on {metric_title(str(swing.idxmax())).lower()}")
    for parameter, (color, marker, dashes) in zip(table["parameter"].unique(), LOOKS, strict=False):
        rows = table[table["parameter"] == parameter].sort_values("factor")
        look: dict[str, Any] = {"color": color, "marker": marker, "ms": 6}
        name = metric_title(str(parameter)).lower()
        axes.plot(rows["factor"], rows["profit"], ls=dashes, lw=1.8, label=name, **look)
        axes.fill_between(
            rows["factor"], rows["profit_with_assumed_costs"], rows["profit"], color=color, alpha=0.18, lw=0
        )
        below.plot(rows["factor"], np.minimum(rows["threshold"], 1), ls=dashes, lw=1.8, **look)
    factors = np.sort(table["factor"].unique())
    axes.axhline(0, **DOTTED)
    axes.set_xscale("log")
    axes.set_xticks(factors, [f"× {factor:g}" for factor in factors])
    axes.minorticks_off()
    style(below)
    below.set_ylim(bottom=0)
    below.yaxis.set_major_formatter(PercentFormatter(1.0))
    label(axes, "", f"profit per customer{f', {currency}' if currency else ''}")
    label(below, "true cost or value relative to the assumption", "break-even threshold")
    boxed: dict[str, Any] = {"loc": "upper left", "fontsize": 11, "framealpha": 0.9, "edgecolor": "none"}
    axes.legend(title="shaded: cost of the wrong assumption", title_fontsize=9, **boxed)
    return figure
