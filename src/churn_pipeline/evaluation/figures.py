"""Colours, sizes and axes shared by all plots."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import PercentFormatter

from churn_pipeline.evaluation.predictions import Probabilities

# Okabe & Ito (2008), "Color Universal Design": distinguishable with any colour vision; line styles differ too
MODEL, BEST_POSSIBLE, REFERENCE = "#0072B2", "#D55E00", "#6E6E6E"
SOLID: dict[str, Any] = {"color": MODEL, "lw": 2}
DOTTED: dict[str, Any] = {"color": REFERENCE, "lw": 1.2, "ls": ":"}
DASHED: dict[str, Any] = {"color": BEST_POSSIBLE, "lw": 1.2, "ls": "--"}
POINTS = 1000
LONGEST = 32  # characters of a name on an axis
Interval = tuple[float, float]


def thin(x: Probabilities, y: Probabilities, points: int = POINTS) -> tuple[Probabilities, Probabilities]:
    """Reduce a curve to at most `points` points, evenly spaced along its length; both ends stay."""
    if x.size <= points:
        return x, y
    along = np.concatenate(([0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))))
    kept = np.searchsorted(along, np.linspace(0, along[-1], points))
    kept[0], kept[-1] = 0, x.size - 1
    kept = np.unique(kept)
    return x[kept], y[kept]


def with_interval(value: float, interval: Interval | None, digits: int = 3) -> str:
    """Format a number with its interval for a title."""
    text = f"{value:.{digits}f}"
    return text if interval is None else f"{text} [{interval[0]:.{digits}f}–{interval[1]:.{digits}f}]"


def one_axes(title: str, height: float = 6.0, width: float = 6.4) -> tuple[Figure, Axes]:
    """Create a figure with one plot and a title."""
    figure = empty(height, width)
    axes = figure.subplots()
    style(axes, title)
    return figure, axes


def empty(height: float, width: float = 6.4) -> Figure:
    """Create an empty figure; sizes in inches."""
    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1))


def style(axes: Axes, title: str = "") -> None:
    """Apply the common style, and set the title."""
    axes.set_title(title, fontsize=13, loc="left", pad=10)
    axes.grid(color="#E3E3E3", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=11)


def shares(axes: Axes) -> None:
    """Scale both axes from 0 to 100%."""
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))


def label(axes: Axes, x: str, y: str) -> None:
    """Label the axes."""
    axes.set_xlabel(x, fontsize=12)
    axes.set_ylabel(y, fontsize=12)


def legend(axes: Axes, location: str) -> None:
    """Draw the legend, the model first."""
    handles, labels = axes.get_legend_handles_labels()  # the model is drawn last
    look: dict[str, Any] = {"loc": location, "fontsize": 11, "framealpha": 0.9, "edgecolor": "none"}
    axes.legend(handles[::-1], labels[::-1], **look)


def short(name: object, longest: int = LONGEST) -> str:
    """Shorten a name to fit an axis."""
    text = str(name)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def metric_title(metric: str) -> str:
    """A metric's or parameter's name as words, such as "Calibration gap"."""
    text = metric.replace("_", " ")
    return {"auc": "AUC", "empc": "EMPC"}.get(metric, text[:1].upper() + text[1:])
