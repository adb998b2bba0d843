"""Request validation with a strict pydantic model built from the contract, and conversion of rows to model inputs.

A request is ``{"customers": [{…}, …]}``. JSON types are checked strictly: ``"5"`` is not a number and ``true`` is not 1, but
``5.0`` is accepted as a whole number. A value is missing if it is ``null``, blank text, or left out. Features are required.
Other columns of the contract are optional but validated. The target is not allowed. The last value of a repeated key counts.

The rules are those of batch validation (`churn_pipeline.contract.schema`), and the same row gives the same model inputs.
"""

import math
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal, NotRequired

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, ConfigDict, FailFast, Field, TypeAdapter, ValidationError, WithJsonSchema
from typing_extensions import TypedDict

from churn_pipeline.contract.table import Column, Contract, Lengths

Row = Mapping[str, Any]
MAX_REPORTED_PROBLEMS = 100
# Above this many errors, only those of the first invalid customer are reported: formatting a hundred thousand errors would
# block the worker.
MAX_ERRORS = 1_000
# Same limit as in the fitted model (`modelling.preprocessing.round_to_float32`).
NUMBER_LIMIT = float(np.float32(1e30))
INT64 = 2**63
MIN_YEAR, MAX_YEAR = 1678, 2261  # the full years of datetime64[ns]
# A date, optionally with a time. Batch data may also have a year or a month, read as its first day; requests may not.
DATE = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?(Z|[+-][0-9]{2}:?[0-9]{2})?)?"
)
NOT_BLANK = r"[^\s\x1c-\x1f]"  # a character that str.strip does not remove
MESSAGE = "The request violates the contract."
REQUIRED, UNKNOWN, MALFORMED = "required", "not in the contract", "a value that the OpenAPI document allows"
JSON_TYPES = {"str": "string", "int64": "integer", "float64": "number", "bool": "boolean", "datetime64[ns]": "string"}
TYPE_RULES = {
    "str": "text",
    "int64": "a whole number",
    "float64": "a number",
    "bool": "true or false",
    "datetime64[ns]": "a date in ISO 8601",
}


@dataclass(frozen=True)
class Problem:
    """A violated rule. The value itself is never reported.

    Attributes
    ----------
    row
        Index of the customer in the request, from 0; None if the problem is in the request itself.
    field
        The column; None if the problem is in the whole customer or request.
    rule
        The rule, in words that do not contain any text of the request.
    """

    row: int | None
    field: str | None
    rule: str


class RequestError(ValueError):
    """An invalid request.

    Attributes
    ----------
    status
        400 if it is not JSON, 413 if it has too many customers, 422 if it violates rules.
    problems
        The first violated rules.
    count
        Total number of violated rules; above `MAX_ERRORS`, the number of pydantic errors.
    """

    def __init__(self, status: int, message: str, problems: Sequence[Problem] = (), count: int = 0) -> None:
        self.status = status
        self.problems = tuple(problems)
        self.count = count
        super().__init__(message)


