"""Cross-validation: candidates are fitted on the training rows of each fold and predict its validation rows."""

from __future__ import annotations

import signal
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import joblib
import numpy as np
import numpy.typing as npt
import pandas as pd
from joblib.externals.loky import get_reusable_executor
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from churn_pipeline.modelling.candidates import ROWS_FOR_THREADS, Candidate, CandidatePipeline, build_candidate
from churn_pipeline.modelling.early_stopping import fit_and_stop, stops_early

FitFold = Callable[[Candidate, str], pd.DataFrame]
Mask = npt.NDArray[np.bool_]
Loss = Callable[[npt.NDArray[np.int64], npt.NDArray[np.float64]], float]

# Seconds that idle worker processes wait for the next search before they exit.
IDLE_SECONDS = 60


@dataclass(frozen=True)
class Task:
    """Data and folds that candidates are evaluated on.

    Attributes
    ----------
    features : DataFrame of shape (n_rows, n_columns)
        Customers.
    churned : Series of shape (n_rows,)
        1 for customers who churned, 0 for the others.
    folds : dict of str to (ndarray, ndarray)
        By fold name: masks of the training and of the validation rows, bool of shape (n_rows,).
    numeric, categorical : sequence of str
        Column names by type.
    loss : callable
        A Python function ``(y, p) -> float``; lower is better. Its source is part of a study's digest.
    seed : int
        Seed of the models and of the search.
    groups : ndarray of int64, shape (n_rows,), optional
        The customer of each row; None if each row is a customer of its own.
    """

    features: pd.DataFrame
    churned: pd.Series
    folds: Mapping[str, tuple[Mask, Mask]]
    numeric: Sequence[str]
    categorical: Sequence[str]
    loss: Loss
    seed: int
    groups: npt.NDArray[np.int64] | None = None


@contextmanager
def fold_fitter(task: Task) -> Iterator[FitFold]:
    """Provide a function that fits one fold, for use by several threads, each of which occupies one core.

    Fitting many small trees is half Python code, which threads cannot run in parallel. Folds of small tables are therefore
    fitted in worker processes, which read the task from a file once. On large tables compiled code dominates: folds are
    fitted in the calling threads, and the table is not copied.

    Parameters
    ----------
    task : Task
        Data and folds for evaluation.

    Yields
    ------
    callable
        ``(candidate, fold) -> DataFrame``; see `validate_fold`.
    """
    if joblib.cpu_count() == 1 or len(task.features) >= ROWS_FOR_THREADS:
        yield partial(validate_fold, task)
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "task"
        joblib.dump(task, file)
        processes = get_reusable_executor(
            max_workers=joblib.cpu_count(), timeout=IDLE_SECONDS, initializer=_ignore_ctrl_c
        )
        yield lambda candidate, fold: processes.submit(_validate_in_worker, str(file), candidate, fold).result()


def _ignore_ctrl_c() -> None:
    """Let only the main process handle Ctrl-C, which a terminal sends to all: workers end with the search."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _validate_in_worker(file: str, candidate: Candidate, fold: str) -> pd.DataFrame:
    """Run `validate_fold` in a worker process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return validate_fold(_load_task(file), candidate, fold)


@lru_cache(maxsize=1)
def _load_task(file: str) -> Task:
    task: Task = joblib.load(file)
    return task


def validate(candidates: Mapping[str, Candidate], fit_fold: FitFold, workers: int) -> list[pd.DataFrame]:
    """Fit and validate a candidate on all folds in parallel.

    Parameters
    ----------
    candidates : Mapping of str to Candidate
        The candidate to fit on each fold, by fold name.
    fit_fold : callable
        The function that `fold_fitter` provides.
    workers : int
        Number of folds that are fitted at once.

    Returns
    -------
    list of DataFrame
        Each fold's predictions, in the folds' order.
    """
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda fold: fit_fold(candidates[fold], fold), candidates))


def validate_fold(task: Task, candidate: Candidate, fold: str) -> pd.DataFrame:
    """Fit a candidate on a fold's training rows and predict its validation rows.

    Parameters
    ----------
    task : Task
        Data and folds for evaluation.
    candidate : Candidate
        The candidate to fit.
    fold : str
        Fold name.

    Returns
    -------
    DataFrame
        A row for each validation customer: ``fold``, ``row``, ``churned``, ``probability``, ``seconds`` (to fit and predict
        the fold), ``trees`` (of boosting that stops early on the validation rows; else 0).
    """
    training, validation = task.folds[fold]
    begin = time.perf_counter()
    if "n_jobs" in candidate.arguments:
        candidate = candidate.with_values({"arguments.n_jobs": 1})
    model = build_candidate(candidate, task.numeric, task.categorical, task.seed)
    # Trials and folds already occupy all cores, so more threads within each would only wait.
    with threadpool_limits(limits=1, user_api="openmp"):
        probability, trees = _fit_and_predict(task, candidate, model, training, validation)
    return pd.DataFrame(
        {
            "fold": fold,
            "row": np.flatnonzero(validation),
            "churned": task.churned[validation].to_numpy(),
            "probability": probability,
            "seconds": time.perf_counter() - begin,
            "trees": trees,
        }
    )


def _fit_and_predict(
    task: Task, candidate: Candidate, model: CandidatePipeline, training: Mask, validation: Mask
) -> tuple[npt.NDArray[np.float64], int]:
    inputs, label = task.features[training], task.churned[training]
    groups = None if task.groups is None else task.groups[training]
    if stops_early(candidate):
        known = (inputs, label, groups)
        return fit_and_stop(model, candidate, known, task.features[validation], task.churned[validation])
    return model.fit(inputs, label, groups=groups).predict_proba(task.features[validation])[:, 1], 0
