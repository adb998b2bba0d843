"""The search of a candidate: trials in a fixed order, several at a time, pruned fold by fold, resumable at any moment.

What trial n tries depends on the seed, the candidate's name, n, and the trials up to n less a fixed window; never on
which trial ended first, how many cores there are, or whether the search was killed in between. So each trial is known
to begin with the same values, and a trial that was cut short is simply done again.

The search itself keeps nothing. It is handed a `Study`, which remembers trials, and shows and records them.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import platform
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from itertools import count
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from churn_pipeline.modelling import candidates, cross_validation, preprocessing
from churn_pipeline.modelling.candidates import Candidate
from churn_pipeline.modelling.cross_validation import FitFold, Task, fold_fitter, validate
from churn_pipeline.modelling.space import Choices, Range
from churn_pipeline.modelling.studies import Progress, Studies, Study, Trial

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

# What a trial's result depends on beside its data and configuration; the candidate's own package is added.
LIBRARIES: tuple[str, ...] = ("numpy", "optuna", "pandas", "scikit-learn", "scipy")


class SearchSettings(BaseModel):
    """How every candidate is searched.

    Attributes
    ----------
    trials : int, optional
        How many trials every search takes, whatever its candidate says.
    seconds : float, optional
        Instead of what candidates say: no trial begins later than this after its search began. How many did is
        reported. With `trials`, what is reached first ends the search.
    parallel_trials : int
        How many trials may be under way at once, as far as cores go. A trial knows of all trials but the last few, one
        less than this, so that no core waits and yet nothing depends on which trial ends first.
    startup_trials : int
        How many trials are drawn at random before the sampler learns from them.
    pruning_deviations : float, optional
        A trial is pruned once it is behind the best one by more than so many standard deviations of what such a gap
        varies by; see `Yardstick`. None prunes nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    trials: int | None = Field(default=None, ge=1)
    seconds: float | None = Field(default=None, gt=0)
    parallel_trials: int = Field(default=4, ge=1)
    startup_trials: int = Field(default=6, ge=1)
    pruning_deviations: float | None = Field(default=2.0, gt=0)


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes
    ----------
    candidate : Candidate
        The best trial's, with nothing left to search.
    predictions : DataFrame
        Its out-of-fold predictions: ``fold``, ``row``, ``churned``, ``probability``, ``seconds``.
    report : dict
        ``study``, ``trials`` (how many there were), ``pruned``, ``failed``, ``best_trial``, ``log_loss`` and
        ``seconds``.
    """

    candidate: Candidate
    predictions: pd.DataFrame
    report: dict[str, Any]


def search_candidate(task: Task, candidate: Candidate, settings: SearchSettings, studies: Studies) -> SearchResult:
    """Search a candidate's space, or go on with a search that was cut short.

    Parameters
    ----------
    task : Task
        What to evaluate on.
    candidate : Candidate
        What to search. Without a space there is one trial, its own arguments.
    settings : SearchSettings
        How to search.
    studies : Studies
        Where trials are remembered.

    Returns
    -------
    SearchResult
        The trial of the lowest mean log loss; of equal ones the earliest.

    Raises
    ------
    ValueError
        If the candidate's own arguments cannot be fitted, or the study holds what this search would not have tried.
    """
    space = {f"{group}.{name}": _distribution(dimension) for group, name, dimension in _dimensions(candidate)}
    name = f"{studies.candidate}-{study_digest(task, candidate, settings, studies.candidate)[:16]}"
    # BLAS' limit and the filter of warnings belong to the whole process: they are set here, and not by each trial.
    with threadpool_limits(limits=1, user_api="blas"), warnings.catch_warnings():
        # A trial that did not converge is evaluated by its log loss, as any other.
        warnings.simplefilter("ignore", ConvergenceWarning)
        with studies.open(name, space) as study, fold_fitter(task) as fit_fold:
            course = _SearchRun(task, candidate, settings, studies.candidate, space, study, fit_fold)
            trials = course.run()
            best = min((trial for trial in trials if trial.state == "complete"), key=_rank)
            chosen = candidate.with_values(best.values)
            # Trials fit single copies, which tell what to fit: which arguments are best hardly depends on how many.
            predictions = course.predictions_of(best) if candidate.copies == 1 else None
            if predictions is None:
                predictions = pd.concat(validate(task.folds, chosen, fit_fold, joblib.cpu_count()), ignore_index=True)
            report = {"study": name, **_summary(trials, best)}
            study.conclude(report, trials)
    return SearchResult(chosen, predictions, report)


def study_digest(task: Task, candidate: Candidate, settings: SearchSettings, name: str) -> str:
    """SHA-256 of all that decides what a trial tries and how it ends; budgets do not.

    Parameters
    ----------
    task, candidate, settings
        As of `search_candidate`.
    name : str
        The candidate's name.

    Returns
    -------
    str
        In hexadecimal.
    """
    digest = hashlib.sha256()
    tried = candidate.model_dump(mode="json", exclude={"trials"})
    course = settings.model_dump(mode="json", include={"parallel_trials", "startup_trials", "pruning_deviations"})
    package = candidate.class_path.partition(".")[0].replace("sklearn", "scikit-learn")
    about = {
        "candidate": [name, tried],
        "columns": [list(task.numeric), list(task.categorical)],
        "course": course,
        "seed": task.seed,
        "versions": [platform.python_version(), *(_version(library) for library in sorted({*LIBRARIES, package}))],
    }
    digest.update(json.dumps(about, sort_keys=True).encode())
    for module in (candidates, cross_validation, preprocessing, inspect.getmodule(study_digest)):
        digest.update(inspect.getsource(module).encode())  # type: ignore[arg-type]
    masks = pd.DataFrame({(fold, part): mask for fold, pair in task.folds.items() for part, mask in enumerate(pair)})
    for table in (task.features, task.churned.to_frame(), masks):
        digest.update(json.dumps([[str(column), str(dtype)] for column, dtype in table.dtypes.items()]).encode())
        digest.update(pd.util.hash_pandas_object(table, index=False).to_numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Yardstick:
    """What tells a hopeless trial after a few folds: the best trial's scores, and what gaps to them vary by.

    A gap is measured on the same folds, and its mean over k folds varies by the spread over the root of k: nothing is
    to be set by hand for a table whose losses are small or noisy.

    Attributes
    ----------
    best : tuple of float
        The best trial's log loss of each fold.
    spread : float
        The standard deviation, over folds, of a trial's gap to them: the median over complete trials.
    """

    best: tuple[float, ...]
    spread: float

    @classmethod
    def of(cls, trials: Sequence[Trial]) -> Yardstick | None:
        """The yardstick that complete trials make; None from fewer than three, or if their gaps do not vary."""
        complete = sorted((trial for trial in trials if trial.state == "complete"), key=_rank)
        if len(complete) < 3 or len(complete[0].scores) < 2:
            return None
        gaps = np.array([trial.scores for trial in complete[1:]]) - complete[0].scores
        spread = float(np.median(gaps.std(axis=1, ddof=1)))
        return cls(complete[0].scores, spread) if spread > 0 else None

    def is_hopeless(self, scores: Sequence[float], deviations: float) -> bool:
        """Whether a trial with these scores on the first folds is too far behind for chance."""
        done = len(scores)
        gap = sum(scores) / done - sum(self.best[:done]) / done
        return bool(gap > deviations * self.spread / done**0.5)


class _StoppedError(Exception):
    """The search ends early: nobody waits for this trial."""


@dataclass
class _SearchRun:
    """A search under way. All but `_try` runs in the thread that called `run`."""

    task: Task
    candidate: Candidate
    settings: SearchSettings
    name: str
    space: Mapping[str, BaseDistribution]
    study: Study
    fit_fold: FitFold
    trials: dict[int, Trial] = field(default_factory=dict)
    _pending: dict[Future[tuple[Trial, list[pd.DataFrame]]], int] = field(default_factory=dict)
    _best: tuple[Trial, list[pd.DataFrame]] | None = None
    _told: list[Trial] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.earlier = dict(self.study.ended())
        self.limit = _limit(self.candidate, self.settings)
        # A search of one trial has no other work for the cores than the folds of that one.
        self.workers = min(self.settings.parallel_trials, joblib.cpu_count())
        self.sampler = _Sampler(
            self.task.seed, self.name, self.space, self.candidate.searched, self.settings.startup_trials
        )
        # Time goes on where it stopped, so that a budget in seconds is one budget however often it is interrupted.
        self._begun = time.perf_counter() - max((t.clock + t.seconds for t in self.earlier.values()), default=0.0)

    def run(self) -> list[Trial]:
        """Begin trials in order, each when those that it may know of have ended; all of them, in order."""
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                for number in count() if self.limit is None else range(self.limit):
                    self._learn(number - self.settings.parallel_trials)
                    # By the recorded times of trials that have ended, and not by the clock: a search that is read again
                    # ends where it ended.
                    spent = max((trial.clock + trial.seconds for trial in self._told), default=0.0)
                    if self.settings.seconds is not None and spent >= self.settings.seconds:
                        break
                    self._begin(pool, number, self._clock(number))
                while self._pending:
                    self._collect()
            finally:
                self._stop.set()
        return [self.trials[number] for number in sorted(self.trials)]

    def predictions_of(self, trial: Trial) -> pd.DataFrame | None:
        """Out-of-fold predictions of a complete trial, if they are at hand."""
        if self._best is None or self._best[0].number != trial.number or not self._best[1]:
            return None
        return pd.concat(self._best[1], ignore_index=True)

    def _learn(self, number: int) -> None:
        """Wait for a trial and tell the sampler of it."""
        if number < 0:
            return
        while number not in self.trials:
            self._collect()
        self.sampler.tell(self.trials[number])
        self._told.append(self.trials[number])

    def _clock(self, number: int) -> float:
        return self.earlier[number].clock if number in self.earlier else time.perf_counter() - self._begun

    def _begin(self, pool: ThreadPoolExecutor, number: int, clock: float) -> None:
        values = self.sampler.ask(number)
        if number in self.earlier:
            if self.earlier[number].values != values:
                raise ValueError(
                    f"The study of {self.name} holds a trial {number} with {self.earlier[number].values}, where this search "
                    f"would try {values}: the study was not made by it. Delete the study file and search again."
                )
            self._keep(self.earlier[number], [])
            return
        self.study.begin(number, values, clock)
        yardstick = Yardstick.of(self._told)
        self._pending[pool.submit(self._try, number, values, clock, yardstick)] = number

    def _collect(self) -> None:
        """Wait until a trial ends, and remember it."""
        done, _ = wait(self._pending, return_when=FIRST_COMPLETED)
        for future in sorted(done, key=self._pending.__getitem__):
            del self._pending[future]
            trial, parts = future.result()
            self.study.end(trial)
            self._keep(trial, parts)

    def _keep(self, trial: Trial, parts: list[pd.DataFrame]) -> None:
        if trial.number == 0 and trial.state == "failed":
            raise ValueError(f"Candidate {self.name} cannot be fitted as configured: {trial.problem}")
        self.trials[trial.number] = trial
        if trial.state == "complete" and (self._best is None or _rank(trial) < _rank(self._best[0])):
            self._best = (trial, parts)
        self.study.show(Progress(len(self.trials), self.limit, self._best and self._best[0], self._left()))

    def _left(self) -> float:
        """Estimate the seconds left, from the pace so far."""
        spent = time.perf_counter() - self._begun
        by_time = np.inf if self.settings.seconds is None else max(0.0, self.settings.seconds - spent)
        by_trials = np.inf if self.limit is None else spent / len(self.trials) * (self.limit - len(self.trials))
        return float(min(by_time, by_trials))

    def _try(
        self, number: int, values: dict[str, Any], clock: float, yardstick: Yardstick | None
    ) -> tuple[Trial, list[pd.DataFrame]]:
        """Fit and validate on one fold after the other, until all are done or there is no hope."""
        begin = time.perf_counter()
        trial = Trial(number, values, (), "complete", clock, 0.0)
        parts: list[pd.DataFrame] = []
        try:
            candidate = self.candidate.with_values(values).model_copy(update={"copies": 1})
            for part in self._parts(candidate):
                parts.append(part)
                score = self.task.loss(part["churned"].to_numpy(), part["probability"].to_numpy())
                trial = replace(trial, scores=(*trial.scores, score))
                if len(parts) < len(self.task.folds) and self._is_hopeless(trial, yardstick):
                    trial = replace(trial, state="pruned")
                    break
        except (ArithmeticError, TypeError, ValueError) as error:
            trial = replace(trial, state="failed", problem=f"{type(error).__name__}: {error}")
        return replace(trial, seconds=time.perf_counter() - begin), parts

    def _is_hopeless(self, trial: Trial, yardstick: Yardstick | None) -> bool:
        if yardstick is None or self.settings.pruning_deviations is None:
            return False
        return yardstick.is_hopeless(trial.scores, self.settings.pruning_deviations)

    def _parts(self, candidate: Candidate) -> Iterator[pd.DataFrame]:
        if self.limit == 1:
            yield from validate(self.task.folds, candidate, self.fit_fold, self.workers)
            return
        for fold in self.task.folds:
            if self._stop.is_set():
                raise _StoppedError
            yield self.fit_fold(candidate, fold)


class _Sampler:
    """Asks Optuna what a trial tries; it knows of the trials that it was told of, in their order, and of no others."""

    def __init__(
        self, seed: int, name: str, space: Mapping[str, BaseDistribution], first: dict[str, Any], startup: int
    ) -> None:
        import optuna

        self._seed, self._name, self._space, self._startup = seed, name, dict(space), startup
        with _quiet():
            self._study = optuna.create_study(direction="minimize")
        self._study.enqueue_trial(first)
        self._asked: dict[int, optuna.Trial] = {}

    def ask(self, number: int) -> dict[str, Any]:
        """What the trial tries; trials are asked for in their order."""
        import optuna

        seed = hashlib.sha256(f"{self._seed}/{self._name}/{number}".encode()).digest()[:4]
        self._study.sampler = optuna.samplers.TPESampler(
            n_startup_trials=self._startup, seed=int.from_bytes(seed, "big")
        )
        with _quiet():
            trial = self._study.ask(self._space)
        assert trial.number == number
        self._asked[number] = trial
        return dict(trial.params)

    def tell(self, trial: Trial) -> None:
        """Learn how a trial ended; trials are told of in their order."""
        from optuna.trial import TrialState

        asked = self._asked.pop(trial.number)
        for step, score in enumerate(trial.scores):
            asked.report(score, step)
        if trial.state == "complete":
            self._study.tell(asked, trial.loss)
        else:
            self._study.tell(asked, state=TrialState.PRUNED if trial.state == "pruned" else TrialState.FAIL)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep to ourselves what Optuna says of every step."""
    from optuna import exceptions, logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", exceptions.ExperimentalWarning)
            yield
    finally:
        logging.set_verbosity(before)


