"""The chosen table's contract as a dataset."""

from typing import Any, NoReturn

import fsspec
from kedro.io import AbstractDataset, DatasetError

from churn_pipeline.contract.schema import read_contract
from churn_pipeline.contract.table import Contract


class ContractDataset(AbstractDataset[NoReturn, Contract]):
    """Reads a table file and returns its contract; `filepath` may be any address of fsspec, chained ones included.

    Parameters
    ----------
    filepath
        The path of the file, or any address that fsspec knows, also inside an archive.
    credentials
        Arguments of fsspec's file system.

    Examples
    --------
    >>> from churn_pipeline.datasets import ContractDataset
    >>> contract = ContractDataset(filepath="conf/base/tables/simulated.yml").load()  # doctest: +SKIP
    >>> contract.roles.target.column  # doctest: +SKIP
    'Churn'
    """

    def __init__(
        self, filepath: str, credentials: dict[str, Any] | None = None, metadata: dict[str, Any] | None = None
    ) -> None:
        self._address, self._credentials = str(filepath), credentials or {}
        self.metadata = metadata

    def load(self) -> Contract:
        """Read the file; a `churn_pipeline.contract.errors.TableError` lists every mistake in it."""
        return read_contract(self._address, **self._credentials)

    def save(self, data: NoReturn) -> None:
        """Raise an error: contracts are only read."""
        raise DatasetError("A contract is only ever read: edit its table file.")

    def _exists(self) -> bool:
        filesystem, path = fsspec.core.url_to_fs(self._address, **self._credentials)
        return bool(filesystem.isfile(path))

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._address}
