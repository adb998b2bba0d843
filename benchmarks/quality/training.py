"""`ours` on one outer fold: the project's own nodes, from the folds to the chosen model, and the cost of serving it.

Run in a separate process, like every other contender.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from kedro.framework.context import KedroContext
from kedro.framework.project import pipelines
from kedro.io import AbstractDataset, DataCatalog, MemoryDataset
from kedro.pipeline import Pipeline
from kedro.runner import SequentialRunner

from benchmarks.common import DEVELOPMENT, project
from benchmarks.quality.tables import Rows, read
from churn_pipeline.contract.table import Contract
from churn_pipeline.modelling.onnx_conversion import convert_model, model_inputs
from churn_pipeline.modelling.studies import UnstoredStudies
from churn_pipeline.serving.bundle import open_session

CALLS, BATCH_CALLS, BATCH = 300, 20, 1000


class Kept(MemoryDataset):
    """A dataset in memory that the runner does not release."""

    def __init__(self, data: Any = None) -> None:
        super().__init__(**({} if data is None else {"data": data}), copy_mode="assign")

    def _release(self) -> None:
        """Keep the data."""


def training_pipeline() -> Pipeline:
    """The nodes of `training` that make folds from training customers, search, fit, compare and choose."""
    folds = pipelines["data_engineering"].from_inputs("train_customers", "train_groups").to_outputs("folds")
    return Pipeline([folds, pipelines["modelling"].to_outputs("chosen_model")])


def train(context: KedroContext, rows: Rows, training: np.ndarray, groups: np.ndarray) -> DataCatalog:
    """Train on some rows; return the catalog with ``chosen_model``, ``choice`` and what the fit needs."""
    pipeline = training_pipeline()
    given = {
        "train_customers": rows.customers[training].reset_index(drop=True),
        "train_groups": pd.DataFrame({"customer": groups[training]}),
        "contract": rows.contract,
    }
    for name in pipeline.inputs() - given.keys():
        # A stored study would let a repeated measurement reuse the trials of an earlier one.
        given[name] = UnstoredStudies(name) if name.endswith(".studies") else context.catalog.load(name)
    kept = {"chosen_model", "choice", *fit_pipeline().inputs()}
    datasets: dict[str, AbstractDataset[Any, Any]] = {name: Kept(data) for name, data in given.items()}
    for name in pipeline.all_outputs():
        datasets[name] = Kept() if name in kept else MemoryDataset(copy_mode="assign")
    catalog = DataCatalog(datasets=datasets)
    SequentialRunner().run(pipeline, catalog)
    return catalog


def fit_pipeline() -> Pipeline:
    """The node that fits the chosen model from the candidates that the search found."""
    return pipelines["modelling"].only_nodes_with_outputs("chosen_model")


def fit_candidates(catalog: DataCatalog) -> dict[str, Any]:
    """Fit each candidate alone and uncalibrated, with the same node."""
    names = [name.removesuffix("_tuned") for name in sorted(fit_pipeline().inputs()) if name.endswith("_tuned")]
    choice, chosen, models = catalog.load("choice"), catalog.load("chosen_model"), {}
    for name in names:
        catalog.save("choice", choice | {"members": [{"candidate": name, "weight": 1.0, "calibration": None}]})
        SequentialRunner().run(fit_pipeline(), catalog)
        models[name] = catalog.load("chosen_model")
    catalog.save("choice", choice)
    catalog.save("chosen_model", chosen)
    return models


def serving_seconds(model: Any, contract: Contract, customers: pd.DataFrame) -> dict[str, float]:
    """Microseconds per row of the ONNX model in the service's session: median of single rows, and in batches of 1,000."""
    converted = convert_model(model, contract.numeric, contract.categorical)
    session = open_session(converted.SerializeToString())
    some = customers.sample(BATCH, replace=True, random_state=0)
    one = [model_inputs(some.iloc[[row]], contract.numeric, contract.categorical) for row in range(CALLS)]
    batch = model_inputs(some, contract.numeric, contract.categorical)

    def seconds(inputs: dict[str, Any]) -> float:
        begin = time.perf_counter()
        session.run(None, inputs)
        return time.perf_counter() - begin

    for inputs in one[:20]:
        seconds(inputs)
    return {
        "one_row_us": round(1e6 * float(np.median([seconds(inputs) for inputs in one])), 1),
        "batch_row_us": round(1e6 * float(np.median([seconds(batch) for _ in range(BATCH_CALLS)])) / BATCH, 2),
    }


def main(
    table: str, mask: Path, groups: Path | None, out: Path, params: dict[str, Any], chosen_only: bool = False
) -> None:
    rows = read(table, **params)
    training = np.loadtxt(mask, dtype="int64").astype(bool)
    customers = np.loadtxt(groups, dtype="int64") if groups else rows.groups
    test = rows.features[~training]
    with project(DEVELOPMENT, table=table, **params) as context:
        begin = time.perf_counter()
        catalog = train(context, rows, training, customers)
        probability = catalog.load("chosen_model").predict_proba(test)[:, 1].tolist()
        elapsed = time.perf_counter() - begin
    candidates = {} if chosen_only else fit_candidates(catalog)
    models = candidates | {"chosen": catalog.load("chosen_model")}
    result = {
        "seconds": round(elapsed, 2),
        "probability": probability,
        "candidates": {name: model.predict_proba(test)[:, 1].tolist() for name, model in candidates.items()},
        "serving": {name: serving_seconds(model, rows.contract, test) for name, model in models.items()},
        "choice": catalog.load("choice"),
    }
    out.write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table")
    parser.add_argument("--fold", type=Path, required=True)
    parser.add_argument("--groups", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--params", type=json.loads, default={}, help="runtime parameters as JSON")
    parser.add_argument("--chosen-only", action="store_true", help="do not fit the single candidates")
    given = parser.parse_args()
    main(given.table, given.fold, given.groups, given.out, given.params, given.chosen_only)
