"""Mistakes in configuration, in the words of the file: the key, what is wrong, and the fix."""

import difflib
import re
from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

MEMBER_OF_UNION = re.compile(r"\w+\[|^(int|float|str|bool|constrained-\w+)$")
PLAIN = {
    "missing": "is missing: add it",
    "extra_forbidden": "is not a known key: correct or remove it",
    "tuple_type": "must be a list, such as [a, b]",
    "list_type": "must be a list, such as [a, b]",
    "dict_type": "must have keys, such as {key: value}",
    "model_type": "must have keys, such as {key: value}",
    "model_attributes_type": "must have keys, such as {key: value}",
    "string_type": "must be text: put it in quotes",
    "int_type": "must be an integer",
    "int_parsing": "must be an integer",
    "int_from_float": "must be an integer",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
}


def plain(kind: str, message: str) -> str:
    """What is wrong, from pydantic's type of the error and its message."""
    text = message.removeprefix("Value error, ").replace("Input should be", "must be")
    return PLAIN.get(kind, text)


def mistakes(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """One line for each mistake: its key, what is wrong, and the nearest known key. No line contains a value."""
    lines = []
    for item in error.errors(include_input=False, include_url=False):
        place = [str(part) for part in item["loc"] if not MEMBER_OF_UNION.match(str(part))]
        text = plain(item["type"], item["msg"])
        if item["type"] == "extra_forbidden" and (near := _nearest(place, model)):
            text = f"is not a known key: did you mean '{near}'?"
        lines.append(f"{'.'.join(place)}: {text}" if place else text)
    return lines


def _nearest(place: Sequence[str], model: type[BaseModel]) -> str | None:
    """The known key that is nearest to the last key of a place."""
    found: type[BaseModel] | None = model
    for key in place[:-1]:
        # The keys of a dict are no fields: its values have the model.
        if found is not None and key in found.model_fields:
            found = _model_in(found.model_fields[key].annotation)
    known = [] if found is None else [field.alias or name for name, field in found.model_fields.items()]
    return next(iter(difflib.get_close_matches(place[-1], known, n=1)), None)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for inner in get_args(annotation) if (model := _model_in(inner))), None)
