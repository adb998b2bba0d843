"""What a request may hold: a strict model made from the contract, and from its rows what the ONNX model takes.

A request is ``{"customers": [{…}, …]}``. In a customer, JSON's types are meant: ``"5"`` is no number and ``true`` is no 1; a
whole number may be written ``5.0``. ``null``, text that is nothing but blanks, and a column that is left out all mean that the
value is missing. Only features have to be there; the contract's other columns may be, and are held to their rules; the target
may not, since it is what is asked for. Where a key is there twice, the last one counts.

What is accepted is what a batch accepts (`churn_pipeline.contract.schema`), and gives the model the same inputs.
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

from churn_pipeline.contract.table import Column, Contract

Row = Mapping[str, Any]
PROBLEMS = 100
# Where more rules are broken, those of the first customer alone are told: nobody else is answered while pydantic lays a
# hundred thousand errors out.
MANY = 1_000
# As the fitted model rounds and limits (`modelling.preprocessing.round_to_float32`).
NUMBER_LIMIT = float(np.float32(1e30))
INT64 = 2**63
LEAST_YEAR, LAST_YEAR = 1678, 2261  # what a date of nanoseconds can hold
# A whole day or a moment. A batch also takes a year or a month for its first day; a customer has a day.
DATE = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?(Z|[+-][0-9]{2}:?[0-9]{2})?)?"
)
NOT_BLANK = r"[^\s\x1c-\x1f]"  # what Python's strip leaves
MESSAGE = "The request breaks rules of the contract."
REQUIRED, UNKNOWN, MALFORMED = "required", "not in the contract", "of another form"
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
    """A rule that a request breaks; of the value nothing is told.

    Attributes
    ----------
    row
        The customer's place in the request, from 0; None where the request as a whole is meant.
    field
        The column; None where a customer, or the request, as a whole is meant.
    rule
        The rule, in words that do not depend on the request.
    """

    row: int | None
    field: str | None
    rule: str


class RequestError(ValueError):
    """A request that is not answered.

    Attributes
    ----------
    status
        400 where it is no JSON, 413 where it has too many customers, 422 where it breaks rules.
    problems
        The first rules that it breaks.
    count
        How many there are in all; of very many, how many pydantic found.
    """

    def __init__(self, status: int, message: str, problems: Sequence[Problem] = (), count: int = 0) -> None:
        self.status = status
        self.problems = tuple(problems)
        self.count = count
        super().__init__(message)


class Requests:
    """The requests of one contract.

    Parameters
    ----------
    contract
        The contract of the served model.
    numeric, categorical
        The model's columns, in its order.
    max_rows
        Customers in a request.

    Examples
    --------
    >>> requests = Requests(contract, bundle.numeric, bundle.categorical, max_rows=100)  # doctest: +SKIP
    >>> rows = requests.read(b'{"customers": [{"tenure": 3}]}')["customers"]  # doctest: +SKIP
    """

    def __init__(
        self, contract: Contract, numeric: Sequence[str], categorical: Sequence[str], max_rows: int, **more: Any
    ) -> None:
        self._contract = contract
        self._numeric = [(name, contract.columns[name].default) for name in numeric]
        self._categorical = [
            (name, _is_certain(contract.columns[name]), _as_level(contract.columns[name].default))
            for name in categorical
        ]
        self._max_rows = max_rows
        # A value has one colon before it, and a date some more in it.
        self._max_colons = 2 * len(contract.columns)
        self._model = TypeAdapter(_request_type(contract, max_rows, more))
        self._until_broken = TypeAdapter(_request_type(contract, max_rows, more, fail_fast=True))
        self.schema: dict[str, Any] = self._model.json_schema()

    def read(self, body: bytes) -> dict[str, Any]:
        """Read a request's body.

        Returns
        -------
        dict
            ``customers``, a list of rows by column, and what else was asked.

        Raises
        ------
        RequestError
            When it is not JSON, too long, or breaks the contract.
        """
        self._refuse_a_flood(body)
        try:
            request: dict[str, Any] = self._model.validate_json(body)
        except ValidationError as error:
            raise self._refusal(error, body) from None
        return request

    def inputs(self, rows: Sequence[Row]) -> tuple[npt.NDArray[np.float32] | None, npt.NDArray[np.object_] | None]:
        """What the ONNX model takes for rows that were read.

        Returns
        -------
        numeric : ndarray of shape (rows, N), float32, or None
            NaN where missing; None, if the model takes no numbers.
        categorical : ndarray of shape (rows, C), object (str), or None
            ``''`` where missing; None, if the model takes no levels.
        """
        numbers = levels = None
        if self._numeric:
            columns = [_numbers(_column(rows, name), default) for name, default in self._numeric]
            limited = np.clip(np.array(columns, dtype=np.float64).T, -NUMBER_LIMIT, NUMBER_LIMIT)
            numbers = limited.astype(np.float32, order="C")
        if self._categorical:
            texts = [
                column if certain else [_level(value, default) for value in column]
                for column, certain, default in (
                    (_column(rows, name), certain, default) for name, certain, default in self._categorical
                )
            ]
            levels = np.array(texts, dtype=object).T
        return numbers, levels

    def _refuse_a_flood(self, body: bytes) -> None:
        """Refuse unread what has far more columns than the contract: pydantic would make an error of each.

        A column has a colon; so has a text with colons, but not a thousand.
        """
        if (colons := body.count(b":")) > MANY:
            if colons > self._max_colons * self._max_rows:
                raise self._too_long()
            if colons > self._max_colons * body.count(b"{"):
                raise RequestError(422, MESSAGE, [Problem(None, None, UNKNOWN)], 1)

    def _too_long(self) -> RequestError:
        return RequestError(413, f"A request has {self._max_rows:,} customers at most.")

    def _refusal(self, error: ValidationError, body: bytes) -> RequestError:
        if (count := error.error_count()) > MANY:
            error = self._first_broken(body)
            if error.error_count() > MANY:  # which known columns do not come to
                return RequestError(422, MESSAGE, [Problem(None, None, UNKNOWN)], count)
        else:
            count = 0
        found = error.errors(include_url=False)
        kind = found[0]["type"]
        if kind == "json_invalid":
            return RequestError(400, "The body is no JSON.")
        if kind == "too_long":
            return self._too_long()
        # A rule that has several branches is broken once.
        problems = dict.fromkeys(self._problem(detail) for detail in found)
        return RequestError(422, MESSAGE, list(problems)[:PROBLEMS], max(count, len(problems)))

    def _first_broken(self, body: bytes) -> ValidationError:
        """What is wrong with the first customer that is not as it should be."""
        try:
            self._until_broken.validate_json(body)
        except ValidationError as error:
            return error
        raise AssertionError("a request that was refused is accepted")

    def _problem(self, detail: Any) -> Problem:
        place, kind = detail["loc"], detail["type"]
        if not place or place[0] != "customers":
            field = None if kind == "extra_forbidden" or not place else str(place[0])
            return Problem(None, field, UNKNOWN if kind == "extra_forbidden" else MALFORMED)
        if len(place) == 1:
            rule = REQUIRED if kind == "missing" else "a list of one customer or more"
            return Problem(None, "customers", rule)
        row = place[1]
        if len(place) == 2:
            return Problem(row, None, "an object of columns")
        name = str(place[2])
        column = self._contract.columns.get(name)
        if kind == "extra_forbidden" or column is None:
            # The name is the caller's own text, which may be anything.
            return Problem(row, name if column is not None else None, UNKNOWN)
        if kind == "missing" or _is_missing(detail.get("input")):
            return Problem(row, name, REQUIRED)
        return Problem(row, name, rule_of(column))


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _column(rows: Sequence[Row], name: str) -> list[Any]:
    return [row.get(name) for row in rows]


def _numbers(column: list[Any], default: Any) -> list[Any]:
    """A column of numbers with its default; None is left where there is none, which numpy takes for NaN."""
    return column if default is None else [default if value is None else value for value in column]


def _is_certain(column: Column) -> bool:
    """Whether every value that is accepted is a level as the model has it, with nothing missing."""
    return column.dtype == "str" and column.isin is not None and not column.nullable and column.default is None


def _level(value: Any, default: str) -> str:
    if isinstance(value, str):
        return value if value and not value.isspace() else default
    return default if value is None else _as_level(value)


def _as_level(value: Any) -> str:
    """A level as a batch's model inputs have it."""
    if isinstance(value, float):
        value = int(value)
    return "" if value is None else str(value)


