"""Networks and kernel models: leak-free, stored without pickle, converted to ONNX, and the same in every run."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import skops.io
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from tests.modelling.conftest import Customers, make_customers
from threadpoolctl import threadpool_limits

from churn_pipeline.modelling.candidates import Candidate, CandidatePipeline, build_candidate
from churn_pipeline.modelling.hard_rows import hard_rows
from churn_pipeline.modelling.kernels import NystroemClassifier
from churn_pipeline.modelling.networks import NetworkClassifier, held_out_customers
from churn_pipeline.modelling.onnx_conversion import convert_model, model_digest, predict_onnx
from churn_pipeline.modelling.trusted_types import TRUSTED_TYPES

NETWORK = "churn_pipeline.modelling.networks.NetworkClassifier"
NYSTROEM = "churn_pipeline.modelling.kernels.NystroemClassifier"
TOLERANCE = 1e-12  # the error of another order of additions

MEMBERS: dict[str, dict[str, Any]] = {
    "network": {"class": NETWORK, "numeric": "splines", "arguments": {"width": 16, "max_iter": 15}},
    "deep network": {"class": NETWORK, "numeric": "scaled", "arguments": {"width": 8, "depth": 3, "max_iter": 15}},
    "networks": {"class": NETWORK, "numeric": "scaled", "arguments": {"width": 8, "max_iter": 5}, "copies": 3},
    "nystroem": {"class": NYSTROEM, "numeric": "splines", "arguments": {"n_components": 100}},
    "narrow nystroem": {"class": NYSTROEM, "numeric": "scaled", "arguments": {"gamma": 20.0, "C": 100.0}},
    # More landmarks than rows, and identical rows among them.
    "all landmarks": {"class": NYSTROEM, "numeric": "scaled", "arguments": {"n_components": 5000, "gamma": 0.05}},
}


@pytest.fixture(params=list(MEMBERS))
def member(request: pytest.FixtureRequest) -> Candidate:
    return Candidate.model_validate(MEMBERS[request.param])


def fit(member: Candidate, made: Customers, seed: int = 0) -> CandidatePipeline:
    return build_candidate(member, made.numeric, made.categorical, seed).fit(made.X, made.y)


def panel(customers: int, rows: int, seed: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], Any]:
    """Customers with several nearly equal rows, of one label."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(customers, 5))
    churned = (rng.random(customers) < 1 / (1 + np.exp(-2 * X[:, 0]))).astype(np.int64)
    groups = np.repeat(np.arange(customers), rows)
    return X[groups] + rng.normal(scale=0.01, size=(customers * rows, 5)), churned[groups], groups


def test_a_member_is_equivalent_in_onnx_on_customers_and_on_hard_rows(member: Candidate, kind: str) -> None:
    made = make_customers(kind)
    model = fit(member, made)
    converted = convert_model(model, made.numeric, made.categorical)
    hard = hard_rows(made.X, model, made.numeric, made.categorical, np.random.default_rng(0), limit=4000)
    for X in (made.X, hard):
        probability = model.predict_proba(X)[:, 1]
        assert np.ptp(probability) > 0.02
        assert np.abs(probability - predict_onnx(converted, X)).max() <= TOLERANCE


def test_a_member_is_stored_without_pickle_and_predicts_the_same(member: Candidate) -> None:
    made = make_customers("mixed")
    model = fit(member, made)
    loaded = skops.io.loads(skops.io.dumps(model), trusted=list(TRUSTED_TYPES))
    np.testing.assert_array_equal(loaded.predict_proba(made.X), model.predict_proba(made.X))


def test_the_same_seed_gives_the_same_digest_on_any_number_of_threads(member: Candidate) -> None:
    made = make_customers("mixed")
    digests = []
    for seed, threads in ((1, 1), (1, 2), (2, 1)):
        with threadpool_limits(threads):
            model = fit(member, made, seed)
        digests.append(model_digest(convert_model(model, made.numeric, made.categorical)))
    assert digests[0] == digests[1] != digests[2]


def test_a_network_predicts_as_scikit_learns_network_with_the_same_weights() -> None:
    X, y, _ = panel(200, 1, seed=0)
    ours = NetworkClassifier(width=7, depth=2, max_iter=3, random_state=0).fit(X, y)
    theirs = MLPClassifier((7, 7)).partial_fit(X, y, classes=[0, 1])
    theirs.coefs_ = [weight[0] for weight in ours.weights_]
    theirs.intercepts_ = [bias.ravel() for bias in ours.biases_]
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), rtol=1e-12)
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))


def test_validation_customers_are_whole_and_have_the_share_of_churners() -> None:
    groups = np.random.default_rng(0).integers(0, 400, 3000)
    y = (groups % 10 == 0).astype(np.int64)
    held_out = held_out_customers(y, groups, 0.2, np.random.RandomState(0))
    assert not set(groups[held_out]) & set(groups[~held_out])
    assert len(set(groups[held_out])) == pytest.approx(0.2 * len(set(groups)), abs=1)
    assert y[held_out].mean() == pytest.approx(y.mean(), abs=0.02)


def test_a_network_stops_earlier_on_customers_than_on_rows_and_predicts_better() -> None:
    new, label, _ = panel(4000, 1, seed=99)
    X, y, groups = panel(100, 10, seed=0)
    settings: dict[str, Any] = {"width": 32, "learning_rate_init": 0.01}
    by_rows = NetworkClassifier(**settings, random_state=0).fit(X, y)
    by_customers = NetworkClassifier(**settings, random_state=0).fit(X, y, groups=groups)
    assert by_customers.n_iter_ < 0.5 * by_rows.n_iter_
    losses = [-np.log(model.predict_proba(new)[np.arange(4000), label]).mean() for model in (by_rows, by_customers)]
    assert losses[1] < losses[0] - 0.05


@pytest.mark.parametrize("copies", [1, 2])
def test_a_candidate_hands_the_customers_on_to_the_network(copies: int) -> None:
    X, y, groups = panel(100, 10, seed=0)
    settings = {"class": NETWORK, "arguments": {"width": 32, "learning_rate_init": 0.01}, "copies": copies}
    model = build_candidate(Candidate.model_validate(settings), list("abcde"), [], seed=0)
    table, label = pd.DataFrame(X, columns=list("abcde")), pd.Series(y)
    by_rows = model.fit(table, label)[-1]
    epochs_by_rows = np.mean([copy.n_iter_ for copy in getattr(by_rows, "estimators_", [by_rows])])
    by_customers = model.fit(table, label, groups=groups)[-1]
    epochs = np.mean([copy.n_iter_ for copy in getattr(by_customers, "estimators_", [by_customers])])
    assert epochs < 0.5 * epochs_by_rows


def test_nystroem_is_scikit_learns_nystroem_and_logistic_regression() -> None:
    X, y, _ = panel(300, 1, seed=0)
    ours = NystroemClassifier(50, gamma=2.0, C=3.0, random_state=4).fit(X, y)
    gamma = 2.0 / X.var(axis=0).sum()
    theirs = make_pipeline(Nystroem(gamma=gamma, n_components=50, random_state=4), LogisticRegression(C=3.0))
    theirs.fit(X, y)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-9)
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
