import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.preprocessing import SplineTransformer

from churn_pipeline.modelling.preprocessing import (
    NUMBER_LIMIT,
    QuantileSplines,
    RandomPairs,
    limit_scores,
    round_to_float32,
    spread_knots,
)

columns = hnp.arrays(
    np.float64,
    st.integers(1, 40),
    elements=st.floats(-NUMBER_LIMIT, NUMBER_LIMIT).map(lambda number: float(np.float32(number))),
)


@given(st.floats(allow_nan=False))
def test_a_rounded_number_survives_float32(number):
    (rounded,) = round_to_float32([[number]])[0]
    assert rounded == float(np.float32(rounded))
    assert abs(rounded) <= NUMBER_LIMIT
    assert np.array_equal(round_to_float32([[rounded]]), [[rounded]])
    if abs(number) <= NUMBER_LIMIT:
        assert rounded == float(np.float32(number))


def test_rounding_keeps_missing_values_and_its_input():
    X = pd.DataFrame({"a": [0.1, np.nan, np.inf], "b": [1.0, -0.0, 1e-300]})
    before = X.copy()
    rounded = round_to_float32(X)
    assert rounded.dtype == np.float64
    assert np.isnan(rounded[1, 0])
    assert rounded[0, 0] == float(np.float32(0.1))
    pd.testing.assert_frame_equal(X, before)


def test_z_scores_are_clipped_to_ten():
    assert limit_scores([[-1e30, -10.0, 0.5, 11.0]]).tolist() == [[-10.0, -10.0, 0.5, 10.0]]


@given(columns, st.integers(2, 12))
def test_knots_increase_and_span_the_column(column, n_knots):
    knots = spread_knots(column, n_knots)
    assert len(knots) == n_knots
    assert (np.diff(knots) > 0).all()
    assert knots[0] <= column.min()
    assert knots[-1] >= column.max()


@given(columns, st.integers(1, 4))
def test_the_basis_sums_to_one_and_is_constant_outside_the_training_range(column, degree):
    splines = QuantileSplines(n_knots=5, degree=degree).fit(column[:, np.newaxis])
    beyond = np.array([column.min() - 1, column.max() + 1, -1e35, 1e35])
    basis = splines.transform(np.concatenate([column, beyond])[:, np.newaxis])
    np.testing.assert_allclose(basis.sum(axis=1), 1, atol=1e-9)
    if len(np.unique(column)) > 1:
        ends = splines.transform(np.array([[column.min()], [column.max()]] * 2))
        np.testing.assert_allclose(basis[-4:], ends, atol=1e-12)


def test_without_ties_the_splines_equal_scikit_learns():
    X = np.random.default_rng(0).gamma(2.0, 10.0, (200, 2))
    native = SplineTransformer(n_knots=6, degree=3, knots="quantile", extrapolation="constant").fit(X)
    ours = QuantileSplines(n_knots=6, degree=3).fit(X)
    np.testing.assert_allclose(ours.transform(X), native.transform(X), atol=1e-12)
    assert list(ours.get_feature_names_out(["a", "b"])) == list(native.get_feature_names_out(["a", "b"]))


@pytest.mark.parametrize("value", [0.0, 3.0, -1e30, 1e-30])
def test_a_constant_column_has_knots_around_it(value):
    knots = spread_knots(np.full(9, value), 4)
    assert knots[0] < value < knots[-1]


eighths = st.integers(-1000, 1000).map(lambda number: number / 8)
tables = hnp.arrays(np.float64, st.tuples(st.integers(2, 20), st.integers(1, 5)), elements=eighths)


@given(tables, st.integers(1, 30), st.integers(0, 3))
def test_pairs_are_appended_with_the_documented_values(X, n_pairs, seed):
    pairs = RandomPairs(n_pairs, random_state=seed).fit(X)
    made = pairs.transform(X)
    varying = int((np.ptp(X, axis=0) > 0).sum())
    assert made.shape[1] == X.shape[1] + min(n_pairs, varying * (varying - 1))
    assert np.array_equal(made[:, : X.shape[1]], X)
    for column, (i, j), (a, b) in zip(made.T[X.shape[1] :], pairs.pairs_, pairs.factors_, strict=True):
        assert np.array_equal(column, X[:, i] * a + X[:, j] * b)
        assert i < j
        assert abs(a) == pytest.approx(1 / X[:, i].std())
        assert abs(b) == pytest.approx(1 / X[:, j].std())


def test_pairs_are_never_drawn_twice_and_another_seed_draws_others():
    X = np.random.default_rng(0).normal(size=(50, 8))
    first, second = (RandomPairs(20, random_state=seed).fit(X) for seed in (0, 1))
    drawn = [tuple(row) for row in np.column_stack([first.pairs_, np.sign(first.factors_)])]
    assert len(set(drawn)) == 20
    assert not np.array_equal(first.pairs_, second.pairs_)


def test_only_the_first_columns_are_paired():
    X = np.random.default_rng(0).normal(size=(50, 8))
    assert RandomPairs(100, n_columns=3, random_state=0).fit(X).pairs_.max() == 2


def test_a_constant_column_is_not_paired():
    X = np.column_stack([np.full(10, 0.1), np.arange(10.0), np.full(10, 1e30)])
    assert RandomPairs(100, random_state=0).fit(X).transform(X).shape == (10, 3)
