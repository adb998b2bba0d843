"""The record for the model registry: no customer's value, and everything that identifies the model."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from tests.customers import make_contract, raw_customers, table_file
from tests.evaluation.test_summary import DATA, REPORT, RESULTS

from churn_pipeline.contract.cells import model_inputs
from churn_pipeline.contract.example import example_customers
from churn_pipeline.contract.table import Contract
from churn_pipeline.contract.validation import validate_table
from churn_pipeline.costs import CostModel, DecisionRule
from churn_pipeline.evaluation.holdout_sample import HoldoutSamples
from churn_pipeline.evaluation.model_record import ModelRecord
from churn_pipeline.modelling.candidates import Candidate, build_candidate
from churn_pipeline.modelling.onnx_conversion import convert_model
from churn_pipeline.pipelines.evaluation.report import record_model

CONTRACT = make_contract()
SAMPLES = HoldoutSamples({"sample_digest": "s", "sample_rows": "200"}, {})
DECISION = DecisionRule.of(CostModel(value=10, offer_cost=1, contact_cost=1, acceptance=0.5), np.array([10.0]))


def fitted(customers: pd.DataFrame, contract: Contract = CONTRACT) -> Any:
    candidate = Candidate.model_validate({"class": "sklearn.linear_model.LogisticRegression", "numeric": "scaled"})
    model = build_candidate(candidate, contract.numeric, contract.categorical, seed=1)
    return model.fit(model_inputs(customers, contract), (customers["churn"] == "Yes").astype("int64"))


def recorded(model: Any, contract: Contract = CONTRACT) -> ModelRecord:
    gate = {"verdict": "better", "champion": "3", "anchor": "2", "beats_anchor": True, "holdout_rule": "r"}
    data = {**DATA, "digests": {"data": "d", "contract": "c"}}
    facts = {"candidate": "logistic", "model_digest": "m"}
    results = replace(RESULTS, gate=gate, decision=DECISION)
    report = replace(REPORT, data_report=data, model_report=facts, results=results)
    converted = convert_model(model, contract.numeric, contract.categorical)
    return record_model(model, converted, contract, "# The card", {"rows": 200}, SAMPLES, report)


def test_a_record_holds_no_customers_value() -> None:
    raw = raw_customers(60).assign(
        age="77",
        months="313",
        charge="777.125",
        total="7654321",
        calls="31",
        plan="QQ",
        region="south",
        paperless="true",
        lines="3",
    )
    customers = validate_table(raw, CONTRACT).customers
    record = recorded(fitted(customers))
    inputs = model_inputs(customers, CONTRACT)
    for name in inputs:
        assert record.example[name].iloc[0] not in set(inputs[name]), name


def test_a_records_example_passes_the_contract() -> None:
    content = table_file()
    content["columns"]["plan"] = {"dtype": "str", "isin": ["AA", "QX", "ZZ"]}
    contract = Contract.parse(content, "customers")
    customers = validate_table(raw_customers(60), contract).customers
    example = recorded(fitted(customers, contract), contract).example
    as_raw = example_customers(contract).assign(**example)
    held = validate_table(as_raw, contract)
    assert held.quarantine.empty
    pd.testing.assert_frame_equal(model_inputs(held.customers, contract), example)


def test_the_example_has_the_columns_of_the_record_and_fits_the_model() -> None:
    record = recorded(fitted(validate_table(raw_customers(60), CONTRACT).customers))
    assert [*record.numeric, *record.categorical] == list(record.example) == [*CONTRACT.numeric, *CONTRACT.categorical]
    assert record.model.predict_proba(record.example).shape == (1, 2)


def test_the_record_names_table_model_and_data() -> None:
    record = recorded(fitted(validate_table(raw_customers(60), CONTRACT).customers))
    documents = dict(record.documents)
    assert DecisionRule.model_validate_json(documents.pop("decision.json")) == DECISION
    assert documents == {"model_card.md": "# The card", "training_profile.json": '{"rows": 200}'}
    assert "Gate: **better**" in record.run_description
    assert set(record.files) == {"model.onnx"}
    assert record.metadata == {
        "table": "customers",
        "gate": "better",
        "gate_champion": "3",
        "gate_anchor": "2",
        "gate_beats_anchor": "true",
        "holdout_rule": "r",
        "candidate": "logistic",
        "model_digest": "m",
        "data_digest": "d",
        "contract_digest": "c",
        "sample_digest": "s",
        "sample_rows": "200",
    }
