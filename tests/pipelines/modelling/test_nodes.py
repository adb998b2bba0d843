"""Nodes of modelling: leak-free out-of-fold predictions, a leaderboard ranked by them, and reproducible fits."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.metrics import log_loss, roc_auc_score
from tests.customers import make_contract, raw_customers

from churn_pipeline.modelling.candidates import Candidate, build_candidate
from churn_pipeline.pipelines.data_engineering.nodes import features_and_label, validate_customers
from churn_pipeline.pipelines.data_engineering.splitting import (
    FOLD_TRAIN,
    FOLD_VALIDATE,
    NOT_IN_FOLD,
    SplitSettings,
    folds,
)
from churn_pipeline.pipelines.modelling.nodes import (
    ChoiceSettings,
    choose,
    compare,
    convert_chosen,
    fit,
    prepare,
    search,
)

CONTRACT = make_contract()
SETTINGS = ChoiceSettings(metrics=("auc", "log_loss"), blend_standard_errors=float("inf"), calibrate=False)
CANDIDATES = {
    "logistic": {"class": "sklearn.linear_model.LogisticRegression", "numeric": "scaled"},
    "forest": {
        "class": "sklearn.ensemble.RandomForestClassifier",
        "arguments": {"n_estimators": 10, "min_samples_leaf": 5},
    },
    "boosting": {
        "class": "sklearn.ensemble.HistGradientBoostingClassifier",
        "arguments": {"max_iter": 10, "max_features": 0.5},
    },
}
Data = tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]


def candidate(name: str = "logistic") -> Candidate:
    return Candidate.model_validate(CANDIDATES[name])


@pytest.fixture(scope="module")
def data() -> Data:
    """Features, label and three folds of 240 customers."""
    customers = validate_customers(raw_customers(240), CONTRACT)[0]
    features, label = features_and_label(customers, CONTRACT)
    setting = SplitSettings(holdout_share=0.2, holdout_latest=0.2, folds=3)
    return features, label, folds(customers, label["churned"], np.arange(240), CONTRACT, setting, seed=1)


def searched(data: Data, name: str = "logistic", **changes: pd.DataFrame) -> pd.DataFrame:
    features, label, made = data
    task = prepare(
        changes.get("features", features), changes.get("label", label), changes.get("folds", made), CONTRACT, seed=1
    )
    return search(task, candidate(name))[0]


# ---- search ----------------------------------------------------------------------------------------------------------


def test_predictions_cover_the_validating_rows_of_each_fold_and_no_others(data: Data) -> None:
    _, label, made = data
    made = made.copy()
    made.loc[:9, "fold_1"] = NOT_IN_FOLD
    predictions = searched(data, folds=made)
    assert list(predictions) == ["fold", "row", "churned", "probability", "seconds"]
    for name in made:
        part = predictions[predictions["fold"] == name]
        assert part["row"].tolist() == np.flatnonzero(made[name] == FOLD_VALIDATE).tolist()
        assert part["churned"].tolist() == label["churned"].iloc[part["row"]].tolist()
    assert predictions["probability"].between(0, 1).all()


@pytest.mark.parametrize("name", CANDIDATES)
def test_labels_of_validating_rows_do_not_affect_their_probabilities(data: Data, name: str) -> None:
    _, label, made = data
    for fold in made:
        validates = (made[fold] == FOLD_VALIDATE).to_numpy()
        shuffled = label.copy()
        shuffled.loc[validates, "churned"] = np.random.default_rng(0).permutation(label.loc[validates, "churned"])
        assert not shuffled.equals(label)
        one, other = (searched(data, name, label=used, folds=made[[fold]]) for used in (label, shuffled))
        pd.testing.assert_series_equal(one["probability"], other["probability"])


@pytest.mark.parametrize("name", CANDIDATES)
def test_features_of_other_validating_rows_do_not_affect_a_probability(data: Data, name: str) -> None:
    """They are not used for imputing, encoding or scaling."""
    features, _, made = data
    row = int(np.flatnonzero(made["fold_1"] == FOLD_VALIDATE)[0])
    others = (made["fold_1"] == FOLD_VALIDATE) & (features.index != row)
    changed = features.copy()
    changed.loc[others, ["months", "charge"]] = 1e9
    changed.loc[others, "region"] = "never seen"
    one, other = (searched(data, name, features=used, folds=made[["fold_1"]]) for used in (features, changed))
    assert one["probability"].iloc[0] == other["probability"].iloc[0]
    assert not one["probability"].equals(other["probability"])


def test_rows_outside_a_fold_are_not_trained_on(data: Data) -> None:
    _, label, made = data
    made = made[["fold_1"]].copy()
    made.loc[(made["fold_1"] == FOLD_TRAIN) & (made.index < 60), "fold_1"] = NOT_IN_FOLD
    out = (made["fold_1"] == NOT_IN_FOLD).to_numpy()
    flipped = label.copy()
    flipped.loc[out, "churned"] = 1 - flipped.loc[out, "churned"]
    one, other = (searched(data, label=used, folds=made) for used in (label, flipped))
    pd.testing.assert_series_equal(one["probability"], other["probability"])


@pytest.mark.parametrize("name", CANDIDATES)
def test_a_search_repeats_itself_and_equals_a_plain_fit(data: Data, name: str) -> None:
    features, label, made = data
    one, other = searched(data, name), searched(data, name)
    pd.testing.assert_frame_equal(one.drop(columns="seconds"), other.drop(columns="seconds"))
    train, validates = made["fold_2"] == FOLD_TRAIN, made["fold_2"] == FOLD_VALIDATE
    model = build_candidate(candidate(name), CONTRACT.numeric, CONTRACT.categorical, 1).fit(
        features[train], label["churned"][train]
    )
    expected = model.predict_proba(features[validates])[:, 1]
    np.testing.assert_allclose(one.loc[one["fold"] == "fold_2", "probability"], expected, rtol=0, atol=1e-12)


def test_inputs_are_not_changed(data: Data) -> None:
    before = [table.copy(deep=True) for table in data]
    searched(data)
    fit(*data[:2], candidate(), CONTRACT, 1)
    for table, copy in zip(data, before, strict=True):
        pd.testing.assert_frame_equal(table, copy)


# ---- fit -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CANDIDATES)
def test_a_fit_is_the_same_for_the_same_seed(data: Data, name: str) -> None:
    features, label, _ = data
    one, other = (fit(features, label, candidate(name), CONTRACT, 7) for _ in range(2))
    assert (one.predict_proba(features) == other.predict_proba(features)).all()
    digests = [convert_chosen(model, {"candidate": name}, CONTRACT)[1]["model_digest"] for model in (one, other)]
    assert digests[0] == digests[1]


def test_the_seed_is_used_unless_the_candidate_sets_one(data: Data) -> None:
    features, label, _ = data
    one, other = (fit(features, label, candidate("forest"), CONTRACT, seed) for seed in (1, 2))
    assert not (one.predict_proba(features) == other.predict_proba(features)).all()
    fixed = Candidate.model_validate({**CANDIDATES["forest"], "arguments": {"n_estimators": 5, "random_state": 3}})
    one, other = (fit(features, label, fixed, CONTRACT, seed) for seed in (1, 2))
    assert (one.predict_proba(features) == other.predict_proba(features)).all()


# ---- compare and choose ----------------------------------------------------------------------------------------------


def predictions(noise: float, seconds: float = 1.0) -> pd.DataFrame:
    """Out-of-fold predictions with this much noise."""
    rng = np.random.default_rng(0)
    churn = np.tile([0, 1, 1, 0], 30)
    probability = np.clip(0.5 + 0.4 * (churn - 0.5) + noise * rng.normal(size=120), 0.01, 0.99)
    return pd.DataFrame(
        {
            "fold": np.repeat(["fold_1", "fold_2", "fold_3"], 40),
            "row": range(120),
            "churned": churn,
            "probability": probability,
            "seconds": seconds,
        }
    )


def test_candidates_are_ranked_by_log_loss_and_the_first_is_chosen() -> None:
    tables = {"poor": predictions(0.3), "good": predictions(0.0), "fair": predictions(0.15)}
    leaderboard, choice = compare(SETTINGS, **tables)
    assert leaderboard["candidate"].tolist() == ["good", "fair", "poor"]
    assert leaderboard["log_loss"].is_monotonic_increasing
    assert choice["candidate"] == "good"
    assert choice["log_loss"] == pytest.approx(leaderboard.loc[0, "log_loss"])
    assert isinstance(choice["log_loss"], float)


def test_a_leaderboard_shows_means_over_folds_their_error_and_seconds() -> None:
    table = predictions(0.2, seconds=2.0)
    leaderboard, _ = compare(SETTINGS, one=table)
    scores = [
        (log_loss(part["churned"], part["probability"]), roc_auc_score(part["churned"], part["probability"]))
        for _, part in table.groupby("fold")
    ]
    losses, aucs = map(np.array, zip(*scores, strict=True))
    (row,) = leaderboard.to_dict("records")
    assert row["log_loss"] == pytest.approx(losses.mean())
    assert row["auc"] == pytest.approx(aucs.mean())
    assert row["log_loss_se"] == pytest.approx(losses.std(ddof=1) / np.sqrt(3))
    assert row["fit_seconds"] == 6.0


def test_the_order_of_candidates_decides_between_equals_alone() -> None:
    same = predictions(0.1)
    assert compare(SETTINGS, first=same, second=same.copy())[1]["candidate"] == "first"
    assert compare(SETTINGS, worse=predictions(0.2), better=same)[1]["candidate"] == "better"


def test_log_loss_is_always_on_the_leaderboard() -> None:
    leaderboard, _ = compare(ChoiceSettings(metrics=("auc",)), one=predictions(0.1))
    assert {"log_loss", "auc"} <= set(leaderboard)


def test_the_chosen_model_is_that_of_the_chosen_candidate(data: Data) -> None:
    models: dict[str, Any] = {
        name: build_candidate(candidate(name), CONTRACT.numeric, CONTRACT.categorical, 1) for name in CANDIDATES
    }
    choice = {
        "candidate": "forest",
        "members": [{"candidate": "forest", "weight": 1.0}],
        "rule": "lowest log loss",
        "log_loss": 0.4,
        "log_losses": {"forest": 0.4},
    }
    assert choose(choice, **models) is models["forest"]


def test_the_converted_model_is_identified_by_candidate_and_digest(data: Data) -> None:
    features, label, _ = data
    model = fit(features, label, candidate(), CONTRACT, 1)
    _, report, tags = convert_chosen(model, {"candidate": "logistic"}, CONTRACT)
    assert report == tags
    assert report["candidate"] == "logistic"
    assert len(report["model_digest"]) == 64
    other = clone(model).fit(features, 1 - label["churned"])
    assert convert_chosen(other, {"candidate": "logistic"}, CONTRACT)[1]["model_digest"] != report["model_digest"]
