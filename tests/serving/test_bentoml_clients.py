"""The service as somebody who knows BentoML uses it: its clients, its schema, and one OpenAPI document."""

import asyncio
import json
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import bentoml
import httpx
import pytest
from bentoml.exceptions import BentoMLException
from tests.serving.running import Running, serving

from churn_pipeline.serving.bundle import Bundle
from churn_pipeline.serving.keys import make_key
from churn_pipeline.serving.openapi import example_customer

SERVICE = "churn_pipeline.serving.service:ChurnService"
KEY, LINE = make_key("crm")
BEARER = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def running(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    environment = {"CHURN_SERVING_BUNDLE": str(bundle_folder), "CHURN_SERVING_KEYS": LINE}
    with serving(tmp_path_factory.mktemp("clients"), environment, service=SERVICE) as running:
        yield running


@pytest.fixture(scope="module")
def client(running: Running) -> Iterator[bentoml.SyncHTTPClient]:
    with bentoml.SyncHTTPClient(running.url, token=KEY) as opened:
        yield opened


@pytest.fixture(scope="module")
def customer(bundle: Bundle) -> dict[str, Any]:
    return example_customer(bundle)


def posted(running: Running, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request without BentoML's client, without its id."""
    answer: dict[str, Any] = httpx.post(f"{running.url}{path}", json=body, headers=BEARER).raise_for_status().json()
    return {name: value for name, value in answer.items() if name != "request_id"}


def test_the_client_knows_both_endpoints(client: bentoml.SyncHTTPClient) -> None:
    assert sorted(client.endpoints) == ["explain", "predict"]
    assert {name: endpoint.route for name, endpoint in client.endpoints.items()} == {
        "explain": "/explain",
        "predict": "/predict",
    }


def test_the_client_predicts(client: bentoml.SyncHTTPClient, running: Running, customer: dict[str, Any]) -> None:
    answer = client.predict(customers=[customer, customer])
    assert len(answer.pop("request_id")) == 32
    assert answer == posted(running, "/predict", {"customers": [customer, customer]})


def test_the_client_explains(client: bentoml.SyncHTTPClient, running: Running, customer: dict[str, Any]) -> None:
    answer = client.explain(customers=[customer], top=2)
    assert len(answer["predictions"][0]["reasons"]) == 2
    answer.pop("request_id")
    assert answer == posted(running, "/explain", {"customers": [customer], "top": 2})


def test_the_asynchronous_client_predicts_and_explains(running: Running, customer: dict[str, Any]) -> None:
    async def story() -> list[dict[str, Any]]:
        async with bentoml.AsyncHTTPClient(running.url, token=KEY) as client:
            asked = (client.predict(customers=[customer]), client.explain(customers=[customer]))
            return list(await asyncio.gather(*asked))

    predicted, explained = asyncio.run(story())
    assert predicted["predictions"][0].items() <= explained["predictions"][0].items()


def test_the_client_raises_what_the_service_refuses(client: bentoml.SyncHTTPClient, customer: dict[str, Any]) -> None:
    with pytest.raises(BentoMLException) as caught:
        client.predict(customers=[{**customer, "months": -1}])
    assert caught.value.error_code == HTTPStatus.UNPROCESSABLE_ENTITY
    [problem] = json.loads(str(caught.value))["problems"]
    assert (problem["row"], problem["field"]) == (0, "months")


def test_the_client_does_not_lose_a_misspelled_column(client: bentoml.SyncHTTPClient, customer: dict[str, Any]) -> None:
    with pytest.raises(BentoMLException) as caught:
        client.predict(customers=[{**customer, "agee": 40}])
    assert [problem["rule"] for problem in json.loads(str(caught.value))["problems"]] == ["not in the contract"]


def test_a_client_without_a_valid_key_is_refused(running: Running, customer: dict[str, Any]) -> None:
    with bentoml.SyncHTTPClient(running.url, token="guess") as client, pytest.raises(BentoMLException) as caught:
        client.predict(customers=[customer])
    assert caught.value.error_code == HTTPStatus.UNAUTHORIZED


def test_the_schema_lists_the_contracts_columns(running: Running, bundle: Bundle) -> None:
    schema = httpx.get(f"{running.url}/schema.json").json()
    routes = {route["name"]: route for route in schema["routes"]}
    target = bundle.contract.roles.target.column
    for name, fields in {"predict": {"customers"}, "explain": {"customers", "top"}}.items():
        given = routes[name]["input"]["properties"]
        assert given.keys() == fields
        assert given["customers"]["items"]["properties"].keys() == bundle.contract.columns.keys() - {target}
        prediction = routes[name]["output"]["properties"]["predictions"]["items"]["properties"]
        assert ("reasons" in prediction) == (name == "explain")
    assert "$ref" not in json.dumps(schema)


def test_there_is_one_openapi_document(running: Running) -> None:
    ours, bentomls = (httpx.get(f"{running.url}{path}") for path in ("/openapi.json", "/docs.json"))
    assert ours.status_code == bentomls.status_code == 200
    assert ours.content == bentomls.content