def rule_of(column: Column) -> str:
    """Everything that the contract asks of a value, in one sentence."""
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
        rules.append(f"that matches {column.str_matches}")
    if column.str_length is not None:
        rules.append("of a length that the contract allows")
    return ", ".join(rules)


def _shown(bound: float) -> str:
    """A bound with all its digits."""
    return str(int(bound)) if math.isfinite(bound) and bound == int(bound) else repr(bound)


# ---- the model of a request -------------------------------------------------------------------------------------------


def _request_type(contract: Contract, max_rows: int, more: Mapping[str, Any], fail_fast: bool = False) -> Any:
    target = contract.roles.target.column
    # Any, since types that are known at run time alone are nothing that a type checker could follow.
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
    """The type of a column's values: what is plainly right is told by pydantic's own code, the rest is looked at here."""

    def check(value: Any) -> Any:
        if _is_missing(value) and may_be_missing:
            return None
        if not is_valid(column, value):
            raise ValueError
        return value

    slow = Annotated[Any, AfterValidator(check)]
    quick = _quick_type(column)
    if quick is not None and not may_be_missing and column.dtype != "int64":
        return quick  # there is nothing left to look at: only a whole number may be written in two ways
    return slow if quick is None else Annotated[quick | slow, Field(union_mode="left_to_right")]


