"""A public file, from a folder where it lies already, else fetched once and held to its checksum."""

import sys
from pathlib import Path
from typing import Any, NoReturn

import pooch
from kedro.io import AbstractDataset, DatasetError

from churn_pipeline.contract.errors import TableError


class FetchedDataset(AbstractDataset[NoReturn, Any]):
    """Reads a local copy of a public file where there is one, else downloads it once by pooch and checks its SHA-256.

    Parameters
    ----------
    dataset
        The Kedro dataset that reads the file, without its ``filepath``.
    url, sha256
        Where the file is published, and what it must be.
    path
        The folder that keeps the downloaded file.
    local_folder, local_name
        A folder on this machine that may hold a copy already, and the file's name in it; None to download.

    Examples
    --------
    >>> from churn_pipeline.datasets import FetchedDataset
    >>> table = FetchedDataset(
    ...     dataset={"type": "pandas.CSVDataset"}, url="https://example.com/churn.csv", sha256="0" * 64, path="data/01_raw"
    ... )
    """

    def __init__(
        self,
        dataset: dict[str, Any],
        url: str,
        sha256: str,
        path: str,
        local_folder: str | None = None,
        local_name: str = "",
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._dataset, self._url, self._sha256 = dataset, url, sha256
        self._folder = Path(path)
        self._local_copy = Path(local_folder) / local_name if local_folder else None
        self.metadata = metadata

    @property
    def _filepath(self) -> Path:
        return self._local_copy or self._folder / self._url.rsplit("/", 1)[-1]

    def load(self) -> Any:
        """Fetch the file where needed, and read it.

        Raises
        ------
        TableError
            When it cannot be fetched, or is not the file that was meant.
        """
        return AbstractDataset.from_config("file", {**self._dataset, "filepath": str(self._fetch())}).load()

    def _fetch(self) -> Path:
        if self._local_copy:
            if self._local_copy.is_file() and pooch.file_hash(str(self._local_copy)) != self._sha256:
                raise TableError(
                    f"The public table {self._local_copy.name}", "is not the published file: its SHA-256 differs"
                )
            return self._local_copy
        try:
            return Path(
                pooch.retrieve(
                    self._url,
                    known_hash=f"sha256:{self._sha256}",
                    path=self._folder,
                    fname=self._filepath.name,
                    downloader=pooch.HTTPDownloader(timeout=30, progressbar=sys.stderr.isatty()),
                )
            )
        except (OSError, ValueError) as error:
            reason = "its SHA-256 differs" if isinstance(error, ValueError) else "it cannot be reached"
            raise TableError(
                f"The public table {self._filepath.name} could not be fetched from {self._url}",
                f"{reason}. Download it by hand to {self._folder / self._filepath.name}, "
                "or set CHURN_PUBLIC_DATA to a folder that holds it",
            ) from error

    def save(self, data: NoReturn) -> None:
        """Public files are never written."""
        raise DatasetError("A public file is only ever read.")

    def _exists(self) -> bool:
        return self._filepath.exists()

    def _describe(self) -> dict[str, Any]:
        return {"url": self._url, "sha256": self._sha256, "filepath": str(self._filepath)}
