"""Kedro datasets of this project, each imported only if a catalog names it."""

import importlib
from typing import Any

_MODULES = {
    "BentoDataset": "bento_dataset",
    "ChunkedCSVDataset": "chunked_csv",
    "ContractDataset": "contract_dataset",
    "DeferredDataset": "deferred_dataset",
    "FetchedDataset": "fetched_dataset",
    "HoldoutSampleDataset": "holdout_sample_dataset",
    "MlflowEvaluationsDataset": "mlflow_run",
    "MlflowFileDataset": "mlflow_file",
    "MlflowMetricsDataset": "mlflow_run",
    "MlflowTagsDataset": "mlflow_run",
    "OnnxDataset": "onnx_dataset",
    "OptionalDataset": "optional_dataset",
    "RawTableDataset": "raw_table_dataset",
    "RegisteredModelDataset": "registered_model",
    "RegisteredVersionDataset": "registered_model",
    "SigningKeyDataset": "signing",
    "SkopsDataset": "skops_dataset",
    "StudyDataset": "study_dataset",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