class RequestParser:
    """Parses and validates requests under one contract.

    Parameters
    ----------
    contract
        The contract of the served model.
    numeric, categorical
        The model's columns, in the order of its inputs.
    max_rows
        Maximum number of customers per request.
    **more
        Types of further request fields, by name.

    Examples
    --------
    >>> parser = RequestParser(contract, bundle.numeric, bundle.categorical, max_rows=100)  # doctest: +SKIP
    >>> rows = parser.read(b'{"customers": [{"tenure": 3}]}')["customers"]  # doctest: +SKIP
    """

    def __init__(
        self, contract: Contract, numeric: Sequence[str], categorical: Sequence[str], max_rows: int, **more: Any
    ) -> None:
        self._contract = contract
        self._numeric = [(name, contract.columns[name].default) for name in numeric]
        self._categorical = [
            (name, _needs_no_conversion(contract.columns[name]), _as_level(contract.columns[name].default))
            for name in categorical
        ]
        self._max_rows = max_rows
        # Each value has one colon before it; a date has more.
        self._max_colons = 2 * len(contract.columns)
        self._model = TypeAdapter(_request_type(contract, max_rows, more))
        self._fail_fast_model = TypeAdapter(_request_type(contract, max_rows, more, fail_fast=True))
        self.schema: dict[str, Any] = self._model.json_schema()

    def read(self, body: bytes) -> dict[str, Any]:
        """Parse and validate a request body.

        Returns
        -------
        dict
            ``customers``, a list of dicts, and any other request fields.

        Raises
        ------
        RequestError
            If the body is not JSON, has too many customers or violates the contract.
        """
        self._check_size(body)
        try:
            request: dict[str, Any] = self._model.validate_json(body)
        except ValidationError as error:
            raise self._refusal(error, body) from None
        return request

    def inputs(self, rows: Sequence[Row]) -> tuple[npt.NDArray[np.float32] | None, npt.NDArray[np.object_] | None]:
        """Convert parsed rows to inputs of the ONNX model.

        Returns
        -------
        numeric : ndarray of shape (rows, N), float32, or None
            NaN for missing; None if the model has no numeric feature.
        categorical : ndarray of shape (rows, C), object (str), or None
            ``''`` for missing; None if the model has no categorical feature.
        """
        numbers = levels = None
        if self._numeric:
            columns = [_numbers(_column(rows, name), default) for name, default in self._numeric]
            limited = np.clip(np.array(columns, dtype=np.float64).T, -NUMBER_LIMIT, NUMBER_LIMIT)
            numbers = limited.astype(np.float32, order="C")
        if self._categorical:
            texts = [
                column if converted else [_level(value, default) for value in column]
                for column, converted, default in (
                    (_column(rows, name), converted, default) for name, converted, default in self._categorical
                )
            ]
            levels = np.array(texts, dtype=object).T
        return numbers, levels

    def numbers(self, rows: Sequence[Row], name: str) -> list[float | None]:
        """A numeric column of parsed rows, with its default for missing values; without a default, None."""
        return _numbers(_column(rows, name), self._contract.columns[name].default)

    def _check_size(self, body: bytes) -> None:
        """Reject a body with far more fields than the contract before parsing: pydantic would create one error per field.

        The number of fields is estimated by counting colons. Text values may contain colons, but rarely a thousand.
        """
        if (colons := body.count(b":")) > MAX_ERRORS:
            if colons > self._max_colons * self._max_rows:
                raise self._too_many_customers()
            if colons > self._max_colons * body.count(b"{"):
                raise RequestError(422, MESSAGE, [Problem(None, None, UNKNOWN)], 1)

    def _too_many_customers(self) -> RequestError:
        return RequestError(413, f"The request has too many customers: at most {self._max_rows:,} are accepted.")

    def _refusal(self, error: ValidationError, body: bytes) -> RequestError:
        if (count := error.error_count()) > MAX_ERRORS:
            error = self._first_invalid(body)
            if error.error_count() > MAX_ERRORS:  # only unknown columns can be this many
                return RequestError(422, MESSAGE, [Problem(None, None, UNKNOWN)], count)
        else:
            count = 0
        details = error.errors(include_url=False)
        kind = details[0]["type"]
        if kind == "json_invalid":
            return RequestError(400, "The body is not valid JSON.")
        if kind == "too_long":
            return self._too_many_customers()
        # A violated union type gives one error per branch; report it once.
        problems = dict.fromkeys(self._problem(detail) for detail in details)
        return RequestError(422, MESSAGE, list(problems)[:MAX_REPORTED_PROBLEMS], max(count, len(problems)))

    def _first_invalid(self, body: bytes) -> ValidationError:
        """Errors of the first invalid customer."""
        try:
            self._fail_fast_model.validate_json(body)
        except ValidationError as error:
            return error
        raise AssertionError("the full model rejected the request, but the fail-fast model accepted it")

    def _problem(self, detail: Any) -> Problem:
        place, kind = detail["loc"], detail["type"]
        if not place or place[0] != "customers":
            field = None if kind == "extra_forbidden" or not place else str(place[0])
            return Problem(None, field, UNKNOWN if kind == "extra_forbidden" else MALFORMED)
        if len(place) == 1:
            rule = REQUIRED if kind == "missing" else "a list of at least one customer"
            return Problem(None, "customers", rule)
        row = place[1]
        if len(place) == 2:
            return Problem(row, None, "an object of columns")
        name = str(place[2])
        column = self._contract.columns.get(name)
        if kind == "extra_forbidden" or column is None:
            # Do not repeat the name: it is the caller's text.
            return Problem(row, name if column is not None else None, UNKNOWN)
        if kind == "missing" or _is_missing(detail.get("input")):
            return Problem(row, name, REQUIRED)
        return Problem(row, name, rule_of(column))


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _column(rows: Sequence[Row], name: str) -> list[Any]:
    return [row.get(name) for row in rows]


def _numbers(column: list[Any], default: Any) -> list[Any]:
    """Fill missing numbers with the default; without one, None stays and numpy converts it to NaN."""
    return column if default is None else [default if value is None else value for value in column]


