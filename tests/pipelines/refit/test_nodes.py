"""Refit: the same model on other rows, without a search."""

import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from churn_pipeline.contract.errors import ProjectError
from churn_pipeline.evaluation.model_record import RegisteredVersion
from churn_pipeline.modelling.ensemble import BlendedModel
from churn_pipeline.pipelines.refit.nodes import refit

CHOICE = {"candidate": "logistic", "rule": "lowest log loss", "members": [], "sentences": ["Chosen long ago."]}


def rows(seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(seed)
    features = pd.DataFrame(rng.normal(size=(500, 2)), columns=["a", "b"])
    churned = (rng.random(500) < expit(features["a"] - 1)).astype(int)
    return features, churned.to_frame("churned")


def version(model: Any) -> RegisteredVersion:
    documents = {"leaderboard.csv": "candidate,log_loss\nlogistic,0.4\n", "choice.json": json.dumps(CHOICE)}
    return RegisteredVersion("churn_mine", "3", datetime(2026, 1, 1, tzinfo=UTC), model, documents, "", {}, {})


def pipeline(c: float) -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(C=c))


def test_a_blend_is_refitted_with_its_weights_calibrations_and_settings() -> None:
    features, label = rows(0)
    members = [("weak", pipeline(0.01)), ("strong", pipeline(1.0))]
    blend = BlendedModel(members, [0.25, 0.75], [(1.0, 1.0, 0.0), (1.1, 0.9, 0.1)]).fit(features, label["churned"])
    others, other_label = rows(1)
    before = blend.predict_proba(others)
    model, leaderboard, choice = refit(version(blend), others, other_label)
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
    model, *_ = refit(version(fitted), features[["b", "a"]], label)
    np.testing.assert_array_equal(model.predict_proba(features), fitted.predict_proba(features))
    with pytest.raises(ProjectError, match="b, c differ"):
        refit(version(fitted), features.rename(columns={"b": "c"}), label)
