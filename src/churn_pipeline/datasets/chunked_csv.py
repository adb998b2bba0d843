"""A CSV file that is written in chunks."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from kedro.io import AbstractDataset, DatasetError
from pyarrow import csv

from churn_pipeline.datasets.files import StoredFile

logger = logging.getLogger(__name__)


class ChunkedCSVDataset(AbstractDataset[pd.DataFrame, pd.DataFrame]):
    """A CSV file that a node writes in chunks and that is either complete or absent.

    Each chunk that a node yields is appended to ``<filepath>.part``. When the node has finished, Kedro confirms the
    dataset (list it in the node's ``confirms``), and the part replaces the file. An interrupted run leaves the previous
    file, if any, and a part that the next run overwrites. A dataset object lives for one run, so its first chunk starts
    a new part. The part of a file at another address is a temporary file on this machine, because object stores append
    nothing.

    Values are written without quotes and numbers in their shortest exact form, so the same frames give the same bytes.
    Text that needs quotes is rejected.

    Parameters
    ----------
    filepath : str
        Path of the file, or any address that fsspec knows.
    load_args : dict, optional
        Passed to `pandas.read_csv`.
    credentials : dict, optional
        Arguments of fsspec's file system.
    metadata : dict, optional
        Ignored here; Kedro plugins read it.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> dataset = ChunkedCSVDataset(filepath=f"{folder.name}/numbers.csv")
    >>> dataset.save(pd.DataFrame({"n": [1, 2]}))
    >>> dataset.save(pd.DataFrame({"n": [3]}))
    >>> dataset.exists()
    False
    >>> dataset.confirm()
    >>> dataset.load()["n"].tolist()
    [1, 2, 3]
    >>> folder.cleanup()
    """

    def __init__(
        self,
        *,
        filepath: str,
        load_args: dict[str, Any] | None = None,
        credentials: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._file = StoredFile(filepath, credentials)
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._load_args = load_args or {}
        self._header: list[str] | None = None  # of the part being written
        self._rows = 0  # of the part
        self.metadata = metadata

    def load(self) -> pd.DataFrame:
        """Read the file.

        Raises
        ------
        DatasetError
            If the file is absent but a part of it exists.
        """
        if self._file.local_path is not None and self._part.exists() and not self._file.exists():
            raise DatasetError(f"'{self._file.address}' is incomplete: run the node that writes it again")
        with self._file.on_this_machine() as path:
            frame: pd.DataFrame = pd.read_csv(path, **self._load_args)
        return frame

    def save(self, data: pd.DataFrame) -> None:
        """Append a chunk; the first chunk starts a new part with a header.

        Raises
        ------
        DatasetError
            If the chunk's columns differ from those of earlier chunks, or a text needs quotes.
        """
        first = self._header is None
        if first:
            self._part.parent.mkdir(parents=True, exist_ok=True)
            self._header, self._rows = list(data.columns), 0
        if list(data.columns) != self._header:
            raise DatasetError(
                f"A chunk of '{self._file.address}' has the columns {list(data.columns)}, earlier ones {self._header}"
            )
        options = csv.WriteOptions(include_header=first, quoting_style="none", quoting_header="none", batch_size=4096)
        table = pa.Table.from_pandas(data, preserve_index=False)
        with self._part.open("wb" if first else "ab") as file:
            csv.write_csv(table, file, options)
        self._rows += len(data)

    def confirm(self) -> None:
        """Replace the file by the part, and log its address.

        Raises
        ------
        DatasetError
            If nothing was saved.
        """
        if self._header is None:
            raise DatasetError(f"Nothing was written to '{self._file.address}'")
        if self._file.local_path is not None:
            self._part.replace(self._file.local_path)
        else:
            self._file.write_from(self._part)
            self._part.unlink()
        logger.info("Wrote %s rows to %s", f"{self._rows:,}", self._file.address)
        self._header = None

    @property
    def _part(self) -> Path:
        path = self._file.local_path
        if path is not None:
            return path.with_name(f"{path.name}.part")
        self._temporary = self._temporary or tempfile.TemporaryDirectory()
        return Path(self._temporary.name) / f"{self._file.name}.part"

    def _exists(self) -> bool:
        return self._file.exists()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._file.address, "load_args": self._load_args}
