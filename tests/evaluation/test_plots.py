"""Plots: they show the metrics, stay small and leave no state. Their look is not tested."""

import io
import sys
from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.integrate import trapezoid

from churn_pipeline.evaluation.figures import POINTS
from churn_pipeline.evaluation.metrics import auc, average_precision, lift_top_decile
from churn_pipeline.evaluation.plots import (
    gain_plot,
    precision_recall_plot,
    roc_plot,
)
from churn_pipeline.evaluation.predictions import Labels, Probabilities

PLOTS: list[Callable[..., Figure]] = [roc_plot, precision_recall_plot, gain_plot]
Sample = tuple[Labels, Probabilities, Probabilities]


def simulate(n: int) -> Sample:
    """Labels, churn probabilities of a noisy model, and the true ones."""
    rng = np.random.default_rng(0)
    odds = rng.normal(-1.5, 1.5, n)
    truth = 1 / (1 + np.exp(-odds))
    return (rng.random(n) < truth).astype(np.int64), 1 / (1 + np.exp(-odds - rng.normal(0, 0.7, n))), truth


@pytest.fixture(scope="module")
def sample() -> Sample:
    return simulate(1600)


@pytest.fixture(scope="module")
def large() -> Sample:
    return simulate(100_000)


def line(figure: Figure, label: str) -> tuple[Probabilities, Probabilities]:
    (found,) = [of for of in figure.axes[0].get_lines() if str(of.get_label()).startswith(label)]
    return np.asarray(found.get_xdata()), np.asarray(found.get_ydata())


def png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def test_titles_state_the_finding(sample: Sample) -> None:
    y, p, _ = sample
    titles = [plot(y, p, interval=(0.25, 0.75)).axes[0].get_title(loc="left") for plot in PLOTS]
    lift = lift_top_decile(y, p)
    assert titles[0] == f"ROC: AUC {auc(y, p):.3f} [0.250–0.750]"
    assert titles[1] == f"Precision–recall: average precision {average_precision(y, p):.3f} [0.250–0.750]"
    assert titles[2] == f"Gain: top 10% contain {lift / 10:.0%} of churners, lift {lift:.2f} [0.25–0.75]"
    assert roc_plot(y, p).axes[0].get_title(loc="left") == f"ROC: AUC {auc(y, p):.3f}"


@pytest.mark.parametrize("size", ["sample", "large"])
def test_areas_under_the_curves_equal_the_metrics(size: str, request: pytest.FixtureRequest) -> None:
    y, p, _ = request.getfixturevalue(size)
    picked, found = line(roc_plot(y, p), "model")
    assert trapezoid(found, picked) == pytest.approx(auc(y, p), abs=1e-3)
    recall, precision = line(precision_recall_plot(y, p), "model")
    assert np.diff(recall) @ precision[1:] == pytest.approx(average_precision(y, p), abs=2e-3)
    contacted, reached = line(gain_plot(y, p), "model")
    assert np.interp(0.1, contacted, reached) * 10 == pytest.approx(lift_top_decile(y, p), abs=1e-2)
    assert (picked[0], found[0], picked[-1], found[-1]) == (0, 0, 1, 1)
    assert (contacted[0], reached[0], contacted[-1], reached[-1]) == (0, 0, 1, 1)


def test_curves_are_thinned(large: Sample) -> None:
    y, p, truth = large
    for plot in PLOTS:
        for drawn in plot(y, p, truth=truth).axes[0].get_lines():
            assert len(np.asarray(drawn.get_xdata())) <= POINTS


def test_the_best_possible_curve_is_drawn_if_the_truth_is_known(sample: Sample) -> None:
    y, p, truth = sample
    for plot in PLOTS:
        without, drawn = (len(plot(y, p, truth=of).axes[0].get_lines()) for of in (None, truth))
        assert drawn == without + 1
    best = line(roc_plot(y, p, truth=truth), "best possible")
    assert trapezoid(best[1], best[0]) == pytest.approx(auc(y, truth), abs=1e-3)


@pytest.mark.parametrize("plot", PLOTS)
@pytest.mark.parametrize(
    "p",
    [np.full(40, 0.05), np.repeat([0.0, 1.0], [35, 5]), np.linspace(0, 1, 40)],
    ids=["constant", "certain", "distinct"],
)
def test_odd_predictions_draw(plot: Callable[..., Figure], p: Probabilities) -> None:
    y = np.repeat([0, 1], [36, 4])
    assert png(plot(y, p, interval=(0.0, 1.0), truth=p)).startswith(b"\x89PNG")


@pytest.mark.parametrize("plot", PLOTS)
def test_same_input_same_bytes(plot: Callable[..., Figure], sample: Sample) -> None:
    y, p, truth = sample
    assert png(plot(y, p, truth=truth)) == png(plot(y, p, truth=truth))


@pytest.mark.parametrize("plot", PLOTS)
def test_nothing_is_cut_off(plot: Callable[..., Figure], sample: Sample) -> None:
    y, p, truth = sample
    figure = plot(y, p, interval=(0.999, 0.999), truth=truth)
    figure.draw_without_rendering()
    needed, given = figure.get_tightbbox(), figure.bbox_inches
    assert needed.x0 >= 0
    assert needed.y0 >= 0
    assert needed.x1 <= given.x1
    assert needed.y1 <= given.y1


@pytest.mark.parametrize("plot", PLOTS)
def test_every_axis_is_named(plot: Callable[..., Figure], sample: Sample) -> None:
    axes: list[Axes] = plot(*sample[:2]).axes
    assert axes[-1].get_xlabel()
    assert all(of.get_ylabel() for of in axes)


def test_pyplot_is_not_touched(sample: Sample) -> None:
    known = "matplotlib.pyplot" in sys.modules
    before = list(sys.modules["matplotlib.pyplot"].get_fignums()) if known else []
    for plot in PLOTS:
        plot(*sample[:2])
    assert ("matplotlib.pyplot" in sys.modules) == known
    if known:
        assert sys.modules["matplotlib.pyplot"].get_fignums() == before


@pytest.mark.parametrize("plot", PLOTS)
def test_bad_predictions_are_refused(plot: Callable[..., Figure]) -> None:
    with pytest.raises(ValueError, match="churn probabilities are NaN"):
        plot([0, 1], [0.5, np.nan])
    with pytest.raises(ValueError, match="shape"):
        plot([0, 1], [0.5, 0.6], truth=[0.5])


@pytest.mark.parametrize("plot", [roc_plot, precision_recall_plot, gain_plot])
def test_no_customer_churned(plot: Callable[..., Figure]) -> None:
    with pytest.raises(ValueError, match="none of the 2 customers churned"):
        plot([0, 0], [0.5, 0.6])
