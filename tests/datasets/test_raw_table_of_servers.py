"""The same customers in files and databases: one validated table, one digest, and errors without a value."""

import datetime as dt
import re
import shutil
import sys
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import fsspec
import pandas as pd
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner
from deploy.local_servers import Servers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kedro.io import DataCatalog, DatasetError
from sqlalchemy import make_url
from tests.conftest import ROOT

from churn_pipeline.command_errors import actionable
from churn_pipeline.configuration import LOADER_ARGS, TableConfigLoader
from churn_pipeline.contract.cells import raw_digest
from churn_pipeline.contract.errors import TableError
from churn_pipeline.contract.schema import read_contract
from churn_pipeline.contract.table import Contract
from churn_pipeline.contract.validation import validate_table
from churn_pipeline.datasets import RawTableDataset
from churn_pipeline.datasets.raw_table_dataset import DATABASES
from churn_pipeline.table_commands import table

# Name, type in the contract, in a database and in Parquet, and values
COLUMNS: list[tuple[str, str, str, pa.DataType, st.SearchStrategy[Any]]] = [
    ("minutes", "int64", "bigint", pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    ("charge", "float64", "numeric(12,2)", pa.decimal128(12, 2), st.decimals(-9_999, 9_999, places=2)),
    ("usage", "float64", "double precision", pa.float64(), st.floats(allow_nan=False, allow_infinity=False)),
    ("paperless", "bool", "boolean", pa.bool_(), st.booleans()),
    ("joined", "datetime64[ns]", "date", pa.date32(), st.dates(dt.date(1900, 1, 1), dt.date(2200, 1, 1))),
    (
        "called",
        "datetime64[ns]",
        "timestamp",
        pa.timestamp("us"),
        st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2200, 1, 1)),
    ),
    ("city", "str", "text", pa.string(), st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]), min_size=1)),
]
NAMES = ["id", *(name for name, *_ in COLUMNS), "churn"]
DATABASE_TYPES = ["text", *(kind for _, _, kind, _, _ in COLUMNS), "text"]
TABLE_FILE = {
    "label": {"meaning": "The customer left."},
    "roles": {"id": "id", "target": {"column": "churn", "positive": "Yes"}, "ignored": ["joined", "called"]},
    "columns": {
        "id": {"dtype": "str"},
        **{name: {"dtype": dtype, "nullable": True} for name, dtype, *_ in COLUMNS},
        "churn": {"dtype": "str", "isin": ["No", "Yes"]},
    },
}
CONTRACT = Contract.parse(TABLE_FILE, "customers")
CELLS = st.tuples(*(st.none() | values for *_, values in COLUMNS), st.sampled_from(["No", "Yes", "Maybe"]))
ROWS = st.lists(CELLS, min_size=1, max_size=20).map(
    lambda rows: [(f"C-{number:03d}", *row) for number, row in enumerate(rows)]
)
Rows = list[tuple[Any, ...]]


