"""A CSV file that is written chunk by chunk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from kedro.io import AbstractDataset, DatasetError
from pyarrow import csv


class ChunkedCSVDataset(AbstractDataset[pd.DataFrame, pd.DataFrame]):
    """A CSV file on this machine that a node writes in chunks and that is either whole or absent.

    Chunks of a node that yields are appended to ``<filepath>.part``. When the node is through, Kedro confirms the
    dataset (list it in the node's ``confirms``) and the part takes the place of the file. An interrupted run leaves
    the former file, if any, and a part which the next run replaces. Dataset objects live for one run: the first chunk
    an object saves starts a new part.

    Values are written bare, never in quotes, and numbers in the shortest form that reads back the same, so that the
    same frames give the same bytes; text which would need quotes is refused.

    Parameters
    ----------
    filepath : str
        Where the file is.
    load_args : dict, optional
        Passed to `pandas.read_csv`.
    metadata : dict, optional
        For others to read; ignored here.

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
        self, *, filepath: str, load_args: dict[str, Any] | None = None, metadata: dict[str, Any] | None = None
    ) -> None:
        self._filepath = Path(filepath)
        self._part = self._filepath.with_name(self._filepath.name + ".part")
        self._load_args = load_args or {}
        self._header: list[str] | None = None  # of the part being written
        self.metadata = metadata

    def load(self) -> pd.DataFrame:
        """Read the file.

        Raises
        ------
        DatasetError
            If it is not there; the message says so when a part of it is.
        """
        if self._part.exists() and not self._filepath.exists():
            raise DatasetError(f"'{self._filepath}' was never finished: run again what writes it")
        frame: pd.DataFrame = pd.read_csv(self._filepath, **self._load_args)
        return frame

    def save(self, data: pd.DataFrame) -> None:
        """Append a chunk; the first one starts a new part, with the header.

        Raises
        ------
        DatasetError
            If the chunk's columns are not those of the chunks before, or a text would need quotes.
        """
        first = self._header is None
        if first:
            self._filepath.parent.mkdir(parents=True, exist_ok=True)
            self._header = list(data.columns)
        if list(data.columns) != self._header:
            raise DatasetError(f"a chunk has the columns {list(data.columns)}, those before it {self._header}")
        options = csv.WriteOptions(include_header=first, quoting_style="none", quoting_header="none", batch_size=4096)
        table = pa.Table.from_pandas(data, preserve_index=False)
        with self._part.open("wb" if first else "ab") as file:
            csv.write_csv(table, file, options)

    def confirm(self) -> None:
        """Put the part written so far in the place of the file.

        Raises
        ------
        DatasetError
            If nothing was saved.
        """
        if self._header is None:
            raise DatasetError(f"nothing was written to '{self._filepath}'")
        self._part.replace(self._filepath)
        self._header = None

    def _exists(self) -> bool:
        return self._filepath.exists()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath), "load_args": self._load_args}
