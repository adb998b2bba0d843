"""The answers of the service as JSON Schema."""

from typing import Any

from churn_pipeline.contract.table import Contract
from churn_pipeline.serving.bundle import Manifest
from churn_pipeline.serving.column_rules import JSON_TYPES
from churn_pipeline.serving.refusal_codes import CODES
from churn_pipeline.serving.requests import MAX_REPORTED_PROBLEMS

Json = dict[str, Any]

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
        "code": {"enum": sorted(CODES), "description": "What was refused; codes never change."},
        "error": {"type": "string", "description": "What was refused, for people."},
        "request_id": {"type": "string"},
        "problems": {"type": "array", "items": {"$ref": "#/components/schemas/Problem"}, "minItems": 1},
        "problem_count": {
            "type": "integer",
            "minimum": 1,
            "maximum": MAX_REPORTED_PROBLEMS,
            "description": f"Number of problems found. Validation stops at {MAX_REPORTED_PROBLEMS}, so "
            f"{MAX_REPORTED_PROBLEMS} means at least {MAX_REPORTED_PROBLEMS}.",
        },
    },
    "required": ["code", "error", "request_id"],
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


def predictions(contract: Contract, column: str | None, explained: bool) -> Json:
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
    # Only a split of the customers over two bundles adds these.
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


def model() -> Json:
    """Schema of ``/model``: the manifest without file digests, and the contract."""
    schema = Manifest.model_json_schema(mode="serialization")
    manifest = {name: kind for name, kind in schema["properties"].items() if name != "files"}
    contract = {"type": "object", "description": "Columns, types, bounds, levels and roles."}
    return _object({**manifest, "contract": contract})
