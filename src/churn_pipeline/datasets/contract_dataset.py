"""The chosen table's contract as a dataset."""

from pathlib import Path
from typing import Any, NoReturn

from kedro.io import AbstractDataset, DatasetError

from churn_pipeline.contract.schema import read_contract
from churn_pipeline.contract.table import Contract


class ContractDataset(AbstractDataset[NoReturn, Contract]):
    """Reads a table file and returns its contract.

    Examples
    --------
    >>> from churn_pipeline.datasets import ContractDataset
    >>> contract = ContractDataset(filepath="conf/base/tables/simulated.yml").load()  # doctest: +SKIP
    >>> contract.roles.target.column  # doctest: +SKIP
    'Churn'
    """

    def __init__(self, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._path = Path(filepath)
        self.metadata = metadata

    def load(self) -> Contract:
        """Read the file; a `churn_pipeline.contract.errors.TableError` lists every mistake in it."""
        return read_contract(self._path)

    def save(self, data: NoReturn) -> None:
        """Raise an error: contracts are only read."""
        raise DatasetError("A contract is only ever read: edit its table file.")

    def _exists(self) -> bool:
        return self._path.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._path)}
