"""Fitted scikit-learn objects as skops files, loaded with our own list of trusted types."""

from typing import Any

import skops.io
from kedro.io import AbstractDataset, DatasetError

from churn_pipeline.datasets.files import StoredFile
from churn_pipeline.modelling.trusted_types import TRUSTED_TYPES


class SkopsDataset(AbstractDataset[Any, Any]):
    """A fitted model in a skops file, without pickle; only types in `TRUSTED_TYPES` are loaded.

    Parameters
    ----------
    filepath, credentials
        See `churn_pipeline.datasets.files.StoredFile`.

    Examples
    --------
    >>> from churn_pipeline.datasets import SkopsDataset
    >>> model = SkopsDataset(filepath="data/06_models/chosen_model.skops").load()  # doctest: +SKIP
    """

    def __init__(
        self, filepath: str, credentials: dict[str, Any] | None = None, metadata: dict[str, Any] | None = None
    ) -> None:
        self._file = StoredFile(filepath, credentials)
        self.metadata = metadata

    def load(self) -> Any:
        """Load the model.

        Raises
        ------
        DatasetError
            If the file contains types that are not trusted.
        """
        content = self._file.read()
        unknown = sorted(set(skops.io.get_untrusted_types(data=content)) - set(TRUSTED_TYPES))
        if unknown:
            raise DatasetError(
                f"{self._file.name} contains types that are not trusted: {', '.join(unknown)}. If they are safe, add them "
                "to TRUSTED_TYPES in modelling/trusted_types.py"
            )
        return skops.io.loads(content, trusted=list(TRUSTED_TYPES))

    def save(self, data: Any) -> None:
        """Write the model."""
        self._file.write(skops.io.dumps(data))

    def _exists(self) -> bool:
        return self._file.exists()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._file.address}
