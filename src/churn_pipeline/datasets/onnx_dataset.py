"""ONNX models as files."""

from pathlib import Path
from typing import Any

import onnx
from kedro.io import AbstractDataset


class OnnxDataset(AbstractDataset[onnx.ModelProto, onnx.ModelProto]):
    """An ONNX model in a file; the same model gives the same bytes.

    Examples
    --------
    >>> from churn_pipeline.datasets import OnnxDataset
    >>> onnx_model = OnnxDataset(filepath="data/06_models/chosen_model.onnx").load()  # doctest: +SKIP
    """

    def __init__(self, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._path = Path(filepath)
        self.metadata = metadata

    def load(self) -> onnx.ModelProto:
        """Read the model."""
        return onnx.load(str(self._path))

    def save(self, data: onnx.ModelProto) -> None:
        """Write the model's serialised bytes."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_bytes(data.SerializeToString(deterministic=True))

    def _exists(self) -> bool:
        return self._path.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._path)}
