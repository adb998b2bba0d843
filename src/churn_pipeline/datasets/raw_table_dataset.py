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

ARGUMENT = re.compile(r"(?:unexpected keyword argument|missing \d+ required.*:) '(\w+)'")


class RawTableDataset(AbstractDataset[NoReturn, pd.DataFrame]):
    """Reads the Kedro dataset that a table file gives as its source: CSV, Parquet, SQL or any other.

    Examples
    --------
    >>> from churn_pipeline.datasets import RawTableDataset
    >>> source = {"type": "pandas.CSVDataset", "filepath": "data/01_raw/customers.csv"}
    >>> raw = RawTableDataset(dataset=source).load()  # doctest: +SKIP
    """

    def __init__(self, dataset: dict[str, Any], metadata: dict[str, Any] | None = None) -> None:
        self._source = _made(dataset)
        self._filepath = dataset.get("filepath")
        self._dataset = dataset.get("dataset", dataset)  # a dataset that fetches its file names the one that reads it
        self.metadata = metadata

    def load(self) -> pd.DataFrame:
        """Read the table.

        Raises
        ------
        TableError
            If the file is absent, empty, in another encoding or not a single table, or the database query fails.
        """
        try:
            raw = self._source.load()
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
        return raw

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
        return AbstractDataset.from_config("source", dataset)
    except DatasetError as error:
        unknown = next((found for cause in causes(error) if (found := ARGUMENT.search(str(cause)))), None)
        if unknown is not None:
            problem = f"has an unknown or missing argument, '{unknown[1]}': see the documentation of {dataset['type']}"
        elif "not found" in str(error):
            problem = f"has an unknown type, '{dataset['type']}': write for example pandas.CSVDataset"
        else:
            raise
        raise TableError("The table file's source", problem) from error


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
    if isinstance(error, SQLAlchemyError | pd.errors.DatabaseError):
        # The database's message may contain a value.
        return (
            f"the database raised {type(error).__name__}: check its address, the source's credentials and the query; a "
            "database client shows the full message"
        )
    return None
