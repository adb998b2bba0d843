"""Candidates fitted and evaluated fold by fold: each on a fold's training rows alone."""

from __future__ import annotations

import signal
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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

from churn_pipeline.modelling.candidates import ROWS_FOR_THREADS, Candidate, build_candidate

FitFold = Callable[[Candidate, str], pd.DataFrame]
Loss = Callable[[npt.NDArray[np.int64], npt.NDArray[np.float64]], float]

# For so long processes wait for the next search before they end.
IDLE_SECONDS = 60


@dataclass(frozen=True)
class Task:
    """What candidates are evaluated on.

    Attributes
    ----------
    features : DataFrame of shape (n_rows, n_columns)
        Customers.
    churned : Series of shape (n_rows,)
        1 for those who churned, 0 for the others.
    folds : dict of str to (ndarray, ndarray)
        By name: which rows train and which validate, bool of shape (n_rows,).
    numeric, categorical : sequence of str
        Which columns are which.
    loss : callable
        ``(y, p) -> float``; less is better.
    seed : int
        Of the models, and of the search.
    """

    features: pd.DataFrame
    churned: pd.Series
    folds: Mapping[str, tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]]
    numeric: Sequence[str]
    categorical: Sequence[str]
    loss: Loss
    seed: int


@contextmanager
def fold_fitter(task: Task) -> Iterator[FitFold]:
    """What fits and validates one fold, so that several threads that ask for one each keep as many cores busy.

    Fitting many small trees is half Python's own work, for which threads wait for one another: on a small table the folds
    are fitted in processes, to which the task is handed in a file, once. A large table is not copied to them: there the work
    is in compiled code, and threads do.

    Parameters
    ----------
    task : Task
        What to evaluate on.

    Yields
    ------
    callable
        ``(candidate, fold) -> DataFrame``, as `validate_fold`.
    """
    if joblib.cpu_count() == 1 or len(task.features) >= ROWS_FOR_THREADS:
        yield partial(validate_fold, task)
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "task"
        joblib.dump(task, file)
        processes = get_reusable_executor(
            max_workers=joblib.cpu_count(), timeout=IDLE_SECONDS, initializer=_leave_ctrl_c_to_the_main_process
        )
        yield lambda candidate, fold: processes.submit(_validate_there, str(file), candidate, fold).result()


def _leave_ctrl_c_to_the_main_process() -> None:
    """A terminal interrupts all processes: these end with the search, and not halfway through an answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _validate_there(file: str, candidate: Candidate, fold: str) -> pd.DataFrame:
    """`validate_fold` in a process of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return validate_fold(_task_in(file), candidate, fold)


@lru_cache(maxsize=1)
def _task_in(file: str) -> Task:
    task: Task = joblib.load(file)
    return task


def validate(folds: Iterable[str], candidate: Candidate, fit_fold: FitFold, workers: int) -> list[pd.DataFrame]:
    """Fit and validate a candidate on every fold, folds side by side.

    Parameters
    ----------
    folds : iterable of str
        The folds' names.
    candidate : Candidate
        What to fit.
    fit_fold : callable
        As `fold_fitter` gives it.
    workers : int
        How many folds at a time.

    Returns
    -------
    list of DataFrame
        Each fold's predictions, in the folds' order.
    """
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda fold: fit_fold(candidate, fold), folds))


def validate_fold(task: Task, candidate: Candidate, fold: str) -> pd.DataFrame:
    """Fit a candidate on a fold's training rows alone, and predict its validating ones.

    Parameters
    ----------
    task : Task
        What to evaluate on.
    candidate : Candidate
        What to fit.
    fold : str
        The fold's name.

    Returns
    -------
    DataFrame
        A row for each validating customer: ``fold``, ``row``, ``churned``, ``probability``, ``seconds``.
    """
    train, validating = task.folds[fold]
    begin = time.perf_counter()
    if "n_jobs" in candidate.arguments:
        candidate = candidate.with_values({"arguments.n_jobs": 1})
    model = build_candidate(candidate, task.numeric, task.categorical, task.seed)
    # Trials and folds run side by side: threads within each of them would only wait for one another.
    with threadpool_limits(limits=1, user_api="openmp"):
        model.fit(task.features[train], task.churned[train])
        probability = model.predict_proba(task.features[validating])[:, 1]
    return pd.DataFrame(
        {
            "fold": fold,
            "row": np.flatnonzero(validating),
            "churned": task.churned[validating].to_numpy(),
            "probability": probability,
            "seconds": time.perf_counter() - begin,
        }
    )
