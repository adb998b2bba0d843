"""A public file, read from a local copy or downloaded once, with a checksum."""

import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

import pooch
from kedro.io import AbstractDataset, DatasetError

from churn_pipeline.contract.errors import TableError
from churn_pipeline.datasets.files import StoredFile


class FetchedDataset(AbstractDataset[NoReturn, Any]):
    """Reads a local copy of a public file, or downloads the file once with pooch; checks its SHA-256 in both cases.

    Parameters
    ----------
    dataset
        The Kedro dataset that reads the file, without its ``filepath``. Its ``credentials`` are those of the folder.
    url, sha256
        Address and checksum of the published file.
    path
        The folder for the downloaded file, on this machine or at any address that fsspec knows.
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
        downloaded = f"{path}/{url.rsplit('/', 1)[-1]}"
        self._is_downloaded = not local_folder
        self._file = StoredFile(
            f"{local_folder}/{local_name}" if local_folder else downloaded, dataset.get("credentials")
        )
        self.metadata = metadata

    @property
    def filepath(self) -> str:
        """The address of the local copy or the downloaded file, whether it exists or not."""
        return self._file.address

    def load(self) -> Any:
        """Download the file if needed, and read it.

        Raises
        ------
        TableError
            If the download fails, or the file's checksum differs.
        """
        if self._is_downloaded:
            self._download()
        elif self._file.exists() and self._file.sha256() != self._sha256:
            raise TableError(
                f"The public table {self._file.name}",
                "differs from the published file (SHA-256): delete it and download it again",
            )
        return AbstractDataset.from_config("file", {**self._dataset, "filepath": self.filepath}).load()

    def _download(self) -> None:
        """Download the file, unless it is there with the right checksum."""
        if self._file.exists() and self._file.sha256() == self._sha256:
            return
        with tempfile.TemporaryDirectory() as folder:
            try:
                downloaded = pooch.retrieve(
                    self._url,
                    known_hash=f"sha256:{self._sha256}",
                    path=folder,
                    fname=self._file.name,
                    downloader=pooch.HTTPDownloader(timeout=30, progressbar=sys.stderr.isatty()),
                )
            except (OSError, ValueError) as error:
                reason = "its SHA-256 differs" if isinstance(error, ValueError) else "the download failed"
                raise TableError(
                    f"The public table {self._file.name} cannot be downloaded from {self._url}",
                    f"{reason}. Download it yourself to {self.filepath}, "
                    "or set CHURN_PUBLIC_DATA to a folder that contains it",
                ) from error
            self._file.write_from(Path(downloaded))

    def save(self, data: NoReturn) -> None:
        """Raise an error: public files are only read."""
        raise DatasetError("A public file is only ever read.")

    def _exists(self) -> bool:
        return self._file.exists()

    def _describe(self) -> dict[str, Any]:
        return {"url": self._url, "sha256": self._sha256, "filepath": self.filepath}