def _needs_no_conversion(column: Column) -> bool:
    """Whether accepted values go to the model unchanged: levels as text, never missing."""
    return column.dtype == "str" and column.isin is not None and not column.nullable and column.default is None


def _level(value: Any, default: str) -> str:
    if isinstance(value, str):
        return value if value and not value.isspace() else default
    return default if value is None else _as_level(value)


def _as_level(value: Any) -> str:
    """Convert a level to the text used in batch model inputs."""
    if isinstance(value, float):
        value = int(value)
    return "" if value is None else str(value)


def rule_of(column: Column) -> str:
    """All rules of a column, in one sentence."""
    if column.isin is not None:
        shown = ", ".join(map(str, column.isin[:20]))
        return f"one of {shown}{', …' if len(column.isin) > 20 else ''}"
    rules = [TYPE_RULES[column.dtype]]
    if column.in_range is not None:
        bounds = column.in_range
        rules.append(
            f"{'from' if bounds.include_min else 'above'} {_shown(bounds.min_value)} "
            f"{'to' if bounds.include_max else 'to below'} {_shown(bounds.max_value)}"
        )
    for words, bound in (
        ("above", column.greater_than),
        ("at least", column.greater_than_or_equal_to),
        ("below", column.less_than),
        ("at most", column.less_than_or_equal_to),
    ):
        if bound is not None:
            rules.append(f"{words} {_shown(bound)}")
    if column.str_matches is not None:
        rules.append(f"matching {column.str_matches}")
    if column.str_length is not None:
        rules.append(_length_rule(column.str_length))
    return ", ".join(rules)


def _length_rule(lengths: Lengths) -> str:
    if lengths.min_value is None:
        return f"at most {lengths.max_value} characters"
    if lengths.max_value is None:
        return f"at least {lengths.min_value} characters"
    return f"{lengths.min_value} to {lengths.max_value} characters"


def _shown(bound: float) -> str:
    """A bound with all its digits, as text."""
    return str(int(bound)) if math.isfinite(bound) and bound == int(bound) else repr(bound)


# ---- the request model -------------------------------------------------------------------------------------------------


def _request_type(contract: Contract, max_rows: int, more: Mapping[str, Any], fail_fast: bool = False) -> Any:
    target = contract.roles.target.column
    # Any, because a type checker cannot follow types that are built at run time.
    annotated: Any = Annotated
    make: Any = TypedDict
    fields: dict[str, Any] = {}
    for name, column in contract.columns.items():
        if name == target:
            continue
        optional = may_be_missing(contract, name)
        kind = annotated[_value_type(column, optional), WithJsonSchema(_json_schema(column, optional))]
        fields[name] = NotRequired[kind] if optional else kind
    customer: Any = make("Customer", fields)
    customers = annotated[list[customer], Field(min_length=1, max_length=max_rows), FailFast(fail_fast)]
    request = make("Request", {"customers": customers, **more})
    for made in (customer, request):
        made.__pydantic_config__ = ConfigDict(extra="forbid", strict=True)
    return request


def _value_type(column: Column, may_be_missing: bool) -> Any:
    """Value type of a column: pydantic's fast path accepts clear cases, and `check` decides the others."""

    def check(value: Any) -> Any:
        if _is_missing(value) and may_be_missing:
            return None
        if not is_valid(column, value):
            raise ValueError
        return value

    slow = Annotated[Any, AfterValidator(check)]
    quick = _quick_type(column)
    if quick is not None and not may_be_missing and column.dtype != "int64":
        return quick  # it accepts all valid values; only integers have another valid form, such as 5.0
    return slow if quick is None else Annotated[quick | slow, Field(union_mode="left_to_right")]


def _quick_type(column: Column) -> Any:
    """A pydantic type that accepts no invalid value and nearly all valid ones; None if there is none."""
    if column.isin is not None:
        # Not for numbers: Literal[1] accepts true. Blank levels never match, because blank text is missing.
        levels = tuple(level for level in column.isin if not _is_missing(level))
        return Literal[levels] if column.dtype == "str" and levels else None
    if column.dtype in ("int64", "float64"):
        whole = column.dtype == "int64"
        bounds: Any = _whole_bounds(_bounds(column)) if whole else {**_bounds(column), "allow_inf_nan": False}
        kind: Any = int if whole else float
        return Annotated[kind, Field(**bounds)]
    if column.dtype == "bool":
        return bool
    if column.dtype == "str" and column.str_matches is None and column.str_length is None:
        return Annotated[str, Field(pattern=NOT_BLANK)]
    return None


