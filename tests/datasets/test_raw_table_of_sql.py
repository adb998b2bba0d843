"""A raw table from a database, with errors that show no value of it."""

import sqlite3
from pathlib import Path

import pandas as pd
import pytest
from kedro.io import DatasetError

from churn_pipeline.command_errors import actionable
from churn_pipeline.datasets import RawTableDataset


def _query(database: Path, sql: str) -> RawTableDataset:
    credentials = {"con": f"sqlite:///{database}"}
    return RawTableDataset(dataset={"type": "pandas.SQLQueryDataset", "sql": sql, "credentials": credentials})


@pytest.fixture
def warehouse(tmp_path: Path) -> Path:
    """A database with a table of one customer."""
    file = tmp_path / "warehouse.db"
    with sqlite3.connect(file) as database:
        database.execute("create table customers (id text)")
        database.execute("insert into customers values ('SECRET')")
    return file


def test_a_table_is_read_from_a_database(warehouse: Path) -> None:
    raw = _query(warehouse, "select id from customers").load()
    pd.testing.assert_frame_equal(raw.astype(object), pd.DataFrame({"id": ["SECRET"]}))


def test_integers_beside_a_missing_cell_keep_all_digits(warehouse: Path) -> None:
    raw = _query(warehouse, "select 9007199254740993 as n union all select null").load()
    assert 9007199254740993 in list(raw["n"])


@pytest.mark.parametrize(
    ("file", "sql"),
    [
        ("warehouse.db", "select id from clients where id = 'SECRET'"),
        ("warehouse.db", "select abs(-9223372036854775807 - 1) from customers where id = 'SECRET'"),
        ("no_folder/warehouse.db", "select id from customers where id = 'SECRET'"),
    ],
    ids=["a wrong query", "a query that fails on a row", "no warehouse"],
)
def test_an_unreadable_database_is_explained_without_a_value(warehouse: Path, file: str, sql: str) -> None:
    with pytest.raises(DatasetError) as caught:
        _query(warehouse.parent / file, sql).load()

    said = str(actionable(caught.value))
    assert said.startswith("The raw table SQLQueryDataset cannot be read")
    assert "OperationalError" in said
    assert "the query" in said
    assert "SECRET" not in said
    assert "mlflow" not in said


def test_an_error_of_pandas_itself_is_explained_without_a_value(
    warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise pd.errors.DatabaseError("Execution failed on sql 'select ...': SECRET")

    monkeypatch.setattr(pd, "read_sql_query", fail)
    with pytest.raises(DatasetError) as caught:
        _query(warehouse, "select id from customers").load()
    said = str(actionable(caught.value))
    assert "DatabaseError" in said
    assert "SECRET" not in said
