"""The request parser: strict, consistent with batch validation and model inputs, and without values in errors."""

import json
import math
import time
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.customers import make_contract, raw_customers

from churn_pipeline.contract.cells import model_inputs, read_cells
from churn_pipeline.contract.table import Column, Contract
from churn_pipeline.contract.validation import validate_table
from churn_pipeline.modelling.preprocessing import NUMBER_LIMIT, round_to_float32
from churn_pipeline.serving import requests as module
from churn_pipeline.serving.column_rules import ColumnRule
from churn_pipeline.serving.requests import Problem, RequestError, RequestParser

CONTRACT = make_contract()
GOOD: dict[str, Any] = {
    "months": 12,
    "charge": 70.5,
    "total": 846.0,
    "calls": 3,
    "region": "north",
    "plan": "AA",
    "lines": 2,
    "paperless": True,
}


def parser(contract: Contract = CONTRACT, max_rows: int = 50) -> RequestParser:
    return RequestParser(contract, contract.numeric, contract.categorical, max_rows)


PARSER = parser()


def parse(*customers: Any, **more: Any) -> list[dict[str, Any]]:
    read: list[dict[str, Any]] = PARSER.read(json.dumps({"customers": list(customers), **more}).encode())["customers"]
    return read


def refused(*customers: Any, **more: Any) -> RequestError:
    with pytest.raises(RequestError) as refusal:
        parse(*customers, **more)
    return refusal.value


def without(*names: str) -> dict[str, Any]:
    return {name: value for name, value in GOOD.items() if name not in names}


# ---- accepted and rejected requests ------------------------------------------------------------------------------


def test_a_customer_is_its_features() -> None:
    assert set(GOOD) == set(CONTRACT.features)
    assert parse(GOOD) == [{**GOOD, "customer": None, "age": None}]


def test_other_columns_of_the_contract_are_optional_and_validated() -> None:
    assert parse({**GOOD, "customer": "C-1", "age": 30})
    assert refused({**GOOD, "age": 17}).problems == (Problem(0, "age", "a whole number, from 18 to 99"),)


def test_the_target_and_unknown_names_are_refused_without_repeating_the_name() -> None:
    assert refused({**GOOD, "churn": "Yes"}).problems == (Problem(0, "churn", "not in the contract"),)
    assert refused({**GOOD, "Marked 7": 1}).problems == (Problem(0, None, "not in the contract"),)
    assert refused(GOOD, Marked=1).problems == (Problem(None, None, "not in the contract"),)


@pytest.mark.parametrize(
    ("change", "field", "rule"),
    [
        ({"months": "12"}, "months", "a whole number, at least 0, below 600"),
        ({"months": True}, "months", "a whole number, at least 0, below 600"),
        ({"months": 12.5}, "months", "a whole number, at least 0, below 600"),
        ({"months": 600}, "months", "a whole number, at least 0, below 600"),
        ({"months": 10**400}, "months", "a whole number, at least 0, below 600"),
        ({"months": None}, "months", "required"),
        ({"charge": -0.01}, "charge", "a number, from 0 to 1000"),
        ({"charge": math.nan}, "charge", "a number, from 0 to 1000"),
        ({"charge": math.inf}, "charge", "a number, from 0 to 1000"),
        ({"charge": [1]}, "charge", "a number, from 0 to 1000"),
        ({"region": "nowhere"}, "region", "one of north, south, east side"),
        ({"region": " north"}, "region", "one of north, south, east side"),
        ({"plan": "AAA"}, "plan", "text, matching ^[A-Z]{2}$, at most 2 characters"),
        ({"plan": "  "}, "plan", "required"),
        ({"lines": True}, "lines", "one of 1, 2, 3"),
        ({"lines": "1"}, "lines", "one of 1, 2, 3"),
        ({"paperless": 1}, "paperless", "true or false"),
        ({"paperless": "true"}, "paperless", "true or false"),
    ],
)
def test_a_violated_rule_is_reported_with_row_and_field(change: dict[str, Any], field: str, rule: str) -> None:
    assert refused(GOOD, {**GOOD, **change}).problems == (Problem(1, field, rule),)