@pytest.fixture
def warehouse(postgres: Servers, database: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The SQLAlchemy address of an empty database."""
    for name, value in postgres.environment().items():
        monkeypatch.setenv(name, value)
    return make_url(postgres.environment()["CHURN_STUDIES"]).set(database=database).render_as_string()


def _run_sql(address: str, statement: str, rows: Rows = ()) -> None:  # type: ignore[assignment]
    with psycopg.connect(address.replace("+psycopg", "")) as connection:
        if rows:
            connection.cursor().executemany(statement, rows)
        else:
            connection.execute(statement)


def _query(address: str, sql: str = "SELECT * FROM customers") -> dict[str, Any]:
    return {"type": "pandas.SQLQueryDataset", "sql": sql, "credentials": {"con": address}}


def _ibis_postgres(address: str) -> dict[str, Any]:
    url = make_url(address)
    place = {"host": url.host, "port": url.port, "user": url.username, "database": url.database}
    return {"type": "ibis.TableDataset", "table_name": "customers", "connection": {"backend": "postgres", **place}}


def _ibis_duckdb(file: Path) -> dict[str, Any]:
    connection = {"backend": "duckdb", "database": str(file), "read_only": True}
    return {"type": "ibis.TableDataset", "table_name": "customers", "connection": connection}


def _load(source: dict[str, Any]) -> pd.DataFrame:
    raw: pd.DataFrame = RawTableDataset(dataset=source, roles={"id": "id"}).load()
    return raw


def _csv(rows: Rows, file: Path) -> dict[str, Any]:
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    pd.DataFrame(cells, columns=NAMES).to_csv(file, index=False)
    arguments = {"dtype": "str", "keep_default_na": False}
    return {"type": "pandas.CSVDataset", "filepath": str(file), "load_args": arguments}


def _parquet(rows: Rows, file: Path) -> dict[str, Any]:
    types = [pa.string(), *(kind for _, _, _, kind, _ in COLUMNS), pa.string()]
    columns = [pa.array(cells, kind) for cells, kind in zip(zip(*rows, strict=True), types, strict=True)]
    pq.write_table(pa.table(columns, names=NAMES), file)
    return {"type": "pandas.ParquetDataset", "filepath": str(file)}


def _in_duckdb(rows: Rows, file: Path) -> dict[str, Any]:
    file.unlink(missing_ok=True)
    with duckdb.connect(str(file)) as connection:
        columns = ", ".join(f"{name} {kind}" for name, kind in zip(NAMES, DATABASE_TYPES, strict=True))
        connection.execute(f"CREATE TABLE customers ({columns})")
        # in another order, because databases promise none
        places = ", ".join("?" * len(NAMES))
        connection.executemany(f"INSERT INTO customers VALUES ({places})", [list(row) for row in reversed(rows)])
    return _ibis_duckdb(file)


def _in_postgres(rows: Rows, address: str) -> None:
    columns = ", ".join(f"{name} {kind}" for name, kind in zip(NAMES, DATABASE_TYPES, strict=True))
    _run_sql(address, f"DROP TABLE IF EXISTS customers; CREATE TABLE customers ({columns})")
    _run_sql(address, f"INSERT INTO customers VALUES ({', '.join(['%s'] * len(NAMES))})", rows[::-1])


def _check_equal(sources: dict[str, dict[str, Any]]) -> None:
    """Check that each source gives the customers, the quarantine and the digest of the first."""
    expected = None
    for name, source in sources.items():
        raw = _load(source)
        result = validate_table(raw, CONTRACT)
        found = (result.customers, list(result.quarantine["row"]), list(result.quarantine["reasons"]), raw_digest(raw))
        expected = expected or found
        pd.testing.assert_frame_equal(found[0], expected[0], obj=name)
        assert found[1:] == expected[1:], name


ROW = ("C-0", 2**53 + 1, Decimal("12.30"), 0.1, True, dt.date(2024, 1, 1), dt.datetime(2024, 1, 1, 10), "Łódź", "No")
MISSING = ("C-1", *[None] * 7, "Yes")
INVALID = ("C-2", 1, Decimal("1.00"), 1.0, False, dt.date(2024, 1, 1), dt.datetime(2024, 1, 1), "'", "Maybe")


def test_databases_and_files_give_the_same_customers_and_digest(warehouse: str, tmp_path: Path) -> None:
    rows = [ROW, MISSING, INVALID]
    _in_postgres(rows, warehouse)
    duck = _in_duckdb(rows, tmp_path / "warehouse.duckdb")
    _check_equal({"CSV": _csv(rows, tmp_path / "rows.csv"), "DuckDB": duck, "query": _query(warehouse)})


@pytest.mark.slow
def test_every_source_gives_the_same_customers_and_digest(warehouse: str, tmp_path: Path) -> None:
    runs = iter(range(1_000))

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(ROWS)
    def check(rows: Rows) -> None:
        folder = tmp_path / str(next(runs))
        folder.mkdir()
        _in_postgres(rows, warehouse)
        _check_equal(
            {
                "CSV": _csv(rows, folder / "rows.csv"),
                "Parquet": _parquet(rows, folder / "rows.parquet"),
                "DuckDB": _in_duckdb(rows, folder / "rows.duckdb"),
                "query": _query(warehouse),
                "chunks": _query(warehouse) | {"load_args": {"chunksize": 1}},
                "table": {
                    "type": "pandas.SQLTableDataset",
                    "table_name": "customers",
                    "credentials": {"con": warehouse},
                    "load_args": {"schema": "public"},
                },
                "Ibis on PostgreSQL": _ibis_postgres(warehouse),
            }
        )

    check()


TYPES = {
    "numeric": ("1.123456789012345", "1.123456789012345"),
    "real": ("0.1", "0.1"),
    "uuid": ("'6b8bd1f2-56a1-4f3a-9a5e-0f1f5e8c1d11'", "6b8bd1f2-56a1-4f3a-9a5e-0f1f5e8c1d11"),
    "timestamptz": ("'2024-01-01 10:00+01'", "2024-01-01 09:00:00+00:00"),
    "timestamp": ("'9999-12-31'", "9999-12-31 00:00:00"),
    "date": ("'9999-12-31'", "9999-12-31"),
    "time": ("'10:00'", "10:00:00"),
}


@pytest.mark.slow
def test_the_types_of_postgresql_reach_the_contract_exactly(warehouse: str) -> None:
    names = [kind.replace(" ", "_") for kind in TYPES]
    columns = ", ".join(f"c_{name} {kind}" for name, kind in zip(names, TYPES, strict=True))
    _run_sql(warehouse, f"CREATE TABLE customers ({columns})")
    _run_sql(warehouse, f"INSERT INTO customers VALUES ({', '.join(cell for cell, _ in TYPES.values())})")
    _run_sql(warehouse, f"INSERT INTO customers VALUES ({', '.join(['NULL'] * len(TYPES))})")
    for source in (_query(warehouse), _ibis_postgres(warehouse)):
        raw = _load(source)
        assert [str(cell) for cell in raw.astype(object).iloc[0]] == [text for _, text in TYPES.values()]
        assert raw.iloc[1].isna().all()


@pytest.mark.slow
def test_a_column_of_bytes_is_refused_by_name(warehouse: str) -> None:
    _run_sql(warehouse, "CREATE TABLE customers (id text, photo bytea)")
    _run_sql(warehouse, "INSERT INTO customers VALUES ('C-1', '\\xff')")
    for source in (_query(warehouse), _ibis_postgres(warehouse)):
        with pytest.raises(DatasetError) as caught:
            _load(source)
        assert "bytes" in str(actionable(caught.value))


def test_a_percent_sign_in_a_query_is_a_character(warehouse: str) -> None:
    _run_sql(warehouse, "CREATE TABLE customers (id text)")
    _run_sql(warehouse, "INSERT INTO customers VALUES ('C-1'), ('D-1')")
    assert list(_load(_query(warehouse, "SELECT id FROM customers WHERE id LIKE 'C%'"))["id"]) == ["C-1"]


def test_an_address_without_a_driver_uses_psycopg(warehouse: str) -> None:
    _run_sql(warehouse, "CREATE TABLE customers (id bigint)")
    _run_sql(warehouse, "INSERT INTO customers VALUES (1)")
    assert len(_load(_query(warehouse.replace("+psycopg", "")))) == 1


def test_a_missing_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(DatasetError) as caught:
        _load(_query("postgresql+psycopg://127.0.0.1:1/none"))
    assert "churn_pipeline[production]" in str(actionable(caught.value))


def test_psycopg2_is_replaced_by_psycopg() -> None:
    with pytest.raises(DatasetError) as caught:
        _load(_query("postgresql+psycopg2://127.0.0.1:1/none"))
    assert "postgresql+psycopg://" in str(actionable(caught.value))


def test_credentials_without_an_address_say_where_to_put_it() -> None:
    with pytest.raises(TableError, match="CHURN_WAREHOUSE"):
        _load({"type": "pandas.SQLQueryDataset", "sql": "SELECT 1", "credentials": {"con": None}})


@pytest.mark.parametrize("source", [_ibis_duckdb(Path("none.duckdb")), _ibis_postgres("postgresql://u@127.0.0.1:1/d")])
def test_a_database_that_does_not_answer_is_one_message(source: dict[str, Any]) -> None:
    with pytest.raises(DatasetError) as caught:
        _load(source)
    assert "the database raised" in str(actionable(caught.value))


# ---- folders ---------------------------------------------------------------------------------------------------------


def test_a_folder_of_parquet_files_is_one_table(tmp_path: Path) -> None:
    for month, number in (("2024-02", 1), ("2024-01", 0)):
        folder = tmp_path / f"month={month}"
        folder.mkdir()
        pq.write_table(pa.table({"id": [f"C-{number}"], "calls": [number]}), folder / "part-00000-a.snappy.parquet")
    (tmp_path / "_SUCCESS").touch()
    raw = _load({"type": "pandas.ParquetDataset", "filepath": str(tmp_path)})
    assert raw.astype(object).to_numpy().tolist() == [["C-0", 0, "2024-01"], ["C-1", 1, "2024-02"]]


def _csv_parts(folder: Path) -> dict[str, Any]:
    dataset = {"type": "pandas.CSVDataset", "load_args": {"dtype": "str", "keep_default_na": False}}
    return {"type": "partitions.PartitionedDataset", "path": str(folder), "dataset": dataset}


def test_a_folder_of_csv_files_is_one_table_in_the_order_of_their_names(tmp_path: Path) -> None:
    for number in (1, 0):
        (tmp_path / f"part-{number}.csv").write_text(f"id,calls\nC-{number},{number}\n")
    (tmp_path / "_SUCCESS").touch()
    assert _load(_csv_parts(tmp_path)).to_numpy().tolist() == [["C-0", "0"], ["C-1", "1"]]


def test_csv_files_with_different_columns_are_refused(tmp_path: Path) -> None:
    (tmp_path / "part-0.csv").write_text("id,calls\nC-0,0\n")
    (tmp_path / "part-1.csv").write_text("id\nC-1\n")
    with pytest.raises(DatasetError) as caught:
        _load(_csv_parts(tmp_path))
    assert "part-1.csv has other columns than part-0.csv" in str(actionable(caught.value))


def test_a_folder_without_data_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "_SUCCESS").touch()
    with pytest.raises(DatasetError) as caught:
        _load(_csv_parts(tmp_path))
    assert "without data files" in str(actionable(caught.value))


def test_a_draft_reads_the_source_in_a_yaml_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "conf" / "base", tmp_path / "conf" / "base")
    (tmp_path / "conf" / "local").mkdir()
    with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as connection:
        columns = "'C-' || i AS id, i % 7 AS calls, CASE WHEN i % 4 = 0 THEN 'Yes' ELSE 'No' END AS churn"
        connection.execute(f"CREATE TABLE customers AS SELECT {columns} FROM range(100) numbers(i)")
    monkeypatch.setenv("FOLDER", str(tmp_path))
    source = _ibis_duckdb(Path("${oc.env:FOLDER}/warehouse.duckdb"))
    file = tmp_path / "warehouse.yml"
    file.write_text(yaml.safe_dump({"source": source}), encoding="utf-8")

    ended = CliRunner().invoke(
        table, ["draft", str(file), "--name", "mine"], obj=SimpleNamespace(project_path=tmp_path)
    )

    assert ended.exit_code == 0, ended.output
    drafted = tmp_path / "conf" / "local" / "tables" / "mine.yml"
    assert yaml.safe_load(drafted.read_text(encoding="utf-8"))["source"] == source
    assert list(read_contract(drafted).columns) == ["id", "calls", "churn"]


# ---- the page that describes the sources -----------------------------------------------------------------------------

PAGE = (ROOT / "docs/how_to/read_from_a_database.md").read_text(encoding="utf-8")
ROWS_OF_PAGE = [ROW, MISSING, INVALID]
BLOCKS = re.findall(r"^## ([^\n]+)\n(?:(?!^## ).)*?```yaml\n(source:.*?)```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture
def project(warehouse: str, s3: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with this project's configuration, and the table in every place that the page names."""
    url = make_url(warehouse)
    names = {"CHURN_WAREHOUSE": warehouse, "PGHOST": url.host, "PGPORT": url.port, "PGUSER": url.username}
    for name, value in {**s3.environment(), **names, "PGDATABASE": url.database}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "conf" / "base", tmp_path / "conf" / "base")
    (tmp_path / "conf" / "local").mkdir()
    folder = tmp_path / "data" / "01_raw"
    (folder / "customers_parquet").mkdir(parents=True)
    _fill(folder, warehouse)
    lake = fsspec.filesystem("s3")
    for source, target in (("customers_parquet", "customers"), ("customers_csv", "customers_csv")):
        for file in (folder / source).iterdir():
            lake.put_file(str(file), f"churn/warehouse/{target}/{file.name}")
    lake.put_file(str(folder / "customers.csv"), "churn/warehouse/customers.csv")
    return tmp_path


