"""The rule of a column, derived from the contract: validation, error messages, JSON Schema and form fields all read it.

The rules are those of batch validation (`churn_pipeline.contract.schema`).
"""

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Annotated, Any, Literal

from msgspec import Meta

from churn_pipeline.contract.table import Column, Contract

INT64 = 2**63
MIN_YEAR, MAX_YEAR = 1678, 2261  # the full years of datetime64[ns]
# A date, optionally with a time. Batch data may also have a year or a month, read as its first day; requests may not.
DATE = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?(Z|[+-][0-9]{2}:?[0-9]{2})?)?"
)
SHOWN_LEVELS = 20
MAX_PATTERN_TEXT = 1_000  # longer text is left to `is_valid`: a search for a character in 16 MB of blanks takes 0.1 s
JSON_TYPES = {"str": "string", "int64": "integer", "float64": "number", "bool": "boolean", "datetime64[ns]": "string"}
TYPE_WORDS = {
    "str": "text",
    "int64": "a whole number",
    "float64": "a number",
    "bool": "true or false",
    "datetime64[ns]": "a date in ISO 8601",
}
CHECKS = {"gt": "greater_than", "ge": "greater_than_or_equal_to", "lt": "less_than", "le": "less_than_or_equal_to"}
COMPARE = {"gt": operator.gt, "ge": operator.ge, "lt": operator.lt, "le": operator.le}
BOUND_WORDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
BOUND_KEYWORDS = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}
NO_BOUND = {"g": -math.inf, "l": math.inf}
YES_NO = ((True, "yes"), (False, "no"))


def is_missing(value: Any) -> bool:
    """Whether a JSON value counts as missing: ``null`` or blank text."""
    return value is None or (isinstance(value, str) and (not value or value.isspace()))