@pytest.mark.parametrize("name", sorted(GOOD))
def test_a_feature_may_be_missing_only_if_the_contract_allows_it(name: str) -> None:
    column = CONTRACT.columns[name]
    may_be = column.nullable or column.default is not None
    for customer in (without(name), {**GOOD, name: None}, {**GOOD, name: " "}):
        if may_be:
            assert parse(customer)
        else:
            assert refused(customer).problems == (Problem(0, name, "required"),)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\x80\x04\x95", 400),
        (b'{"customers": [' + b"[" * 100_000, 400),
        (b"\xff\xfe", 400),
        (b"[]", 422),
        (b"null", 422),
        (b"{}", 422),
        (b'{"customers": []}', 422),
        (b'{"customers": {}}', 422),
        (b'{"customers": [1, null, "x"]}', 422),
        (b'{"customers": [{"charge": 1e400}]}', 422),
    ],
)
def test_an_invalid_body_is_refused(body: bytes, status: int) -> None:
    with pytest.raises(RequestError) as refusal:
        PARSER.read(body)
    assert refusal.value.status == status


def test_too_many_customers_get_413() -> None:
    assert len(parse(*[GOOD] * 50)) == 50
    assert refused(*[GOOD] * 51).status == 413


@pytest.mark.parametrize(("rows", "each", "status"), [(1, 2_000, 422), (40, 50, 422), (3, 500_000, 413)])
def test_far_too_many_columns_are_refused(rows: int, each: int, status: int) -> None:
    customer = {f"column {number}": 1 for number in range(each)}
    with pytest.raises(RequestError) as found:
        parser(max_rows=1_000).read(json.dumps({"customers": [customer] * rows}).encode())
    assert found.value.status == status
    assert (Problem(0, None, "not in the contract") in found.value.problems) == (status == 422)


