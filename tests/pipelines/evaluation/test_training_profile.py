"""Training profile: a summary of the training customers that reveals no single customer."""

import json

import numpy as np
import pandas as pd
from sklearn.dummy import DummyClassifier
from tests.customers import make_contract, raw_customers

from churn_pipeline.contract.cells import model_inputs
from churn_pipeline.contract.validation import validate_table
from churn_pipeline.pipelines.evaluation.training_profile import profile_training
from churn_pipeline.serving.bundle import TrainingProfile

CONTRACT = make_contract()


def customers(rows: int = 400) -> pd.DataFrame:
    return model_inputs(validate_table(raw_customers(rows), CONTRACT).customers, CONTRACT)


def summary(features: pd.DataFrame) -> TrainingProfile:
    model = DummyClassifier(strategy="prior").fit(features, np.arange(len(features)) % 4 == 0)
    # It is stored as JSON
    return TrainingProfile.model_validate_json(json.dumps(profile_training(model, features, CONTRACT)))


def test_numbers_have_quantiles_and_a_missing_share() -> None:
    features = customers()
    made = summary(features)
    assert made.rows == 400
    assert set(made.numeric) == set(CONTRACT.numeric)
    calls = made.numeric["calls"]
    assert calls.missing == features["calls"].isna().mean() > 0
    assert (calls.quantiles[0], calls.quantiles[-1]) == (features["calls"].min(), features["calls"].max())
    assert calls.quantiles[50] == np.quantile(features["calls"].dropna(), 0.5, method="inverted_cdf")
    assert set(made.probability.quantiles) == {0.25}


def test_an_empty_column_has_no_quantiles() -> None:
    made = summary(customers().assign(calls=np.nan))
    assert made.numeric["calls"].quantiles == ()
    assert made.numeric["calls"].missing == 1


def test_the_widest_numbers_stay_finite() -> None:
    largest = np.finfo(np.float64).max
    made = summary(customers().assign(charge=np.where(np.arange(400) % 2, largest, -largest)))
    assert made.numeric["charge"].quantiles[-1] == largest


def test_levels_have_shares_and_rare_ones_are_left_out() -> None:
    features = customers()
    region = features["region"].to_numpy(dtype=object, copy=True)
    region[:19], region[19:39], region[39:] = "a recluse", "a village", "a town"
    region[-3:] = ""
    made = summary(features.assign(region=region)).categorical["region"].levels
    assert made == {"": 3 / 400, "a town": 358 / 400, "a village": 20 / 400}
