"""Decoding and validation of requests, and conversion of rows to model inputs.

A request is ``{"customers": [{…}, …]}``. JSON types are checked strictly: ``"5"`` is not a number and ``true`` is not 1, but
``5.0`` is accepted as a whole number. A value is missing if it is ``null``, blank text, or left out. Features are required.
Other columns of the contract are optional but validated. The target is not allowed. The last value of a repeated key counts.

msgspec decodes and validates in one pass and stops at the first invalid value, without building what comes after it. What
it refuses is read a second time, column by column, up to a hundred problems. So no body costs much more than a valid one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import UNSET
from msgspec.structs import astuple
from pydantic_core import from_json

from churn_pipeline.contract.table import Contract
from churn_pipeline.serving.column_rules import column_rules, is_missing
from churn_pipeline.serving.refusal_codes import CODES
from churn_pipeline.serving.request_types import request_schema, request_type

Row = Mapping[str, Any]
Number = TypeVar("Number", np.float64, np.object_)
MAX_REPORTED_PROBLEMS = 100
# A body with this many JSON values is read again at most once, in about 30 ms, to list its problems.
MIN_VALUES = 150_000
# Same limit as in the fitted model (`modelling.preprocessing.round_to_float32`).
NUMBER_LIMIT = float(np.float32(1e30))
MESSAGE = "The request violates the contract."
REQUIRED, UNKNOWN, MALFORMED = "required", "not in the contract", "a value that the OpenAPI document allows"
NO_CUSTOMERS, NO_OBJECT = "a list of at least one customer", "an object of columns"


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
    code
        ``invalid_json``, ``too_many_customers`` or ``invalid_customer``.
    status
        The HTTP status of the code.
    problems
        The violated rules; validation stops at `MAX_REPORTED_PROBLEMS`.
    """

    def __init__(self, code: str, message: str, problems: Sequence[Problem] = ()) -> None:
        self.code = code
        self.status = CODES[code].status
        self.problems = tuple(problems)
        super().__init__(message)

    @property
    def count(self) -> int:
        """Number of reported problems."""
        return len(self.problems)


