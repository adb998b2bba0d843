"""Plots of what churn probabilities are worth, for whom, and why. Each gives a new `matplotlib.figure.Figure`.

As in `plots`: titles state the finding, and figures are made without pyplot.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from matplotlib.transforms import blended_transform_factory
from scipy import stats

from churn_pipeline.evaluation.figures import (
    BEST_POSSIBLE,
    DASHED,
    DOTTED,
    MODEL,
    REFERENCE,
    SOLID,
    Interval,
    empty,
    label,
    legend,
    one_axes,
    short,
    style,
    with_interval,
)
from churn_pipeline.evaluation.metrics import (
    check_predictions,
    gain_curve,
    lift_top_decile,
    tally,
)
from churn_pipeline.evaluation.segments import ALL

DOT: dict[str, Any] = {"fmt": "o", "ms": 6, "color": MODEL, "elinewidth": 1.5, "capsize": 3}
ROW, MARGINS = 0.34, 1.5  # inches of a row, and of what is above and below
# Metrics that are shares, so that their axes are in percent
SHARES = ("share", "rate", "precision", "calibration_gap")


def profit_plot(curve: pd.DataFrame, threshold: float, by_customer: float | None = None, currency: str = "") -> Figure:
    """Profit per customer against threshold; beneath, the share of customers contacted.

    Parameters
    ----------
    curve
        From `profit_curve`.
    threshold
        The one chosen.
    by_customer
        Profit of contacting each customer from the own break-even on, where values differ: no point of the curve.
    currency
        For the axis.
    """
    at = [float(np.interp(threshold, curve["threshold"], curve[name])) for name in ("profit", "lower", "upper")]
    figure = empty(height=7.2)
    axes, beneath = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    title = f"Profit: {with_interval(at[0], (at[1], at[2]), digits=2)} per customer"
    style(axes, title)
    x = curve["threshold"]
    axes.axhline(0, label="contact nobody: 0.00", **DOTTED)
    everyone = curve["profit"].iloc[0]
    axes.axhline(everyone, label=f"contact everyone: {everyone:.2f}", color="black", lw=1, ls="-.")
    axes.fill_between(x, curve["lower"], curve["upper"], color=MODEL, alpha=0.15, lw=0)
    axes.plot(x, curve["profit"], label="model, with its interval", **SOLID)
    if by_customer is not None:
        axes.axhline(by_customer, label=f"each one's own threshold: {by_customer:.2f}", **DASHED)
    best = curve.loc[curve["profit"].idxmax()]
    name = f"best in hindsight: {best['profit']:.2f} at {best['threshold']:.3f}"
    axes.plot(
        [best["threshold"]], [best["profit"]], "D", ms=7, mfc="white", mec=BEST_POSSIBLE, mew=1.5, ls="", label=name
    )
    axes.plot([threshold], [at[0]], "o", ms=8, color=MODEL, ls="", label=f"chosen threshold: {threshold:.3f}")
    beneath.plot(x, curve["contacted_share"], **SOLID)
    beneath.axvline(threshold, color=MODEL, lw=1, ls="--")
    axes.axvline(threshold, color=MODEL, lw=1, ls="--")
    _limit_y_axis(axes, curve, at)
    label(axes, "", f"profit per customer{f', {currency}' if currency else ''}")
    style(beneath)
    label(beneath, "threshold on the churn probability", "contacted")
    beneath.set_xlim(0, 1)
    beneath.set_ylim(0, 1.02)
    beneath.xaxis.set_major_formatter(PercentFormatter(1.0))
    beneath.yaxis.set_major_formatter(PercentFormatter(1.0))
    legend(axes, "best")
    return figure


def _limit_y_axis(axes: Axes, curve: pd.DataFrame, at: Sequence[float]) -> None:
    """Where contacting everyone ruins, the scale is that of the thresholds worth a look."""
    top = max(curve["upper"].max(), at[2], 0)
    bottom = min(curve["lower"].min(), 0)
    if top > 0 and bottom < -1.5 * top:
        axes.set_ylim(-1.2 * top, 1.15 * top)


def lift_plot(y: npt.ArrayLike, p: npt.ArrayLike, interval: Interval | None = None, level: float = 0.95) -> Figure:
    """Lift of each tenth of customers, those with the highest churn probability first, with Wilson intervals.

    Customers tied at a border are shared, as in `lift_top_decile`.

    Parameters
    ----------
    y, p : array-like of shape (n,)
        Who churned, and the churn probabilities.
    interval
        Limits of the lift in the top decile, for the title.
    level
        Of the bars' intervals.
    """
    labels, probabilities = check_predictions(y, p)
    value = lift_top_decile(labels, probabilities)
    figure, axes = one_axes(f"Lift: top decile {with_interval(value, interval, digits=2)}")
    edges = np.linspace(0, 1, 11)
    lift = np.diff(np.interp(edges, *gain_curve(tally(labels, probabilities)))) * 10
    share, n = labels.mean(), labels.size / 10
    z2 = stats.norm.ppf((1 + level) / 2) ** 2
    rate = np.clip(lift * share, 0, 1)
    middle = (rate + z2 / (2 * n)) / (1 + z2 / n)
    reach = np.sqrt(z2 * (rate * (1 - rate) / n + z2 / (4 * n**2))) / (1 + z2 / n)
    errors = np.maximum([rate - middle + reach, middle + reach - rate], 0) / share
    place = np.arange(1, 11)
    axes.bar(place, lift, color=MODEL, alpha=0.75, width=0.8, label="model")
    axes.errorbar(place, lift, yerr=errors, fmt="none", ecolor="black", elinewidth=1, capsize=3)
    axes.axhline(1, label=f"guessing: 1.00 ({share:.1%} churned)", **DOTTED)
    for at, height, above in zip(place, lift, errors[1], strict=True):
        axes.annotate(
            f"{height:.2f}", (at, height + above), (0, 3), textcoords="offset points", ha="center", fontsize=9
        )
    axes.set_xticks(place)
    axes.grid(visible=False, axis="x")
    axes.set_ylim(0, float((lift + errors[1]).max()) * 1.1)
    label(axes, "tenth of customers, highest churn probability first", "lift: churn share over that of all")
    legend(axes, "upper right")
    return figure


def score_plot(y: npt.ArrayLike, p: npt.ArrayLike, threshold: float | None = None, bins: int = 40) -> Figure:
    """Churn probabilities of those who churned and of those who stayed, each as shares of their own.

    Parameters
    ----------
    y, p : array-like of shape (n,)
        Who churned, and the churn probabilities.
    threshold
        The one chosen, to be marked.
    bins
        How many, of equal width.
    """
    labels, probabilities = check_predictions(y, p)
    middles = [float(np.median(probabilities[labels == of])) if (labels == of).any() else np.nan for of in (1, 0)]
    title = f"Scores: median {middles[0]:.2f} churned, {middles[1]:.2f} stayed"
    figure, axes = one_axes(title if np.isfinite(middles).all() else "Scores", height=5.0, width=7.2)
    edges = np.linspace(0, 1, bins + 1)
    looks: list[tuple[int, str, dict[str, Any]]] = [
        (0, "stayed", {"color": MODEL, "alpha": 0.45}),
        (1, "churned", {"color": BEST_POSSIBLE, "histtype": "step", "lw": 2}),
    ]
    for of, name, look in looks:
        held = probabilities[labels == of]
        if held.size:
            axes.hist(
                held, edges.tolist(), weights=np.full(held.size, 1 / held.size), label=f"{name}: {held.size:,}", **look
            )
    if threshold is not None:
        axes.axvline(threshold, color="black", lw=1, ls="--", label=f"threshold: {threshold:.3f}")
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    label(axes, "churn probability", "share of its class")
    legend(axes, "upper right")
    return figure


def importance_plot(table: pd.DataFrame, top: int = 20) -> Figure:
    """Permutation importances with their intervals, the most important above.

    Parameters
    ----------
    table
        From `permutation_importance`.
    top
        How many features to show.
    """
    shown = table.head(top)
    clear = int((table["lower"] > 0).sum())
    title = f"Importance: {clear} of {len(table)} features beyond noise; most: {short(shown['feature'].iloc[0])}"
    figure, axes = one_axes(title, height=MARGINS + ROW * len(shown), width=7.6)
    _dots(axes, shown["feature"], shown[["importance", "lower", "upper"]].to_numpy())
    axes.axvline(0, **DOTTED)
    label(axes, "log loss added when the column is shuffled", "")
    return figure


def leaderboard_plot(leaderboard: pd.DataFrame, chosen: Mapping[str, float]) -> Figure:
    """Cross-validated log loss of each candidate, its mean ± one standard error, the best above.

    Parameters
    ----------
    leaderboard
        Columns candidate, log_loss, log_loss_se.
    chosen
        The chosen candidate, or the members of the chosen blend, with the weight of each; they are marked.
    """
    board = leaderboard.sort_values("log_loss", ignore_index=True)
    best = board.iloc[0]
    title = f"Leaderboard: {short(best['candidate'])} leads with log loss {best['log_loss']:.4f}"
    figure, axes = one_axes(title, height=MARGINS + 0.3 + ROW * 1.3 * len(board), width=7.6)
    mean, error = board["log_loss"].to_numpy(), board["log_loss_se"].to_numpy()
    axes.axvspan(mean[0] - error[0], mean[0] + error[0], color=MODEL, alpha=0.08, lw=0)
    _dots(axes, board["candidate"], np.column_stack((mean, mean - error, mean + error)))
    here = np.flatnonzero(board["candidate"].isin(list(chosen)))
    marked = "chosen" if len(chosen) == 1 else "in the chosen blend"
    axes.plot(mean[here], here, "o", ms=12, mfc="none", mec=BEST_POSSIBLE, mew=2, ls="", label=marked)
    for at, (name, value) in enumerate(zip(board["candidate"], mean, strict=True)):
        share = f" ({chosen[name]:.0%} of the blend)" if len(chosen) > 1 and name in chosen else ""
        axes.annotate(f"{value:.4f}{share}", (value, at), (0, 8), textcoords="offset points", ha="center", fontsize=9)
    axes.set_ylim(len(board) - 0.5, -0.8)
    label(axes, "cross-validated log loss ± standard error; less is better", "")
    _legend_above(axes)
    return figure


def segments_plot(table: pd.DataFrame, metric: str, currency: str = "") -> Figure:
    """One metric in each level of each segment with its interval, beside that of all customers.

    Parameters
    ----------
    table
        From `segment_metrics`.
    metric
        Which of its metrics.
    currency
        For the axis, where the metric is money.

    Raises
    ------
    ValueError
        When the table has no such metric.
    """
    whole = table[(table["segment"] == ALL) & (table["metric"] == metric)]
    if whole.empty:
        raise ValueError(f"There is no metric '{metric}'. Name one of {', '.join(table['metric'].unique())}.")
    overall = whole.iloc[0]
    levels = table[(table["segment"] != ALL) & ((table["metric"] == metric) | (table["note"] != ""))]
    rows = _segment_rows(levels)
    figure, axes = one_axes("", height=MARGINS + 0.3 + ROW * len(rows), width=7.6)
    share = any(part in metric for part in SHARES)
    value = f"{overall['value']:.1%}" if share else f"{overall['value']:.3g}"
    outside = int(((levels["lower"] > overall["value"]) | (levels["upper"] < overall["value"])).sum())
    scored = int((levels["note"] == "").sum())
    style(axes, f"{_words(metric)}: {outside} of {scored} levels off beyond noise")
    axes.axvspan(overall["lower"], overall["upper"], color=REFERENCE, alpha=0.12, lw=0)
    axes.axvline(overall["value"], label=f"all customers: {value}", **DOTTED)
    _dots(axes, [row.name for row in rows], np.array([row.limits for row in rows]).reshape(-1, 3))
    _name_rows(axes, rows)
    if share:
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    in_currency = "profit" in metric or metric == "empc"
    label(axes, f"{_words(metric)}{f', {currency}' if in_currency and currency else ''}", "")
    _legend_above(axes)
    return figure


def _legend_above(axes: Axes) -> None:
    """Between title and plot, where no row can be hidden."""
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), fontsize=10, frameon=False, borderaxespad=0.2)
    axes.set_title(axes.get_title(loc="left"), fontsize=13, loc="left", pad=26)


class _Row(NamedTuple):
    name: str
    limits: tuple[float, float, float] = (np.nan, np.nan, np.nan)
    note: str = ""


def _segment_rows(levels: pd.DataFrame) -> list[_Row]:
    """A heading for each segment, and a row for each of its levels."""
    rows = []
    for segment, group in levels.groupby("segment", sort=False):
        rows.append(_Row(str(segment)))
        for row in group.to_dict("records"):
            name = f"{short(row['level'])} ({row['rows']:,})"
            note = row["note"] or ("not defined" if np.isnan(row["value"]) else "")
            rows.append(_Row(name, (row["value"], row["lower"], row["upper"]), note))
    return rows


def _name_rows(axes: Axes, rows: list[_Row]) -> None:
    """Headings in bold, and beside a level that is not scored, why."""
    left = blended_transform_factory(axes.transAxes, axes.transData)
    for at, (tick, row) in enumerate(zip(axes.get_yticklabels(), rows, strict=True)):
        if row.note:
            axes.text(0.02, at, f"not scored: {row.note}", transform=left, va="center", fontsize=9, color=REFERENCE)
        elif np.isnan(row.limits[0]):
            tick.set_fontweight("bold")


def sensitivity_plot(table: pd.DataFrame, currency: str = "") -> Figure:
    """Profit and threshold when one assumption of the cost model is wrong: a line a parameter, against its factor.

    Parameters
    ----------
    table
        From `sensitivity`.
    currency
        For the axis.
    """
    figure = empty(height=7.6, width=7.2)
    axes, beneath = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    looks = dict(
        zip(
            table["parameter"].unique(),
            [(MODEL, "o", "-"), (BEST_POSSIBLE, "s", "--"), ("#009E73", "^", "-."), ("#CC79A7", "D", ":")],
            strict=False,
        )
    )
    swing = table.groupby("parameter")["profit"].agg(np.ptp)
    style(axes, f"Sensitivity: profit hangs most on {_words(str(swing.idxmax())).lower()}")
    for parameter, (color, marker, dashes) in looks.items():
        rows = table[table["parameter"] == parameter].sort_values("factor")
        look: dict[str, Any] = {"color": color, "marker": marker, "ms": 6}
        axes.plot(rows["factor"], rows["profit"], ls=dashes, lw=1.8, label=_words(str(parameter)).lower(), **look)
        axes.fill_between(rows["factor"], rows["profit_if_kept"], rows["profit"], color=color, alpha=0.18, lw=0)
        beneath.plot(rows["factor"], np.minimum(rows["threshold"], 1), ls=dashes, lw=1.8, **look)
    factors = np.sort(table["factor"].unique())
    axes.axhline(0, **DOTTED)
    axes.set_xscale("log")
    axes.set_xticks(factors, [f"× {factor:g}" for factor in factors])
    axes.minorticks_off()
    style(beneath)
    beneath.set_ylim(bottom=0)
    beneath.yaxis.set_major_formatter(PercentFormatter(1.0))
    label(axes, "", f"profit per customer{f', {currency}' if currency else ''}")
    label(beneath, "the true cost or value, over the one assumed", "break-even threshold")
    axes.legend(
        loc="upper left",
        fontsize=11,
        framealpha=0.9,
        edgecolor="none",
        title="shaded: lost by not knowing",
        title_fontsize=9,
    )
    return figure


def _dots(axes: Axes, names: "Sequence[str] | pd.Series[str]", limits: npt.NDArray[np.float64]) -> None:
    """A row for each name, the first above: a dot with its limits."""
    place = np.arange(len(limits))
    value, lower, upper = limits.T
    held = np.isfinite(value)
    reach = np.maximum([value - lower, upper - value], 0)[:, held]
    axes.errorbar(value[held], place[held], xerr=reach, **DOT)
    axes.set_yticks(place, [short(name) for name in names])
    axes.set_ylim(max(len(limits), 1) - 0.5, -0.5)
    axes.xaxis.set_major_locator(MaxNLocator(6))


def _words(metric: str) -> str:
    text = metric.replace("_", " ")
    return text if text.isupper() else {"auc": "AUC", "empc": "EMPC"}.get(metric, text[:1].upper() + text[1:])
