"""A registered version of a small model, trained on invented customers."""

import json
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from tests.customers import make_contract, raw_customers, table_file

from churn_pipeline.contract.cells import model_inputs
from churn_pipeline.contract.table import Contract
from churn_pipeline.contract.validation import validate_table
from churn_pipeline.costs import CostModel, DecisionRule
from churn_pipeline.evaluation.model_record import RegisteredVersion
from churn_pipeline.modelling.candidates import Candidate, build_candidate
from churn_pipeline.modelling.onnx_conversion import convert_model, model_digest
from churn_pipeline.pipelines.evaluation.training_profile import profile_training

BOOSTING: dict[str, Any] = {
    "class": "sklearn.ensemble.GradientBoostingClassifier",
    "arguments": {"n_estimators": 30, "max_depth": 3},
}


class Registered(NamedTuple):
    """A version, its contract, held-out customers as the model takes them and in full, and the training customers."""

    version: RegisteredVersion
    contract: Contract
    features: pd.DataFrame
    customers: pd.DataFrame
    train: pd.DataFrame


def register(candidate: dict[str, Any], ignored: tuple[str, ...] = ()) -> Registered:
    costs = {"value": {"column": "charge", "months": 1000}, "offer_cost": 31_337, "contact_cost": 5, "acceptance": 0.3}
    roles = {**table_file()["roles"], "ignored": list(ignored)}
    contract = make_contract(costs=costs, roles=roles)
    customers = validate_table(raw_customers(600), contract).customers
    months = customers["months"].to_numpy()
    label = (np.random.default_rng(1).random(600) < np.where(months < 200, 0.6, 0.15)).astype(int)
    features = model_inputs(customers, contract)
    model = build_candidate(Candidate.model_validate(candidate), contract.numeric, contract.categorical, seed=0)
    model.fit(features[:400], label[:400])
    cost_model = CostModel.model_validate(costs)
    decision = DecisionRule.of(cost_model, cost_model.values(customers[400:]))
    version = RegisteredVersion(
        name="churn_customers",
        version="3",
        created=datetime(2026, 1, 31, tzinfo=UTC),
        model=model,
        documents={
            "model_card.md": "# Model card\n",
            "decision.json": decision.model_dump_json(),
            "training_profile.json": json.dumps(profile_training(model, features[:400], contract)),
        },
        run_id="5" * 32,
        tags={
            "digest.contract": contract.digest(),
            "model_digest": model_digest(convert_model(model, contract.numeric, contract.categorical)),
            "candidate": "boosting",
            "git.commit": "c" * 40,
            "git.dirty": "false",
        },
        metrics={
            "holdout.auc": 0.75,
            "holdout.profit": 12.5,
            "holdout.threshold": 0.5,
            "holdout.profit_of_contacting_all": 9.0,
            "gate.auc": 0.5,
        },
    )
    return Registered(
        version, contract, *(table[400:].reset_index(drop=True) for table in (features, customers)), features[:400]
    )


@pytest.fixture(scope="package")
def registered() -> Registered:
    """A version; tests must not change it."""
    return register(BOOSTING)