class RequestParser:
    """Decodes and validates requests under one contract.

    Parameters
    ----------
    contract
        The contract of the served model.
    numeric, categorical
        The model's columns, in the order of its inputs.
    max_rows
        Maximum number of customers per request.
    **options
        Types of optional request fields by name, as msgspec reads them.

    Attributes
    ----------
    schema : dict
        JSON Schema of a request.

    Examples
    --------
    >>> parser = RequestParser(contract, bundle.numeric, bundle.categorical, max_rows=100)  # doctest: +SKIP
    >>> rows = parser.read(b'{"customers": [{"tenure": 3}]}')["customers"]  # doctest: +SKIP
    """

    def __init__(
        self, contract: Contract, numeric: Sequence[str], categorical: Sequence[str], max_rows: int, **options: Any
    ) -> None:
        self._contract = contract
        self._rules = column_rules(contract)
        self._numeric, self._categorical = numeric, categorical
        self._number_defaults = [
            (place, contract.columns[name].default)
            for place, name in enumerate(numeric)
            if contract.columns[name].default is not None
        ]
        # Required text is a level already.
        self._level_defaults = [
            (place, _as_level(contract.columns[name].default))
            for place, name in enumerate(categorical)
            if self._rules[name].may_be_missing or contract.columns[name].dtype != "str"
        ]
        self._names = tuple(self._rules)
        self._checks = [
            (place, rule.check) for place, rule in enumerate(self._rules.values()) if rule.check is not None
        ]
        self._max_rows = max_rows
        # Commas and opening brackets of the largest request, doubled because text may contain some.
        self._max_values = max(MIN_VALUES, 2 * (max_rows + 1) * (len(self._rules) + 1))
        self._options = options
        kind = request_type(self._rules, max_rows, options)
        self._decoder = None if kind is None else msgspec.json.Decoder(kind)
        self.schema = request_schema(self._rules, max_rows, options)

    def read(self, body: bytes) -> dict[str, Any]:
        """Decode and validate a request body.

        Returns
        -------
        dict
            ``customers``, a list of dicts with every column except the target, None for missing; and the given options.

        Raises
        ------
        RequestError
            If the body is not JSON, has too many customers or violates the contract.
        """
        # Without this limit, a contract without required columns would let a body of 16 MB become five million customers.
        if self._decoder is None or body.count(b"{") > self._max_rows + 1:
            return self._read_again(body)
        try:
            request = self._decoder.decode(body)
        except ValueError:  # msgspec's errors, and text that is not UTF-8
            return self._read_again(body)
        rows = [astuple(customer) for customer in request.customers]
        if not all(row[place] is None or check(row[place]) for place, check in self._checks for row in rows):
            return self._read_again(body)
        found: dict[str, Any] = {"customers": [dict(zip(self._names, row, strict=True)) for row in rows]}
        for name in self._options:
            if (option := getattr(request, name)) is not UNSET:
                found[name] = option
        return found

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
            given = _table(rows, self._numeric, np.float64)  # None becomes NaN
            for place, number in self._number_defaults:
                given[np.isnan(given[:, place]), place] = number
            numbers = np.clip(given, -NUMBER_LIMIT, NUMBER_LIMIT).astype(np.float32)
        if self._categorical:
            levels = _table(rows, self._categorical, np.object_)
            for place, level in self._level_defaults:
                levels[:, place] = [level if value is None else _as_level(value) for value in levels[:, place]]
        return numbers, levels

    def numbers(self, rows: Sequence[Row], name: str) -> list[float | None]:
        """A numeric column of parsed rows, with its default for missing values; without a default, None."""
        default: Any = self._contract.columns[name].default
        return [default if row[name] is None else row[name] for row in rows]

    def _read_again(self, body: bytes) -> dict[str, Any]:
        """Read a request that msgspec refused: accept it if only msgspec's types refuse it, or else list its problems."""
        if sum(map(body.count, (b",", b"{", b"["))) > self._max_values:
            raise self._too_many_customers()
        try:
            request = from_json(body)
        except ValueError:
            raise RequestError("invalid_json", "The body is not valid JSON.") from None
        if not isinstance(request, dict):
            raise RequestError("invalid_customer", MESSAGE, [Problem(None, None, MALFORMED)])
        problems: list[Problem] = []
        options = self._read_options(request, problems)
        customers = self._read_customers(request, problems)
        if problems:
            raise RequestError("invalid_customer", MESSAGE, problems[:MAX_REPORTED_PROBLEMS])
        return {"customers": customers, **options}

    def _read_options(self, request: Row, problems: list[Problem]) -> dict[str, Any]:
        options = {}
        for name in request.keys() & self._options.keys():
            try:
                options[name] = msgspec.convert(request[name], self._options[name])
            except msgspec.ValidationError:
                problems.append(Problem(None, name, MALFORMED))
        if not request.keys() <= {"customers", *self._options}:
            problems.append(Problem(None, None, UNKNOWN))
        return options

    def _read_customers(self, request: Row, problems: list[Problem]) -> list[Row]:
        customers = request.get("customers")
        if not isinstance(customers, list) or not customers:
            problems.append(Problem(None, "customers", NO_CUSTOMERS if "customers" in request else REQUIRED))
            return []
        if len(customers) > self._max_rows:
            raise self._too_many_customers()
        rows = []
        for number, customer in enumerate(customers):
            if len(problems) >= MAX_REPORTED_PROBLEMS:
                break
            if isinstance(customer, dict):
                rows.append(self._read_customer(number, customer, problems))
            else:
                problems.append(Problem(number, None, NO_OBJECT))
        return rows

    def _read_customer(self, number: int, customer: Row, problems: list[Problem]) -> Row:
        row: dict[str, Any] = dict.fromkeys(self._names)
        for name, rule in self._rules.items():
            value = customer.get(name)
            if is_missing(value):
                if not rule.may_be_missing:
                    problems.append(Problem(number, name, REQUIRED))
            elif rule.is_valid(value):
                row[name] = value
            else:
                problems.append(Problem(number, name, rule.words))
        if not customer.keys() <= row.keys():
            target = self._contract.roles.target.column
            if target in customer:
                problems.append(Problem(number, target, UNKNOWN))
            if any(name not in row and name != target for name in customer):
                problems.append(Problem(number, None, UNKNOWN))  # the name is the caller's text
        return row

    def _too_many_customers(self) -> RequestError:
        message = f"The request has too many customers: at most {self._max_rows:,} are accepted."
        return RequestError("too_many_customers", message)


def _table(rows: Sequence[Row], names: Sequence[str], dtype: type[Number]) -> npt.NDArray[Number]:
    """Columns of rows as an array of shape (rows, columns)."""
    return np.array([*map(itemgetter(*names), rows)], dtype=dtype).reshape(len(rows), len(names))


def _as_level(value: Any) -> str:
    """Convert a level to the text used in batch model inputs."""
    if isinstance(value, float):
        value = int(value)
    return "" if value is None else str(value)
