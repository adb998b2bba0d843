"""Validation: every row becomes a valid customer or a quarantined row with a reason."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandera.errors import SchemaError, SchemaErrors
from tests.customers import make_contract, raw_customers, table_file

from churn_pipeline.contract.schema import schema
from churn_pipeline.contract.table import Contract
from churn_pipeline.contract.validation import ValidationResult, validate_table

property_test = settings(max_examples=30, deadline=None)
CONTRACT, DATED = make_contract(), make_contract(dated=True)


class Fault(NamedTuple):
    """An invalid cell: its column, its content and the expected reason."""

    column: str
    cell: str | None
    reason: str


FAULTS = [
    Fault("customer", " ", "is missing"),
    Fault("age", "17", "in_range"),
    Fault("age", "about 40", "is not int64"),
    Fault("age", "40.5", "is not int64"),
    Fault("age", None, "is missing"),
    Fault("region", "atlantis", "isin"),
    Fault("months", "-1", "greater_than_or_equal_to"),
    Fault("months", "600", "less_than"),
    Fault("charge", "1000.0000001", "in_range"),
    Fault("charge", "inf", "is not float64"),
    Fault("total", "-0.01", "greater_than_or_equal_to"),
    Fault("calls", "51", "less_than_or_equal_to"),
    Fault("plan", "aa", "str_matches"),
    Fault("plan", "XYZ", "str_length"),
    Fault("lines", "4", "isin"),
    Fault("paperless", "perhaps", "is not bool"),
    Fault("churn", "Maybe", "isin"),
    Fault("churn", "", "is missing"),
]


def break_cells(raw: pd.DataFrame, faults: dict[int, list[Fault]]) -> pd.DataFrame:
    raw = raw.copy()
    for row, broken in faults.items():
        for fault in broken:
            raw.iloc[row, raw.columns.get_loc(fault.column)] = fault.cell
    return raw


def is_valid(customers: pd.DataFrame, contract: Contract) -> bool:
    try:
        schema(contract).validate(customers, lazy=True)
    except (SchemaError, SchemaErrors):
        return False
    return True


def assert_nothing_lost(raw: pd.DataFrame, result: ValidationResult) -> None:
    """Quarantined rows have their raw cells; the other rows are customers, in their order."""
    rows = result.quarantine["row"].to_numpy() - 1
    assert len(result.customers) + len(rows) == len(raw)
    unchanged = raw.iloc[rows].reset_index(drop=True).astype(object)
    pd.testing.assert_frame_equal(result.quarantine.drop(columns=["row", "reasons"]), unchanged)
    valid = np.setdiff1d(np.arange(len(raw)), rows)
    assert result.customers["customer"].tolist() == raw["customer"].iloc[valid].tolist()


faults_by_row = st.dictionaries(
    st.integers(0, 24), st.lists(st.sampled_from(FAULTS), min_size=1, max_size=3), max_size=8
)


@property_test
@given(faults_by_row, st.integers(0, 3), st.booleans())
def test_rows_with_faults_and_no_others_are_quarantined(faults: dict[int, list[Fault]], seed: int, dated: bool) -> None:
    contract = DATED if dated else CONTRACT
    raw = break_cells(raw_customers(25, seed, dated), faults)
    result = validate_table(raw, contract)
    assert (result.quarantine["row"] - 1).tolist() == sorted(faults)
    assert_nothing_lost(raw, result)
    assert is_valid(result.customers, contract)


@property_test
@given(faults_by_row, st.integers(0, 3))
def test_the_reasons_name_the_invalid_columns(faults: dict[int, list[Fault]], seed: int) -> None:
    result = validate_table(break_cells(raw_customers(25, seed), faults), CONTRACT)
    for row, reasons in zip(result.quarantine["row"] - 1, result.quarantine["reasons"], strict=True):
        last = {fault.column: fault for fault in faults[row]}  # a later fault overwrites an earlier one
        named = {reason.split(":")[0] for reason in reasons.split("; ")}
        assert named == set(last)
        for fault in last.values():
            assert f"{fault.column}: {fault.reason}" in reasons


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.column} {fault.cell!r}")
def test_one_fault_quarantines_one_row_for_that_reason(fault: Fault) -> None:
    result = validate_table(break_cells(raw_customers(6), {3: [fault]}), CONTRACT)
    assert result.quarantine["row"].tolist() == [4]
    assert f"{fault.column}: {fault.reason}" in result.quarantine["reasons"][0]
    assert [(finding.column, finding.count, finding.rows) for finding in result.findings] in (
        [(fault.column, 1, (4,))],
        [(fault.column, 1, (4,))] * 2,
    )


@property_test
@given(faults_by_row, st.sampled_from(["shifted", "duplicated", "text"]))
def test_the_raw_index_does_not_matter(faults: dict[int, list[Fault]], kind: str) -> None:
    raw = break_cells(raw_customers(25), faults)
    index = {"shifted": range(100, 125), "duplicated": [7] * 25, "text": list("abcdefghijklmnopqrstuvwxy")}[kind]
    plain, other = validate_table(raw, CONTRACT), validate_table(raw.set_axis(pd.Index(index), axis=0), CONTRACT)
    pd.testing.assert_frame_equal(plain.customers, other.customers)
    pd.testing.assert_frame_equal(plain.quarantine, other.quarantine)
    assert plain.findings == other.findings


@property_test
@given(faults_by_row)
def test_findings_never_contain_a_value(faults: dict[int, list[Fault]]) -> None:
    raw = break_cells(raw_customers(25), faults)
    raw = raw.replace(
        {"atlantis": "SECRET", "Maybe": "SECRET", "about 40": "SECRET", "aa": "SECRET", "perhaps": "SECRET"}
    )
    raw.loc[len(raw)] = raw.loc[0].to_numpy()  # a duplicated id too
    result = validate_table(raw, CONTRACT)
    said = " ".join(map(str, result.findings)) + " ".join(result.quarantine["reasons"])
    assert "SECRET" not in said
    assert "C-000" not in said
    assert "1000.0000001" not in said


@property_test
@given(faults_by_row)
def test_the_raw_table_is_not_modified(faults: dict[int, list[Fault]]) -> None:
    raw = break_cells(raw_customers(25), faults)
    before = raw.copy(deep=True)
    validate_table(raw, CONTRACT)
    pd.testing.assert_frame_equal(raw, before)


def test_findings_count_rows_and_show_the_first() -> None:
    raw = break_cells(raw_customers(20), {row: [FAULTS[5]] for row in range(2, 19)})
    (finding,) = validate_table(raw, CONTRACT).findings
    assert (finding.column, finding.count, finding.rows) == ("region", 17, (3, 4, 5, 6, 7))


def test_columns_named_like_those_of_the_quarantine_are_kept() -> None:
    raw = break_cells(raw_customers(5).assign(row="a", reasons="b"), {1: [FAULTS[1]]})
    quarantine = validate_table(raw, CONTRACT).quarantine
    assert list(quarantine).count("row") == list(quarantine).count("reasons") == 2
    assert quarantine.iloc[0, 0] == 2
    assert {"a", "b"} <= set(quarantine.iloc[0])


def test_columns_missing_from_the_contract_stay_in_quarantine_only() -> None:
    raw = break_cells(raw_customers(5).assign(note="n"), {1: [FAULTS[1]]})
    raw = raw[raw.columns[::-1]]
    result = validate_table(raw, CONTRACT)
    assert list(result.customers) == list(CONTRACT.columns)
    assert result.quarantine["note"].tolist() == ["n"]


def test_all_rows_may_be_valid_or_all_quarantined() -> None:
    raw = raw_customers(5)
    assert len(validate_table(raw, CONTRACT).quarantine) == 0
    nothing = validate_table(break_cells(raw, {row: [FAULTS[0]] for row in range(5)}), CONTRACT)
    assert len(nothing.customers) == 0
    assert is_valid(nothing.customers, CONTRACT)


# ---- the row key -----------------------------------------------------------------------------------------------------


def test_all_rows_of_a_repeated_id_are_quarantined() -> None:
    raw = raw_customers(6)
    raw.loc[[1, 4], "customer"] = "C-twice"
    result = validate_table(raw, CONTRACT)
    assert result.quarantine["row"].tolist() == [2, 5]
    assert set(result.quarantine["reasons"]) == {"customer: is not unique"}


def test_with_a_date_an_id_may_be_repeated_on_other_dates_only() -> None:
    raw = raw_customers(6, dated=True)
    raw["customer"] = ["A", "A", "A", "B", "B", "C"]
    raw["seen"] = ["2025-01-01", "2025-01-01T00:00:00Z", "2025-02-01", "2025-01-01", "2025-02-01", "2025-01-01"]
    result = validate_table(raw, DATED)
    assert result.quarantine["row"].tolist() == [1, 2]
    assert set(result.quarantine["reasons"]) == {"customer + seen: is not unique"}


def test_without_an_id_identical_rows_are_valid() -> None:
    content = table_file()
    content["roles"] = {"target": content["roles"]["target"], "ignored": ["customer"]}
    raw = pd.concat([raw_customers(3)] * 2)
    assert len(validate_table(raw, Contract.parse(content, "anonymous")).customers) == 6


def test_ids_that_are_equal_as_floats_are_two_customers() -> None:
    content = table_file()
    content["columns"]["customer"] = {"dtype": "int64"}
    raw = raw_customers(2)
    raw["customer"] = ["9007199254740993", "9007199254740992"]
    result = validate_table(raw, Contract.parse(content, "numbers"))
    assert result.customers["customer"].tolist() == [9007199254740993, 9007199254740992]


def test_a_unique_nullable_column_may_have_several_missing_cells() -> None:
    content = table_file()
    content["columns"]["region"] = {"dtype": "str", "nullable": True, "unique": True}
    raw = raw_customers(5)
    raw["region"] = ["a", "", "", "b", "b"]
    result = validate_table(raw, Contract.parse(content, "customers"))
    assert result.quarantine["row"].tolist() == [4, 5]


def test_levels_do_not_depend_on_the_raw_type() -> None:
    raw = raw_customers(8)
    typed = raw.assign(
        age=raw["age"].astype("int64"),
        charge=raw["charge"].astype("float64"),
        lines=raw["lines"].astype("float64"),
        region=raw["region"].astype("category"),
        plan=raw["plan"].astype("string"),
        paperless=raw["paperless"].isin(["true", "yes"]),
    )
    pd.testing.assert_frame_equal(validate_table(typed, CONTRACT).customers, validate_table(raw, CONTRACT).customers)
