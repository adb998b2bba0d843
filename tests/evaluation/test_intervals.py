"""Intervals: equal to scipy's, and a paired difference is the paired t test."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from churn_pipeline.evaluation.intervals import (
    basic_interval,
    paired_difference,
    percentile_interval,
    t_margin,
    wilson_interval,
)


@pytest.mark.parametrize("drawn", [39, 200, 1000])
def test_percentiles_hold_the_confidence_level_however_many_are_drawn(drawn: int) -> None:
    rng = np.random.default_rng(0)
    limits = np.array([percentile_interval(rng.random(drawn), 0.95) for _ in range(3000)])
    # The probability mass of the uniform distribution between the limits
    assert (limits[:, 1] - limits[:, 0]).mean() == pytest.approx(0.95, abs=0.002)


def test_a_basic_interval_corrects_a_maximum() -> None:
    """The best of eight equal arms is overstated, and percentiles of its resamples more so."""
    rng, held = np.random.default_rng(0), []
    for _ in range(150):
        rows = rng.normal(size=(8, 60))
        drawn = np.array([rows[:, rng.integers(60, size=60)].mean(axis=1).max() for _ in range(100)])
        best = float(rows.mean(axis=1).max())
        limits = [percentile_interval(drawn, 0.95), basic_interval(best, drawn, 0.95)]
        held.append([low <= 0 <= high for low, high in limits])
    percentile, basic = np.mean(held, axis=0)
    assert percentile < 0.5
    assert basic > percentile + 0.3


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_wilsons_interval_is_scipys_and_contains_the_share(level: float) -> None:
    churned, customers = np.array([0, 3, 20, 40]), np.array([10, 10, 50, 40])
    lower, upper = wilson_interval(churned / customers, customers, level)
    for k, n, low, high in zip(churned, customers, lower, upper, strict=True):
        expected = stats.binomtest(int(k), int(n)).proportion_ci(level, method="wilson")
        assert (low, high) == pytest.approx((expected.low, expected.high))
    assert (lower <= churned / customers).all()
    assert (churned / customers <= upper).all()


def test_a_t_margin_is_half_the_t_interval() -> None:
    sample = np.array([1.0, 2.0, 4.0, 7.0])
    low, high = stats.t.interval(0.9, 3, loc=sample.mean(), scale=stats.sem(sample))
    assert 2 * t_margin(float(stats.sem(sample)), 3, 0.9) == pytest.approx(high - low)


def test_paired_difference_is_the_paired_t_test() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=30)
    b = a + rng.normal(0.1, 0.2, 30)
    found = paired_difference(a, b)
    expected = stats.ttest_rel(a, b)
    assert found.mean / found.standard_error == pytest.approx(expected.statistic)
    assert (found.lower, found.upper) == pytest.approx(tuple(expected.confidence_interval()))
    assert found.n == 30


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(-10, 10), st.floats(-10, 10)), min_size=2, max_size=20), st.floats(-5, 5))
def test_paired_difference_mirrors_and_shifts(pairs: list[tuple[float, float]], shift: float) -> None:
    a, b = np.array(pairs).T
    there, back = paired_difference(a, b), paired_difference(b, a)
    assert (back.mean, back.standard_error) == pytest.approx((-there.mean, there.standard_error))
    assert paired_difference(a + shift, b).mean == pytest.approx(there.mean + shift, abs=1e-9)
    assert there.lower <= there.mean <= there.upper


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([1.0, 2.0], [1.0], r"shapes \(2,\) and \(1,\)"),
        ([1.0], [1.0], "n at least 2"),
        ([[1.0, 2.0]], [[1.0, 2.0]], r"both must be \(n,\)"),
        ([1.0, np.nan], [1.0, 2.0], "NaN or infinite"),
    ],
)
def test_paired_difference_refuses(a: list[float], b: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        paired_difference(a, b)
