"""The validators of the catalog and table files: errors say what is wrong and contain no values."""

from pathlib import Path

import pandas as pd
import pytest
import yaml
from tests.conftest import ROOT
from tests.customers import make_contract, raw_customers, table_file

from churn_pipeline.contract.errors import TableError
from churn_pipeline.contract.schema import Customers, RawTable, failed_checks, read_contract, schema
from churn_pipeline.contract.validation import validate_table
from churn_pipeline.costs import CostModel, ValueColumn

TABLES = ROOT / "conf" / "base" / "tables"


def write(folder: Path, content: object) -> str:
    path = folder / "customers.yml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return str(path)


@pytest.fixture
def filepath(tmp_path: Path) -> str:
    return write(tmp_path, table_file())


def raw_findings(filepath: str, raw: pd.DataFrame) -> str:
    with pytest.raises(TableError) as caught:
        RawTable(filepath).validate(raw)
    return str(caught.value)


def error_of(path: str | Path) -> str:
    with pytest.raises(TableError) as caught:
        read_contract(path)
    return str(caught.value)


# ---- the raw table as a whole ----------------------------------------------------------------------------------------


def test_a_whole_raw_table_passes_unchanged(filepath: str) -> None:
    raw = raw_customers(5)
    assert RawTable(filepath).validate(raw) is raw


def test_invalid_rows_are_no_findings_of_the_raw_table(filepath: str) -> None:
    raw = raw_customers(5)
    raw.loc[2, ["age", "churn"]] = "SECRET"
    RawTable(filepath).validate(raw)


def test_additional_columns_are_allowed(filepath: str) -> None:
    RawTable(filepath).validate(raw_customers(5).assign(note="n"))


def test_every_missing_column_is_named(filepath: str) -> None:
    said = raw_findings(filepath, raw_customers(5).drop(columns=["age", "churn"]))
    assert "column 'age': is missing" in said
    assert "column 'churn': is missing" in said


def test_a_table_of_another_kind_is_one_finding(filepath: str) -> None:
    said = raw_findings(filepath, pd.DataFrame({"customer;age;region": ["a;b;c"]}))
    assert "it has none of the contract's columns" in said
    assert said.count("\n") == 1


def test_a_duplicate_name_in_the_header_is_named(filepath: str) -> None:
    raw = raw_customers(5)
    said = raw_findings(filepath, pd.concat([raw, raw[["age"]]], axis="columns"))
    assert "column 'age': is in the header more than once" in said


def test_a_header_without_rows(filepath: str) -> None:
    assert "it has a header but no rows" in raw_findings(filepath, raw_customers(5).head(0))


def test_a_last_row_that_ends_early_is_a_truncated_file(filepath: str) -> None:
    raw = raw_customers(5)
    raw.iloc[-1, -4:] = None
    said = raw_findings(filepath, raw)
    assert "the last row ends early" in said
    assert "row 5" in said


def test_missing_last_cells_of_other_rows_are_no_truncation(filepath: str, tmp_path: Path) -> None:
    raw = raw_customers(5)
    raw.iloc[2, -4:] = None
    RawTable(filepath).validate(raw)
    content = table_file()
    content["columns"] = {
        name: content["columns"][name] for name in sorted(content["columns"], key=lambda name: name == "calls")
    }
    last_may_be_missing = raw_customers(5)[list(content["columns"])]
    last_may_be_missing.iloc[-1, -1:] = None
    RawTable(write(tmp_path, content)).validate(last_may_be_missing)


# ---- customers -------------------------------------------------------------------------------------------------------


def test_valid_customers_pass_unchanged(filepath: str) -> None:
    customers = validate_table(raw_customers(20), make_contract()).customers
    assert Customers(filepath).validate(customers) is customers


def test_findings_about_invalid_customers_contain_no_value(filepath: str) -> None:
    customers = validate_table(raw_customers(20), make_contract()).customers
    customers.loc[[3, 7], "region"] = "SECRET-LEVEL"
    customers.loc[5, "charge"] = 77777.125
    customers.loc[2, "customer"] = customers.loc[1, "customer"] = "SECRET-ID"
    with pytest.raises(TableError) as caught:
        Customers(filepath).validate(customers)
    said = str(caught.value)
    assert "column 'region': isin" in said
    assert "2 rows (row 4, 8)" in said
    assert "column 'charge': in_range" in said
    assert "(row 6)" in said
    assert "SECRET" not in said
    assert "77777" not in said
    assert "(row 2, 3)" in said
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "change",
    [
        lambda customers: customers.assign(note="n"),
        lambda customers: customers.drop(columns="plan"),
        lambda customers: customers[customers.columns[::-1]],
        lambda customers: customers.assign(age=customers["age"].astype("float64")),
        lambda customers: customers.assign(age=customers["age"].astype("object").where(customers.index != 1, "SECRET")),
        lambda customers: customers.assign(charge=customers["charge"].where(customers.index != 1)),
    ],
    ids=["a column more", "a column less", "another order", "another type", "text among numbers", "missing"],
)
def test_customers_are_validated_strictly(filepath: str, change: object) -> None:
    customers = validate_table(raw_customers(20), make_contract()).customers
    with pytest.raises(TableError) as caught:
        Customers(filepath).validate(change(customers))  # type: ignore[operator]
    assert "SECRET" not in str(caught.value)


