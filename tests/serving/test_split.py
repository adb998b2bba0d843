import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from churn_pipeline.serving.split import in_share

SHARES = st.floats(0, 1)
VALUES = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text()
CUSTOMERS = st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), VALUES)
IDS = st.text(min_size=1) | st.integers(-(2**63), 2**63 - 1)


@given(CUSTOMERS, CUSTOMERS, IDS, SHARES)
def test_an_id_decides_whatever_the_other_values_are(
    one: dict[str, Any], other: dict[str, Any], identity: Any, share: float
) -> None:
    assert in_share({**one, "id": identity}, "id", share) == in_share({**other, "id": identity}, "id", share)


@given(CUSTOMERS, SHARES, SHARES)
def test_a_customer_in_a_share_is_in_every_larger_share(customer: dict[str, Any], one: float, other: float) -> None:
    smaller, larger = sorted((one, other))
    assert in_share(customer, None, smaller) <= in_share(customer, None, larger)


@given(CUSTOMERS, st.sampled_from([None, "id"]))
def test_share_0_has_no_customer_and_share_1_has_all(customer: dict[str, Any], id_column: str | None) -> None:
    assert not in_share(customer, id_column, 0)
    assert in_share(customer, id_column, 1)


@given(st.integers(0, 10**12), st.sampled_from([0.01, 0.1, 0.5, 0.9]), st.sampled_from(["id", None]))
def test_the_share_of_customers_is_the_setting_within_binomial_bounds(
    first: int, share: float, column: str | None
) -> None:
    rows = 3_000
    found = sum(in_share({"id": f"C-{first + row}", "a": 1.5}, column, share) for row in range(rows))
    assert abs(found - rows * share) <= 5.5 * math.sqrt(rows * share * (1 - share))


@given(CUSTOMERS, SHARES, st.randoms())
def test_without_an_id_the_form_of_the_request_does_not_matter(
    customer: dict[str, Any], share: float, rng: Any
) -> None:
    names = list(customer)
    rng.shuffle(names)
    written = {name: float(value) if type(value) is int else value for name in names if (value := customer[name]) != ""}
    assert in_share(written | {"e": None, "f": "  "}, None, share) == in_share(customer, None, share)


def test_without_an_id_different_customers_are_divided() -> None:
    assert {in_share({"a": number}, "id", 0.5) for number in range(100)} == {True, False}


def test_text_and_columns_cannot_be_confused() -> None:
    pairs = [({"a": "x\0b\0y"}, {"a": "x", "b": "y"}), ({"a": "x", "b": "y"}, {"a": "y", "b": "x"})]
    for one, other in pairs:
        assert any(in_share(one, None, step / 999) != in_share(other, None, step / 999) for step in range(1_000))
