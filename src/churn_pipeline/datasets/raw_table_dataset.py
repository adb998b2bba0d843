"""The raw customer table from any Kedro dataset, with read errors that name their fix."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd
from kedro.io import AbstractDataset, DatasetError

from churn_pipeline.contract.errors import TableError
from churn_pipeline.datasets.file_rows import file_rows
from churn_pipeline.datasets.raw_frames import CHUNK_ROWS, in_order, one_frame

ARGUMENT = re.compile(r"(?:unexpected keyword argument|missing \d+ required.*:) '(\w+)'")
DATABASES = ("pandas.SQLQueryDataset", "pandas.SQLTableDataset", "ibis.TableDataset")
# Exact types: pandas itself would read an integer column with a missing cell as floats, which lose digits.
EXACT = {"dtype_backend": "pyarrow"}
IN_CHUNKS = {"chunksize": CHUNK_ROWS, "coerce_float": False, **EXACT}
# A server-side cursor; without parameters, a % in the query is an ordinary character.
STREAMED = {"stream_results": True, "no_parameters": True}
FROM_FSSPEC = re.compile(r"[Ii]nstall ([\w-]+) to access")
PACKAGES_OF_EXTRA = ("psycopg", "ibis", "duckdb", "s3fs", "boto3")


class RawTableDataset(AbstractDataset[NoReturn, pd.DataFrame]):
    """Reads the Kedro dataset that a table file gives as its source: CSV, Parquet, SQL, Ibis or any other.

    A query is read in chunks with a server-side cursor, an Ibis table in batches, and the files of a
    ``partitions.PartitionedDataset`` in the order of their names. A database returns rows in any order, so they are sorted by
    id and date, or by all columns if these do not identify a row.

    Parameters
    ----------
    dataset
        Configuration of the source.
    roles
        The contract's roles, of which ``id`` and ``date`` sort the rows of a database.
    metadata
        Ignored here; Kedro plugins read it.

    Examples
    --------
    >>> from churn_pipeline.datasets import RawTableDataset
    >>> source = {"type": "pandas.CSVDataset", "filepath": "data/01_raw/customers.csv"}
    >>> raw = RawTableDataset(dataset=source).load()  # doctest: +SKIP
    """

    def __init__(
        self, dataset: dict[str, Any], roles: dict[str, Any] | None = None, metadata: dict[str, Any] | None = None
    ) -> None:
        self._source = _made(dataset)
        self._key = [name for role in ("id", "date") if isinstance(name := (roles or {}).get(role), str)]
        self._is_database = _kind(dataset) in DATABASES
        self._filepath = dataset.get("filepath")
        self._dataset = dataset.get("dataset", dataset)  # a dataset that fetches its file names the one that reads it
        self.metadata = metadata

    def load(self) -> pd.DataFrame:
        """Read the table.

        Raises
        ------
        TableError
            If the file is absent, empty, in another encoding or not a single table, the database query fails, or a
            column contains bytes.
        """
        try:
            raw = one_frame(self._source.load())
        except TableError:
            raise
        except Exception as error:
            problem = next((text for cause in causes(error) if (text := _explain(cause))), None)
            if problem is None:
                raise
            raise TableError(f"The raw table {self._where()} cannot be read", problem) from error
        if not isinstance(raw, pd.DataFrame):
            raise TableError(
                f"The raw table {self._where()}",
                f"is a {type(raw).__name__}, not a pandas DataFrame: choose another source type",
            )
        return in_order(raw, self._key) if self._is_database else raw

    def file_rows(self, rows: Sequence[int]) -> dict[int, int] | None:
        """Lines of the CSV file, or rows of the workbook, that contain these rows; None for other sources."""
        filepath, dataset = getattr(self._source, "filepath", None) or self._filepath, self._dataset
        if filepath is None:
            return None
        kind = str(dataset["type"]).rsplit(".", 1)[-1]
        return file_rows(str(filepath), kind, dataset.get("load_args") or {}, rows, dataset.get("credentials"))

    def save(self, data: NoReturn) -> None:
        """Raise an error: raw tables are only read."""
        raise DatasetError("The raw table is only ever read.")

    def _exists(self) -> bool:
        return bool(self._source.exists())

    def _describe(self) -> dict[str, Any]:
        return {"source": type(self._source).__name__, "where": self._where()}

    def _where(self) -> str:
        return str(getattr(self._source, "filepath", None) or self._filepath or type(self._source).__name__)


def _made(dataset: Any) -> AbstractDataset[Any, Any]:
    """The dataset that a table file gives as its source."""
    if not isinstance(dataset, dict) or "type" not in dataset:
        raise TableError(
            "The table file's source",
            "needs a type and a file, such as {type: pandas.CSVDataset, filepath: data/01_raw/customers.csv}",
        )
    try:
        return AbstractDataset.from_config("source", _with_defaults(dataset))
    except Exception as error:
        problem: str | None
        unknown = next((found for cause in causes(error) if (found := ARGUMENT.search(str(cause)))), None)
        if unknown is not None:
            problem = f"has an unknown or missing argument, '{unknown[1]}': see the documentation of {dataset['type']}"
        elif "not found" in str(error):
            problem = f"has an unknown type, '{dataset['type']}': write for example pandas.CSVDataset"
        elif "'con' argument cannot be empty" in str(error):
            problem = (
                "needs the address of the database: export CHURN_WAREHOUSE for `credentials: warehouse`, or add `con` to its "
                "entry in conf/local/credentials.yml"
            )
        elif (problem := next((text for cause in causes(error) if (text := _explain(cause))), None)) is None:
            raise
        raise TableError("The table file's source", problem) from error


def _kind(dataset: dict[str, Any]) -> str:
    return str(dataset["type"]).removeprefix("kedro_datasets.")


def _with_defaults(dataset: dict[str, Any]) -> dict[str, Any]:
    """The source's configuration with defaults for reading exactly and in chunks."""
    kind, given = _kind(dataset), dataset.get("load_args") or {}
    address, name = (dataset.get("credentials") or {}).get("con"), dataset.get("table_name")
    if kind == "pandas.SQLTableDataset" and address and name and given.keys() <= {"schema", "columns"}:
        # pandas.read_sql_table would replace dates after 2262 by missing cells without a word
        query = {"type": "pandas.SQLQueryDataset", "sql": _query(address, name, **given)}
        return _with_defaults({**query, "credentials": dataset["credentials"]})
    if kind == "pandas.SQLQueryDataset":
        streamed = {**STREAMED, **(dataset.get("execution_options") or {})}
        return {**dataset, "load_args": {**IN_CHUNKS, **given}, "execution_options": streamed}
    if kind == "pandas.ParquetDataset" and "engine" not in given:
        return {**dataset, "load_args": {**EXACT, **given}}
    return dataset


