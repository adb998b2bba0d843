"""The served decision: that of evaluation, by the customer's value, and without the costs in any answer."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import generate_latest
from starlette.testclient import TestClient
from tests.customers import table_file
from tests.serving.conftest import DECISION, ONE_VALUE, THRESHOLD, make_bundle
from tests.serving.test_app import WithId, rows_of
from tests.serving.test_requests import GOOD

from churn_pipeline.contract.table import Contract
from churn_pipeline.costs import contacts
from churn_pipeline.serving.app import Application
from churn_pipeline.serving.bundle import Bundle, load_bundle
from churn_pipeline.serving.metrics import Metrics
from churn_pipeline.serving.settings import Settings


def opened(bundle: Bundle) -> TestClient:
    settings = Settings.from_environment({"CHURN_SERVING_AUTHENTICATION": "off"})
    return TestClient(WithId(Application(bundle, settings, Metrics()).starlette()))


def predicted(client: TestClient, *customers: dict[str, Any]) -> list[dict[str, Any]]:
    answer = client.post("/predict", json={"customers": customers})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["predictions"]
    assert [
        each["decision"] for each in client.post("/explain", json={"customers": customers}).json()["predictions"]
    ] == [each["decision"] for each in found]
    return found


def with_columns(tmp_path: Path, ignored: tuple[str, ...] = (), **charge: Any) -> Bundle:
    """A bundle whose value column, charge, has other rules."""
    content = table_file()
    content["columns"]["charge"] = {"dtype": "float64", "in_range": {"min_value": 0, "max_value": 1e308}, **charge}
    content["roles"]["ignored"] = list(ignored)
    contract = Contract.parse(content, "customers")
    return load_bundle(make_bundle(tmp_path / "bundle", contract))


def test_a_customer_without_a_value_is_decided_by_the_mean_value(tmp_path: Path) -> None:
    client = opened(with_columns(tmp_path, nullable=True))
    customers = [
        {**row, "charge": charge} for row in rows_of(load_bundle(tmp_path / "bundle"), 40) for charge in (None, 1.0)
    ]
    for each, customer in zip(predicted(client, *customers), customers, strict=True):
        if customer["charge"] is None:
            assert each["threshold_basis"] == "mean_value"
            assert (each["decision"] == "contact") == (each["churn_probability"] >= THRESHOLD)
        else:  # hardly any value: nobody is worth a contact
            assert (each["threshold_basis"], each["decision"]) == ("customer_value", "no_contact")


def test_the_default_of_a_missing_value_is_the_customers_value_as_in_batch(tmp_path: Path) -> None:
    client = opened(with_columns(tmp_path, nullable=True, default=0))
    (prediction,) = predicted(client, {**GOOD, "charge": None})
    assert prediction["threshold_basis"] == "customer_value"
    assert prediction["decision"] == "no_contact"


def test_a_value_that_is_no_feature_is_optional_and_decides(tmp_path: Path) -> None:
    bundle = with_columns(tmp_path, ignored=("charge",))
    client = opened(bundle)
    without = {name: value for name, value in GOOD.items() if name != "charge"}
    unknown, null, low, high = predicted(
        client, without, {**without, "charge": None}, {**without, "charge": 0.5}, {**without, "charge": 1e308}
    )
    assert len({each["churn_probability"] for each in (unknown, null, low, high)}) == 1
    assert [each["threshold_basis"] for each in (unknown, null, low, high)] == [
        *["mean_value"] * 2,
        *["customer_value"] * 2,
    ]
    assert unknown["decision"] == null["decision"]
    assert (low["decision"], high["decision"]) == ("no_contact", "contact")
    example = client.get("/openapi.json").json()["paths"]["/predict"]["post"]["requestBody"]["content"][
        "application/json"
    ]
    assert "charge" in example["example"]["customers"][0]
    for path in ("/", "/docs"):
        assert "charge" in client.get(path).text


def test_one_value_for_all_customers_gives_one_threshold(tmp_path: Path) -> None:
    client = opened(load_bundle(make_bundle(tmp_path / "bundle", decision=ONE_VALUE)))
    for each in predicted(client, *rows_of(load_bundle(tmp_path / "bundle"), 50)):
        assert each["threshold_basis"] == "one_value"
        assert (each["decision"] == "contact") == (each["churn_probability"] >= 0.3)


def test_a_decision_uses_the_value_in_double_precision(tmp_path: Path) -> None:
    bundle = with_columns(tmp_path, ignored=("charge",))
    client = opened(bundle)
    (first,) = predicted(client, {**GOOD, "charge": 1.0})
    low, high = 0.0, 1e6  # a contact pays for the higher charge only
    while np.nextafter(low, high) < high:
        middle = (low + high) / 2
        pays = contacts(first["churn_probability"], 7.77 * middle, DECISION.costs)
        low, high = (low, middle) if pays else (middle, high)
    assert np.float32(low) == np.float32(high)
    found = predicted(client, {**GOOD, "charge": low}, {**GOOD, "charge": high})
    assert [each["decision"] for each in found] == ["no_contact", "contact"]


def test_no_answer_page_metric_or_log_line_has_the_costs(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = tmp_path / "log"
    log.mkdir(mode=0o700)
    settings = Settings.from_environment(
        {"CHURN_SERVING_AUTHENTICATION": "off", "CHURN_SERVING_PREDICTION_LOG": str(log)}
    )
    metrics = Metrics()
    customers = {"customers": [GOOD, {**GOOD, "charge": 20.5}]}
    with (
        caplog.at_level(logging.DEBUG),
        TestClient(WithId(Application(bundle, settings, metrics).starlette())) as client,
    ):
        answers = [client.get(path) for path in ("/", "/docs", "/model", "/health", "/openapi.json")]
        answers += [client.post(path, json=customers) for path in ("/predict", "/explain")]
        answers += [client.post("/predict", json={"customers": [{**GOOD, "charge": "x"}]})]
    texts = [f"{answer.headers} {answer.text}" for answer in answers]
    texts += [caplog.text, generate_latest(metrics.registry).decode(), *(file.read_text() for file in log.iterdir())]
    assert len(texts) == 8 + 2 + 1
    decision = (bundle.folder / "decision.json").read_text()
    numbers = ("31.337", "523.71", "0.4321", "7.77", "4240.59")
    for secret in (*numbers, "offer_cost", "contact_cost", "acceptance"):
        assert secret in decision
        assert [text for text in texts if secret in text] == []