def _bounds(column: Column) -> dict[str, float]:
    """Bounds of a numeric column under pydantic's names; if two bounds of one kind exist, the stricter one."""
    found: dict[str, list[float]] = {"gt": [], "ge": [], "lt": [], "le": []}
    if (span := column.in_range) is not None:
        found["ge" if span.include_min else "gt"].append(span.min_value)
        found["le" if span.include_max else "lt"].append(span.max_value)
    for name, bound in (
        ("gt", column.greater_than),
        ("ge", column.greater_than_or_equal_to),
        ("lt", column.less_than),
        ("le", column.less_than_or_equal_to),
    ):
        if bound is not None:
            found[name].append(bound)
    return {name: (max if name[0] == "g" else min)(values) for name, values in found.items() if values}


def _whole_bounds(bounds: Mapping[str, float]) -> dict[str, int]:
    """The same bounds as 64-bit integers, for pydantic's int fields."""
    lows, highs = [-INT64], [INT64 - 1]
    for name, bound in bounds.items():
        limited = max(-INT64 - 1, min(INT64, bound))  # infinity too
        if name in ("gt", "ge"):
            lows.append(math.floor(limited) + 1 if name == "gt" else math.ceil(limited))
        else:
            highs.append(math.ceil(limited) - 1 if name == "lt" else math.floor(limited))
    return {"ge": max(lows), "le": min(highs)}


def is_valid(column: Column, value: Any) -> bool:
    """Whether a JSON value satisfies every rule of its column. Missing values never do.

    Parameters
    ----------
    column
        The column's part of the contract.
    value
        None, a bool, an int, a float or a str.
    """
    if column.dtype == "bool":
        return isinstance(value, bool)
    if column.dtype in ("int64", "float64"):
        return _is_number(column, value) and (column.isin is None or value in column.isin)
    if not isinstance(value, str) or _is_missing(value):
        return False
    if column.dtype == "datetime64[ns]":
        return _is_date(value)
    lengths = column.str_length
    return (
        (column.isin is None or value in column.isin)
        and (column.str_matches is None or re.match(column.str_matches, value) is not None)
        and (
            lengths is None
            or (lengths.min_value or 0) <= len(value) <= (math.inf if lengths.max_value is None else lengths.max_value)
        )
    )


def may_be_missing(contract: Contract, name: str) -> bool:
    """Whether a request may leave a column out: it is nullable, has a valid default or is not a feature."""
    column = contract.columns[name]
    return name not in contract.features or column.nullable or is_valid(column, column.default)


def _is_number(column: Column, value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if column.dtype == "int64":
        whole = -INT64 <= value < INT64 and (isinstance(value, int) or value.is_integer())
        if not whole:
            return False
    elif not _is_finite(value):
        return False
    compare = {"gt": operator.gt, "ge": operator.ge, "lt": operator.lt, "le": operator.le}
    return all(compare[name](value, bound) for name, bound in _bounds(column).items())


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(float(value))
    except OverflowError:  # an integer too large for a float
        return False


def _is_date(value: str) -> bool:
    if not DATE.fullmatch(value.strip()):
        return False
    try:
        return MIN_YEAR <= datetime.fromisoformat(value.strip()).year <= MAX_YEAR
    except ValueError:
        return False


def _json_schema(column: Column, may_be_missing: bool) -> dict[str, Any]:
    """Convert the rules of a column to JSON Schema."""
    kind = JSON_TYPES[column.dtype]
    found: dict[str, Any] = {"type": [kind, "null"] if may_be_missing else kind}
    if column.description:
        found["description"] = column.description
    if column.isin is not None:
        found["enum"] = [*column.isin, *([None] if may_be_missing else [])]
        return found
    names = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}
    if column.dtype in ("int64", "float64"):
        found |= {names[name]: bound for name, bound in _bounds(column).items() if math.isfinite(bound)}
    if column.dtype == "str":
        found |= {"minLength": 1} if not may_be_missing else {}
        if (lengths := column.str_length) is not None:
            found |= {"minLength": lengths.min_value} if lengths.min_value else {}
            found |= {"maxLength": lengths.max_value} if lengths.max_value else {}
        if column.str_matches is not None:
            # The contract's patterns match at the start of the text, JSON Schema's anywhere.
            found["pattern"] = f"^(?:{column.str_matches})"
    if column.dtype == "datetime64[ns]":
        found["format"] = "date-time"
    return found
