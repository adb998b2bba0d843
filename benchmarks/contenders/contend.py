"""One contender on one outer fold, run by `benchmarks.quality` in the contender's own environment.

Reads the table and the rows to train on, and writes a churn probability for every other row, the seconds it took, the versions of
its packages, and which models it trained and skipped. It imports nothing from this project.
"""

import argparse
import importlib.metadata
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

Frame = pd.DataFrame
CORES = 2
PACKAGES = ("autogluon.tabular", "catboost", "flaml", "lightgbm", "scikit-learn", "torch", "xgboost", "xgboost-cpu")


@dataclass(frozen=True)
class Fold:
    """The rows to train on and to predict.

    `groups` numbers the customers of the training rows; it is None if each row is a customer of its own.
    """

    train: Frame
    churned: np.ndarray
    test: Frame
    groups: np.ndarray | None
    seconds: float

    def inner_folds(self, number: int) -> np.ndarray:
        """The inner fold of each training row, with all rows of a customer in the same fold."""
        groups = np.arange(len(self.churned)) if self.groups is None else self.groups
        inner = np.empty(len(self.churned), dtype="int64")
        splitter = StratifiedGroupKFold(number, shuffle=True, random_state=0)
        for fold, (_, rows) in enumerate(splitter.split(self.train, self.churned, groups)):
            inner[rows] = fold
        return inner


@dataclass(frozen=True)
class Answer:
    """Churn probabilities of the test rows, and the models that were trained or skipped, if the contender reports them."""

    probability: Any
    trained: tuple[str, ...] = ()
    skipped: dict[str, str] | None = None


def logistic(fold: Fold) -> Answer:
    """Logistic regression with median imputation, scaling and one-hot encoding."""
    from sklearn.compose import make_column_selector, make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numeric = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())
    columns = make_column_transformer(
        (numeric, make_column_selector(dtype_include="number")),
        (OneHotEncoder(handle_unknown="ignore"), make_column_selector(dtype_include="category")),
    )
    model = make_pipeline(columns, LogisticRegression(max_iter=1000))
    return Answer(model.fit(fold.train, fold.churned).predict_proba(fold.test)[:, 1])


