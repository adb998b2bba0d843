"""A dataset that is read only if a node needs it."""

from collections.abc import Callable
from typing import Any, NoReturn

from kedro.io import AbstractDataset, DatasetError


class DeferredDataset(AbstractDataset[NoReturn, Callable[[], Any]]):
    """Returns a function that reads the given dataset, or returns None if that does not exist.

    Examples
    --------
    >>> from churn_pipeline.datasets import DeferredDataset
    >>> read = DeferredDataset(dataset={"type": "text.TextDataset", "filepath": "missing.txt"}).load()
    >>> read() is None
    True
    """

    def __init__(self, dataset: dict[str, Any], metadata: dict[str, Any] | None = None) -> None:
        self._dataset: AbstractDataset[Any, Any] = AbstractDataset.from_config("deferred", dataset)
        self.metadata = metadata

    def load(self) -> Callable[[], Any]:
        """Return the function."""
        return lambda: self._dataset.load() if self._dataset.exists() else None

    def save(self, data: NoReturn) -> None:
        """Raise an error: a deferred dataset is only read."""
        raise DatasetError("A deferred dataset is only ever read.")

    def _exists(self) -> bool:
        return bool(self._dataset.exists())

    def _describe(self) -> dict[str, Any]:
        return {"dataset": type(self._dataset).__name__}
