"""Plots that compare rows, each with its interval: features, candidates, and levels of segments.

As in `plots`, titles state the finding and figures are made without pyplot.
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

from churn_pipeline.evaluation.figures import (
    BEST_POSSIBLE,
    DOTTED,
    MODEL,
    REFERENCE,
    label,
    metric_title,
    one_axes,
    short,
    style,
)
from churn_pipeline.evaluation.intervals import z_margin
from churn_pipeline.evaluation.segment_gaps import holm, two_sided
from churn_pipeline.evaluation.segments import ALL

DOT: dict[str, Any] = {"fmt": "o", "ms": 6, "color": MODEL, "elinewidth": 1.5, "capsize": 3}
ROW_HEIGHT, MARGIN_HEIGHT = 0.34, 1.5  # inches
# Parts of metric names that mark a share, shown in percent
SHARES = ("share", "rate", "precision", "calibration_gap")


def importance_plot(table: pd.DataFrame, top: int = 20) -> Figure:
    """Plot permutation importances with their intervals, the most important at the top.

    Parameters
    ----------
    table
        Result of `permutation_importance`.
    top
        Number of features to show.
    """
    shown = table.head(top)
    significant = int((table["lower"] > 0).sum())
    title = f"Importance: {significant} of {len(table)} features significant; most: {short(shown['feature'].iloc[0])}"
    figure, axes = one_axes(title, height=MARGIN_HEIGHT + ROW_HEIGHT * len(shown), width=7.6)
    _draw_rows(axes, shown["feature"], shown[["importance", "lower", "upper"]].to_numpy())
    axes.axvline(0, **DOTTED)
    label(axes, "increase in log loss when the column is shuffled", "")
    return figure


def leaderboard_plot(leaderboard: pd.DataFrame, chosen: Mapping[str, float]) -> Figure:
    """Plot the cross-validated log loss of each candidate, mean ± one standard error, the best at the top.

    Parameters
    ----------
    leaderboard
        Columns candidate, log_loss, log_loss_se.
    chosen
        Weight of the chosen candidate, or of each member of the chosen blend; they are marked.
    """
    board = leaderboard.sort_values("log_loss", ignore_index=True)
    best = board.iloc[0]
    title = f"Leaderboard: {short(best['candidate'])} leads with log loss {best['log_loss']:.4f}"
    figure, axes = one_axes(title, height=MARGIN_HEIGHT + 0.3 + ROW_HEIGHT * 1.3 * len(board), width=7.6)
    mean, error = board["log_loss"].to_numpy(), board["log_loss_se"].to_numpy()
    axes.axvspan(mean[0] - error[0], mean[0] + error[0], color=MODEL, alpha=0.08, lw=0)
    _draw_rows(axes, board["candidate"], np.column_stack((mean, mean - error, mean + error)))
    marked = np.flatnonzero(board["candidate"].isin(list(chosen)))
    name_of_mark = "chosen" if len(chosen) == 1 else "in the chosen blend"
    axes.plot(mean[marked], marked, "o", ms=12, mfc="none", mec=BEST_POSSIBLE, mew=2, ls="", label=name_of_mark)
    for row, (name, value) in enumerate(zip(board["candidate"], mean, strict=True)):
        share = f" ({chosen[name]:.0%} of the blend)" if len(chosen) > 1 and name in chosen else ""
        axes.annotate(f"{value:.4f}{share}", (value, row), (0, 8), textcoords="offset points", ha="center", fontsize=9)
    axes.set_ylim(len(board) - 0.5, -0.8)
    label(axes, "cross-validated log loss ± standard error; lower is better", "")
    _legend_above(axes)
    return figure


def segments_plot(table: pd.DataFrame, metric: str, currency: str = "") -> Figure:
    """Plot one metric for each level of each segment, with its interval, and for all customers.

    Parameters
    ----------
    table
        Result of `segment_metrics`.
    metric
        One of the table's metrics.
    currency
        Used in the axis label if the metric is a profit.

    Raises
    ------
    ValueError
        If the table does not have this metric.
    """
    whole = table[(table["segment"] == ALL) & (table["metric"] == metric)]
    if whole.empty:
        raise ValueError(f"There is no metric '{metric}'. Use one of {', '.join(table['metric'].unique())}.")
    overall = whole.iloc[0]
    levels = table[(table["segment"] != ALL) & ((table["metric"] == metric) | (table["note"] != ""))]
    rows = _segment_rows(levels)
    figure, axes = one_axes("", height=MARGIN_HEIGHT + 0.3 + ROW_HEIGHT * len(rows), width=7.6)
    share = any(part in metric for part in SHARES)
    value = f"{overall['value']:.1%}" if share else f"{overall['value']:.3g}"
    significant, scored = _count_different(levels[levels["note"] == ""], overall["value"])
    style(axes, f"{metric_title(metric)}: {significant} of {scored} levels differ significantly")
    axes.axvspan(overall["lower"], overall["upper"], color=REFERENCE, alpha=0.12, lw=0)
    axes.axvline(overall["value"], label=f"all customers: {value}", **DOTTED)
    _draw_rows(axes, [row.name for row in rows], np.array([row.estimate for row in rows]).reshape(-1, 3))
    _style_row_names(axes, rows)
    if share:
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    in_currency = "profit" in metric or metric == "empc"
    label(axes, f"{metric_title(metric)}{f', {currency}' if in_currency and currency else ''}", "")
    _legend_above(axes)
    return figure


def _count_different(levels: pd.DataFrame, overall: float, confidence_level: float = 0.95) -> tuple[int, int]:
    """Number of levels that differ significantly from `overall`, corrected for the number of levels (Holm); and of all levels.

    The intervals are taken as normal ones, and the error of `overall` as part of the levels' own.
    """
    differences = (overall - levels["value"]).to_numpy()
    margins = np.where(differences > 0, levels["upper"] - levels["value"], levels["value"] - levels["lower"])
    errors = np.maximum(margins, 0) / z_margin(1.0, confidence_level)
    p_values = [two_sided(*pair) for pair in zip(differences, errors, strict=True) if np.isfinite(pair).all()]
    return int((holm(p_values) < 1 - confidence_level).sum()), len(levels)


def _legend_above(axes: Axes) -> None:
    """Place the legend between title and plot, where it hides no row."""
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), fontsize=10, frameon=False, borderaxespad=0.2)
    axes.set_title(axes.get_title(loc="left"), fontsize=13, loc="left", pad=26)


class _Row(NamedTuple):
    name: str
    estimate: tuple[float, float, float] = (np.nan, np.nan, np.nan)
    note: str = ""


def _segment_rows(levels: pd.DataFrame) -> list[_Row]:
    """One heading per segment, followed by one row per level."""
    rows = []
    for segment, group in levels.groupby("segment", sort=False):
        rows.append(_Row(str(segment)))
        for row in group.to_dict("records"):
            name = f"{short(row['level'])} ({row['rows']:,})"
            note = row["note"] or ("not defined" if np.isnan(row["value"]) else "")
            rows.append(_Row(name, (row["value"], row["lower"], row["upper"]), note))
    return rows


def _style_row_names(axes: Axes, rows: list[_Row]) -> None:
    """Set headings in bold, and write the reason next to each level that is not scored."""
    left = blended_transform_factory(axes.transAxes, axes.transData)
    for at, (tick, row) in enumerate(zip(axes.get_yticklabels(), rows, strict=True)):
        if row.note:
            axes.text(0.02, at, f"not scored: {row.note}", transform=left, va="center", fontsize=9, color=REFERENCE)
        elif np.isnan(row.estimate[0]):
            tick.set_fontweight("bold")


def _draw_rows(axes: Axes, names: "Sequence[str] | pd.Series[str]", estimates: npt.NDArray[np.float64]) -> None:
    """Draw one row per name, the first at the top: a dot with its interval; `estimates` has shape (k, 3)."""
    rows = np.arange(len(estimates))
    value, lower, upper = estimates.T
    known = np.isfinite(value)
    errors = np.maximum([value - lower, upper - value], 0)[:, known]
    axes.errorbar(value[known], rows[known], xerr=errors, **DOT)
    axes.set_yticks(rows, [short(name) for name in names])
    axes.set_ylim(max(len(estimates), 1) - 0.5, -0.5)
    axes.xaxis.set_major_locator(MaxNLocator(6))
