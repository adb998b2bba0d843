"""Example customers: fictitious, and valid."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import ROOT
from tests.customers import make_contract, table_file

from churn_pipeline.contract.cells import final_dtype
from churn_pipeline.contract.example import example_customers, example_value
from churn_pipeline.contract.schema import read_contract, schema
from churn_pipeline.contract.table import Column, Contract

numbers = st.integers(-1000, 1000)


def test_examples_are_valid() -> None:
    for dated in (False, True):
        content = table_file(dated)
        content["columns"]["plan"] = {"dtype": "str"}
        contract = Contract.parse(content, "customers")
        customers = example_customers(contract)
        schema(contract).validate(customers)
        assert {name: str(customers[name].dtype) for name in customers} == {
            name: final_dtype(column) for name, column in contract.columns.items()
        }


@pytest.mark.parametrize("path", sorted((ROOT / "conf" / "base" / "tables").glob("*.yml")), ids=lambda path: path.stem)
def test_examples_of_the_tables_of_this_project_are_valid(path: object) -> None:
    contract = read_contract(path)  # type: ignore[arg-type]
    schema(contract).validate(example_customers(contract))


def test_the_number_of_examples() -> None:
    assert len(example_customers(make_contract(), rows=3)) == 3


@settings(max_examples=60, deadline=None)
@given(
    numbers,
    st.integers(2, 500),
    st.sampled_from(["in_range", "between", "above", "below", "from", "to"]),
    st.booleans(),
)
def test_an_example_is_within_its_bounds(low: int, width: int, kind: str, whole: bool) -> None:
    high = low + width
    checks: dict[str, object] = {
        "in_range": {"in_range": {"min_value": low, "max_value": high, "include_min": False, "include_max": False}},
        "between": {"greater_than": low, "less_than": high},
        "above": {"greater_than": low},
        "below": {"less_than": high},
        "from": {"greater_than_or_equal_to": low},
        "to": {"less_than_or_equal_to": high},
    }[kind]
    value = example_value(Column(dtype="int64" if whole else "float64", **checks))
    assert isinstance(value, int) is whole
    if kind in ("in_range", "between", "above"):
        assert value > low
    if kind in ("in_range", "between", "below"):
        assert value < high
    if kind == "from":
        assert value >= low
    if kind == "to":
        assert value <= high


@pytest.mark.parametrize("bounds", [(0.001, 0.002), (0.0, 0.004), (5.0, 5.0)])
def test_an_example_is_within_narrow_bounds(bounds: tuple[float, float]) -> None:
    value = example_value(Column(dtype="float64", in_range={"min_value": bounds[0], "max_value": bounds[1]}))
    assert bounds[0] <= value <= bounds[1]


@pytest.mark.parametrize("length", [{"max_value": 3}, {"min_value": 10}, {"min_value": 2, "max_value": 2}])
def test_an_example_text_has_a_valid_length(length: dict[str, int]) -> None:
    value = str(example_value(Column(dtype="str", str_length=length)))
    assert length.get("min_value", 0) <= len(value) <= length.get("max_value", 99)


def test_an_example_is_one_of_the_levels() -> None:
    assert example_value(Column(dtype="str", isin=("b", "a"))) == "b"
    assert example_value(Column(dtype="int64", isin=(3, 1))) == 3
