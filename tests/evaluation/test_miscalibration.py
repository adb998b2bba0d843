"""Miscalibration: equal to scikit-learn's isotonic regression, and what chance explains."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import log_loss

from churn_pipeline.evaluation.metrics import miscalibration
from churn_pipeline.evaluation.miscalibration import consistency_band, miscalibration_by_chance
from churn_pipeline.evaluation.predictions import Labels, Probabilities


def simulate(n: int, seed: int, slope: float = 1.0) -> tuple[Labels, Probabilities]:
    """Customers whose true log-odds are normal, of whom about 26 % churn; a slope of 1 is calibrated."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(-1.5, 1.5, n)
    return (rng.random(n) < 1 / (1 + np.exp(-odds))).astype(np.int64), 1 / (1 + np.exp(-slope * odds))


def test_equal_to_an_isotonic_regression_of_scikit_learn() -> None:
    y, p = simulate(700, seed=1, slope=1.5)
    p = np.round(p, 2)  # with ties
    shares = IsotonicRegression(y_min=0, y_max=1).fit(p, y).predict(p)
    expected = log_loss(y, p) - log_loss(y, shares)
    assert miscalibration(y, p) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(1, 9)), min_size=2, max_size=60))
def test_it_is_between_0_and_the_log_loss_and_none_is_left_after_recalibration(rows: list[tuple[int, int]]) -> None:
    y, level = np.array(rows).T
    p = level / 10
    assert -1e-12 <= miscalibration(y, p) <= log_loss(y, p, labels=[0, 1]) + 1e-12
    # Recalibrated probabilities have no miscalibration left
    shares = np.clip(IsotonicRegression(y_min=0, y_max=1).fit(p, y).predict(p), 0, 1)
    assert miscalibration(y, shares) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("per_customer", [1, 3])
def test_a_calibrated_model_exceeds_what_chance_explains_in_5_of_100_samples(per_customer: int) -> None:
    alarms = 0
    for seed in range(200):
        y, p = simulate(600, seed)
        groups = None if per_customer == 1 else np.arange(600) // per_customer
        alarms += miscalibration(y, p) > miscalibration_by_chance(p, groups, draws=100, seed=seed)
    assert alarms <= 20  # 10 are expected without groups; with groups, independent rows make it fewer


def test_rows_of_one_customer_raise_what_chance_explains() -> None:
    _, p = simulate(600, seed=0)
    p = np.sort(p)
    alone, together = (miscalibration_by_chance(p, groups) for groups in (None, np.arange(600) // 4))
    assert together > 1.5 * alone


def test_an_overconfident_model_exceeds_what_chance_explains() -> None:
    for seed in range(10):
        y, p = simulate(1500, seed, slope=1.6)
        assert miscalibration(y, p) > miscalibration_by_chance(p, draws=100)


def test_a_band_narrows_with_rows_and_surrounds_the_diagonal() -> None:
    widths = []
    for n in (400, 6400):
        at, lower, upper = consistency_band(simulate(n, seed=2)[1], draws=100)
        assert (lower <= upper).all()
        assert at.size <= 500
        middle = (at > 0.1) & (at < 0.6)
        assert ((lower <= at) & (at <= upper))[middle].mean() > 0.95
        widths.append((upper - lower)[middle].mean())
    assert widths[1] < widths[0] / 2
