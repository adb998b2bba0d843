"""The shape of a request, derived from the rules of the columns: the type that decodes it, and its JSON Schema."""

import json
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType, defstruct

from churn_pipeline.serving.column_rules import ColumnRule


def request_type(rules: Mapping[str, ColumnRule], max_rows: int, options: Mapping[str, Any]) -> Any:
    """The type that msgspec decodes a request to; None if it refuses the name of a column.

    Columns may have nearly any name, and attributes may not, so the columns are numbered.
    """
    if any(json.dumps(name, ensure_ascii=False) != f'"{name}"' for name in rules):
        return None
    fields: list[Any] = [
        (f"c{place}", rule.decoded_type, *([None] if rule.may_be_missing else []))
        for place, rule in enumerate(rules.values())
    ]
    names = {f"c{place}": name for place, name in enumerate(rules)}
    shape: Any = {"kw_only": True, "forbid_unknown_fields": True, "gc": False}
    customer: Any = defstruct("Customer", fields, rename=names, **shape)
    customers = Annotated[list[customer], Meta(min_length=1, max_length=max_rows)]
    given = [(name, kind | UnsetType, UNSET) for name, kind in options.items()]
    return defstruct("Request", [("customers", customers), *given], **{**shape, "gc": True})


def request_schema(rules: Mapping[str, ColumnRule], max_rows: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """A request as JSON Schema."""
    customer = {
        "type": "object",
        "properties": {name: rule.json_schema for name, rule in rules.items()},
        "required": [name for name, rule in rules.items() if not rule.may_be_missing],
        "additionalProperties": False,
    }
    customers = {"type": "array", "items": {"$ref": "#/$defs/Customer"}, "minItems": 1, "maxItems": max_rows}
    return {
        "$defs": {"Customer": customer},
        "type": "object",
        "properties": {
            "customers": customers,
            **{name: msgspec.json.schema(kind) for name, kind in options.items()},
        },
        "required": ["customers"],
        "additionalProperties": False,
    }