def test_rules_with_many_levels_are_shortened() -> None:
    content = table_file()
    content["columns"]["region"]["isin"] = [f"region {number}" for number in range(50)]
    contract = make_contract(columns=content["columns"])
    customers = validate_table(raw_customers(3).assign(region="region 1"), contract).customers
    customers["region"] = "atlantis"
    (failed,) = failed_checks(customers, schema(contract))
    assert len(failed[1]) < 60
    assert failed[2] == [0, 1, 2]


# ---- table files -----------------------------------------------------------------------------------------------------


def test_the_contract_has_the_name_of_its_table_file(filepath: str) -> None:
    assert read_contract(filepath) == make_contract()


def test_the_source_of_a_table_is_not_part_of_its_contract(tmp_path: Path) -> None:
    moved = write(tmp_path, {**table_file(), "source": {"type": "pandas.CSVDataset"}, "truth": {"type": "x"}})
    assert read_contract(moved).digest() == make_contract().digest()


def test_no_file(tmp_path: Path) -> None:
    assert "customers.yml:\n  - does not exist" in error_of(tmp_path / "customers.yml")


def test_invalid_yaml_is_reported_with_its_line(tmp_path: Path) -> None:
    assert "is not valid YAML at line 3" in error_of(write(tmp_path, "label:\n  meaning: left\n bad: [\n"))


def test_a_binary_table_file(tmp_path: Path) -> None:
    path = tmp_path / "customers.yml"
    path.write_bytes(b"\xff\xfe\x00\x01")
    assert "is not valid YAML" in error_of(path)


@pytest.mark.parametrize("text", ["", "# only words\n", "- a\n- b\n", "words"])
def test_a_table_file_without_a_mapping_counts_as_empty(tmp_path: Path, text: str) -> None:
    assert "is empty: draft one with `kedro table draft`" in error_of(write(tmp_path, text))


def test_yes_and_no_without_quotes_are_explained(tmp_path: Path) -> None:
    text = yaml.safe_dump(table_file()).replace("'No'", "No").replace("'Yes'", "Yes")
    said = error_of(write(tmp_path, text))
    assert "put such levels in quotes" in said


def test_an_error_lists_all_mistakes_of_a_file(tmp_path: Path) -> None:
    content = table_file()
    content["columns"]["age"]["in_rnge"] = {"min_value": 0, "max_value": 1}
    content["columns"]["plan"]["dtype"] = "string"
    content["rolls"] = {}
    said = error_of(write(tmp_path, content))
    assert all(f"- {words}" in said for words in ("columns.age.in_rnge", "columns.plan.dtype", "rolls"))


@pytest.mark.parametrize("path", sorted(TABLES.glob("*.yml")), ids=lambda path: path.stem)
def test_the_tables_of_this_project_have_valid_contracts(path: Path) -> None:
    contract = read_contract(path)
    assert contract.description
    schema(contract)


@pytest.mark.parametrize(
    ("table", "digest"),
    [
        ("simulated", "59b6af084f07"),
        ("simulated_monthly", "1d979d25b6ce"),
        ("telco", "3e5f458aba85"),
        ("mlc_churn", "689412ece107"),
        ("iranian", "7d9a8d3fb950"),
    ],
)
def test_versions_registered_earlier_still_match_the_contracts_of_this_project(table: str, digest: str) -> None:
    assert read_contract(TABLES / f"{table}.yml").digest().startswith(digest)


def test_the_simulated_tables_have_the_columns_of_telco() -> None:
    # Each file is a complete contract; the simulation promises the same columns, and results are compared across them.
    telco, simulated, monthly = (
        read_contract(TABLES / f"{name}.yml").columns for name in ("telco", "simulated", "simulated_monthly")
    )
    assert list(simulated.items()) == list(telco.items())
    assert {name: column for name, column in monthly.items() if name != "snapshot_date"} == telco


@pytest.mark.parametrize("table", ["simulated", "simulated_monthly", "telco"])
def test_the_costs_of_these_tables_take_the_value_from_a_year_of_charges(table: str) -> None:
    contract = read_contract(TABLES / f"{table}.yml")
    assert CostModel.model_validate(contract.costs).value == ValueColumn(column="MonthlyCharges", months=12)
    assert contract.value_column == "MonthlyCharges"
