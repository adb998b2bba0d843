"""The decision and its profit are the same in evaluation, summary, model card and service."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.conftest import Trained
from tests.end_to_end.test_packaging import last_bento
from tests.serving.test_decision import opened

from churn_pipeline.costs import CostModel, break_even, contact_profit, contacts
from churn_pipeline.evaluation.markdown import number
from churn_pipeline.serving.bundle import load_bundle


def test_the_served_decisions_earn_the_profit_of_summary_and_card(trained: Trained) -> None:
    project, printed = trained
    data = project.path / "data"
    customers = pd.read_parquet(data / "03_primary/simulated/holdout_customers.parquet")
    predictions = pd.read_parquet(data / "07_model_output/simulated/holdout_predictions.parquet")
    reports = data / "08_reporting/simulated"
    costs = CostModel.model_validate_json((reports / "cost_model.json").read_text(encoding="utf-8"))
    values = costs.values(customers)
    profit = pd.read_csv(reports / "profit.csv").set_index("metric").loc["profit", "value"]

    bundle = load_bundle(Path(last_bento(project, "simulated").path) / "src/bundle")
    assert bundle.decision.costs == costs
    sent = customers.drop(columns="Churn").astype(object)
    rows = sent.where(sent.notna(), None).to_dict("records")
    client, answers = opened(bundle), []
    for first in range(0, len(rows), 500):
        answers += client.post("/predict", json={"customers": rows[first : first + 500]}).json()["predictions"]

    assert {answer["threshold_basis"] for answer in answers} == {"customer_value"}
    served = np.array([answer["decision"] == "contact" for answer in answers])
    evaluated = contacts(predictions["probability"], values, costs)
    close = abs(predictions["probability"] - break_even(values, costs)) < 1e-6
    assert ((served == evaluated) | close).all()
    assert not close.any()
    earned = float((contact_profit(predictions["churned"], values, costs) * served).mean())
    assert earned == pytest.approx(profit, abs=1e-9)
    assert f"  {'profit':<22}{earned:>8.4f}   [" in printed
    assert f"| `profit` | {number(earned)} |" in (reports / "model_card.md").read_text(encoding="utf-8")
    assert client.get("/model").json()["metrics"]["profit"] == pytest.approx(earned, abs=1e-9)
    sentence = f"At the mean value, the break-even is {bundle.decision.threshold:.1%}."
    assert sentence in printed
    assert sentence in (reports / "model_card.md").read_text(encoding="utf-8")
    assert json.loads((reports / "decision.json").read_text(encoding="utf-8")) == bundle.decision.model_dump(
        mode="json"
    )
