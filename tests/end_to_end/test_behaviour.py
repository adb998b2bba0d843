"""What a model of the simulated customers must know, and what must not change its predictions.

Invariance, direction and minimum function, after Ribeiro et al. (2020), "Beyond Accuracy: Behavioral Testing of NLP
Models with CheckList". The simulation says in which direction each effect goes.
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import yaml
from tests.conftest import ROOT

from churn_pipeline.contract.cells import churned, model_inputs
from churn_pipeline.contract.schema import read_contract
from churn_pipeline.contract.table import Contract
from churn_pipeline.contract.validation import validate_table
from churn_pipeline.evaluation.metrics import auc, log_loss
from churn_pipeline.modelling.candidates import Candidate, build_candidate
from churn_pipeline.modelling.cross_validation import Task
from churn_pipeline.modelling.ensemble import Member, assemble
from churn_pipeline.modelling.search import SearchSettings, search_candidate
from churn_pipeline.modelling.studies import UnstoredStudies

CONF, RAW = ROOT / "conf" / "base", ROOT / "data" / "01_raw"
# A linear model and one of trees: the chosen blend usually has both.
MEMBERS = (Member(candidate="splines", weight=0.5), Member(candidate="gradient_boosting", weight=0.5))


class World(NamedTuple):
    """A model, customers it was not trained on, and their true churn probabilities."""

    model: Any
    contract: Contract
    customers: pd.DataFrame
    churned: npt.NDArray[np.int64]
    truth: npt.NDArray[np.float64]

    def predict(self, **changes: Any) -> npt.NDArray[np.float64]:
        """Churn probabilities of the customers, with some columns changed."""
        changed = self.customers.assign(**changes)
        return np.asarray(self.model.predict_proba(model_inputs(changed, self.contract))[:, 1])


@pytest.fixture(scope="module")
def world() -> World:
    return make_world()


@cache
def make_world() -> World:
    contract = read_contract(CONF / "tables" / "simulated.yml")
    raw = pd.read_csv(RAW / "simulated_customers.csv", dtype=str, keep_default_na=False)
    truth = pd.read_csv(RAW / "simulated_truth.csv")["churn_probability"].to_numpy()
    customers = validate_table(raw, contract).customers
    assert len(customers) == len(truth)
    seen = np.arange(len(customers)) < 6_000
    settings = yaml.safe_load((CONF / "parameters_modelling.yml").read_text(encoding="utf-8"))["candidates"]
    inputs, label = model_inputs(customers[seen], contract), churned(customers[seen], contract)
    part = np.arange(len(inputs)) % 3
    folds = {str(fold): (part != fold, part == fold) for fold in range(3)}
    task = Task(inputs, label, folds, contract.numeric, contract.categorical, log_loss, seed=0)
    models = {}
    for member in MEMBERS:
        configured = Candidate.model_validate(settings[member.candidate])
        # One trial finds the number of trees.
        tuned = search_candidate(task, configured, SearchSettings(trials=1), UnstoredStudies()).candidates[0]
        model = build_candidate(tuned, contract.numeric, contract.categorical, seed=0)
        models[member.candidate] = model.fit(inputs, label)
    others = customers[~seen].reset_index(drop=True)
    return World(assemble(models, MEMBERS), contract, others, churned(others, contract).to_numpy(), truth[~seen])


# ---- invariance ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"gender": "Female"}, id="protected"),
        pytest.param({"SeniorCitizen": 1}, id="also protected"),
        pytest.param({"customerID": "0000-AAAAA"}, id="id"),
        pytest.param({"Churn": "Yes"}, id="target"),
    ],
)
def test_a_column_that_is_not_a_feature_does_not_change_the_prediction(world: World, changes: dict[str, Any]) -> None:
    assert np.array_equal(world.predict(**changes), world.predict())


def test_a_prediction_does_not_depend_on_the_other_customers(world: World) -> None:
    together = world.predict()
    backwards = world.model.predict_proba(model_inputs(world.customers[::-1], world.contract))[::-1, 1]
    assert np.array_equal(backwards, together)
    for row in range(0, len(world.customers), 400):
        alone = world.model.predict_proba(model_inputs(world.customers.iloc[[row]], world.contract))[:, 1]
        assert alone[0] == pytest.approx(together[row], abs=1e-12)


def test_a_cent_more_hardly_changes_the_prediction(world: World) -> None:
    cent = world.predict(MonthlyCharges=world.customers["MonthlyCharges"] + 0.01)
    assert np.abs(cent - world.predict()).mean() < 0.001


# ---- direction -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "less", "more", "share", "by"),
    [
        pytest.param("Contract", "Two year", "Month-to-month", 0.99, 0.15, id="monthly contracts raise churn"),
        pytest.param("Contract", "Two year", "One year", 0.90, 0.02, id="two years reduce churn"),
        pytest.param("OnlineSecurity", "Yes", "No", 0.90, 0.02, id="online security reduces churn"),
        pytest.param("TechSupport", "Yes", "No", 0.90, 0.02, id="tech support reduces churn"),
        pytest.param(
            "PaymentMethod", "Credit card (automatic)", "Electronic check", 0.90, 0.02, id="checks raise churn"
        ),
    ],
)
def test_an_effect_has_the_direction_of_the_true_effect(
    world: World, column: str, less: str, more: str, share: float, by: float
) -> None:
    with_internet = (world.customers["InternetService"] != "No").to_numpy()
    rise = (world.predict(**{column: more}) - world.predict(**{column: less}))[with_internet]
    assert (rise > 0).mean() >= share
    assert rise.mean() >= by


def test_new_customers_with_a_monthly_contract_churn_more_than_old_ones(world: World) -> None:
    by_age = [
        world.predict(Contract="Month-to-month", tenure=months, TotalCharges=world.customers["MonthlyCharges"] * months)
        for months in (1, 6, 24, 60)
    ]
    means = [float(predicted.mean()) for predicted in by_age]
    assert means == sorted(means, reverse=True)
    assert means[0] - means[-1] > 0.15


# ---- minimum function ------------------------------------------------------------------------------------------------


def test_it_ranks_nearly_as_well_as_the_true_probabilities(world: World) -> None:
    assert auc(world.churned, world.predict()) > auc(world.churned, world.truth) - 0.015


def test_it_predicts_better_than_the_churn_rate(world: World) -> None:
    rate = np.full(len(world.churned), world.churned.mean())
    assert log_loss(world.churned, world.predict()) < log_loss(world.churned, rate) - 0.12


def test_its_probabilities_are_close_to_the_true_ones(world: World) -> None:
    error = world.predict() - world.truth
    assert abs(error.mean()) < 0.02
    assert np.sqrt((error**2).mean()) < 0.06


def test_no_customer_is_certain_to_stay_or_to_leave(world: World) -> None:
    assert world.predict().min() > 0
    assert world.predict().max() < 0.999


def test_obvious_cases_are_predicted(world: World) -> None:
    bound = world.predict(Contract="Two year", tenure=60, OnlineSecurity="Yes", TechSupport="Yes")
    new = world.predict(
        Contract="Month-to-month",
        tenure=1,
        TotalCharges=world.customers["MonthlyCharges"],
        InternetService="Fiber optic",
        OnlineSecurity="No",
        TechSupport="No",
        PaymentMethod="Electronic check",
    )
    assert bound.max() < 0.15
    # Not all of them: some combinations do not exist, such as a fibre line for twenty dollars.
    assert (new > 0.5).mean() > 0.9