def _quick_type(column: Column) -> Any:
    """A type of pydantic's that takes no value which breaks a rule, and nearly all that break none."""
    if column.isin is not None:
        # Among numbers pydantic takes true for 1. A level of blanks is never read: blanks are a missing value.
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
    """A numeric column's bounds, by the names that pydantic has for them; of two of a kind the narrower one."""
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
    """The same bounds in whole numbers of 64 bits, as pydantic has them for those."""
    least, most = [-INT64], [INT64 - 1]
    for name, bound in bounds.items():
        limited = max(-INT64 - 1, min(INT64, bound))  # infinity too
        if name in ("gt", "ge"):
            least.append(math.floor(limited) + 1 if name == "gt" else math.ceil(limited))
        else:
            most.append(math.ceil(limited) - 1 if name == "lt" else math.floor(limited))
    return {"ge": max(least), "le": min(most)}


def is_valid(column: Column, value: Any) -> bool:
    """Whether a value, as JSON has it, keeps every rule of its column. A missing one keeps none.

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
    """Whether a customer may lack a column: where missing is allowed or has a default, and wherever it is no feature."""
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
    except OverflowError:  # a whole number beyond all floats
        return False


def _is_date(value: str) -> bool:
    if not DATE.fullmatch(value.strip()):
        return False
    try:
        return LEAST_YEAR <= datetime.fromisoformat(value.strip()).year <= LAST_YEAR
    except ValueError:
        return False


def _json_schema(column: Column, may_be_missing: bool) -> dict[str, Any]:
    """A column's rules as JSON Schema has them."""
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
            # The contract's patterns hold from the first character, JSON Schema's anywhere.
            found["pattern"] = f"^(?:{column.str_matches})"
    if column.dtype == "datetime64[ns]":
        found["format"] = "date-time"
    return found
