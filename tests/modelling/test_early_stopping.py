"""Early stopping: rows of one customer do not decide when boosting stops."""

import logging
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression
from tests.modelling.conftest import SHIPPED, make_customers

from churn_pipeline.evaluation.metrics import log_loss
from churn_pipeline.modelling.candidates import TRUSTED_TYPES, Candidate, CandidatePipeline, build_candidate
from churn_pipeline.modelling.early_stopping import fit_candidate
from churn_pipeline.modelling.onnx_conversion import convert_model

COLUMNS = [f"x{column}" for column in range(6)]


def panel(customers: int, rows: int, seed: int) -> tuple[pd.DataFrame, pd.Series, np.ndarray]:
    """Customers with several rows, whose features hardly change and whose label does not."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(customers, len(COLUMNS)))
    churned = rng.random(customers) < 1 / (1 + np.exp(-X[:, 0]))
    groups = np.repeat(np.arange(customers), rows)
    noisy = X[groups] + rng.normal(scale=0.01, size=(len(groups), len(COLUMNS)))
    return pd.DataFrame(noisy, columns=COLUMNS), pd.Series(churned[groups].astype(int)), groups


def boosting(**changes: Any) -> CandidatePipeline:
    arguments = {
        "learning_rate": 0.1,
        "max_iter": 400,
        "early_stopping": True,
        "n_iter_no_change": 10,
        "max_leaf_nodes": 8,
    }
    content = {"class": "sklearn.ensemble.HistGradientBoostingClassifier", "arguments": arguments | changes}
    return build_candidate(Candidate.model_validate(content), COLUMNS, [], seed=0)


def trees(model: CandidatePipeline) -> int:
    return int(model.named_steps["classifier"].n_iter_)


def test_boosting_stops_earlier_and_predicts_other_customers_better() -> None:
    new, label, _ = panel(2000, 1, seed=99)
    gains = []
    for seed in range(3):
        X, y, groups = panel(300, 8, seed)
        by_rows, by_customers = fit_candidate(boosting(), X, y), fit_candidate(boosting(), X, y, groups)
        assert trees(by_customers) < 0.5 * trees(by_rows)
        losses = [log_loss(label.to_numpy(), model.predict_proba(new)[:, 1]) for model in (by_rows, by_customers)]
        gains.append(losses[0] - losses[1])
    assert min(gains) > 0.1


def test_without_repeated_customers_the_model_is_the_one_that_the_candidate_fits_itself() -> None:
    X, y, _ = panel(400, 1, seed=0)
    plain = boosting().fit(X, y).predict_proba(X)
    for groups in (None, np.arange(400)[::-1]):
        np.testing.assert_array_equal(fit_candidate(boosting(), X, y, groups).predict_proba(X), plain)


def test_the_number_of_trees_does_not_depend_on_the_numbers_of_customers() -> None:
    X, y, groups = panel(200, 4, seed=1)
    one, other = (fit_candidate(boosting(), X, y, number) for number in (groups, groups * 7 + 3))
    np.testing.assert_array_equal(one.predict_proba(X), other.predict_proba(X))


@pytest.mark.parametrize(
    "fixed",
    [{"early_stopping": False, "max_iter": 20}, {"early_stopping": "auto", "max_iter": 20}],
    ids=["off", "auto, few rows"],
)
def test_boosting_that_does_not_stop_early_keeps_its_trees(fixed: dict[str, Any]) -> None:
    X, y, groups = panel(100, 3, seed=0)
    fitted = fit_candidate(boosting(**fixed), X, y, groups)
    np.testing.assert_array_equal(fitted.predict_proba(X), boosting(**fixed).fit(X, y).predict_proba(X))


def test_the_given_model_is_not_changed() -> None:
    X, y, groups = panel(100, 3, seed=0)
    model = boosting()
    fit_candidate(model, X, y, groups)
    assert model.named_steps["classifier"].max_iter == 400
    assert not hasattr(model.named_steps["classifier"], "n_iter_")


def test_copies_with_pairs_share_the_number_of_trees_and_are_stored_and_converted() -> None:
    made = make_customers("mixed")
    content = SHIPPED["gradient_boosting"] | {"space": None}
    content["arguments"] = content["arguments"] | {"max_iter": 80}
    model = build_candidate(Candidate.model_validate(content), made.numeric, made.categorical, seed=0)
    fitted = fit_candidate(model, made.X, pd.Series(made.y), np.arange(len(made.X)) // 2)
    counts = {copy.named_steps["classifier"].n_iter_ for copy in fitted.named_steps["classifier"].estimators_}
    assert len(counts) == 1
    stored = skops.io.dumps(fitted)
    assert set(skops.io.get_untrusted_types(data=stored)) <= set(TRUSTED_TYPES)
    convert_model(fitted, made.numeric, made.categorical)


def test_another_classifier_that_stops_early_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    X, y, groups = panel(60, 3, seed=0)
    content = {"class": "sklearn.ensemble.GradientBoostingClassifier", "arguments": {"n_iter_no_change": 2}}
    with caplog.at_level(logging.WARNING):
        fit_candidate(build_candidate(Candidate.model_validate(content), COLUMNS, [], seed=0), X, y, groups)
    assert "GradientBoostingClassifier may stop early on rows drawn at random" in caplog.text


def test_a_candidate_without_early_stopping_is_fitted_as_it_is() -> None:
    X, y, groups = panel(60, 3, seed=0)
    content = {"class": "sklearn.linear_model.LogisticRegression", "numeric": "scaled"}
    fitted = fit_candidate(build_candidate(Candidate.model_validate(content), COLUMNS, [], seed=0), X, y, groups)
    assert isinstance(fitted.named_steps["classifier"], LogisticRegression)
