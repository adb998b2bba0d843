"""Refit: the same model on other rows, without a search."""

import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from churn_pipeline.contract.errors import ProjectError
from churn_pipeline.evaluation.model_record import RegisteredVersion
from churn_pipeline.modelling.candidates import Candidate, CandidatePipeline, build_candidate
from churn_pipeline.modelling.ensemble import BlendedModel
from churn_pipeline.pipelines.refit.nodes import refit

CHOICE = {
    "candidate": "logistic",
    "rule": "lowest log loss plus cost of serving",
    "members": [],
    "sentences": ["Chosen long ago."],
}


def rows(seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(seed)
    features = pd.DataFrame(rng.normal(size=(500, 2)), columns=["a", "b"])
    churned = (rng.random(500) < expit(features["a"] - 1)).astype(int)
    return features, churned.to_frame("churned")


def version(model: Any) -> RegisteredVersion:
    documents = {"leaderboard.csv": "candidate,log_loss\nlogistic,0.4\n", "choice.json": json.dumps(CHOICE)}
    return RegisteredVersion("churn_mine", "3", datetime(2026, 1, 1, tzinfo=UTC), model, documents, "", {}, {})


def pipeline(c: float) -> CandidatePipeline:
    content = {"class": "sklearn.linear_model.LogisticRegression", "numeric": "scaled", "arguments": {"C": c}}
    return build_candidate(Candidate.model_validate(content), ["a", "b"], [], seed=0)


def customers(rows_each: int = 1) -> pd.DataFrame:
    return pd.DataFrame({"customer": np.arange(500) // rows_each})


def test_a_blend_is_refitted_with_its_weights_calibrations_and_settings() -> None:
    features, label = rows(0)
    members = [("weak", pipeline(0.01)), ("strong", pipeline(1.0))]
    blend = BlendedModel(members, [0.25, 0.75], [(1.0, 1.0, 0.0), (1.1, 0.9, 0.1)]).fit(features, label["churned"])
    others, other_label = rows(1)
    before = blend.predict_proba(others)
    model, leaderboard, choice = refit(version(blend), others, other_label, customers())
    expected = BlendedModel(
        [("weak", pipeline(0.01)), ("strong", pipeline(1.0))], blend.weights, blend.calibrations
    ).fit(others, other_label["churned"])
    np.testing.assert_array_equal(model.predict_proba(others), expected.predict_proba(others))
    np.testing.assert_array_equal(blend.predict_proba(others), before)  # the version itself is not fitted again
    assert leaderboard["candidate"].tolist() == ["logistic"]
    assert choice["candidate"] == "logistic"
    assert choice["sentences"] == ["Version 3 was refitted with its settings; the leaderboard is that of its training."]


def test_columns_may_be_in_another_order_but_not_missing() -> None:
    features, label = rows(0)
    fitted = pipeline(1.0).fit(features, label["churned"])
    model, *_ = refit(version(fitted), features[["b", "a"]], label, customers())
    np.testing.assert_array_equal(model.predict_proba(features), fitted.predict_proba(features))
    with pytest.raises(ProjectError, match="b, c differ"):
        refit(version(fitted), features.rename(columns={"b": "c"}), label, customers())


@pytest.mark.parametrize("in_a_blend", [False, True])
def test_a_network_stops_on_whole_customers_again(in_a_blend: bool) -> None:
    features, label = rows(0)
    repeated = features.loc[np.arange(500) // 10 * 10].reset_index(drop=True)
    churned = label.loc[np.arange(500) // 10 * 10].reset_index(drop=True)
    settings = {"width": 32, "learning_rate_init": 0.01}
    content = {"class": "churn_pipeline.modelling.networks.NetworkClassifier", "arguments": settings}
    network = build_candidate(Candidate.model_validate(content), ["a", "b"], [], seed=0)
    fitted: Any = network.fit(features, label["churned"])
    if in_a_blend:
        fitted = BlendedModel([("network", network), ("logistic", network)], [0.5, 0.5], [(1.0, 1.0, 0.0)] * 2)
    epochs = []
    for rows_each in (1, 10):
        model, *_ = refit(version(fitted), repeated, churned, customers(rows_each))
        members = [member for _, member in model.members] if in_a_blend else [model]
        epochs.append([member.named_steps["classifier"].n_iter_ for member in members])
    assert np.max(epochs[1]) < np.min(epochs[0])
