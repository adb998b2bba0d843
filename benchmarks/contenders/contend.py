"""One contender on one outer fold, run by `benchmarks/quality.py` in the contender's own environment.

Reads the table and the rows to train on, and writes a churn probability for every other row and the seconds it took.
It imports nothing from this project.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

Frame = pd.DataFrame
CORES = 2


def logistic(train: Frame, churned: np.ndarray, test: Frame, seconds: float) -> Any:  # noqa: ARG001
    """Logistic regression with scaling and one-hot encoding."""
    from sklearn.compose import make_column_selector, make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    columns = make_column_transformer(
        (StandardScaler(), make_column_selector(dtype_include="number")),
        (OneHotEncoder(handle_unknown="ignore"), make_column_selector(dtype_include="category")),
    )
    model = make_pipeline(columns, LogisticRegression(max_iter=1000))
    return model.fit(train, churned).predict_proba(test)[:, 1]


def untuned_boosting(train: Frame, churned: np.ndarray, test: Frame, seconds: float) -> Any:  # noqa: ARG001
    """Gradient boosting with default settings."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(categorical_features="from_dtype", random_state=0)
    return model.fit(train, churned).predict_proba(test)[:, 1]


def flaml(train: Frame, churned: np.ndarray, test: Frame, seconds: float) -> Any:
    """FLAML with default settings, except metric, time budget and cores."""
    from flaml import AutoML

    model = AutoML()
    model.fit(
        train, churned, task="classification", metric="log_loss", time_budget=seconds, n_jobs=CORES, seed=0, verbose=0
    )
    return model.predict_proba(test)[:, 1]


def autogluon(train: Frame, churned: np.ndarray, test: Frame, seconds: float) -> Any:
    """AutoGluon with the preset best_quality, and metric, time budget and cores as for the others."""
    from autogluon.tabular import TabularPredictor

    with tempfile.TemporaryDirectory() as folder:
        predictor = TabularPredictor("churned", eval_metric="log_loss", path=folder, verbosity=0)
        predictor.fit(train.assign(churned=churned), presets="best_quality", time_limit=seconds, num_cpus=CORES)
        return predictor.predict_proba(test)[1].to_numpy()


CONTENDERS: dict[str, Callable[[Frame, np.ndarray, Frame, float], Any]] = {
    "logistic": logistic,
    "untuned_boosting": untuned_boosting,
    "flaml": flaml,
    "autogluon": autogluon,
}


def main(contender: str, folder: Path, fold: Path, seconds: float, out: Path) -> None:
    kinds = json.loads((folder / "kinds.json").read_text(encoding="utf-8"))
    table = pd.read_csv(folder / "features.csv", dtype=kinds)
    churned = np.loadtxt(folder / "churned.csv", dtype="int64")
    training = np.loadtxt(fold, dtype="int64").astype(bool)
    begin = time.perf_counter()
    probability = CONTENDERS[contender](table[training], churned[training], table[~training], seconds)
    elapsed = time.perf_counter() - begin
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(
        json.dumps({"seconds": round(elapsed, 2), "probability": [float(p) for p in probability]}), encoding="utf-8"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("contender", choices=list(CONTENDERS))
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--fold", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    main(arguments.contender, arguments.folder, arguments.fold, arguments.seconds, arguments.out)
