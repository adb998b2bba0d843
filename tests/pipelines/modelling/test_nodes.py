"""Nodes of modelling: leak-free out-of-fold predictions, a leaderboard ranked by them, and reproducible fits."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.metrics import log_loss, roc_auc_score
from tests.customers import make_contract, raw_customers
from tests.studies import MemoryStudies

from churn_pipeline.modelling.candidates import Candidate, build_candidate
from churn_pipeline.modelling.choice_report import Choice
from churn_pipeline.modelling.early_stopping import stops_early
from churn_pipeline.modelling.ensemble import BlendedModel, Member
from churn_pipeline.modelling.search import SearchSettings, search_candidate
from churn_pipeline.modelling.search.settings import SEARCH_SHARE
from churn_pipeline.pipelines.data_engineering.nodes import features_and_label, validate_customers
from churn_pipeline.pipelines.data_engineering.splitting import (
    FOLD_TRAIN,
    FOLD_VALIDATE,
    NOT_IN_FOLD,
    SplitSettings,
    folds,
)
from churn_pipeline.pipelines.modelling import nodes
from churn_pipeline.pipelines.modelling.nodes import (
    ChoiceSettings,
    Seconds,
    compare,
    convert_chosen,
    draw_customers,
    fit,
    make_task,
    prepare,
    search,
)

CONTRACT = make_contract()
SETTINGS = ChoiceSettings(metrics=("auc", "log_loss"), blends=False, calibrate=False)
SEARCH = SearchSettings(seconds=None)
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
STOPPING = {
    "class": "lightgbm.LGBMClassifier",
    "arguments": {"n_estimators": 200, "early_stopping_rounds": 5, "learning_rate": 0.2, "min_child_samples": 5},
    "copies": 2,
}
GROUPS = pd.DataFrame({"customer": np.arange(240)})
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
    rows, _ = prepare(
        changes.get("features", features), changes.get("label", label), changes.get("folds", made), GROUPS, 1, SEARCH
    )
    return search(rows, CONTRACT, 1, candidate(name))[0]


def chosen(*names: str) -> dict[str, Any]:
    """The choice of a candidate or of a blend with equal weights."""
    members = tuple(Member(candidate=name, weight=1 / len(names)) for name in names)
    losses = dict.fromkeys(names, 0.4)
    return Choice(
        candidate="+".join(names),
        members=members,
        rule="lowest log loss plus cost of serving",
        log_loss=0.4,
        log_losses=losses,
    ).to_dict()


def plain(*candidates: Candidate) -> list[dict[str, Any]]:
    """Candidates as `search` returns them."""
    return [each.model_dump(mode="json", by_alias=True) for each in candidates]


def fitted(data: Data, used: Candidate, seed: int = 1) -> Any:
    return fit(*data[:2], GROUPS, CONTRACT, seed, chosen("one"), one=plain(used))


# ---- search ----------------------------------------------------------------------------------------------------------


def test_predictions_cover_the_validating_rows_of_each_fold_and_no_others(data: Data) -> None:
    _, label, made = data
    made = made.copy()
    made.loc[:9, "fold_1"] = NOT_IN_FOLD
    predictions = searched(data, folds=made)
    assert list(predictions) == ["trial", "fold", "row", "churned", "probability", "seconds", "microseconds"]
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
    fitted(data, candidate())
    for table, copy in zip(data, before, strict=True):
        pd.testing.assert_frame_equal(table, copy)


# ---- fit -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CANDIDATES)
def test_a_fit_is_the_same_for_the_same_seed(data: Data, name: str) -> None:
    features, *_ = data
    one, other = (fitted(data, candidate(name), 7) for _ in range(2))
    assert (one.predict_proba(features) == other.predict_proba(features)).all()
    digests = [convert_chosen(model, {"candidate": name}, CONTRACT)[1]["model_digest"] for model in (one, other)]
    assert digests[0] == digests[1]


def test_the_seed_is_used_unless_the_candidate_sets_one(data: Data) -> None:
    features, *_ = data
    one, other = (fitted(data, candidate("forest"), seed) for seed in (1, 2))
    assert not (one.predict_proba(features) == other.predict_proba(features)).all()
    fixed = Candidate.model_validate({**CANDIDATES["forest"], "arguments": {"n_estimators": 5, "random_state": 3}})
    one, other = (fitted(data, fixed, seed) for seed in (1, 2))
    assert (one.predict_proba(features) == other.predict_proba(features)).all()


def test_only_the_members_of_the_chosen_model_are_fitted(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    features, label, _ = data
    built: list[Candidate] = []

    def recorded(used: Candidate, *rest: Any) -> Any:
        built.append(used)
        return build_candidate(used, *rest)

    monkeypatch.setattr(nodes, "build_candidate", recorded)
    candidates = {name: plain(candidate(name)) for name in CANDIDATES}
    alone = fit(features, label, GROUPS, CONTRACT, 1, chosen("forest"), **candidates)
    assert built == [candidate("forest")]
    assert type(alone["classifier"]).__name__ == "RandomForestClassifier"
    built.clear()
    blend = fit(features, label, GROUPS, CONTRACT, 1, chosen("boosting", "logistic"), **candidates)
    assert built == [candidate("boosting"), candidate("logistic")]
    assert isinstance(blend, BlendedModel)
    assert [name for name, _ in blend.members] == ["boosting", "logistic"]


def test_a_candidate_that_stopped_early_is_fitted_on_all_rows_with_the_trees_of_the_folds(data: Data) -> None:
    features, label, made = data
    rows, seconds = prepare(features, label, made, GROUPS, 1, SEARCH)
    assert seconds == {"seconds": None}
    predictions, (found,), seconds_left = search(rows, CONTRACT, 1, Candidate.model_validate(STOPPING))
    assert seconds_left == {"seconds": None}
    tuned = Candidate.model_validate(found)
    assert not stops_early(tuned)
    model = fitted(data, tuned)
    trees = tuned.arguments["n_estimators"]
    assert 1 < trees < 200
    assert [copy.n_estimators_ for copy in model["classifier"].estimators_] == [trees] * 2
    # Serving time counts every tree of every copy.
    assert predictions["microseconds"].iloc[0] > 0.03 * 2 * trees
    _, report, _ = convert_chosen(model, {"candidate": "one"}, CONTRACT)
    assert (
        report["model_digest"] == convert_chosen(fitted(data, tuned), {"candidate": "one"}, CONTRACT)[1]["model_digest"]
    )


@pytest.mark.parametrize("name", ["forest", "stopping"])
def test_search_and_fit_are_the_same_on_one_core_and_on_several(
    data: Data, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, label, made = data
    used = Candidate.model_validate(STOPPING) if name == "stopping" else candidate(name)
    found, digests = [], []
    for cores in (1, 3):
        monkeypatch.setattr("joblib.cpu_count", lambda cores=cores: cores)
        rows, _ = prepare(features, label, made, GROUPS, 1, SEARCH)
        predictions, (tuned,), _ = search(rows, CONTRACT, 1, used)
        found.append(predictions.drop(columns="seconds"))
        digests.append(
            convert_chosen(fitted(data, Candidate.model_validate(tuned)), {"candidate": "one"}, CONTRACT)[1][
                "model_digest"
            ]
        )
    pd.testing.assert_frame_equal(*found)
    assert digests[0] == digests[1]


# ---- the time budget -------------------------------------------------------------------------------------------------


def test_each_search_gets_its_share_of_the_time_that_earlier_ones_left(
    data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, label, made = data
    rows, available = prepare(features, label, made, GROUPS, 1, SearchSettings(seconds=100))
    seconds = 100 * SEARCH_SHARE
    assert available == {"seconds": seconds}
    limits: list[float | None] = []

    def recorded(*given: Any) -> Any:
        limits.append(given[-1])
        return search_candidate(*given)

    monkeypatch.setattr(nodes, "search_candidate", recorded)
    left = [seconds]
    for share in (0.5, 1.0):
        used = candidate().model_copy(update={"share": share})
        found = search(rows, CONTRACT, 1, used, None, None, {"seconds": left[-1]})[2]["seconds"]
        assert found is not None
        left.append(found)
    assert limits == [seconds / 2, left[1]]
    assert seconds > left[1] > left[2] > seconds - 10
    assert search(rows, CONTRACT, 1, candidate(), None, None, {"seconds": 0.0})[2] == {"seconds": 0.0}


def test_a_repeated_training_searches_no_longer_and_tries_the_same(data: Data) -> None:
    features, label, made = data
    rows, _ = prepare(features, label, made, GROUPS, 1, SEARCH)
    space = {"arguments": {"C": {"low": 0.01, "high": 100.0, "log": True}}}
    used = Candidate.model_validate(
        {**CANDIDATES["logistic"], "arguments": {"C": 1.0}, "space": space, "trials": 1000, "share": 0.5}
    )
    studies = [MemoryStudies("first"), MemoryStudies("second")]
    left, trials = [], []
    for _ in range(3):
        seconds: Seconds = {"seconds": 4.0}
        for each in studies:
            *_, seconds = search(rows, CONTRACT, 1, used, SEARCH, each, seconds)
        left.append(seconds["seconds"])
        trials.append([len(each.trials) for each in studies])
    assert trials[0] == trials[1] == trials[2]
    assert min(trials[0]) > 1
    assert left == sorted(left, reverse=True)


ROWS = st.lists(st.integers(0, 30), min_size=1, max_size=200)


@given(customers=ROWS, max_rows=st.integers(1, 200), seed=st.integers(0, 5))
def test_customers_are_drawn_whole_and_fill_the_limit(customers: list[int], max_rows: int, seed: int) -> None:
    rows = np.array(customers)
    drawn = draw_customers(rows, max_rows, seed)
    kept, left = set(rows[drawn]), set(rows[~drawn])
    assert not kept & left
    assert drawn.sum() <= max_rows
    if left:
        assert drawn.sum() + np.bincount(rows).max() > max_rows
    else:
        assert len(rows) <= max_rows
    np.testing.assert_array_equal(drawn, draw_customers(rows * 7 + 3, max_rows, seed))


def test_a_large_table_is_searched_on_drawn_customers(data: Data) -> None:
    features, label, made = (pd.concat([table] * 6, ignore_index=True) for table in data)
    groups = pd.concat([GROUPS] * 6, ignore_index=True)
    task = make_task(prepare(features, label, made, groups, 1, SearchSettings(max_rows=1000))[0], CONTRACT, 1)
    assert 990 < len(task.features) <= 1000
    assert task.groups is not None
    assert set(np.unique(task.groups, return_counts=True)[1]) == {6}
    rows = draw_customers(groups["customer"].to_numpy(), 1000, 1)
    pd.testing.assert_frame_equal(task.features, features[rows].reset_index(drop=True))
    assert task.churned.tolist() == label["churned"][rows].tolist()
    for training, validation in task.folds.values():
        assert not (training & validation).any()
        assert not set(task.groups[training]) & set(task.groups[validation])


@pytest.mark.parametrize("name", ["churned", "customer", "fold.fold_1", "feature.x"])
def test_a_feature_may_have_any_name_beside_label_customers_and_folds(data: Data, name: str, tmp_path: Path) -> None:
    features, label, made = data
    renamed = features.rename(columns={features.columns[0]: name})
    rows, _ = prepare(renamed, label, made, GROUPS, 1, SEARCH)
    rows.to_parquet(tmp_path / "rows.parquet")
    task = make_task(pd.read_parquet(tmp_path / "rows.parquet"), CONTRACT, 1)
    pd.testing.assert_frame_equal(task.features, renamed.reset_index(drop=True))
    assert task.churned.tolist() == label["churned"].tolist()
    assert list(task.folds) == list(made)


# ---- compare and choose ----------------------------------------------------------------------------------------------


def predictions(noise: float, seconds: float = 1.0, microseconds: float = 0.0) -> pd.DataFrame:
    """Out-of-fold predictions with this much noise."""
    rng = np.random.default_rng(0)
    churn = np.tile([0, 1, 1, 0], 30)
    probability = np.clip(0.5 + 0.4 * (churn - 0.5) + noise * rng.normal(size=120), 0.01, 0.99)
    return pd.DataFrame(
        {
            "trial": 1,
            "fold": np.repeat(["fold_1", "fold_2", "fold_3"], 40),
            "row": range(120),
            "churned": churn,
            "probability": probability,
            "seconds": seconds,
            "microseconds": microseconds,
        }
    )


def test_the_best_trials_of_one_search_are_compared_and_may_be_blended(data: Data) -> None:
    rng = np.random.default_rng(1)
    truth = rng.normal(size=3000)
    churn = (rng.random(3000) < 1 / (1 + np.exp(-truth))).astype(int)
    found = pd.concat(
        [
            pd.DataFrame(
                {
                    "trial": trial,
                    "fold": np.repeat(["fold_1", "fold_2", "fold_3"], 1000),
                    "row": range(3000),
                    "churned": churn,
                    "probability": 1 / (1 + np.exp(-(truth + rng.normal(0, 1, 3000)) / 2)),
                    "seconds": 1.0,
                    "microseconds": 1.0,
                }
            )
            for trial in (1, 2)
        ]
    )
    leaderboard, choice = compare(ChoiceSettings(metrics=("log_loss",)), trees=found)
    assert set(leaderboard["candidate"]) == {"trees", "trees_2"}
    assert [member["candidate"] for member in choice["members"]] == ["trees", "trees_2"]
    features, label, _ = data
    model = fit(features, label, GROUPS, CONTRACT, 1, choice, trees=plain(candidate("logistic"), candidate("forest")))
    assert isinstance(model, BlendedModel)
    assert [type(member["classifier"]).__name__ for _, member in model.members] == [
        "LogisticRegression",
        "RandomForestClassifier",
    ]


def test_candidates_are_ranked_by_log_loss_and_the_first_is_chosen() -> None:
    tables = {"poor": predictions(0.3), "good": predictions(0.0), "fair": predictions(0.15)}
    leaderboard, choice = compare(SETTINGS, **tables)
    assert leaderboard["candidate"].tolist() == ["good", "fair", "poor"]
    assert leaderboard["log_loss"].is_monotonic_increasing
    assert choice["candidate"] == "good"
    assert choice["log_loss"] == pytest.approx(leaderboard.loc[0, "log_loss"])
    assert isinstance(choice["log_loss"], float)


def test_a_leaderboard_shows_means_over_folds_their_error_and_seconds() -> None:
    table = predictions(0.2, seconds=2.0, microseconds=3.5)
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
    assert row["microseconds"] == 3.5


def test_the_order_of_candidates_decides_between_equals_alone() -> None:
    same = predictions(0.1)
    assert compare(SETTINGS, first=same, second=same.copy())[1]["candidate"] == "first"
    assert compare(SETTINGS, worse=predictions(0.2), better=same)[1]["candidate"] == "better"


def test_log_loss_is_always_on_the_leaderboard() -> None:
    leaderboard, _ = compare(ChoiceSettings(metrics=("auc",)), one=predictions(0.1))
    assert {"log_loss", "auc"} <= set(leaderboard)


def test_the_converted_model_is_identified_by_candidate_and_digest(data: Data) -> None:
    features, label, _ = data
    model = fitted(data, candidate())
    _, report, tags = convert_chosen(model, {"candidate": "logistic"}, CONTRACT)
    assert report == tags
    assert report["candidate"] == "logistic"
    assert len(report["model_digest"]) == 64
    other = clone(model).fit(features, 1 - label["churned"])
    assert convert_chosen(other, {"candidate": "logistic"}, CONTRACT)[1]["model_digest"] != report["model_digest"]
