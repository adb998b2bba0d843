import numpy as np
import pandas as pd
import pytest

from churn_pipeline.modelling.candidates import Candidate, build_candidate
from churn_pipeline.modelling.hard_rows import ODD_LEVELS, cut_points, hard_rows

TREES = [
    "sklearn.ensemble.RandomForestClassifier",
    "sklearn.ensemble.GradientBoostingClassifier",
    "sklearn.ensemble.HistGradientBoostingClassifier",
]


def step_model(path, numeric, categorical=()):
    """A model with one step, at months = 10.5, and columns of noise."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"noise": rng.normal(size=400), "months": rng.integers(0, 21, 400).astype(float)})
    X["level"] = rng.choice(["a", "b"], 400)
    candidate = Candidate.model_validate({"class": path, "numeric": numeric})
    model = build_candidate(candidate, ["noise", "months"], list(categorical), seed=0)
    return X, model.fit(X, (X["months"] > 10).astype(int))


@pytest.mark.parametrize("path", TREES)
@pytest.mark.parametrize("numeric", ["as_is", "scaled"])
def test_split_values_are_found_in_the_units_of_the_input(path, numeric):
    _, model = step_model(path, numeric, ["level"])
    cuts = cut_points(model, ["noise", "months"])
    assert np.abs(cuts["months"] - 10.5).min() < 1e-6


@pytest.mark.parametrize("path", TREES)
def test_rows_have_a_split_value_and_both_its_float32_neighbours(path):
    X, model = step_model(path, "as_is")
    rows = hard_rows(X, model, ["noise", "months"], [], np.random.default_rng(0), limit=20_000)
    split = np.float32(10.5)
    for value in (split, np.nextafter(split, np.float32(0)), np.nextafter(split, np.float32(99))):
        assert (rows["months"] == float(value)).any()


def test_knots_are_cut_points():
    X, model = step_model("sklearn.linear_model.LogisticRegression", "splines")
    knots = cut_points(model, ["noise", "months"])["months"]
    assert (knots[0], knots[-1]) == (X["months"].min(), X["months"].max())


def test_a_linear_model_has_no_cut_points():
    _, model = step_model("sklearn.linear_model.LogisticRegression", "scaled")
    assert all(len(cuts) == 0 for cuts in cut_points(model, ["noise", "months"]).values())


def test_all_edge_values_are_included(shipped, customers, fitted):
    made = customers("mixed")
    before = made.X.copy(deep=True)
    rng = np.random.default_rng(0)
    rows = hard_rows(made.X, fitted(shipped, "mixed"), made.numeric, made.categorical, rng, limit=10_000)
    pd.testing.assert_frame_equal(made.X, before)
    assert list(rows.columns) == [*made.numeric, *made.categorical]
    assert len(rows) == 10_000
    for column in made.numeric:
        assert rows[column].dtype == np.float64
        assert rows[column].isna().any()
        assert {0.0, 1e30, -1e30, float(np.finfo(np.float32).max)} <= set(rows[column])
        assert np.signbit(rows.loc[rows[column] == 0, column]).any()
    for column in made.categorical:
        assert {*ODD_LEVELS, *made.X[column]} <= set(rows[column])
    first, origins = rows.iloc[:5_000], made.X.iloc[rows.index[:5_000]]
    same = (first.to_numpy() == origins.to_numpy()) | (first.isna().to_numpy() & origins.isna().to_numpy())
    assert (~same).sum(axis=1).max() == 1  # one column differs from the customer at that index
    cents = rows["monthly charge"][rows["monthly charge"].between(18, 120)]
    assert (cents == cents.round(2)).mean() > 0.3


def test_the_same_seed_gives_the_same_rows(customers, fitted):
    made = customers("mixed")
    arguments = (made.X, fitted("logistic", "mixed"), made.numeric, made.categorical)
    first, second = (hard_rows(*arguments, np.random.default_rng(4), limit=10) for _ in range(2))
    assert len(first) == 10
    pd.testing.assert_frame_equal(first, second)
