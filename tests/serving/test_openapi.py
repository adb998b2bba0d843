"""The OpenAPI document: valid, and consistent with the service."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from schemathesis.specs.openapi.definitions import OPENAPI_31
from tests.customers import make_contract, table_file
from tests.serving.conftest import customers_of, make_bundle

from churn_pipeline.contract.table import Contract
from churn_pipeline.serving.app import Top
from churn_pipeline.serving.bundle import Bundle, TrainingProfile, load_bundle
from churn_pipeline.serving.example_customer import example_customer
from churn_pipeline.serving.openapi import JSON, document
from churn_pipeline.serving.refusal_codes import CODES
from churn_pipeline.serving.request_context import ROUTES
from churn_pipeline.serving.requests import RequestParser

Json = dict[str, Any]


def requests_of(contract: Contract) -> tuple[RequestParser, RequestParser]:
    columns = contract.numeric, contract.categorical
    return RequestParser(contract, *columns, 10_000), RequestParser(contract, *columns, 100, top=Top)


def document_of(bundle: Bundle) -> Json:
    schemas = [requests.schema for requests in requests_of(bundle.contract)]
    return document(bundle, *schemas)


@pytest.fixture(scope="module")
def openapi(bundle: Bundle) -> Json:
    return document_of(bundle)


def accepts(openapi: Json, name: str, value: Any) -> bool:
    schema = {"$ref": f"#/components/schemas/{name}", "components": openapi["components"]}
    return bool(jsonschema_rs.Draft202012Validator(schema, validate_formats=True).is_valid(value))


def test_it_is_a_valid_openapi_document(openapi: Json) -> None:
    validator = jsonschema_rs.Draft202012Validator(OPENAPI_31)
    assert [str(error) for error in validator.iter_errors(openapi)] == []
    assert list(validator.iter_errors({**openapi, "paths": {"predict": {}}}))
    schemathesis.openapi.from_dict(openapi).validate()
    for name, schema in openapi["components"]["schemas"].items():
        assert jsonschema_rs.meta.is_valid(schema), name
    assert json.loads(json.dumps(openapi, allow_nan=False)) == openapi


def test_every_reference_resolves_and_every_component_is_used(openapi: Json) -> None:
    found = set()

    def walk(part: Any) -> None:
        if isinstance(part, dict):
            if isinstance(part.get("$ref"), str):
                found.add(part["$ref"])
            for inner in part.values():
                walk(inner)
        elif isinstance(part, list):
            for inner in part:
                walk(inner)

    walk(openapi)
    defined = {
        f"#/components/{kind}/{name}"
        for kind, components in openapi["components"].items()
        for name in components
        if kind != "securitySchemes"
    }
    assert found == defined


def test_paths_and_methods_are_those_of_the_guard(openapi: Json) -> None:
    for path, operations in openapi["paths"].items():
        assert {method.upper() for method in operations} <= set(ROUTES[path].methods)
    assert {path for path, place in ROUTES.items() if place.kind in ("scoring", "model")} <= set(openapi["paths"])


def test_paths_that_need_a_key_declare_it_and_401(openapi: Json) -> None:
    for path, operations in openapi["paths"].items():
        for operation in operations.values():
            needed = operation["security"] == [{"key": []}]
            assert needed == (ROUTES[path].kind in ("scoring", "model"))
            # /metrics needs a key only if a setting requires it.
            may_be_needed = needed or path == "/metrics"
            assert ({"401", "429"} <= set(operation["responses"])) == may_be_needed


def test_every_status_of_guard_and_request_parser_is_declared(openapi: Json) -> None:
    statuses = {
        status for operations in openapi["paths"].values() for one in operations.values() for status in one["responses"]
    }
    assert statuses == {"200", *(str(code.status) for code in CODES.values())}
    bodies = {"400", "408", "413", "415", "422"}
    for path in ("/predict", "/explain"):
        assert bodies <= set(openapi["paths"][path]["post"]["responses"])
    assert not bodies & set(openapi["paths"]["/model"]["get"]["responses"])


def test_a_response_allows_the_codes_of_its_status_only(openapi: Json) -> None:
    listed = set()
    for name, response in openapi["components"]["responses"].items():
        _, limits = response["content"][JSON]["schema"]["allOf"]
        codes = limits["properties"]["code"]["enum"]
        assert {str(CODES[code].status) for code in codes} == {"503" if name == "NotReady" else name}
        assert all(f"`{code}`" in response["description"] for code in codes)
        listed |= set(codes)
    assert listed == set(CODES)


@pytest.mark.parametrize(
    ("status", "header"),
    [("401", "WWW-Authenticate"), ("405", "Allow"), ("429", "Retry-After"), ("503", "Retry-After")],
)
def test_refusals_declare_their_headers(openapi: Json, status: str, header: str) -> None:
    assert set(openapi["components"]["responses"][status]["headers"]) == {"X-Request-ID", header}


@pytest.mark.parametrize("path", ["/predict", "/explain"])
@pytest.mark.parametrize("dated", [False, True])
def test_the_example_satisfies_the_request_model_and_its_schema(tmp_path: Path, path: str, dated: bool) -> None:
    contract = make_contract(dated)
    bundle = load_bundle(make_bundle(tmp_path / "bundle", contract))
    openapi = document_of(bundle)
    body = openapi["paths"][path]["post"]["requestBody"]["content"][JSON]
    name = body["schema"]["$ref"].rsplit("/", 1)[1]
    assert accepts(openapi, name, body["example"])
    assert not accepts(openapi, name, {"customers": []})
    assert not accepts(openapi, name, {"customers": [{**body["example"]["customers"][0], "months": -1}]})
    requests = dict(zip(("/predict", "/explain"), requests_of(contract), strict=True))[path]
    read = requests.read(json.dumps(body["example"]).encode())
    numbers, levels = requests.inputs(read["customers"])
    answer = bundle.session.run(None, {"numeric": numbers, "categorical": levels})[0]
    assert 0 < answer[0] < 1


def test_the_example_has_median_values_and_an_id(bundle: Bundle) -> None:
    customer = example_customer(bundle)
    assert list(customer) == ["customer", *bundle.contract.features]
    seen = customers_of(bundle.contract)
    assert customer["months"] == pytest.approx(seen["months"].median(), abs=10)
    assert isinstance(customer["months"], int)
    assert isinstance(customer["charge"], float)
    assert len(str(customer["charge"]).partition(".")[2]) <= 2, "rounded to two decimals"
    assert customer["plan"] == seen["plan"].mode()[0]
    assert customer["lines"] == seen["lines"].mode()[0]
    assert isinstance(customer["paperless"], bool)


def test_an_example_satisfies_bounds_too_narrow_for_rounding(bundle: Bundle) -> None:
    columns = table_file()["columns"]
    columns["charge"]["in_range"] = {"min_value": 12.341, "max_value": 12.343}
    columns["charge"] |= {"example": None, "default": None}
    profile = bundle.training_profile.model_dump()
    profile["numeric"]["charge"]["quantiles"] = [12.342] * 101
    narrow = replace(
        bundle, contract=make_contract(columns=columns), training_profile=TrainingProfile.model_validate(profile)
    )
    assert example_customer(narrow)["charge"] == 12.342


def test_an_example_is_built_from_an_almost_empty_training_profile(bundle: Bundle) -> None:
    """All levels are rare, and no number has known values."""
    columns = table_file()["columns"]
    columns["plan"]["example"] = "AB"
    columns["region"]["nullable"] = False
    contract = make_contract(columns=columns)
    nothing = TrainingProfile.model_validate(
        {
            "rows": 10,
            "numeric": {name: {"quantiles": [], "missing": 1.0} for name in contract.numeric},
            "categorical": {name: {"levels": {"": 0.1}} for name in contract.categorical},
            "probability": {"quantiles": [0.5] * 101},
        }
    )
    customer = example_customer(replace(bundle, contract=contract, training_profile=nothing))
    assert customer["plan"] == "AB"
    assert customer["region"] == "north"
    assert customer["total"] == 0
    requests_of(contract)[0].read(json.dumps({"customers": [customer]}).encode())


def test_the_schema_accepts_valid_answers_only(openapi: Json) -> None:
    one = {"id": "C-1", "churn_probability": 0.25, "decision": "no_contact", "threshold_basis": "mean_value"}
    answer = {"request_id": "a", "model_version": "1", "threshold": 0.3, "predictions": [one]}
    assert accepts(openapi, "Predictions", answer)
    assert accepts(openapi, "Predictions", {**answer, "predictions": [{**one, "decision": "contact"}]})
    wrong: Json
    for wrong in (
        {"id": 1},
        {"churn_probability": 1.5},
        {"decision": "stay"},
        {"threshold_basis": "one_value"},
        {"reasons": []},
    ):
        assert not accepts(openapi, "Predictions", {**answer, "predictions": [{**one, **wrong}]})
    reasons: list[Json] = [{"feature": "months", "effect": -0.2}]
    base = {"base_probability": 0.45, "base_probability_standard_error": 0.01}
    explained = {**answer, **base, "predictions": [{**one, "reasons": reasons}]}
    assert accepts(openapi, "Explanations", explained)
    assert not accepts(openapi, "Explanations", answer)
    reasons[0]["feature"] = "age"
    assert not accepts(openapi, "Explanations", explained)


def test_the_schema_accepts_valid_refusals_only(openapi: Json) -> None:
    refusal = {"code": "invalid_customer", "error": "No.", "request_id": "a"}
    problems: list[Json] = [
        {"row": 0, "field": "months", "rule": "at least 0"},
        {"row": None, "field": None, "rule": "required"},
    ]
    assert accepts(openapi, "Refusal", refusal)
    assert accepts(openapi, "Refusal", {**refusal, "problems": problems, "problem_count": 2})
    assert not accepts(openapi, "Refusal", {**refusal, "code": "other"})
    assert not accepts(openapi, "Refusal", {"error": "No.", "request_id": "a"})
    assert not accepts(openapi, "Refusal", {**refusal, "problems": [{**problems[0], "value": 5}], "problem_count": 1})


def test_the_schema_of_the_model_matches_the_manifest(openapi: Json, bundle: Bundle) -> None:
    model = bundle.manifest.model_dump(mode="json", exclude={"files"})
    contract = bundle.contract.model_dump(mode="json", exclude_defaults=True)
    assert accepts(openapi, "Model", {**model, "contract": contract})
    assert not accepts(openapi, "Model", model)
    assert not accepts(openapi, "Model", {**model, "contract": contract, "model_digest": "short"})


def test_a_table_without_an_id_has_none_in_its_answers(tmp_path: Path) -> None:
    content = table_file()
    del content["columns"]["customer"], content["roles"]["id"]
    contract = Contract.parse(content, "customers")
    openapi = document_of(load_bundle(make_bundle(tmp_path / "bundle", contract)))
    prediction = openapi["components"]["schemas"]["Predictions"]["properties"]["predictions"]["items"]
    assert "id" not in prediction["properties"]
    assert (
        "customer"
        not in openapi["paths"]["/predict"]["post"]["requestBody"]["content"][JSON]["example"]["customers"][0]
    )
