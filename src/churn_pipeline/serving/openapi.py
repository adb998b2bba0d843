"""The service's OpenAPI document: every path a program calls, every answer it gets, and an example that works when pasted.

References
----------
OpenAPI Specification 3.1.1: https://spec.openapis.org/oas/v3.1.1.html; its schemas are JSON Schema 2020-12.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from churn_pipeline.contract.table import Column, Contract
from churn_pipeline.serving.bundle import Manifest, TrainingProfile
from churn_pipeline.serving.requests import JSON_TYPES, is_valid
from churn_pipeline.serving.visits import SANE_ID

Json = dict[str, Any]

JSON, TEXT = "application/json", "text/plain"
EXAMPLE_TOP = 3

HEADERS: Json = {
    "X-Request-ID": {
        "description": "The request's id: the caller's own, where it is of this form, else one made here. Logs have it.",
        "required": True,
        "schema": {"type": "string", "pattern": f"^{SANE_ID.pattern.decode()}$"},
    },
    "RateLimit-Policy": {
        "description": 'Requests per key: `"per-worker";q=6000;w=60` are 6,000 in 60 seconds, counted by each worker.',
        "schema": {"type": "string"},
    },
    "Retry-After": {
        "description": "Seconds after which to try again.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    },
    "WWW-Authenticate": {
        "description": "What is needed.",
        "required": True,
        "schema": {"type": "string", "const": "Bearer"},
    },
    "Allow": {"description": "The path's methods.", "required": True, "schema": {"type": "string"}},
}

# By status: what it means, and which headers an answer has beside its id.
REFUSALS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "400": ("The body is no JSON.", ()),
    "401": ("There is no key, or no valid one.", ("WWW-Authenticate",)),
    "404": ("The path is switched off.", ()),
    "405": ("The path does not take the method.", ("Allow",)),
    "408": ("The body took too long to come; the connection is closed.", ()),
    "413": ("The body is too large, or has too many customers.", ()),
    "415": ("The body is not `application/json` in UTF-8, or is compressed.", ()),
    "422": ("The request breaks the contract. It is told where, and which rules; values are not repeated.", ()),
    "429": ("Too many requests with this key, or too many without a valid one.", ("Retry-After",)),
    "500": ("The service failed; its log has the request id.", ()),
    "503": ("The service is busy.", ("Retry-After",)),
    "504": ("The answer took too long.", ()),
}
UNREADY = "Not ready"
# What is not told by the guards themselves, but by Starlette or BentoML, comes as text.
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
            "description": "The customer's place in the request, from 0.",
        },
        "field": {"type": ["string", "null"], "description": "The column; null where more than one is meant."},
        "rule": {"type": "string", "description": "The rule that is broken, in the contract's words."},
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
            "description": "Of all problems; the first ones are listed.",
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
    },
    "required": ["status", "model", "model_version", "seconds_since_load"],
    "additionalProperties": False,
}


def document(
    contract: Contract,
    manifest: Manifest,
    training_profile: TrainingProfile,
    predict_schema: Json,
    explain_schema: Json,
) -> Json:
    """Describe the service of one bundle.

    Parameters
    ----------
    contract, manifest, training_profile
        What was shipped.
    predict_schema, explain_schema
        JSON schemas of the two kinds of request, as `churn_pipeline.serving.requests.Requests` has them.

    Returns
    -------
    dict
        An OpenAPI 3.1 document.
    """
    predict, definitions = _components("PredictRequest", predict_schema)
    explain, more = _components("ExplainRequest", explain_schema)
    schemas = {
        **definitions,
        **more,
        "Predictions": _predictions(contract, explained=False),
        "Explanations": _predictions(contract, explained=True),
        "Model": _model(),
        "Health": HEALTH,
        "Problem": PROBLEM,
        "Refusal": REFUSAL,
    }
    customers = {"customers": [example_customer(contract, training_profile)]}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"Churn probabilities of {contract.name}",
            "version": manifest.model_version,
            "description": _description(contract, manifest),
        },
        "paths": _paths(predict, explain, customers),
        "components": {
            "schemas": schemas,
            "headers": HEADERS,
            "responses": {name.replace(" ", ""): _refusal(name) for name in (*REFUSALS, UNREADY)},
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "An API key of this service."}
            },
        },
    }


def example_customer(contract: Contract, training_profile: TrainingProfile) -> Json:
    """Make a customer up who keeps the contract and is nobody: the middle of each number, the most frequent levels.

    Parameters
    ----------
    contract
        Whose features, and id, the customer has. The contract's own examples come first.
    training_profile
        Summary of the training customers.

    Returns
    -------
    dict
        Values by column, as JSON has them. A column of which no value is known is left out.
    """
    customer: Json = {}
    for name in (contract.roles.id, *contract.features):
        if name is not None:
            column = contract.columns[name]
            kept = [value for value in _values(name, column, training_profile) if is_valid(column, value)]
            customer |= {name: kept[0]} if kept else {}
    return customer


def _values(name: str, column: Column, training_profile: TrainingProfile) -> Iterator[Any]:
    """Values that a customer might have, the best ones first."""
    yield column.example
    if name in training_profile.numeric and (quantiles := training_profile.numeric[name].quantiles):
        middle = quantiles[len(quantiles) // 2]
        yield {"int64": int, "bool": bool}.get(column.dtype, _readable)(middle)
        yield middle  # where the bounds leave no room for rounding
    elif name in training_profile.categorical:
        shares = training_profile.categorical[name].levels
        for level in sorted(shares, key=lambda level: -shares[level]):
            yield int(level) if column.dtype == "int64" and level else level
    yield from column.isin or ()
    lengths = column.str_length
    most, least = (lengths.max_value, lengths.min_value) if lengths else (None, None)
    yield from (column.default, "example"[:most].ljust(least or 0, "e"), 1, False)


def _readable(number: float) -> float:
    """A number with three digits, or with two decimals, as a person would write it."""
    return float(f"{number:.3g}") if abs(number) < 1 else round(number, 2)


def _components(name: str, schema: Json) -> tuple[Json, Json]:
    """A training_profile to a schema, and that schema and all that it refers to, as the document's components."""
    placed = json.loads(json.dumps(schema).replace('"$ref": "#/$defs/', '"$ref": "#/components/schemas/'))
    definitions: Json = placed.pop("$defs", {})
    return {"$ref": f"#/components/schemas/{name}"}, {**definitions, name: placed}