def untuned_boosting(fold: Fold) -> Answer:
    """scikit-learn's histogram gradient boosting with default settings.

    It accepts at most 255 levels per column, so the rarest levels of a column share one.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    train, test = fold.train.copy(), fold.test.copy()
    for name in train.select_dtypes("category"):
        frequent = train[name].value_counts().index[:254].tolist()
        for part in (train, test):
            text = part[name].astype(object)
            part[name] = pd.Categorical(text.where(text.isin(frequent) | text.isna(), "other"), [*frequent, "other"])
    model = HistGradientBoostingClassifier(categorical_features="from_dtype", random_state=0)
    return Answer(model.fit(train, fold.churned).predict_proba(test)[:, 1])


def catboost(fold: Fold) -> Answer:
    """CatBoost with default settings; it takes levels as text."""
    from catboost import CatBoostClassifier

    names = fold.train.select_dtypes("category").columns.tolist()
    train, test = ({name: part[name].astype(object).fillna("") for name in names} for part in (fold.train, fold.test))
    model = CatBoostClassifier(random_seed=0, thread_count=CORES, allow_writing_files=False, verbose=False)
    model.fit(fold.train.assign(**train), fold.churned, cat_features=names)
    return Answer(model.predict_proba(fold.test.assign(**test))[:, 1])


def xgboost(fold: Fold) -> Answer:
    """XGBoost with default settings."""
    from xgboost import XGBClassifier

    model = XGBClassifier(enable_categorical=True, n_jobs=CORES, random_state=0)
    return Answer(model.fit(fold.train, fold.churned).predict_proba(fold.test)[:, 1])


def lightgbm_bagged(fold: Fold) -> Answer:
    """LightGBM, 31 leaves and learning rate 0.03, averaged over five inner folds that stop the training early; no search."""
    from lightgbm import LGBMClassifier, early_stopping

    inner, probability = fold.inner_folds(5), np.zeros(len(fold.test))
    for number in range(5):
        rows = inner != number
        model = LGBMClassifier(
            n_estimators=5000, learning_rate=0.03, num_leaves=31, n_jobs=CORES, random_state=0, verbose=-1
        )
        model.fit(
            fold.train[rows],
            fold.churned[rows],
            eval_set=[(fold.train[~rows], fold.churned[~rows])],
            eval_metric="binary_logloss",
            callbacks=[early_stopping(100, verbose=False)],
        )
        probability += model.predict_proba(fold.test)[:, 1] / 5
    return Answer(probability)


def flaml(fold: Fold, ensemble: bool = False) -> Answer:
    """FLAML with default settings except metric, time budget and cores."""
    from flaml import AutoML

    grouped = {} if fold.groups is None else {"split_type": "group", "groups": fold.groups}
    model = AutoML()
    model.fit(
        fold.train,
        fold.churned,
        task="classification",
        metric="log_loss",
        time_budget=fold.seconds,
        ensemble=ensemble,
        n_jobs=CORES,
        seed=0,
        verbose=0,
        **grouped,
    )
    trained = tuple(name for name, config in model.best_config_per_estimator.items() if config)
    skipped = {name: "no trial" for name in model.best_config_per_estimator if name not in trained}
    if ensemble and not type(model.model).__name__.startswith("Stacking"):
        skipped["ensemble"] = "not built"
    return Answer(model.predict_proba(fold.test)[:, 1], trained, skipped)


def flaml_ensemble(fold: Fold) -> Answer:
    """FLAML with its stacked ensemble in addition."""
    return flaml(fold, ensemble=True)


def autogluon(fold: Fold) -> Answer:
    """AutoGluon with the preset best_quality, and metric, time budget and cores as for the others.

    Its ``groups`` names a column with the inner fold of each row. Eight folds are the preset's own number.
    """
    from autogluon.tabular import TabularPredictor

    train = fold.train.assign(churned=fold.churned)
    if fold.groups is not None:
        train["inner_fold"] = fold.inner_folds(8)
    with tempfile.TemporaryDirectory() as folder:
        predictor = TabularPredictor(
            "churned",
            eval_metric="log_loss",
            path=folder,
            verbosity=2,
            groups=None if fold.groups is None else "inner_fold",
        )
        predictor.fit(train, presets="best_quality", time_limit=fold.seconds, num_cpus=CORES)
        failures = predictor.model_failures()
        skipped = dict(zip(failures["model"], failures["exc_type"], strict=True)) if len(failures) else {}
        probability = predictor.predict_proba(fold.test)[1].to_numpy()
        return Answer(probability, tuple(predictor.leaderboard()["model"]), skipped)


CONTENDERS: dict[str, Callable[[Fold], Answer]] = {
    "logistic": logistic,
    "untuned_boosting": untuned_boosting,
    "catboost": catboost,
    "lightgbm_bagged": lightgbm_bagged,
    "xgboost": xgboost,
    "flaml": flaml,
    "flaml_ensemble": flaml_ensemble,
    "autogluon": autogluon,
}


def versions() -> dict[str, str]:
    """Versions of the installed packages that a contender uses."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def read(folder: Path, mask: Path, groups: Path | None, seconds: float) -> Fold:
    kinds = json.loads((folder / "kinds.json").read_text(encoding="utf-8"))
    table = pd.read_csv(folder / "features.csv", dtype=kinds, keep_default_na=False, na_values=[""])
    churned = np.loadtxt(folder / "churned.csv", dtype="int64")
    training = np.loadtxt(mask, dtype="int64").astype(bool)
    customers = np.loadtxt(groups, dtype="int64")[training] if groups else None
    return Fold(table[training], churned[training], table[~training], customers, seconds)


def main(contender: str, fold: Fold, out: Path) -> None:
    begin = time.perf_counter()
    answer = CONTENDERS[contender](fold)
    result = {
        "seconds": round(time.perf_counter() - begin, 2),
        "probability": [float(p) for p in answer.probability],
        "versions": versions(),
        "trained": answer.trained,
        "skipped": answer.skipped or {},
    }
    out.write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("contender", choices=list(CONTENDERS))
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--fold", type=Path, required=True, help="file with 1 for each row to train on, otherwise 0")
    parser.add_argument("--groups", type=Path, help="file with the customer's number of each row")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    main(
        arguments.contender,
        read(arguments.folder, arguments.fold, arguments.groups, arguments.seconds),
        arguments.out,
    )
