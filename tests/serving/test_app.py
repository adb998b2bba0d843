"""The endpoints, called in this process: predictions, explanations, and errors without values."""

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from starlette.requests import Request
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send
from tests.serving.conftest import DECISION, THRESHOLD, customers_of
from tests.serving.test_requests import GOOD

from churn_pipeline.contract.cells import model_inputs
from churn_pipeline.costs import contacts
from churn_pipeline.modelling.onnx_conversion import predict_onnx
from churn_pipeline.serving.app import MAX_INLINE_BYTES, MAX_LARGE_REQUESTS, Application
from churn_pipeline.serving.bundle import Bundle
from churn_pipeline.serving.metrics import Metrics
from churn_pipeline.serving.settings import Settings

JSON = {"content-type": "application/json"}


class WithId:
    """Adds what the guard puts into the scope."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope.setdefault("state", {})["request_id"] = "an-id"
        await self._app(scope, receive, send)


@pytest.fixture(scope="module")
def client(bundle: Bundle) -> Iterator[TestClient]:
    settings = Settings.from_environment({"CHURN_SERVING_AUTHENTICATION": "off", "CHURN_SERVING_MAX_ROWS": "2000"})
    app = Application(bundle, settings, Metrics()).starlette()
    with TestClient(WithId(app)) as opened:
        yield opened


def rows_of(bundle: Bundle, rows: int) -> list[dict[str, Any]]:
    customers = customers_of(bundle.contract, rows)[[*bundle.contract.features, "customer"]]
    found: list[dict[str, Any]] = json.loads(customers.to_json(orient="records", double_precision=15))
    return found


@pytest.mark.parametrize("rows", [1, 3, 1_000])
def test_predictions_are_those_of_the_onnx_model_with_decisions_by_value(
    client: TestClient, bundle: Bundle, bundle_folder: Path, rows: int
) -> None:
    import onnx

    body = json.dumps({"customers": rows_of(bundle, rows)})
    assert (len(body) > MAX_INLINE_BYTES) == (rows == 1_000)  # inline and in a thread
    answer = client.post("/predict", content=body, headers=JSON)
    assert answer.status_code == 200
    said = answer.json()
    assert (said["request_id"], said["model_version"], said["threshold"]) == ("an-id", "1", THRESHOLD)
    expected = predict_onnx(
        onnx.load(str(bundle_folder / "model.onnx")),
        model_inputs(customers_of(bundle.contract, rows), bundle.contract),
    )
    served = np.array([each["churn_probability"] for each in said["predictions"]])
    np.testing.assert_allclose(served, expected, atol=1e-15)
    values = DECISION.costs.values(customers_of(bundle.contract, rows))
    contacted = contacts(served, values, DECISION.costs)
    assert [each["decision"] == "contact" for each in said["predictions"]] == contacted.tolist()
    assert {each["threshold_basis"] for each in said["predictions"]} == {"customer_value"}
    if rows == 1_000:
        assert (contacted != (served >= THRESHOLD)).sum() > 50, "one threshold would decide otherwise for many"
    assert [each["id"] for each in said["predictions"]] == [f"C-{row:05d}" for row in range(rows)]


def test_a_customer_without_an_id_is_answered_without_one(client: TestClient) -> None:
    (prediction,) = client.post("/predict", json={"customers": [GOOD]}).json()["predictions"]
    assert set(prediction) == {"churn_probability", "decision", "threshold_basis"}


def test_an_explanation_adds_up_and_gives_the_largest_effects_first(client: TestClient, bundle: Bundle) -> None:
    n_features = len(bundle.contract.features)
    said = client.post("/explain", json={"customers": rows_of(bundle, 5), "top": n_features}).json()
    assert 0 < said["base_probability_standard_error"] < 0.05
    for each in said["predictions"]:
        effects = [reason["effect"] for reason in each["reasons"]]
        assert {reason["feature"] for reason in each["reasons"]} == set(bundle.contract.features)
        assert said["base_probability"] + sum(effects) == pytest.approx(each["churn_probability"], abs=1e-9)
        assert [abs(effect) for effect in effects] == sorted(map(abs, effects), reverse=True)
    for top in (2, 2.0):
        few = client.post("/explain", json={"customers": rows_of(bundle, 1), "top": top}).json()["predictions"][0]
        assert len(few["reasons"]) == 2
    for wrong in (0, 2.5, "2", True, 1e300):
        refused = client.post("/explain", json={"customers": rows_of(bundle, 1), "top": wrong})
        assert refused.json()["problems"] == [
            {"row": None, "field": "top", "rule": "a value that the OpenAPI document allows"}
        ]


def test_more_than_a_hundred_are_not_explained(client: TestClient) -> None:
    assert client.post("/explain", json={"customers": [GOOD] * 101}).status_code == 413


@pytest.mark.parametrize("path", ["/predict", "/explain"])
def test_a_refusal_names_row_field_and_rule_and_no_value(client: TestClient, path: str) -> None:
    answer = client.post(path, json={"customers": [GOOD, {**GOOD, "region": "Marked 7", "months": 987_654}]})
    assert answer.status_code == 422
    assert answer.json() == {
        "code": "invalid_customer",
        "error": "The request violates the contract.",
        "request_id": "an-id",
        "problems": [
            {"row": 1, "field": "region", "rule": "one of north, south, east side"},
            {"row": 1, "field": "months", "rule": "a whole number, at least 0, below 600"},
        ],
        "problem_count": 2,
    }
    assert "Marked" not in answer.text
    assert "987" not in answer.text


@pytest.mark.parametrize(("content", "status"), [(b"{", 400), (b"[]", 422), (b'{"customers": []}', 422)])
def test_an_invalid_body_is_refused(client: TestClient, content: bytes, status: int) -> None:
    answer = client.post("/predict", content=content, headers=JSON)
    assert answer.status_code == status
    assert set(answer.json()) >= {"error", "request_id"}


def test_model_shows_manifest_and_contract(client: TestClient, bundle: Bundle) -> None:
    said = client.get("/model").json()
    manifest = bundle.manifest
    assert said["model_digest"] == manifest.model_digest
    assert said["run_id"] == manifest.run_id
    assert said["threshold"] == THRESHOLD
    assert said["metrics"] == manifest.metrics
    assert list(said["contract"]["columns"]) == list(bundle.contract.columns)
    assert "costs" not in said["contract"]


def test_health_shows_the_version_and_the_time_since_load(client: TestClient) -> None:
    said = client.get("/health").json()
    assert said["status"] == "ready"
    assert said["model_version"] == "1"
    assert 0 <= said["seconds_since_load"] < 60


@pytest.mark.parametrize(
    ("path", "media_type"), [("/", "text/html"), ("/docs", "text/html"), ("/openapi.json", "application/json")]
)
def test_pages_are_there(client: TestClient, path: str, media_type: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(media_type)


def test_the_number_of_rows_is_passed_on_for_the_log(bundle: Bundle) -> None:
    seen: list[Any] = []
    settings = Settings.from_environment({"CHURN_SERVING_AUTHENTICATION": "off"})
    app = Application(bundle, settings, Metrics()).starlette()

    class Listening(WithId):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await super().__call__(scope, receive, send)
            if scope["type"] == "http":
                seen.append(Request(scope).state.rows)

    with TestClient(Listening(app)) as opened:
        opened.post("/predict", json={"customers": [GOOD, GOOD]})
    assert seen == [2]


def test_at_most_two_large_requests_run_at_once_and_small_ones_do_not_wait(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings.from_environment({"CHURN_SERVING_AUTHENTICATION": "off"})
    application = Application(bundle, settings, Metrics())
    small_begun, let_go, now, most = threading.Event(), threading.Event(), [], []

    def predicted(body: bytes, request_id: str) -> tuple[int, bytes]:
        if len(body) <= MAX_INLINE_BYTES:
            small_begun.set()
        else:
            now.append(request_id)
            most.append(len(now))
            let_go.wait(5)
            now.pop()
        return 1, b"{}"

    async def send(size: int) -> int:
        return (await caller.post("/predict", content=b" " * size, headers=JSON)).status_code

    async def send_all() -> list[int]:
        large = [asyncio.create_task(send(MAX_INLINE_BYTES + 1)) for _ in range(3 * MAX_LARGE_REQUESTS)]
        await asyncio.sleep(0.2)
        small = await send(1)
        let_go.set()
        return [small, *await asyncio.gather(*large)]

    monkeypatch.setattr(application, "predict", predicted)
    caller = httpx.AsyncClient(transport=httpx.ASGITransport(WithId(application.starlette())), base_url="http://a")
    assert set(asyncio.run(send_all())) == {200}
    assert max(most) == MAX_LARGE_REQUESTS
    assert small_begun.is_set()