def test_validation_stops_at_the_first_hundred_problems() -> None:
    required = [name for name in GOOD if not (CONTRACT.columns[name].nullable or CONTRACT.columns[name].default == 0)]
    assert len(refused(*[{}] * 3).problems) == 3 * len(required)
    refusal = refused(GOOD, *[{}] * 49)
    assert refusal.count == len(refusal.problems) == module.MAX_REPORTED_PROBLEMS == 100
    assert refusal.problems[0] == Problem(1, "months", "required")
    assert {problem.row for problem in refusal.problems} == set(range(1, 1 + 100 // len(required)))


def filled(unit: bytes, size: int, begin: bytes = b'{"customers": [', end: bytes = b"]}") -> bytes:
    """A body of about `size` bytes that repeats a part."""
    return begin + b",".join([unit] * (size // (len(unit) + 1))) + end


def padded(unit: bytes, size: int) -> bytes:
    return b'{"customers": [{"plan": "' + unit * (size // len(unit)) + b'"}]}'


VALID = json.dumps(GOOD).encode()
HOSTILE = {
    "empty customers": lambda size: filled(b"{}", size),
    "nested lists": lambda size: filled(b"[]", size),
    "numbers": lambda size: filled(b"1", size),
    "customers of one unknown column": lambda size: filled(b'{"":0}', size),
    "one customer of unknown columns": lambda size: filled(b'"":{}', size, b'{"customers": [{', b"}]}"),
    "unknown fields": lambda size: filled(b'"":{}', size, b'{"customers": [], ', b"}"),
    "a list as a value": lambda size: filled(b"[]", size, b'{"customers": [{"region": [', b"]}]}"),
    "wrong types": lambda size: filled(b'{"region": 1, "months": "a"}', size),
    "one invalid customer before valid ones": lambda size: filled(VALID, size, b'{"customers": [{}, '),
    "one invalid customer after valid ones": lambda size: filled(VALID, size, end=b", {}]}"),
    "valid customers with a decimal point": lambda size: filled(VALID.replace(b"12", b"12.0"), size, end=b", {}]}"),
    "blank text": lambda size: padded(b" ", size),
    "brackets in text": lambda size: padded(b":{,[", size),
    "spaces": lambda size: b" " * size,
    "a deep body": lambda size: b"[" * size,
    "a repeated column": lambda size: filled(b'"months": 12', size, b'{"customers": [{', b"}]}"),
}


@pytest.mark.parametrize(("size", "seconds"), [(32_000, 0.1), (1_000_000, 1.5), (16_000_000, 1.5)])
@pytest.mark.parametrize("kind", HOSTILE)
def test_no_body_takes_very_long_to_refuse(kind: str, size: int, seconds: float) -> None:
    """The limits are twenty times what an idle machine needs: an unbounded reading takes seconds to minutes."""
    body, limited = HOSTILE[kind](size), parser(max_rows=10_000)
    begin = time.thread_time()
    with pytest.raises(RequestError):
        limited.read(body)
    assert time.thread_time() - begin < seconds


# ---- parity with the batch ------------------------------------------------------------------------------

whole = st.integers(-(2**53), 2**53)
anything = st.one_of(
    st.none(),
    st.integers(-5, 1005),
    whole,
    whole.map(float),
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(-1, 1001),
    st.sampled_from(["north", "south", "east side", "North", " north", "AA", "ZZ\n", "aa", "AAA", "", " ", "\t", "é"]),
    st.text(max_size=3),
)
valid = {
    "months": st.integers(0, 599),
    "charge": st.floats(0, 1000),
    "total": st.none() | st.floats(0, 1e300),
    "calls": st.none() | st.integers(-(2**53), 50),
    "region": st.none() | st.sampled_from(["north", "south", "east side"]),
    "plan": st.sampled_from(["AA", "QX"]),
    "lines": st.sampled_from([1, 2, 3]),
    "paperless": st.booleans(),
}


def a_batch_of(customer: dict[str, Any]) -> pd.DataFrame:
    """The same customer as a row of a batch, with the other columns that a batch needs."""
    raw = raw_customers(1).astype(object)
    for name in CONTRACT.features:
        raw[name] = pd.Series([customer.get(name)], dtype=object)
    return raw


@settings(max_examples=300, deadline=None)
@given(st.fixed_dictionaries(valid), st.sampled_from(sorted(set(valid) - {"paperless"})), anything)
@example(GOOD, "total", 1e300)
@example(GOOD, "months", 5.0)
@example(GOOD, "plan", "ZZ\n")
@example(GOOD, "lines", 2.0)
@example(GOOD, "calls", -9007199254740994.0)
@example(GOOD, "calls", -(2.0**63))
@example(GOOD, "calls", -1e19)
@example(GOOD, "charge", 10**30)
def test_service_and_batch_accept_the_same_customers_and_give_the_model_the_same(
    customer: dict[str, Any], name: str, value: Any
) -> None:
    dtype = CONTRACT.columns[name].dtype
    # Only JSON distinguishes 5 from "5"; in a CSV, the type of the column decides.
    customer = {**customer, name: value}
    valid_rows = validate_table(a_batch_of(customer), CONTRACT).customers
    wrong_type = isinstance(value, str) != (dtype == "str") and value is not None and str(value).strip()
    if wrong_type:
        assert refused(customer).problems[0].field == name
        return
    if valid_rows.empty:
        assert refused(customer).problems[0].field == name
        return
    numeric, categorical = PARSER.inputs(parse(customer))
    expected = model_inputs(valid_rows, CONTRACT)
    assert numeric is not None
    assert categorical is not None
    rounded = round_to_float32(expected[list(CONTRACT.numeric)]).astype(np.float32)
    np.testing.assert_array_equal(numeric, rounded)
    assert categorical.tolist() == expected[list(CONTRACT.categorical)].to_numpy(dtype=object).tolist()


def contract_of(**column: Any) -> Contract:
    """A contract of one feature, x."""
    return Contract.parse(
        {
            "columns": {"x": column, "y": {"dtype": "int64", "isin": [0, 1]}},
            "roles": {"target": {"column": "y", "positive": 1}},
            "label": {"meaning": "left"},
        },
        "one",
    )


def accepted(contract: Contract, value: Any) -> bool:
    try:
        parser(contract).read(json.dumps({"customers": [{"x": value}]}).encode())
    except RequestError:
        return False
    return True


@pytest.mark.parametrize(
    "column",
    [
        {"dtype": "int64", "in_range": {"min_value": 0.5, "max_value": 10.5}},
        {"dtype": "int64", "greater_than": 0.5, "less_than": 10.5},
        {"dtype": "int64", "greater_than": 1, "less_than": 1e30},
        {"dtype": "int64", "greater_than_or_equal_to": -math.inf, "less_than": math.inf},
        {"dtype": "int64", "greater_than": math.inf},
        {"dtype": "float64", "greater_than": -math.inf, "less_than_or_equal_to": 10.5},
        {"dtype": "int64", "less_than_or_equal_to": 2**70},
    ],
    ids=str,
)
def test_bounds_are_those_of_batch_validation(column: dict[str, Any]) -> None:
    contract, values = contract_of(**column), (-(2**63), -1, 0, 1, 2, 5.0, 10, 11, 2**63 - 1, 2**63)
    for value in values:
        batch = validate_table(pd.DataFrame({"x": [value], "y": [0]}, dtype=object), contract)
        assert accepted(contract, value) == (len(batch.customers) == 1)
    json.dumps(parser(contract).schema, allow_nan=False)


@pytest.mark.parametrize("text", [" ", "\t", "\x1c", "\x85", "\u3000", " \xa0 "])
@pytest.mark.parametrize(
    "column", [{"isin": ["a", " "]}, {"isin": [" "]}, {}, {"str_length": {"max_value": 9}}], ids=str
)
def test_blank_text_is_missing_even_if_it_is_a_level(text: str, column: dict[str, Any]) -> None:
    assert not accepted(contract_of(dtype="str", **column), text)
    assert accepted(contract_of(dtype="str", nullable=True, **column), text)


@pytest.mark.parametrize(
    ("date", "valid"),
    [
        ("2026-01-31", True),
        ("2026-01-31T10:20", True),
        ("2026-01-31 10:20:30.123456789", True),
        ("2026-01-31T10:20:30Z", True),
        ("2026-01-31T10:20:30+0200", True),
        ("2026-02-30", False),
        ("2026-01-31T25:00", False),
        ("2026-W05-6", False),
        ("2026-01-31x10:20", False),
        ("2026-01-31T10:20:30,5", False),
        ("2026-01-31T10:20:30+02:00:30", False),
        ("1600-01-01", False),
        ("9999-12-31", False),
        ("now", False),
    ],
)
def test_dates_with_and_without_time_are_those_of_batch_validation(date: str, valid: bool) -> None:
    column = Column(dtype="datetime64[ns]")
    assert ColumnRule(column).is_valid(date) is valid
    assert valid is not bool(read_cells(pd.Series([date], dtype=object), column)[1][0])


def test_a_rule_shows_all_digits_of_its_bounds() -> None:
    assert ColumnRule(Column(dtype="int64", less_than=16777217)).words == "a whole number, below 16777217"
    bounds = {"min_value": 0, "max_value": 1234567.89}
    assert ColumnRule(Column(dtype="float64", in_range=bounds)).words == "a number, from 0 to 1234567.89"


def test_numbers_are_limited_and_rounded_as_the_fitted_model_does() -> None:
    assert module.NUMBER_LIMIT == NUMBER_LIMIT
    contract = Contract.parse(
        {
            "columns": {"x": {"dtype": "float64"}, "y": {"dtype": "int64", "isin": [0, 1]}},
            "roles": {"target": {"column": "y", "positive": 1}},
            "label": {"meaning": "left"},
        },
        "numbers",
    )
    values = [0.1, 1e308, -1e308, 1e-320, 16777217, 3.4028236e38, -0.0]
    body = json.dumps({"customers": [{"x": value} for value in values]}).encode()
    numeric, categorical = parser(contract).inputs(parser(contract).read(body)["customers"])
    assert categorical is None
    assert numeric is not None
    np.testing.assert_array_equal(numeric[:, 0], round_to_float32(np.array(values)[:, np.newaxis])[:, 0].astype("f4"))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(valid)), anything | st.booleans())
def test_the_decoder_accepts_valid_values_only(name: str, value: Any) -> None:
    column = CONTRACT.columns[name]
    try:
        parse({**GOOD, name: value})
    except RequestError:
        accepted = False
    else:
        accepted = True
    missing = value is None or (isinstance(value, str) and not value.strip())
    assert accepted == (
        ColumnRule(column).is_valid(value) or (missing and (column.nullable or column.default is not None))
    )


COLUMNS: list[dict[str, Any]] = [
    {"dtype": "str", "str_matches": "(?i)north|south"},
    {"dtype": "str", "str_matches": "a|b", "str_length": {"min_value": 1, "max_value": 2_000}},
    {"dtype": "str", "isin": ["a", " ", "[0, 10)", 'say "b"']},
    {"dtype": "str", "nullable": True},
    {"dtype": "str", "str_length": {"max_value": 0}},
    {"dtype": "str", "str_length": {"min_value": 1_500}},
    {"dtype": "int64", "isin": [1, 2, 2**70]},
    {"dtype": "int64", "isin": [0, 1], "nullable": True},
    {"dtype": "int64", "in_range": {"min_value": 0, "max_value": 9}, "greater_than": 1},
    {"dtype": "float64", "greater_than": 0, "in_range": {"min_value": 1, "max_value": 9}},
    {"dtype": "float64", "less_than_or_equal_to": 2**53 + 3},
    {"dtype": "float64"},
    {"dtype": "bool", "default": False},
]
TEXTS = [
    "a",
    "ab",
    "A",
    "NORTH",
    "c",
    " ",
    " a",
    "a" * 1_001,
    "a" * 2_001,
    "[0, 10)",
    'say "b"',
    "\ud83d\ude00",
    "\x00",
]
NUMBERS = [0, 1, 1.0, True, 2**53 + 4, 2.0**63, 2**70, 1e300, math.nan, math.inf, -math.inf, 10**400, -0.0]
ODD_VALUES = st.sampled_from([None, False, [], [[1]], {}, {"x": 1}, *TEXTS, *NUMBERS]) | anything


@settings(max_examples=500, deadline=None)
@given(
    st.sampled_from(COLUMNS), st.sampled_from(["x", 'x"y', "x y", "\x07", "größe"]), st.lists(ODD_VALUES, min_size=1)
)
def test_the_decoder_and_the_second_reading_agree(column: dict[str, Any], name: str, values: list[Any]) -> None:
    content = contract_of(**column).model_dump(exclude={"name"}, exclude_defaults=True)
    contract = Contract.parse({**content, "columns": {name: column, "y": content["columns"]["y"]}}, "one")
    both, second = parser(contract), parser(contract)
    second._decoder = None
    body = json.dumps({"customers": [{name: value} for value in values]}).encode()
    read = []
    for each in (both, second):
        try:
            read.append(repr(each.read(body)["customers"]))
        except RequestError as refusal:
            read.append(repr((refusal.code, refusal.problems)))
    # The decoder reads 1 as the float 1.0 for a number; the model takes the same.
    assert read[0] == read[1] or (column["dtype"] == "float64" and "Problem" not in read[0] + read[1])


# ---- no values in errors ------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(GOOD)), st.integers(10**6, 10**9).map(lambda number: f"MARK{number}"))
def test_no_error_contains_a_value(name: str, mark: str) -> None:
    for customer in ({**GOOD, name: mark}, {**GOOD, mark: 1}, mark):
        refusal = refused(customer)
        assert mark not in f"{refusal} {refusal.problems}"


def test_the_schema_has_the_rules_of_the_contract() -> None:
    customer = PARSER.schema["$defs"]["Customer"]
    assert customer["additionalProperties"] is False
    required = [name for name in GOOD if not (CONTRACT.columns[name].nullable or CONTRACT.columns[name].default == 0)]
    assert sorted(customer["required"]) == sorted(required)
    properties = {name: {**rules, "title": None} for name, rules in customer["properties"].items()}
    assert properties["charge"] == {"title": None, "type": "number", "minimum": 0, "maximum": 1000}
    assert properties["months"] == {"title": None, "type": "integer", "minimum": 0, "exclusiveMaximum": 600}
    assert properties["lines"] == {"title": None, "type": "integer", "enum": [1, 2, 3]}
    assert properties["region"]["enum"] == ["north", "south", "east side", None]
