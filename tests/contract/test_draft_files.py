"""Files that the draft reads: separators, encodings, words for missing values, Parquet, and clear errors."""

import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from kedro.io import AbstractDataset
from tests.contract.test_draft import customers, read_by_its_draft
from tests.customers import raw_customers
from tests.workbooks import write_workbook

from churn_pipeline.contract.draft import draft, read_for_draft
from churn_pipeline.contract.errors import TableError
from churn_pipeline.contract.schema import contract_from
from churn_pipeline.contract.validation import validate_table


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_separators_are_found(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "customers.csv"
    raw = raw_customers(40)
    raw.to_csv(path, index=False, sep=separator)
    table, contract = read_by_its_draft(path)
    assert list(contract.columns) == list(raw)
    assert validate_table(table, contract).quarantine.empty


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
def test_encodings_are_found(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "customers.csv"
    customers(größe=["groß", "klein"] * 5).to_csv(path, index=False, encoding=encoding)
    table, contract = read_by_its_draft(path)
    assert contract.columns["größe"].isin == ("groß", "klein")
    assert next(iter(table)) == "id"
    assert validate_table(table, contract).quarantine.empty


@pytest.mark.parametrize("word", ["NA", "null", "?", "-"])
def test_words_for_missing_are_found_among_numbers_and_are_levels_elsewhere(tmp_path: Path, word: str) -> None:
    path = tmp_path / "customers.csv"
    customers(calls=[word, *"123456789"]).to_csv(path, index=False)
    table, contract = read_by_its_draft(path)
    assert contract.columns["calls"].dtype == "int64"
    assert contract.columns["calls"].nullable
    assert validate_table(table, contract).quarantine.empty
    customers(region=[word, "north"] * 5).to_csv(path, index=False)
    assert word in (read_by_its_draft(path)[1].columns["region"].isin or ())


@pytest.mark.parametrize("suffix", [".parquet", ".pq"])
def test_parquet_keeps_its_types(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"customers{suffix}"
    pd.DataFrame({"id": range(10), "charge": np.linspace(0, 1, 10), "churn": [True, False] * 5}).to_parquet(path)
    table, contract = read_by_its_draft(path)
    assert {name: column.dtype for name, column in contract.columns.items()} == {
        "id": "int64",
        "charge": "float64",
        "churn": "bool",
    }
    assert validate_table(table, contract).quarantine.empty


@pytest.mark.parametrize("suffix", [".zip", ".gz", ".bz2", ".xz"])
def test_a_compressed_csv_file_is_read_like_the_file_itself(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"customers.csv{suffix}"
    raw = raw_customers(40)
    raw.to_csv(path, index=False, sep=";")
    table, contract = read_by_its_draft(path)
    assert list(contract.columns) == list(raw)
    assert validate_table(table, contract).quarantine.empty


def test_an_archive_of_two_files_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "customers.csv.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.csv", "a,b\n1,2\n")
        archive.writestr("b.csv", "a,b\n1,2\n")
    with pytest.raises(TableError, match="exactly one CSV file"):
        read_for_draft(path)


def test_a_sheet_of_a_workbook_is_read_as_text_without_losing_types(tmp_path: Path) -> None:
    path = tmp_path / "customers.xlsx"
    table = customers(spend=[*range(8), "n/a", 2.5], region=["north", ""] * 5)
    write_workbook(path, {"notes": pd.DataFrame({"a": ["nothing"]}), "customers": table})

    read, source = read_for_draft(path, "customers")
    contract = contract_from(yaml.safe_load(draft(read, source)), "drafted")
    loaded = AbstractDataset.from_config("source", source).load()

    assert {name: contract.columns[name].dtype for name in ("spend", "region")} == {"spend": "float64", "region": "str"}
    assert contract.columns["spend"].nullable
    assert contract.columns["region"].nullable
    result = validate_table(loaded, contract)
    assert result.quarantine.empty
    assert result.customers["spend"].tolist()[:8] == list(range(8))


def test_the_first_sheet_is_read_by_default_and_another_must_exist(tmp_path: Path) -> None:
    path = tmp_path / "customers.xlsx"
    write_workbook(path, {"first": customers()})

    assert list(read_for_draft(path)[0]) == list(customers())
    with pytest.raises(TableError, match="the sheets are first"):
        read_for_draft(path, "second")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be read as one table"),
        (b"id,churn\n", "has no rows"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "is not a text file"),
        (b"a,b\n1,2\n1,2,3,4\n", "cannot be read as one table"),
    ],
    ids=["empty", "a header alone", "binary", "ragged"],
)
def test_a_file_without_a_table_is_a_clear_error(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "customers.csv"
    path.write_bytes(content)
    with pytest.raises(TableError, match=words):
        read_for_draft(path)


def test_an_invalid_parquet_file_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "customers.parquet"
    path.write_bytes(b"PAR1 but no more")
    with pytest.raises(TableError, match=r"customers\.parquet"):
        read_for_draft(path)


@pytest.mark.parametrize("name", ["customers.xlsx", "customers.xls", "customers.csv.zip", "customers.csv.gz"])
def test_a_file_that_only_has_the_name_of_its_kind_is_a_clear_error(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"id,churn\n1,yes\n")
    with pytest.raises(TableError, match=name):
        read_for_draft(path)


@pytest.mark.parametrize("name", ["customers.csv", "customers.parquet", "customers.xlsx", "customers.csv.zip"])
def test_a_missing_file_is_a_clear_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(TableError, match=f"{name}:\n  - does not exist"):
        read_for_draft(tmp_path / name)
