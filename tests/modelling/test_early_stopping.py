"""Early stopping: the number of trees is found on validation rows, and no fold's own number decides its predictions."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.exceptions import NotFittedError
from tests.modelling.conftest import SHIPPED

from churn_pipeline.evaluation.metrics import log_loss
from churn_pipeline.modelling import early_stopping
from churn_pipeline.modelling.candidates import Candidate, build_candidate
from churn_pipeline.modelling.cross_validation import Task, validate_fold
from churn_pipeline.modelling.early_stopping import (
    fit_and_stop,
    stops_early,
    trees_for_all_rows,
    trees_of_other_folds,
    with_trees,
)
from churn_pipeline.modelling.search import SearchResult, SearchSettings, search_candidate
from churn_pipeline.modelling.studies import UnstoredStudies

COLUMNS = [f"x{column}" for column in range(6)]
# By library: its class, the arguments that a test of a few trees needs, and the argument with the number of trees.
LIBRARIES: dict[str, tuple[str, dict[str, Any], str]] = {
    "lightgbm": ("lightgbm.LGBMClassifier", {"n_estimators": 300, "early_stopping_rounds": 5}, "n_estimators"),
    "xgboost": ("xgboost.XGBClassifier", {"n_estimators": 300, "early_stopping_rounds": 5}, "n_estimators"),
    "catboost": ("catboost.CatBoostClassifier", {"iterations": 300, "early_stopping_rounds": 5}, "iterations"),
    "sklearn": (
        "sklearn.ensemble.HistGradientBoostingClassifier",
        {"max_iter": 300, "early_stopping": True, "n_iter_no_change": 5},
        "max_iter",
    ),
}


def boosting(library: str = "sklearn", **changes: Any) -> Candidate:
    pytest.importorskip(library)
    path, arguments, _ = LIBRARIES[library]
    return Candidate.model_validate({"class": path, "arguments": {**arguments, "learning_rate": 0.2}, **changes})


def make_task(rows: int = 600, signal: float = 1.0, folds: int = 3) -> Task:
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(rows, len(COLUMNS))), columns=COLUMNS)
    churned = pd.Series((rng.random(rows) < 1 / (1 + np.exp(1 - signal * X["x0"]))).astype("int64"))
    part = np.arange(rows) % folds
    masks = {f"fold_{k}": (part != k, part == k) for k in range(folds)}
    return Task(X, churned, masks, COLUMNS, [], log_loss, seed=0)


def searched(task: Task, candidate: Candidate) -> SearchResult:
    return search_candidate(task, candidate, SearchSettings(seconds=None), UnstoredStudies())


def best(task: Task, candidate: Candidate) -> pd.DataFrame:
    """Out-of-fold predictions of the best trial."""
    return searched(task, candidate).predictions[0]


def loss_of(predictions: pd.DataFrame) -> float:
    return log_loss(predictions["churned"].to_numpy(), predictions["probability"].to_numpy())


# ---- one fold --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("pairs", [0, 4])
def test_the_returned_probabilities_are_those_of_the_returned_number_of_trees(library: str, pairs: int) -> None:
    """Fitted again with that number, without validation rows, the model predicts the same."""
    task, candidate = make_task(signal=2.0), boosting(library, numeric_arguments={"pairs": pairs})
    training, validation = task.folds["fold_0"]
    rows = (task.features[training], task.churned[training])
    model = build_candidate(candidate, COLUMNS, [], seed=0)
    probability, trees = fit_and_stop(
        model, candidate, (*rows, None), task.features[validation], task.churned[validation]
    )
    assert 1 < trees < 290
    with pytest.raises(NotFittedError):
        model.named_steps["preprocessing"].transform(task.features)
    again = build_candidate(with_trees(candidate, trees), COLUMNS, [], seed=0).fit(*rows)
    np.testing.assert_allclose(again.predict_proba(task.features[validation])[:, 1], probability, rtol=0, atol=1e-6)


@pytest.mark.parametrize("library", LIBRARIES)
def test_fewer_and_more_trees_are_worse_on_the_validation_rows(library: str) -> None:
    task, candidate = make_task(), boosting(library)
    trees = int(validate_fold(task, candidate, "fold_0")["trees"].iloc[0])
    losses = [loss_of(validate_fold(task, with_trees(candidate, count), "fold_0")) for count in (1, trees, 300)]
    assert losses[1] == min(losses)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_fixed_number_of_trees_ends_early_stopping(library: str) -> None:
    candidate = boosting(library)
    fixed = with_trees(candidate, 0)
    assert stops_early(candidate)
    assert not stops_early(fixed)
    assert fixed.arguments[LIBRARIES[library][2]] == 1
    assert with_trees(candidate, 7).arguments[LIBRARIES[library][2]] == 7
    assert candidate.arguments[LIBRARIES[library][2]] == 300
    assert (validate_fold(make_task(), with_trees(candidate, 7), "fold_0")["trees"] == 0).all()


@pytest.mark.parametrize(
    "block",
    [
        {"class": "sklearn.linear_model.LogisticRegression"},
        {"class": "lightgbm.LGBMClassifier"},
        {"class": "lightgbm.LGBMClassifier", "arguments": {"early_stopping_rounds": None}},
        {"class": "sklearn.ensemble.HistGradientBoostingClassifier"},
        {"class": "sklearn.ensemble.HistGradientBoostingClassifier", "arguments": {"early_stopping": "auto"}},
        {"class": "sklearn.ensemble.GradientBoostingClassifier", "arguments": {"n_iter_no_change": 2}},
    ],
)
def test_other_candidates_do_not_stop_on_validation_rows(block: dict[str, Any]) -> None:
    assert not stops_early(Candidate.model_validate(block))


def test_the_shipped_boosting_stops_early() -> None:
    assert stops_early(Candidate.model_validate(SHIPPED["gradient_boosting"]))


# ---- from folds to all rows ------------------------------------------------------------------------------------------

COUNTS = st.lists(st.integers(1, 5000), min_size=1, max_size=10)


@given(counts=COUNTS, fold=st.integers(0, 9), other=st.integers(1, 5000))
def test_a_folds_own_number_of_trees_does_not_affect_the_one_that_it_is_scored_with(
    counts: list[int], fold: int, other: int
) -> None:
    fold %= len(counts)
    changed = [*counts[:fold], other, *counts[fold + 1 :]]
    if len(counts) > 1:
        assert trees_of_other_folds(changed)[fold] == trees_of_other_folds(counts)[fold]


@given(counts=COUNTS)
def test_the_numbers_of_trees_lie_between_those_of_the_folds_and_all_rows_carry_more(counts: list[int]) -> None:
    of_others = trees_of_other_folds(counts)
    assert len(of_others) == len(counts)
    assert min(counts) <= min(of_others) <= max(of_others) <= max(counts)
    share = 1.0 if len(counts) == 1 else (len(counts) - 1) / len(counts)
    assert trees_for_all_rows(counts) == pytest.approx(np.mean(counts) / share, abs=0.51)


# ---- a search --------------------------------------------------------------------------------------------------------


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[int, int]], None]:
    """Make scikit-learn's boosting stop at given numbers of trees, by the number of churned validation rows."""

    def replace_counts(counts: dict[int, int]) -> None:
        key = ("sklearn", "HistGradientBoostingClassifier")
        library = early_stopping._LIBRARIES[key]

        def fit(classifier: Any, training: Any, validation: Any) -> tuple[Any, int]:
            return np.full(len(validation[1]), 0.5), counts[int(validation[0][0, 0])]

        monkeypatch.setitem(early_stopping._LIBRARIES, key, replace(library, fit=fit))
        monkeypatch.setattr("joblib.cpu_count", lambda: 1)

    return replace_counts


