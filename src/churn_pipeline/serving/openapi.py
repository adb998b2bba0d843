"""The service's OpenAPI document: all paths and answers, with an example request that works when pasted.

References
----------
OpenAPI Specification 3.1.1: https://spec.openapis.org/oas/v3.1.1.html; its schemas are JSON Schema 2020-12.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from churn_pipeline.contract.table import Contract
from churn_pipeline.serving.answers import HEALTH, PROBLEM, REFUSAL, model, predictions
from churn_pipeline.serving.bundle import Bundle, Manifest
from churn_pipeline.serving.example_customer import example_customer
from churn_pipeline.serving.refusal_codes import CODES, NEEDS_KEY, Kind, codes_of
from churn_pipeline.serving.request_context import ROUTES, Route
from churn_pipeline.serving.request_ids import REQUEST_ID

Json = dict[str, Any]

JSON, TEXT = "application/json", "text/plain"
EXAMPLE_TOP = 3

HEADERS: Json = {
    "X-Request-ID": {
        "description": "Id of the request in the service's logs: the caller's own if it matches this pattern, else a new one.",
        "required": True,
        "schema": {"type": "string", "pattern": f"^{REQUEST_ID.pattern.decode()}$"},
    },
    "RateLimit-Policy": {
        "description": 'Rate limit of the API key. `"per-worker";q=6000;w=60` means 6,000 requests per 60 s in each worker.',
        "schema": {"type": "string"},
    },
    "Retry-After": {
        "description": "Seconds to wait before the next attempt.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    },
    "WWW-Authenticate": {
        "description": "Required authentication scheme.",
        "required": True,
        "schema": {"type": "string", "const": "Bearer"},
    },
    "Allow": {"description": "Methods that the path accepts.", "required": True, "schema": {"type": "string"}},
}

UNREADY = "NotReady"
# Errors from Starlette or BentoML, unlike those from the guard, are plain text.
ALSO_TEXT = ("500", UNREADY)


class Operation(NamedTuple):
    """What the document says about a path, besides what follows from its kind."""

    summary: str
    answer: str
    schema: str | None = None
    description: str | None = None


PREDICTIONS = "The predictions, in the order of the customers in the request."
OPERATIONS: Mapping[str, Operation] = {
    "/predict": Operation("Churn probabilities and decisions", PREDICTIONS, "Predictions"),
    "/explain": Operation(
        "Predictions with the effect of each feature",
        PREDICTIONS,
        "Explanations",
        "Effects are estimated Shapley values on the probability scale. The same customer always gets the same effects. The "
        "base probability plus the effects of all features equals the churn probability.",
    ),
    "/model": Operation("The served model and its contract", "The manifest and the contract of the model.", "Model"),
    "/health": Operation("Health check", "The service is ready.", "Health"),
    "/livez": Operation("Liveness check", "The process is alive."),
    "/readyz": Operation("Readiness check", "The service is ready for requests."),
    "/metrics": Operation("Prometheus metrics", "Metrics in the Prometheus text format."),
}


def document(bundle: Bundle, predict_schema: Json, explain_schema: Json) -> Json:
    """Build the OpenAPI document for one bundle.

    Parameters
    ----------
    bundle
        The served bundle.
    predict_schema, explain_schema
        JSON schemas of the two request bodies, from `churn_pipeline.serving.requests.RequestParser.schema`.

    Returns
    -------
    dict
        An OpenAPI 3.1 document.
    """
    contract, manifest, column = bundle.contract, bundle.manifest, bundle.decision.column
    predict, definitions = _components("PredictRequest", predict_schema)
    explain, more = _components("ExplainRequest", explain_schema)
    schemas = {
        **definitions,
        **more,
        "Predictions": predictions(contract, column, explained=False),
        "Explanations": predictions(contract, column, explained=True),
        "Model": model(),
        "Health": HEALTH,
        "Problem": PROBLEM,
        "Refusal": REFUSAL,
    }
    customers = {"customers": [example_customer(bundle)]}
    bodies = {"/predict": _body(predict, customers), "/explain": _body(explain, {**customers, "top": EXAMPLE_TOP})}
    responses = {name: codes for path in OPERATIONS for name, codes in _responses(ROUTES[path].kind).items()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"Churn predictions: {contract.name}",
            "version": manifest.model_version,
            "description": _description(contract, manifest, column),
        },
        "paths": _paths(bodies),
        "components": {
            "schemas": schemas,
            "headers": HEADERS,
            "responses": {name: _refusal(name, codes) for name, codes in responses.items()},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "API key of this service."}},
        },
    }


def _components(name: str, schema: Json) -> tuple[Json, Json]:
    """A reference to a schema; and the schema with its definitions, as components of the document."""
    placed = json.loads(json.dumps(schema).replace('"$ref": "#/$defs/', '"$ref": "#/components/schemas/'))
    definitions: Json = placed.pop("$defs", {})
    return {"$ref": f"#/components/schemas/{name}"}, {**definitions, name: placed}


def _description(contract: Contract, manifest: Manifest, column: str | None) -> str:
    label = contract.label
    facts = [label.meaning]
    facts += [f"{word}: {text}." for word, text in (("Observed", label.observed), ("Horizon", label.horizon)) if text]
    return (
        f"{contract.description}\n\nChurn: {' '.join(facts)}\n\n{_decision(manifest.threshold, column)}"
        "\n\nPaths not listed here return 404, except `/` (a form), `/docs` "
        "and `/openapi.json` (this document). The service can be configured to need no API keys, or to need them for paths "
        "that are open by default."
    ).strip()


def _decision(threshold: float, column: str | None) -> str:
    """Explain how decisions are made, without the costs."""
    if column is None:
        return f"The decision is `contact` for a churn probability of at least {threshold:g}, and `no_contact` below."
    return (
        "The decision is `contact` if a contact is expected to pay. This depends on the customer's churn probability and on "
        f"the customer's value, which follows from `{column}`. Without that column the mean value counts: the decision is "
        f"then `contact` for a churn probability of at least {threshold:g}. `threshold_basis` says which value counted."
    )


def _paths(bodies: Mapping[str, Json]) -> Json:
    return {path: {_method(ROUTES[path]): _operation(ROUTES[path], bodies.get(path))} for path in OPERATIONS}


def _method(route: Route) -> str:
    return route.methods[0].lower()


def _operation(route: Route, body: Json | None) -> Json:
    described, needs_key = OPERATIONS[route.name], route.kind in NEEDS_KEY
    headers = ["X-Request-ID", *(["RateLimit-Policy"] if needs_key else [])]
    content = _json(described.schema) if described.schema else {TEXT: {"schema": {"type": "string"}}}
    responses: Json = {"200": {"description": described.answer, "headers": _headers(*headers), "content": content}}
    for name, codes in sorted(_responses(route.kind).items()):
        responses[str(CODES[codes[0]].status)] = {"$ref": f"#/components/responses/{name}"}
    return {
        "operationId": route.name.strip("/"),
        "summary": described.summary,
        **({"description": described.description} if described.description else {}),
        "security": [{"key": []}] if needs_key else [],
        "responses": responses,
        **({"requestBody": body} if body else {}),
    }


def _responses(kind: Kind) -> dict[str, list[str]]:
    """The refusals of a kind of route: codes by the name of their response."""
    found: dict[str, list[str]] = {}
    for code in codes_of(kind):
        name = UNREADY if CODES[code].step == "ready" else str(CODES[code].status)
        found.setdefault(name, []).append(code)
    return found


def _headers(*names: str) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _json(schema: str) -> Json:
    return {JSON: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _body(schema: Json, example: Json) -> Json:
    return {"required": True, "content": {JSON: {"schema": schema, "example": example}}}


def _refusal(name: str, codes: Sequence[str]) -> Json:
    meaning = " ".join(f"`{code}`: {CODES[code].meaning}" for code in codes)
    headers = dict.fromkeys(header for code in codes for header in CODES[code].headers)
    limited = {"properties": {"code": {"enum": list(codes)}}}
    content: Json = {JSON: {"schema": {"allOf": [{"$ref": "#/components/schemas/Refusal"}, limited]}}}
    if name in ALSO_TEXT:
        content[TEXT] = {"schema": {"type": "string"}}
    return {"description": meaning, "headers": _headers("X-Request-ID", *headers), "content": content}
