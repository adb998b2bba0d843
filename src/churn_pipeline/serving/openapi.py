"""The service's OpenAPI document: all paths and answers, with an example request that works when pasted.

References
----------
OpenAPI Specification 3.1.1: https://spec.openapis.org/oas/v3.1.1.html; its schemas are JSON Schema 2020-12.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from churn_pipeline.contract.table import Column, Contract
from churn_pipeline.serving.bundle import Bundle, Manifest, TrainingProfile
from churn_pipeline.serving.request_context import REQUEST_ID
from churn_pipeline.serving.requests import JSON_TYPES, is_valid

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

# Meaning of each status, and the headers of the answer besides the request id.
REFUSALS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "400": ("The body is not valid JSON.", ()),
    "401": ("The API key is missing or invalid.", ("WWW-Authenticate",)),
    "404": ("The path is disabled by a setting.", ()),
    "405": ("The path does not accept this method.", ("Allow",)),
    "408": ("The request body arrived too slowly; the connection is closed.", ()),
    "413": ("The body is too large or has too many customers.", ()),
    "415": ("The body is not `application/json` in UTF-8, or it is compressed.", ()),
    "422": (
        "The request violates the contract. The answer lists row, field and rule of each problem, never the value.",
        (),
    ),
    "429": (
        "Too many requests with this API key, or too many from this address without a valid key.",
        ("Retry-After",),
    ),
    "500": ("The service failed. Its log has the error under the request id.", ()),
    "503": ("The service is busy. Try again later.", ("Retry-After",)),
    "504": ("The request took longer than the time limit.", ()),
}
UNREADY = "Not ready"
# Errors from Starlette or BentoML, unlike those from the guard, are plain text.
ALSO_TEXT = ("500", UNREADY)
ALWAYS = ("405", "500", "504")
WITH_KEY = ("401", "429", "503")
WITH_BODY = ("400", "408", "413", "415", "422")

PROBLEM: Json = {
    "type": "object",
    "properties": {
        "row": {
            "type": ["integer", "null"],
            "minimum": 0,
            "description": "Index of the customer in the request, from 0.",
        },
        "field": {
            "type": ["string", "null"],
            "description": "The column; null if the problem is in the whole customer or request.",
        },
        "rule": {"type": "string", "description": "The violated rule, in words of the contract."},
    },
    "required": ["row", "field", "rule"],
    "additionalProperties": False,
}
REFUSAL: Json = {
    "type": "object",
    "properties": {
        "error": {"type": "string"},
        "request_id": {"type": "string"},
        "problems": {"type": "array", "items": {"$ref": "#/components/schemas/Problem"}, "minItems": 1},
        "problem_count": {
            "type": "integer",
            "minimum": 1,
            "description": "Total number of problems; `problems` lists only the first ones.",
        },
    },
    "required": ["error", "request_id"],
    "additionalProperties": False,
}
HEALTH: Json = {
    "type": "object",
    "properties": {
        "status": {"const": "ready"},
        "model": {"type": "string"},
        "model_version": {"type": "string"},
        "seconds_since_load": {"type": "number", "minimum": 0},
        "bundle": {"type": "string", "description": "Folder of the served bundle, in a folder of bundles."},
        "second_bundle": {"type": ["string", "null"], "description": "Folder of the second bundle."},
        "rollout": {
            "enum": ["done", "loading", "refused"],
            "description": "State of the last change of bundles. `refused`: the bundles before it are served.",
        },
    },
    "required": ["status", "model", "model_version", "seconds_since_load"],
    "additionalProperties": False,
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
        "Predictions": _predictions(contract, column, explained=False),
        "Explanations": _predictions(contract, column, explained=True),
        "Model": _model(),
        "Health": HEALTH,
        "Problem": PROBLEM,
        "Refusal": REFUSAL,
    }
    customers = {"customers": [example_customer(bundle)]}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"Churn predictions: {contract.name}",
            "version": manifest.model_version,
            "description": _description(contract, manifest, column),
        },
        "paths": _paths(predict, explain, customers),
        "components": {
            "schemas": schemas,
            "headers": HEADERS,
            "responses": {name.replace(" ", ""): _refusal(name) for name in (*REFUSALS, UNREADY)},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "API key of this service."}},
        },
    }


def example_customer(bundle: Bundle) -> Json:
    """Build a fictitious valid customer from the examples in the contract, the medians and the most frequent levels.

    Parameters
    ----------
    bundle
        The served bundle. The examples in its contract are used first.

    Returns
    -------
    dict
        JSON values by column. A column without any known valid value is left out.
    """
    customer: Json = {}
    for name in bundle.request_columns:
        column = bundle.contract.columns[name]
        valid = [value for value in _values(name, column, bundle.training_profile) if is_valid(column, value)]
        customer |= {name: valid[0]} if valid else {}
    return customer


def _values(name: str, column: Column, training_profile: TrainingProfile) -> Iterator[Any]:
    """Plausible values of a column, the best ones first."""
    yield column.example
    if name in training_profile.numeric and (quantiles := training_profile.numeric[name].quantiles):
        median = quantiles[len(quantiles) // 2]
        yield {"int64": int, "bool": bool}.get(column.dtype, _readable)(median)
        yield median  # the rounded median may lie outside narrow bounds
    elif name in training_profile.categorical:
        shares = training_profile.categorical[name].levels
        for level in sorted(shares, key=lambda level: -shares[level]):
            yield int(level) if column.dtype == "int64" and level else level
    yield from column.isin or ()
    lengths = column.str_length
    longest, shortest = (lengths.max_value, lengths.min_value) if lengths else (None, None)
    yield from (column.default, "example"[:longest].ljust(shortest or 0, "e"), 1, False)


def _readable(number: float) -> float:
    """A number rounded to two decimals, or to three significant digits below one."""
    return float(f"{number:.3g}") if abs(number) < 1 else round(number, 2)


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


def _paths(predict: Json, explain: Json, customers: Json) -> Json:
    key: list[Json] = [{"key": []}]
    probe: Json = {"security": [], "refusals": (*ALWAYS, UNREADY)}
    scoring: Json = {"security": key, "refusals": (*ALWAYS, *WITH_KEY, *WITH_BODY)}
    text: Json = {TEXT: {"schema": {"type": "string"}}}
    answer = "The predictions, in the order of the customers in the request."
    return {
        "/predict": {
            "post": {
                **_operation("predict", "Churn probabilities and decisions", answer, _json("Predictions"), **scoring),
                "requestBody": _body(predict, customers),
            }
        },
        "/explain": {
            "post": {
                **_operation(
                    "explain", "Predictions with the effect of each feature", answer, _json("Explanations"), **scoring
                ),
                "description": "Effects are estimated Shapley values on the probability scale. The same customer always gets "
                "the same effects. The base probability plus the effects of all features equals the churn probability.",
                "requestBody": _body(explain, {**customers, "top": EXAMPLE_TOP}),
            }
        },
        "/model": {
            "get": _operation(
                "model",
                "The served model and its contract",
                "The manifest and the contract of the model.",
                _json("Model"),
                security=key,
                refusals=(*ALWAYS, *WITH_KEY),
            )
        },
        "/health": {"get": _operation("health", "Health check", "The service is ready.", _json("Health"), **probe)},
        "/livez": {"get": _operation("livez", "Liveness check", "The process is alive.", text, **probe)},
        "/readyz": {
            "get": _operation("readyz", "Readiness check", "The service is ready for requests.", text, **probe)
        },
        "/metrics": {
            "get": _operation(
                "metrics",
                "Prometheus metrics",
                "Metrics in the Prometheus text format.",
                text,
                security=[],
                refusals=(*ALWAYS, *WITH_KEY, "404"),
            )
        },
    }


def _operation(
    name: str, summary: str, answer: str, content: Json, security: list[Json], refusals: tuple[str, ...]
) -> Json:
    headers = ["X-Request-ID", *(["RateLimit-Policy"] if security else [])]
    responses = {"200": {"description": answer, "headers": _headers(*headers), "content": content}}
    for refusal in sorted(refusals):
        status = "503" if refusal == UNREADY else refusal
        responses[status] = {"$ref": f"#/components/responses/{refusal.replace(' ', '')}"}
    return {"operationId": name, "summary": summary, "security": security, "responses": responses}


def _headers(*names: str) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _json(schema: str) -> Json:
    return {JSON: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _body(schema: Json, example: Json) -> Json:
    return {"required": True, "content": {JSON: {"schema": schema, "example": example}}}


def _refusal(name: str) -> Json:
    meaning, headers = (
        ("The service is not ready: it is starting or shutting down.", ()) if name == UNREADY else REFUSALS[name]
    )
    content = _json("Refusal")
    if name in ALSO_TEXT:
        content[TEXT] = {"schema": {"type": "string"}}
    return {"description": meaning, "headers": _headers("X-Request-ID", *headers), "content": content}


def _predictions(contract: Contract, column: str | None, explained: bool) -> Json:
    """Schema of an answer: a head, and one prediction per customer."""
    probability = {"type": "number", "minimum": 0, "maximum": 1}
    prediction: Json = {
        "churn_probability": probability,
        "decision": {"enum": ["contact", "no_contact"]},
        "threshold_basis": {
            "enum": ["one_value"] if column is None else ["customer_value", "mean_value"],
            "description": "The value behind the decision: the customer's own, the mean value because the customer's is "
            "missing, or one value for all customers.",
        },
    }
    head: Json = {
        "request_id": {"type": "string"},
        "model_version": {"type": "string"},
        "threshold": {
            "type": "number",
            "description": "Break-even churn probability at the mean customer value. It applies only to predictions whose "
            "`threshold_basis` is `mean_value` or `one_value`.",
        },
    }
    if explained:
        head["base_probability"] = {
            **probability,
            "description": "Prediction if no feature is known: the Shapley base value.",
        }
        head["base_probability_standard_error"] = {
            "type": "number",
            "minimum": 0,
            "description": "Standard error of the base probability, which is a mean over synthetic customers.",
        }
        effect = {"type": "number", "minimum": -1, "maximum": 1, "description": "Change of the churn probability."}
        reason = {"feature": {"enum": list(contract.features)}, "effect": effect}
        prediction["reasons"] = {
            "type": "array",
            "description": "Effects of features relative to the base probability, largest first.",
            "items": _object(reason),
            "minItems": 1,
            "maxItems": len(contract.features),
        }
    item = _object(prediction)
    if explained:
        item["properties"] |= {name: head[name] for name in ("base_probability", "base_probability_standard_error")}
    item["properties"] |= {
        "model_version": {
            "type": "string",
            "description": "The model that made this prediction, while a second bundle answers for a share of the customers. "
            "Its own base probability is beside it in an explanation.",
        }
    }
    if contract.roles.id is not None:
        kind = JSON_TYPES[contract.columns[contract.roles.id].dtype]
        identity = {"type": kind, "description": "The id in the request, if it was given."}
        item["properties"] = {"id": identity, **item["properties"]}
    return _object({**head, "predictions": {"type": "array", "items": item, "minItems": 1}})


def _object(properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _model() -> Json:
    """Schema of ``/model``: the manifest without file digests, and the contract."""
    schema = Manifest.model_json_schema(mode="serialization")
    manifest = {name: kind for name, kind in schema["properties"].items() if name != "files"}
    contract = {"type": "object", "description": "Columns, types, bounds, levels and roles."}
    return _object({**manifest, "contract": contract})
