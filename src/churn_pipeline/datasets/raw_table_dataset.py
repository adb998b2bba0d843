"""The raw customer table, from whatever dataset holds it, with read errors that a person can act on."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd
from kedro.io import AbstractDataset, DatasetError
from sqlalchemy.exc import SQLAlchemyError

from churn_pipeline.contract.errors import TableError


class RawTableDataset(AbstractDataset[NoReturn, pd.DataFrame]):
    """Wraps the Kedro dataset that a table file names as its source: CSV, Parquet, SQL or any other.

    Examples
    --------
    >>> from churn_pipeline.datasets import RawTableDataset
    >>> source = {"type": "pandas.CSVDataset", "filepath": "data/01_raw/customers.csv"}
    >>> raw = RawTableDataset(dataset=source).load()  # doctest: +SKIP
    """

    def __init__(self, dataset: dict[str, Any], metadata: dict[str, Any] | None = None) -> None:
        self._source = AbstractDataset.from_config("source", dataset)
        self.metadata = metadata

    def load(self) -> pd.DataFrame:
        """Read the table.

        Raises
        ------
        TableError
            When the file is absent, empty, in another encoding, no table at all, or not one table; or when the
            database cannot be asked.
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
            raise TableError(f"The raw table {self._where()}", f"is a {type(raw).__name__} and not a pandas table")
        return raw

    def save(self, data: NoReturn) -> None:
        """Raw tables are never written."""
        raise DatasetError("The raw table is only ever read.")

    def _exists(self) -> bool:
        return bool(self._source.exists())

    def _describe(self) -> dict[str, Any]:
        return {"source": type(self._source).__name__, "where": self._where()}

    def _where(self) -> str:
        return str(getattr(self._source, "_filepath", None) or type(self._source).__name__)


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what led to it: what it was raised from, and what Kedro was handling when it raised its own.

    Anyone else's error while another is handled is a defect of the handling, and not the first error told anew.
    """
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        kedros = type(cause).__module__.startswith("kedro") and not cause.__suppress_context__
        cause = cause.__cause__ or (cause.__context__ if kedros else None)


def _explain(error: BaseException) -> str | None:
    if isinstance(error, FileNotFoundError):
        public = (
            ""
            if os.environ.get("CHURN_PUBLIC_DATA")
            else (" For a public table, set CHURN_PUBLIC_DATA to the folder that holds it (see the table's page).")
        )
        return f"it is not there: {Path(error.filename).name if error.filename else 'no such file'}.{public}"
    if isinstance(error, pd.errors.EmptyDataError):
        return "the file is empty"
    if isinstance(error, UnicodeDecodeError):
        return (
            f"it is not {error.encoding} text (byte {error.start:,}): name its encoding in the table file as "
            "source.load_args.encoding, such as latin-1, or check that it is a table at all"
        )
    if isinstance(error, pd.errors.ParserError):
        place = str(error).split("Expected", maxsplit=1)[-1].strip() if "Expected" in str(error) else ""
        detail = f" (expected {place})" if place else " (it may be cut off inside a quoted cell)"
        return f"it is not one table{detail}: check its separator and quotes, or copy it again"
    if isinstance(error, UnicodeError):
        return "its encoding is not the one named in source.load_args.encoding"
    if isinstance(error, SQLAlchemyError | pd.errors.DatabaseError):
        # What the database says may quote a cell.
        return (
            f"the database gave {type(error).__name__}: check that it can be reached, the source's credentials and "
            "its query; a client of the database says more"
        )
    return None