@dataclass(frozen=True)
class ColumnRule:
    """The rule of one column.

    Attributes
    ----------
    column
        The column's part of the contract.
    may_be_missing
        Whether a request may leave the column out.
    """

    column: Column
    may_be_missing: bool = False

    def is_valid(self, value: Any) -> bool:
        """Whether a JSON value satisfies the rule. Missing values never do.

        Parameters
        ----------
        value
            None, a bool, an int, a float, a str, or a list or dict, which no column allows.
        """
        column = self.column
        if column.dtype == "bool":
            return isinstance(value, bool)
        if self.is_number:
            return self._is_valid_number(value) and (column.isin is None or value in column.isin)
        if not isinstance(value, str) or is_missing(value):
            return False
        if column.dtype == "datetime64[ns]":
            return _is_date(value.strip())
        shortest, longest = self._lengths
        return (
            (column.isin is None or value in column.isin)
            and (shortest or 0) <= len(value) <= (math.inf if longest is None else longest)
            and (column.str_matches is None or re.match(column.str_matches, value) is not None)
        )

    @property
    def is_number(self) -> bool:
        """Whether the values are numbers."""
        return self.column.dtype in ("int64", "float64")

    @cached_property
    def words(self) -> str:
        """The rule in one sentence, without any text of a request."""
        column = self.column
        if column.isin is not None:
            more = ", …" if len(column.isin) > SHOWN_LEVELS else ""
            return f"one of {', '.join(map(str, column.isin[:SHOWN_LEVELS]))}{more}"
        rules = [TYPE_WORDS[column.dtype]]
        if (span := column.in_range) is not None:
            low, high = "from" if span.include_min else "above", "to" if span.include_max else "to below"
            rules.append(f"{low} {_shown(span.min_value)} {high} {_shown(span.max_value)}")
        rules += [f"{BOUND_WORDS[name]} {_shown(bound)}" for name, bound in self._single_bounds.items()]
        if column.str_matches is not None:
            rules.append(f"matching {column.str_matches}")
        if column.str_length is not None:
            rules.append(_length_words(*self._lengths))
        return ", ".join(rules)

    @cached_property
    def json_schema(self) -> dict[str, Any]:
        """The rule as JSON Schema."""
        column, optional = self.column, self.may_be_missing
        kind = JSON_TYPES[column.dtype]
        schema: dict[str, Any] = {"type": [kind, "null"] if optional else kind}
        if column.description:
            schema["description"] = column.description
        if column.isin is not None:
            return {**schema, "enum": [*column.isin, *([None] if optional else [])]}
        finite = {name: bound for name, bound in self.bounds.items() if math.isfinite(bound)}
        schema |= {BOUND_KEYWORDS[name]: bound for name, bound in finite.items()}
        if column.dtype == "str":
            shortest, longest = self._lengths
            shortest = shortest or (None if optional else 1)
            schema |= {"minLength": shortest} if shortest else {}
            schema |= {"maxLength": longest} if longest else {}
        if column.str_matches is not None:
            # The contract's patterns match at the start of the text, JSON Schema's anywhere.
            schema["pattern"] = f"^(?:{column.str_matches})"
        if column.dtype == "datetime64[ns]":
            schema["format"] = "date-time"
        return schema

    @property
    def decoded_type(self) -> Any:
        """The type that msgspec decodes values to, and refuses nearly all invalid ones by.

        It refuses some valid values too, such as blank text for a missing number: `is_valid` decides about what it refuses.
        """
        kind = self._strict_type or {"int64": int, "float64": float, "bool": bool}.get(self.column.dtype, str)
        if self.column.dtype == "int64":
            kind = kind | float
        return kind | None if self.may_be_missing else kind

    @property
    def check(self) -> Callable[[Any], bool] | None:
        """What decoded values must still satisfy unless they are None; None if the decoded type accepts no invalid value."""
        if self._strict_type is None:
            return self.is_valid
        return self._is_int_or_valid if self.column.dtype == "int64" else None

    @property
    def input_kind(self) -> Literal["choice", "number", "text"]:
        """The kind of form field."""
        if self.choices:
            return "choice"
        return "number" if self.is_number else "text"

    @property
    def choices(self) -> tuple[tuple[str | int | bool, str], ...]:
        """Values to choose from, with their labels; empty for a number or text."""
        if self.column.dtype == "bool":
            return YES_NO
        return tuple((level, str(level)) for level in self.column.isin or ())

    @property
    def input_limits(self) -> dict[str, Any]:
        """HTML attributes of a number's field. HTML has no exclusive bounds, but the service checks them."""
        if self.input_kind != "number":
            return {}
        low = max((bound for name, bound in self.bounds.items() if name in ("gt", "ge")), default=None)
        high = min((bound for name, bound in self.bounds.items() if name in ("lt", "le")), default=None)
        limits = {"min": low, "max": high, "step": 1 if self.column.dtype == "int64" else "any"}
        return {name: value for name, value in limits.items() if value is not None}

    @cached_property
    def bounds(self) -> Mapping[str, float]:
        """Bounds of a number as ``gt``, ``ge``, ``lt`` and ``le``; the stricter one if there are two of a kind."""
        bounds = dict(self._single_bounds)
        if (span := self.column.in_range) is not None:
            low, high = "ge" if span.include_min else "gt", "le" if span.include_max else "lt"
            bounds[low] = max(span.min_value, bounds.get(low, span.min_value))
            bounds[high] = min(span.max_value, bounds.get(high, span.max_value))
        return bounds

    @property
    def _single_bounds(self) -> dict[str, float]:
        bounds = {name: getattr(self.column, check) for name, check in CHECKS.items()}
        return {name: bound for name, bound in bounds.items() if bound is not None}

    @property
    def _lengths(self) -> tuple[int | None, int | None]:
        lengths = self.column.str_length
        return (None, None) if lengths is None else (lengths.min_value, lengths.max_value)

    def _is_valid_number(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
            return False
        if self.column.dtype == "int64" and not (-INT64 <= value < INT64 and value == int(value)):
            return False
        for name, bound in self.bounds.items():  # noqa: SIM110 - `all` takes twice as long
            if not COMPARE[name](value, bound):
                return False
        return True

    def _is_int_or_valid(self, value: Any) -> bool:
        return type(value) is int or self.is_valid(value)

    @cached_property
    def _strict_type(self) -> Any:
        """A type that accepts no invalid value and no float for a whole number; None if msgspec cannot express one."""
        column = self.column
        if column.isin is not None:
            levels = tuple(level for level in column.isin if not is_missing(level))  # a blank level is never sent
            fits = levels and all(isinstance(level, str) or -INT64 <= level < INT64 for level in levels)
            return Literal[levels] if fits else None
        if column.dtype == "bool":
            return bool
        if column.dtype == "int64":
            low, high = _whole_bounds(self.bounds)
            return Annotated[int, Meta(ge=low, le=high)] if -INT64 <= low <= high < INT64 else None
        if column.dtype == "float64":
            bounds: Any = {name: bound for name, bound in self.bounds.items() if bound != NO_BOUND[name[0]]}
            exact = len(bounds) == len({name[0] for name in bounds}) and all(map(_is_exact, bounds.values()))
            return Annotated[float, Meta(**bounds)] if exact else None
        if column.dtype == "str":
            pattern = r"\S" if column.str_matches is None else rf"\A(?=\s*\S)(?:{column.str_matches})"
            shortest, longest = self._lengths
            longest = MAX_PATTERN_TEXT if longest is None else min(longest, MAX_PATTERN_TEXT)
            limits: Any = {"pattern": pattern, "min_length": shortest, "max_length": longest}
            return Annotated[str, Meta(**limits)] if _is_pattern(pattern) else None
        return None


def column_rules(contract: Contract) -> dict[str, ColumnRule]:
    """The rules of all columns that a request may have: every column of the contract except the target.

    A feature may be missing if it is nullable or has a valid default; every other column may be missing.
    """
    features = set(contract.features)
    return {
        name: ColumnRule(column, name not in features or column.nullable or ColumnRule(column).is_valid(column.default))
        for name, column in contract.columns.items()
        if name != contract.roles.target.column
    }


def _whole_bounds(bounds: Mapping[str, float]) -> tuple[int, int]:
    """The smallest and the largest 64-bit integer within bounds; beyond 64 bits if there is none."""
    lows, highs = [-INT64], [INT64 - 1]
    for name, bound in bounds.items():
        limited = max(-INT64 - 1, min(INT64, bound))  # infinity too
        if name in ("gt", "ge"):
            lows.append(math.floor(limited) + 1 if name == "gt" else math.ceil(limited))
        else:
            highs.append(math.ceil(limited) - 1 if name == "lt" else math.floor(limited))
    return max(lows), min(highs)


def _is_exact(bound: float) -> bool:
    """Whether a bound is finite and equal to a float; msgspec would round it otherwise."""
    return _is_finite(bound) and float(bound) == bound


def _is_pattern(pattern: str) -> bool:
    """Whether a contract's pattern is still one inside another: global flags, such as ``(?i)``, must come first."""
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer too large for a float
        return False


def _is_date(text: str) -> bool:
    try:
        return DATE.fullmatch(text) is not None and MIN_YEAR <= datetime.fromisoformat(text).year <= MAX_YEAR
    except ValueError:
        return False


def _length_words(shortest: int | None, longest: int | None) -> str:
    if shortest is None:
        return f"at most {longest} characters"
    return f"at least {shortest} characters" if longest is None else f"{shortest} to {longest} characters"


def _shown(bound: float) -> str:
    """A bound with all its digits, as text."""
    return str(int(bound)) if math.isfinite(bound) and bound == int(bound) else repr(bound)
