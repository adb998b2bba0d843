"""ONNX models as files."""

from typing import Any

import onnx
from kedro.io import AbstractDataset

from churn_pipeline.datasets.files import StoredFile


class OnnxDataset(AbstractDataset[onnx.ModelProto, onnx.ModelProto]):
    """An ONNX model in a file; the same model gives the same bytes.

    Parameters
    ----------
    filepath, credentials
        See `churn_pipeline.datasets.files.StoredFile`.

    Examples
    --------
    >>> from churn_pipeline.datasets import OnnxDataset
    >>> onnx_model = OnnxDataset(filepath="data/06_models/chosen_model.onnx").load()  # doctest: +SKIP
    """

    def __init__(
        self, filepath: str, credentials: dict[str, Any] | None = None, metadata: dict[str, Any] | None = None
    ) -> None:
        self._file = StoredFile(filepath, credentials)
        self.metadata = metadata

    def load(self) -> onnx.ModelProto:
        """Read the model."""
        return onnx.load_model_from_string(self._file.read())

    def save(self, data: onnx.ModelProto) -> None:
        """Write the model's serialised bytes."""
        self._file.write(data.SerializeToString(deterministic=True))

    def _exists(self) -> bool:
        return self._file.exists()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._file.address}
