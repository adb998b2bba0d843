"""Calibration line and calibration-in-the-large: they find a distortion, with standard errors that match their spread."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit

from churn_pipeline.evaluation.calibration import calibration_in_the_large, calibration_line
from churn_pipeline.evaluation.metrics import log_loss
from churn_pipeline.evaluation.predictions import Labels, Probabilities


def simulate(n: int, seed: int = 0) -> tuple[Labels, Probabilities]:
    rng = np.random.default_rng(seed)
    truth = expit(rng.normal(-1.7, 1.5, n))
    return (rng.random(n) < truth).astype(np.int64), truth


def test_the_line_finds_the_distortion() -> None:
    y, p = simulate(100_000)
    line = calibration_line(y, expit((logit(p) - 0.4) / 1.5))
    assert line.slope == pytest.approx(1.5, abs=4 * line.slope_error)
    assert line.intercept == pytest.approx(0.4, abs=4 * line.intercept_error)
    assert line.slope_error < 0.02


def test_standard_errors_match_the_spread() -> None:
    drawn = [simulate(500, seed) for seed in range(60)]
    lines = [calibration_line(*rows) for rows in drawn]
    assert np.std([line.slope for line in lines]) == pytest.approx(np.mean([of.slope_error for of in lines]), rel=0.3)
    shifts = [calibration_in_the_large(*rows) for rows in drawn]
    assert np.std([of.value for of in shifts]) == pytest.approx(np.mean([of.error for of in shifts]), rel=0.3)


def test_repeated_customers_widen_the_error() -> None:
    y, p = simulate(400)
    many, often, keys = np.repeat(y, 5), np.repeat(p, 5), np.repeat(np.arange(400), 5)
    for of in (lambda *rows: calibration_line(*rows).slope_error, lambda *rows: calibration_in_the_large(*rows).error):
        assert of(many, often, keys) / of(many, often) == pytest.approx(5**0.5, rel=0.01)


def test_odd_probabilities_have_a_line() -> None:
    separated = calibration_line([0, 0, 1, 1], [0.0, 0.1, 0.9, 1.0])
    assert separated.slope > 1
    constant = calibration_line([0, 1, 0, 0], np.full(4, 0.5))
    assert (constant.slope, constant.slope_error) == (1, math.inf)
    assert constant.intercept == pytest.approx(logit(0.25))


@given(st.floats(-3, 3))
def test_calibration_in_the_large_is_the_added_log_odds(by: float) -> None:
    y, p = simulate(300)
    before, after = calibration_in_the_large(y, p), calibration_in_the_large(y, expit(logit(p) - by))
    assert after.value == pytest.approx(before.value + by, abs=1e-5)
    assert after.error == pytest.approx(before.error, rel=1e-4)


def test_calibration_in_the_large_has_the_highest_likelihood() -> None:
    y, p = simulate(1000)
    p = expit(logit(p) + 0.3)
    best = minimize_scalar(lambda by: log_loss(y, expit(logit(p) + by)), bounds=(-2, 2), method="bounded")
    assert calibration_in_the_large(y, p).value == pytest.approx(best.x, abs=1e-4)


@pytest.mark.parametrize("at", [0.0, 1e-12, 0.5, 1.0])
def test_a_constant_has_a_shift(at: float) -> None:
    found = calibration_in_the_large([0, 1, 0, 0], np.full(4, at))
    assert np.isfinite([found.value, found.error]).all()