def test_a_fold_is_predicted_with_the_trees_of_the_other_folds(counted: Callable[[dict[int, int]], None]) -> None:
    task = make_task()
    for k, (_, validation) in enumerate(task.folds.values()):
        task.features.iloc[np.flatnonzero(validation)[0], 0] = k  # lets the replaced fit know the fold
    candidate = boosting()
    counted({0: 10, 1: 20, 2: 40})
    found = searched(task, candidate)
    (tuned,), (predictions,) = found.candidates, found.predictions
    assert tuned == with_trees(candidate, 35)  # (10 + 20 + 40) / 2
    for fold, trees in zip(task.folds, (30, 25, 15), strict=True):
        expected = validate_fold(task, with_trees(candidate, trees), fold)["probability"]
        given = predictions.loc[predictions["fold"] == fold, "probability"]
        np.testing.assert_array_equal(given.to_numpy(), expected.to_numpy())
    assert "trees" not in predictions


@pytest.mark.parametrize("library", LIBRARIES)
def test_labels_of_a_fold_affect_its_predictions_only_through_models_of_other_folds(library: str) -> None:
    """Given the numbers of trees of the other folds, flipping a fold's labels does not change its predictions."""
    task, candidate = make_task(300), boosting(library)
    validation = task.folds["fold_1"][1]
    flipped = replace(task, churned=task.churned.where(~validation, 1 - task.churned))
    for trees in (1, 20):
        one, other = (validate_fold(given, with_trees(candidate, trees), "fold_1") for given in (task, flipped))
        np.testing.assert_array_equal(one["probability"], other["probability"])
        assert (one["churned"] != other["churned"]).all()
    # Stopped on its own labels, it would not be so.
    own = [validate_fold(given, candidate, "fold_1")["probability"].to_numpy() for given in (task, flipped)]
    assert not np.array_equal(*own)


def test_on_noise_no_skill_is_reported() -> None:
    """Predictions of the folds' own numbers of trees look better than the churn rate; those of a search do not."""
    own, honest = [], []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        task = replace(make_task(300), churned=pd.Series(rng.integers(0, 2, 300)))
        candidate = boosting(arguments={**LIBRARIES["sklearn"][1], "n_iter_no_change": 30, "learning_rate": 0.05})
        own.append(loss_of(pd.concat([validate_fold(task, candidate, fold) for fold in task.folds])))
        honest.append(loss_of(best(task, candidate)))
    assert np.mean(own) < np.mean(honest)
    assert np.mean(honest) >= np.log(2)