def _query(address: str, table_name: str, schema: str | None = None, columns: Sequence[str] = ()) -> str:
    """The query that reads a table, with names quoted as its database does."""
    from sqlalchemy import column, literal_column, make_url, select, table  # noqa: PLC0415 - files do not need it

    query = select(*map(column, columns)) if columns else select(literal_column("*"))
    return str(query.select_from(table(table_name, schema=schema)).compile(dialect=make_url(address).get_dialect()()))


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes: the error it was raised from, or the one that Kedro was handling when it raised.

    If other code than Kedro's raises while it handles an error, the handling itself has a defect.
    """
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        is_from_kedro = type(cause).__module__.startswith("kedro") and not cause.__suppress_context__
        cause = cause.__cause__ or (cause.__context__ if is_from_kedro else None)


def _explain(error: BaseException) -> str | None:
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415 - files do not need it

    if isinstance(error, FileNotFoundError):
        public = (
            ""
            if os.environ.get("CHURN_PUBLIC_DATA")
            else " For a public table, set CHURN_PUBLIC_DATA to the folder that contains it (see the table's page)."
        )
        name = f": {Path(error.filename).name}" if error.filename else ""  # a store gives no name
        return f"the file does not exist{name}.{public}"
    if isinstance(error, pd.errors.EmptyDataError):
        return "the file is empty"
    if isinstance(error, UnicodeDecodeError):
        return (
            f"it is not {error.encoding} text (byte {error.start:,}): set its encoding in the table file as "
            "source.load_args.encoding, such as latin-1, or check that it is a table"
        )
    if isinstance(error, pd.errors.ParserError):
        place = str(error).split("Expected", maxsplit=1)[-1].strip() if "Expected" in str(error) else ""
        detail = f" (expected {place})" if place else " (it may be cut off inside a quoted cell)"
        return f"its rows cannot be parsed{detail}: check its separator and quotes, or copy the file again"
    if isinstance(error, UnicodeError):
        return "its encoding is not the one named in source.load_args.encoding"
    if type(error).__name__ in ("CalamineError", "ZipError", "XmlError", "BadZipFile"):
        return "it is not an Excel workbook or archive, or is truncated: copy the file again"
    if isinstance(error, ValueError) and (sheet := re.search(r"Worksheet named '(.+)' not found", str(error))):
        return f"the workbook has no sheet '{sheet[1]}': correct source.load_args.sheet_name in the table file"
    if isinstance(error, TypeError) and (unknown := ARGUMENT.search(str(error))):
        return f"source.load_args has an unknown argument, '{unknown[1]}': correct or remove it"
    if isinstance(error, ImportError):
        return _explain_import(error)
    if isinstance(error, SQLAlchemyError | pd.errors.DatabaseError) or _is_from_database(error):
        # The database's message may contain a value.
        return (
            f"the database raised {type(error).__name__}: check its address, the source's credentials and the query; a "
            "database client shows the full message"
        )
    return None


def _is_from_database(error: BaseException) -> bool:
    return type(error).__module__.split(".")[0].strip("_") in ("psycopg", "duckdb", "ibis")


def _explain_import(error: ImportError) -> str:
    """A driver or file system that is not installed; fsspec names its package only in the message."""
    named = FROM_FSSPEC.search(str(error))
    missing = named[1] if named else (error.name or "").split(".")[0]
    if missing == "psycopg2":
        return "the project's driver for PostgreSQL is psycopg: write the address as postgresql+psycopg://"
    package = next((name for name in PACKAGES_OF_EXTRA if name in (missing or str(error))), None)
    if package:
        return f"the package {package} is not installed: install it with `pip install 'churn_pipeline[production]'`"
    return f"the package {missing or 'of its driver'} is not installed: install it, see the documentation of the source"
