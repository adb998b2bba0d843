"""A dataset that some tables have and others do not."""

from typing import Any, NoReturn

from kedro.io import AbstractDataset, DatasetError


class OptionalDataset(AbstractDataset[NoReturn, Any]):
    """Reads the given dataset, or returns None without one.

    Examples
    --------
    >>> from churn_pipeline.datasets import OptionalDataset
    >>> OptionalDataset(dataset=None).load() is None
    True
    """

    def __init__(self, dataset: dict[str, Any] | None = None, metadata: dict[str, Any] | None = None) -> None:
        self._dataset = AbstractDataset.from_config("optional", dataset) if dataset else None
        self.metadata = metadata

    def load(self) -> Any:
        """Load the dataset; None without one."""
        return None if self._dataset is None else self._dataset.load()

    def save(self, data: NoReturn) -> None:
        """Raise an error: an optional dataset is only read."""
        raise DatasetError("An optional dataset is only ever read.")

    def _exists(self) -> bool:
        return self._dataset is None or bool(self._dataset.exists())

    def _describe(self) -> dict[str, Any]:
        return {"dataset": None if self._dataset is None else type(self._dataset).__name__}
