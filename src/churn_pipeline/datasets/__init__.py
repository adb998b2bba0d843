"""Kedro datasets that this project adds. Each is imported only when a catalog names it."""

import importlib
from typing import Any

_HOMES = {
    "BentoDataset": "bento_dataset",
    "ChunkedCSVDataset": "chunked_csv",
    "ContractDataset": "contract_dataset",
    "FetchedDataset": "fetched_dataset",
    "MlflowMetricsDataset": "mlflow_datasets",
    "MlflowTagsDataset": "mlflow_datasets",
    "OnnxDataset": "onnx_dataset",
    "OptionalDataset": "optional_dataset",
    "RawTableDataset": "raw_table_dataset",
    "RegisteredModelDataset": "mlflow_datasets",
    "RegisteredVersionDataset": "mlflow_datasets",
    "SkopsDataset": "skops_dataset",
    "StudyDataset": "study_dataset",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
