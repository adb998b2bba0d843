"""A public file, read from a local copy or downloaded once, with a checksum."""

import sys
from pathlib import Path
from typing import Any, NoReturn

import pooch
from kedro.io import AbstractDataset, DatasetError

from churn_pipeline.contract.errors import TableError


class FetchedDataset(AbstractDataset[NoReturn, Any]):
    """Reads a local copy of a public file, or downloads the file once with pooch; checks its SHA-256 in both cases.

    Parameters
    ----------
    dataset
        The Kedro dataset that reads the file, without its ``filepath``.
    url, sha256
        Address and checksum of the published file.
    path
        The folder for the downloaded file.
    local_folder, local_name
        A folder with a local copy, and the copy's name; without a folder, the file is downloaded.

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
    def filepath(self) -> Path:
        """The local copy or the downloaded file, whether it exists or not."""
        return self._local_copy or self._folder / self._url.rsplit("/", 1)[-1]

    def load(self) -> Any:
        """Download the file if needed, and read it.

        Raises
        ------
        TableError
            If the download fails, or the file's checksum differs.
        """
        return AbstractDataset.from_config("file", {**self._dataset, "filepath": str(self._fetch())}).load()

    def _fetch(self) -> Path:
        if self._local_copy:
            if self._local_copy.is_file() and pooch.file_hash(str(self._local_copy)) != self._sha256:
                raise TableError(
                    f"The public table {self._local_copy.name}",
                    "differs from the published file (SHA-256): delete it and download it again",
                )
            return self._local_copy
        try:
            return Path(
                pooch.retrieve(
                    self._url,
                    known_hash=f"sha256:{self._sha256}",
                    path=self._folder,
                    fname=self.filepath.name,
                    downloader=pooch.HTTPDownloader(timeout=30, progressbar=sys.stderr.isatty()),
                )
            )
        except (OSError, ValueError) as error:
            reason = "its SHA-256 differs" if isinstance(error, ValueError) else "the download failed"
            raise TableError(
                f"The public table {self.filepath.name} cannot be downloaded from {self._url}",
                f"{reason}. Download it yourself to {self._folder / self.filepath.name}, "
                "or set CHURN_PUBLIC_DATA to a folder that contains it",
            ) from error

    def save(self, data: NoReturn) -> None:
        """Raise an error: public files are only read."""
        raise DatasetError("A public file is only ever read.")

    def _exists(self) -> bool:
        return self.filepath.exists()

    def _describe(self) -> dict[str, Any]:
        return {"url": self._url, "sha256": self._sha256, "filepath": str(self.filepath)}