def _fill(folder: Path, warehouse: str) -> None:
    _in_postgres(ROWS_OF_PAGE, warehouse)
    _run_sql(warehouse, "CREATE SCHEMA crm; ALTER TABLE customers SET SCHEMA crm")
    _in_duckdb(ROWS_OF_PAGE, folder / "warehouse.duckdb")
    _csv(ROWS_OF_PAGE, folder / "customers.csv")
    (folder / "customers_csv").mkdir()
    for number, part in enumerate((ROWS_OF_PAGE[:1], ROWS_OF_PAGE[1:])):
        _parquet(part, folder / "customers_parquet" / f"part-{number:05d}.snappy.parquet")
        _csv(part, folder / "customers_csv" / f"part-{number:05d}.csv")
    for name in ("customers_parquet", "customers_csv"):
        (folder / name / "_SUCCESS").touch()


def test_the_page_has_a_block_for_each_source() -> None:
    types = [yaml.safe_load(block)["source"]["type"] for _, block in BLOCKS]
    assert {*DATABASES, "pandas.ParquetDataset", "pandas.CSVDataset", "partitions.PartitionedDataset"} == set(types)
    assert len(BLOCKS) == PAGE.count("source:\n")


@pytest.mark.slow
def test_each_source_of_the_page_gives_the_same_customers(project: Path, tmp_path: Path) -> None:
    found = {"a local CSV file": _load(_csv(ROWS_OF_PAGE, tmp_path / "expected.csv"))}
    for title, block in BLOCKS:
        file = project / "conf" / "base" / "tables" / "mine.yml"
        file.write_text(block + yaml.safe_dump(TABLE_FILE, sort_keys=False), encoding="utf-8")
        loader = TableConfigLoader(str(project / "conf"), runtime_params={"table": "mine"}, **LOADER_ARGS)
        entries = {"raw_customers": loader["catalog"]["raw_customers"]}
        found[title] = DataCatalog.from_config(entries, loader["credentials"]).load("raw_customers")
    results = {title: validate_table(raw, CONTRACT) for title, raw in found.items()}
    expected = results["a local CSV file"]
    assert {title: raw_digest(raw) for title, raw in found.items()} == dict.fromkeys(found, raw_digest(found["DuckDB"]))
    for title, result in results.items():
        pd.testing.assert_frame_equal(result.customers, expected.customers, obj=title)
        assert list(result.quarantine["reasons"]) == list(expected.quarantine["reasons"]), title
