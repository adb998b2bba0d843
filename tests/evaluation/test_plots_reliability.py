"""Reliability diagram: the curve is the isotonic regression, and a calibrated model stays within the band."""

import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from sklearn.isotonic import IsotonicRegression

from churn_pipeline.evaluation.figures import POINTS
from churn_pipeline.evaluation.metrics import miscalibration
from churn_pipeline.evaluation.plots_reliability import reliability_plot
from churn_pipeline.evaluation.predictions import Labels, Probabilities


def simulate(n: int, slope: float = 1.0) -> tuple[Labels, Probabilities, Probabilities]:
    """Labels, churn probabilities (calibrated if the slope is 1), and the true ones."""
    rng = np.random.default_rng(0)
    odds = rng.normal(-1.5, 1.5, n)
    truth = 1 / (1 + np.exp(-odds))
    return (rng.random(n) < truth).astype(np.int64), 1 / (1 + np.exp(-slope * odds)), truth


def curve(figure: Figure) -> tuple[Probabilities, Probabilities]:
    (found,) = [of for of in figure.axes[0].get_lines() if str(of.get_label()).startswith("model")]
    return np.asarray(found.get_xdata()), np.asarray(found.get_ydata())


def share_within_band(figure: Figure) -> float:
    """Share of the curve's points within the band."""
    (band,) = figure.axes[0].collections
    around = band.get_paths()[0].vertices  # along one limit and back along the other
    at, shares = curve(figure)
    half = len(around) // 2
    limits = []
    for side in (around[1:half], around[half + 1 : -1]):
        order = np.argsort(side[:, 0], kind="stable")
        limits.append(np.interp(at, side[order, 0], side[order, 1]))
    return float(((np.minimum(*limits) - 1e-9 <= shares) & (shares <= np.maximum(*limits) + 1e-9)).mean())


def test_the_curve_is_the_isotonic_regression() -> None:
    y, p, _ = simulate(600)
    at, shares = curve(reliability_plot(y, p))
    expected = IsotonicRegression(y_min=0, y_max=1).fit(p, y).predict(at)
    np.testing.assert_allclose(shares, expected, atol=1e-12)


def test_a_calibrated_model_stays_within_the_band_and_an_overconfident_one_does_not() -> None:
    for slope, low, high in ((1.0, 0.85, 1.0), (2.0, 0.0, 0.5)):
        y, p, _ = simulate(4000, slope)
        assert low <= share_within_band(reliability_plot(y, p)) <= high, slope


def test_the_title_states_the_miscalibration_and_what_chance_explains() -> None:
    y, p, _ = simulate(600)
    title = reliability_plot(y, p, by_chance=0.0123).axes[0].get_title(loc="left")
    assert title == f"Reliability: miscalibration {miscalibration(y, p):.4f} (up to 0.0123 by chance)"
    assert "chance" not in reliability_plot(y, p).axes[0].get_title(loc="left")


def test_bins_hold_everyone_and_the_histogram_counts_everyone() -> None:
    y, p, truth = simulate(600)
    axes, below = reliability_plot(y, p, truth=truth).axes
    (bins,) = [of for of in axes.get_lines() if str(of.get_label()).startswith("equal-mass bins")]
    assert np.mean(bins.get_xdata()) == pytest.approx(p.mean())
    assert np.mean(bins.get_ydata()) == pytest.approx(y.mean())
    assert sum(bar.get_height() for bar in below.patches) == y.size  # type: ignore[attr-defined]
    assert any(str(of.get_label()).startswith("true churn probability") for of in axes.get_lines())


def test_a_large_hold_out_is_thinned() -> None:
    y, p, truth = simulate(20_000)
    figure = reliability_plot(y, p, truth=truth)
    assert all(len(np.asarray(of.get_xdata())) <= POINTS for of in figure.axes[0].get_lines())


@pytest.mark.parametrize(
    "p",
    [np.full(40, 0.05), np.repeat([0.0, 1.0], [35, 5]), np.linspace(0, 1, 40)],
    ids=["constant", "certain", "distinct"],
)
def test_odd_predictions_draw_and_nothing_is_cut_off(p: Probabilities) -> None:
    figure = reliability_plot(np.repeat([0, 1], [36, 4]), p, by_chance=0.0123, truth=p)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    assert buffer.getvalue().startswith(b"\x89PNG")
    needed, given = figure.get_tightbbox(), figure.bbox_inches
    assert min(needed.x0, needed.y0) >= 0
    assert needed.x1 <= given.x1
    assert needed.y1 <= given.y1