def _description(contract: Contract, manifest: Manifest) -> str:
    label = contract.label
    meant = [label.meaning]
    meant += [f"{word}: {said}." for word, said in (("Observed", label.observed), ("Horizon", label.horizon)) if said]
    return (
        f"{contract.description}\n\nChurn: {' '.join(meant)}\n\nA customer is to be contacted from a churn "
        f"probability of {manifest.threshold:g} on.\n\nA path that is not here is answered 404, but for the pages: `/` with a "
        "form, `/docs`, and `/openapi.json`, which is this document. A service may be set to ask for no keys, or for keys also "
        "where none is needed here."
    ).strip()


def _paths(predict: Json, explain: Json, customers: Json) -> Json:
    key: list[Json] = [{"key": []}]
    probe: Json = {"security": [], "refusals": (*ALWAYS, UNREADY)}
    work: Json = {"security": key, "refusals": (*ALWAYS, *WITH_KEY, *WITH_BODY)}
    text, answer = {TEXT: {"schema": {"type": "string"}}}, "The answer, customers in the order of the request."
    return {
        "/predict": {
            "post": {
                **_operation("predict", "Churn probabilities and decisions", answer, _json("Predictions"), **work),
                "requestBody": _body(predict, customers),
            }
        },
        "/explain": {
            "post": {
                **_operation(
                    "explain", "The same, and what moves each probability", answer, _json("Explanations"), **work
                ),
                "description": "Effects are Shapley values of the churn probability. They are estimated, for the same customer "
                "always alike; base probability and the effects of all features sum to the churn probability.",
                "requestBody": _body(explain, {**customers, "top": EXAMPLE_TOP}),
            }
        },
        "/model": {
            "get": _operation(
                "model",
                "What is served",
                "The model.",
                _json("Model"),
                security=key,
                refusals=(*ALWAYS, *WITH_KEY),
            )
        },
        "/health": {"get": _operation("health", "Whether it is well", "It is.", _json("Health"), **probe)},
        "/livez": {"get": _operation("livez", "Whether it is alive", "It is.", text, **probe)},
        "/readyz": {"get": _operation("readyz", "Whether it may be asked", "It may be asked.", text, **probe)},
        "/metrics": {
            "get": _operation(
                "metrics",
                "What is counted",
                "Figures in the form that Prometheus reads.",
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
    meaning, headers = ("It is not: it starts, or is about to end.", ()) if name == UNREADY else REFUSALS[name]
    content = _json("Refusal")
    if name in ALSO_TEXT:
        content[TEXT] = {"schema": {"type": "string"}}
    return {"description": meaning, "headers": _headers("X-Request-ID", *headers), "content": content}


def _predictions(contract: Contract, explained: bool) -> Json:
    """An answer's schema: a head, and a prediction for every customer."""
    probability = {"type": "number", "minimum": 0, "maximum": 1}
    one: Json = {"churn_probability": probability, "decision": {"enum": ["contact", "leave"]}}
    head: Json = {
        "request_id": {"type": "string"},
        "model_version": {"type": "string"},
        "threshold": {"type": "number", "description": "From this churn probability on a customer is to be contacted."},
    }
    if explained:
        head["base_probability"] = {
            **probability,
            "description": "What is said of a customer of whom nothing is known.",
        }
        effect = {"type": "number", "minimum": -1, "maximum": 1, "description": "By how much, in probability."}
        reason = {"feature": {"enum": list(contract.features)}, "effect": effect}
        one["reasons"] = {
            "type": "array",
            "description": "What moves the churn probability from the base, the most first.",
            "items": _object(reason),
            "minItems": 1,
            "maxItems": len(contract.features),
        }
    item = _object(one)
    if contract.roles.id is not None:
        given = {"type": JSON_TYPES[contract.columns[contract.roles.id].dtype], "description": "Where it was given."}
        item["properties"] = {"id": given, **one}
    return _object({**head, "predictions": {"type": "array", "items": item, "minItems": 1}})


def _object(properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _model() -> Json:
    """What ``/model`` tells: the manifest, without the digests of files, and the contract."""
    schema = Manifest.model_json_schema(mode="serialization")
    told = {name: kind for name, kind in schema["properties"].items() if name != "files"}
    contract = {"type": "object", "description": "Columns, types, bounds, levels and roles."}
    return _object({**told, "contract": contract})
