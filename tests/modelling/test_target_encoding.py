"""Target encoding: leak-free by customer, and the same in ONNX."""

import numpy as np
import pandas as pd
import pytest
import skops.io
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.base import clone
from sklearn.metrics import log_loss
from sklearn.preprocessing import TargetEncoder
from tests.modelling.conftest import make_customers

from churn_pipeline.modelling.candidates import Candidate, CandidatePipeline, build_candidate
from churn_pipeline.modelling.hard_rows import hard_rows
from churn_pipeline.modelling.onnx_conversion import convert_model, predict_onnx
from churn_pipeline.modelling.target_encoding import CustomerTargetEncoder
from churn_pipeline.modelling.trusted_types import TRUSTED_TYPES

FOREST = {
    "class": "sklearn.ensemble.ExtraTreesClassifier",
    "arguments": {"n_estimators": 20, "min_samples_leaf": 5},
    "categorical": "target",
    "categorical_arguments": {"smooth": 10.0},
}


def build(categorical: list[str], numeric: list[str] | None = None) -> CandidatePipeline:
    return build_candidate(Candidate.model_validate(FOREST), numeric or [], categorical, seed=0)


def noise(customers: int, rows: int, seed: int) -> tuple[pd.DataFrame, pd.Series, np.ndarray]:
    """A column of many levels that does not affect churn; all rows of a customer have the same level."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(customers), rows)
    levels = rng.integers(0, customers, customers).astype(str)
    churned = (rng.random(customers) < 0.3).astype(int)
    return pd.DataFrame({"street": levels[groups]}), pd.Series(churned[groups]), groups


@pytest.mark.parametrize("kind", ["mixed", "categorical"])
def test_it_is_equivalent_in_onnx_on_customers_and_on_hard_rows(kind: str) -> None:
    made = make_customers(kind)
    model = build(made.categorical, made.numeric).fit(made.X, made.y)
    converted = convert_model(model, made.numeric, made.categorical)
    hard = hard_rows(made.X, model, made.numeric, made.categorical, np.random.default_rng(0), limit=4000)
    for X in (made.X, hard):
        assert np.abs(model.predict_proba(X)[:, 1] - predict_onnx(converted, X)).max() <= 1e-12


MODEL = build(["contract", "paper", "town", "only one", "rare"]).fit(
    make_customers("categorical").X, make_customers("categorical").y
)
CONVERTED = convert_model(MODEL, [], make_customers("categorical").categorical)
LEVELS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])), st.sampled_from(["", "Yes", "town 7", "0:Yes", "often"])
)


@settings(max_examples=50, deadline=None)
@given(rows=st.lists(st.lists(LEVELS, min_size=5, max_size=5), min_size=1, max_size=10))
def test_it_is_equivalent_in_onnx_for_any_level(rows: list[list[str]]) -> None:
    X = pd.DataFrame(rows, columns=make_customers("categorical").categorical, dtype=object)
    assert np.abs(MODEL.predict_proba(X)[:, 1] - predict_onnx(CONVERTED, X)).max() <= 1e-12


def test_it_is_stored_without_pickle() -> None:
    made = make_customers("categorical")
    loaded = skops.io.loads(skops.io.dumps(MODEL), trusted=list(TRUSTED_TYPES))
    np.testing.assert_allclose(loaded.predict_proba(made.X), MODEL.predict_proba(made.X), rtol=0, atol=1e-14)


def test_predictions_use_scikit_learns_encoding_of_all_rows() -> None:
    made = make_customers("categorical")
    ours = CustomerTargetEncoder(5.0).fit(made.X, made.y).transform(made.X)
    np.testing.assert_array_equal(ours, TargetEncoder(smooth=5.0).fit(made.X, made.y).transform(made.X))


def test_the_share_of_a_training_row_does_not_depend_on_its_customers_labels() -> None:
    X, y, groups = noise(100, 4, seed=0)
    before = CustomerTargetEncoder(1.0).fit_transform(X, y, groups=groups)
    for customer in range(0, 100, 10):
        rows = groups == customer
        after = CustomerTargetEncoder(1.0).fit_transform(X, y.where(~rows, 1 - y), groups=groups)
        np.testing.assert_array_equal(after[rows], before[rows])


def test_without_groups_the_share_of_a_row_does_not_depend_on_its_label() -> None:
    X, y, _ = noise(100, 1, seed=0)
    before = CustomerTargetEncoder(1.0).fit_transform(X, y)
    for row in range(0, 100, 10):
        after = CustomerTargetEncoder(1.0).fit_transform(X, y.where(y.index != row, 1 - y))
        assert after[row] == before[row]


def test_by_customer_a_column_of_noise_hardly_hurts_and_by_row_it_does() -> None:
    X, y, groups = noise(400, 5, seed=0)
    new, label, _ = noise(400, 1, seed=1)
    linear = {"class": "sklearn.linear_model.LogisticRegression", "arguments": {"C": 100.0}, "categorical": "target"}
    model = build_candidate(Candidate.model_validate(linear), [], ["street"], seed=0)
    losses = [
        log_loss(label, clone(model).fit(X, y, groups=given).predict_proba(new)[:, 1]) for given in (None, groups)
    ]
    ideal = log_loss(label, np.full(len(label), y.mean()))
    assert losses[1] < ideal + 0.05
    assert losses[0] > losses[1] + 0.2


def test_arguments_of_the_other_encoding_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"unknown to categorical: target; it accepts \['smooth'\]"):
        Candidate.model_validate({**FOREST, "categorical_arguments": {"max_categories": 50}})


def test_a_trial_keeps_the_encoding() -> None:
    candidate = Candidate.model_validate(
        {**FOREST, "space": {"categorical_arguments": {"smooth": {"low": 1.0, "high": 100.0}}}}
    )
    tried = candidate.with_values({"categorical_arguments.smooth": 20.0})
    assert (tried.categorical, tried.categorical_arguments) == ("target", {"smooth": 20.0})
