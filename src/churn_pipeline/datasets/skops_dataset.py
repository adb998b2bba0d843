"""Fitted scikit-learn objects as skops files, loaded with our own list of trusted types."""

from pathlib import Path
from typing import Any

import skops.io
from kedro.io import AbstractDataset, DatasetError

from churn_pipeline.modelling.trusted_types import TRUSTED_TYPES


class SkopsDataset(AbstractDataset[Any, Any]):
    """A fitted model in a skops file, without pickle; only types in `TRUSTED_TYPES` are loaded.

    Examples
    --------
    >>> from churn_pipeline.datasets import SkopsDataset
    >>> model = SkopsDataset(filepath="data/06_models/chosen_model.skops").load()  # doctest: +SKIP
    """

    def __init__(self, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._path = Path(filepath)
        self.metadata = metadata

    def load(self) -> Any:
        """Load the model.

        Raises
        ------
        DatasetError
            If the file contains types that are not trusted.
        """
        unknown = sorted(set(skops.io.get_untrusted_types(file=self._path)) - set(TRUSTED_TYPES))
        if unknown:
            raise DatasetError(
                f"{self._path.name} contains types that are not trusted: {', '.join(unknown)}. If they are safe, add them "
                "to TRUSTED_TYPES in modelling/trusted_types.py"
            )
        return skops.io.load(self._path, trusted=list(TRUSTED_TYPES))

    def save(self, data: Any) -> None:
        """Write the model."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        skops.io.dump(data, self._path)

    def _exists(self) -> bool:
        return self._path.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._path)}