def _dimensions(candidate: Candidate) -> Iterator[tuple[str, str, Range | Choices]]:
    return candidate.space.dimensions() if candidate.space else iter(())


def _distribution(dimension: Range | Choices) -> BaseDistribution:
    """A dimension as Optuna has it."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(dimension, Choices):
        return CategoricalDistribution(dimension.choices)
    if dimension.whole:
        return IntDistribution(int(dimension.low), int(dimension.high), dimension.log, int(dimension.step or 1))
    return FloatDistribution(float(dimension.low), float(dimension.high), dimension.log, dimension.step)


def _limit(candidate: Candidate, settings: SearchSettings) -> int | None:
    """How many trials there may be; None if time decides."""
    if candidate.space is None or not list(candidate.space.dimensions()):
        return 1
    return settings.trials or (None if settings.seconds is not None else candidate.trials)


def _rank(trial: Trial) -> tuple[float, int]:
    return trial.loss, trial.number


def _summary(trials: Sequence[Trial], best: Trial) -> dict[str, Any]:
    return {
        "trials": len(trials),
        "pruned": sum(trial.state == "pruned" for trial in trials),
        "failed": sum(trial.state == "failed" for trial in trials),
        "best_trial": best.number,
        "log_loss": best.loss,
        "seconds": round(max(trial.clock + trial.seconds for trial in trials), 3),
    }


def _version(library: str) -> str:
    try:
        return f"{library} {version(library)}"
    except ModuleNotFoundError:
        return f"{library} unknown"
