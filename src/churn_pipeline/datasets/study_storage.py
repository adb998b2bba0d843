"""Trials in an Optuna study, and studies in a SQLite file."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from churn_pipeline.datasets.study_progress import SearchProgressLine
from churn_pipeline.datasets.study_recorder import TrialRecorder, problem_type
from churn_pipeline.modelling.studies import Progress, State, Trial

logger = logging.getLogger(__name__)

_STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}
_OPTUNA_STATES = {state: optuna_state for optuna_state, state in _STATES.items()}
LOCK_TIMEOUT_SECONDS = 60


class OptunaStudy(Protocol):
    """What is used of `optuna.Study`."""

    @property
    def user_attrs(self) -> dict[str, Any]:
        """Attributes of the study."""

    def get_trials(self, deepcopy: bool = True) -> list[FrozenTrial]:
        """Return all stored trials."""

    def add_trial(self, trial: FrozenTrial) -> None:
        """Store a trial."""

    def set_user_attr(self, key: str, value: Any) -> None:
        """Set an attribute of the study."""


class StoredStudy:
    """Stores trials in an Optuna study, and shows and records them; see `churn_pipeline.modelling.studies.Study`.

    Optuna numbers trials in the order in which they end. Our number is the attribute ``number``.

    Parameters
    ----------
    study
        The Optuna study.
    space
        Distributions by ``group.name``.
    recorder
        Writes trials to MLflow.
    line
        Shows progress.
    """

    def __init__(
        self,
        study: OptunaStudy,
        space: Mapping[str, BaseDistribution],
        recorder: TrialRecorder,
        line: SearchProgressLine,
    ) -> None:
        self._study, self._space, self._recorder, self._line = study, dict(space), recorder, line
        stored = [_from_optuna(trial) for trial in study.get_trials(deepcopy=False)]
        self._ended = {trial.number: trial for trial in stored}

    def ended(self) -> Mapping[int, Trial]:
        """Trials that earlier processes stored, by number."""
        return self._ended

    def end(self, trial: Trial) -> None:
        """Store a trial that has just ended."""
        self._study.add_trial(_to_optuna(trial, self._space))
        if trial.problem:
            logger.warning(
                "%s: trial %d failed with %s (full message in the study)",
                self._line.candidate,
                trial.number,
                problem_type(trial),
            )
        self._recorder.record(trial)

    def show(self, progress: Progress) -> None:
        """Show the progress of the search."""
        self._line.show(progress)

    def seconds_of(self, trials: int) -> float:
        """Time that an earlier search with this number of trials took; 0 if there was none."""
        return float(self._study.user_attrs.get(_seconds_key(trials), 0.0))

    def conclude(self, report: Mapping[str, Any], trials: Sequence[Trial]) -> None:
        """Log the result and record all trials, including stored ones: the record of each run is complete."""
        for trial in trials:
            self._recorder.record(trial)
        self._study.set_user_attr(_seconds_key(report["trials"]), report["seconds"])
        best = next(trial for trial in trials if trial.number == report["best_trial"])
        self._recorder.record_tuned({"trials": report["trials"], "best_trial": best.number, **best.values})
        self._line.close()
        logger.info(
            "%s: log loss %.4f in trial %d; %d trials (%d pruned, %d failed, %d from an earlier run) in %.0f s",
            self._line.candidate,
            report["log_loss"],
            report["best_trial"],
            report["trials"],
            report["pruned"],
            report["failed"],
            len(self._ended.keys() & {trial.number for trial in trials}),
            report["seconds"],
        )


def open_optuna_study(file: Path, name: str) -> optuna.Study:
    """Open an Optuna study in a SQLite file, or create it.

    Parameters
    ----------
    file
        The SQLite file; created if it is missing.
    name
        The study's name.

    Returns
    -------
    optuna.Study
        Lower values are better.
    """
    with quiet_optuna():
        storage = optuna.storages.RDBStorage(f"sqlite:///{file}", engine_kwargs={"creator": partial(_connect, file)})
        return optuna.create_study(storage=storage, study_name=name, direction="minimize", load_if_exists=True)


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Let Optuna log warnings only."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def _connect(file: Path) -> sqlite3.Connection:
    # With a write-ahead log, a trial takes 4 ms instead of 100 ms to store. Stored trials survive the process; a power
    # cut may lose the last ones but never corrupts the file.
    connection = sqlite3.connect(file, timeout=LOCK_TIMEOUT_SECONDS, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    return connection


def _seconds_key(trials: int) -> str:
    return f"seconds_of_{trials}_trials"


def _to_optuna(trial: Trial, space: Mapping[str, BaseDistribution]) -> FrozenTrial:
    attributes = {"number": trial.number, "start_seconds": trial.start_seconds, "seconds": trial.seconds}
    frozen = create_trial(
        state=_OPTUNA_STATES[trial.state],
        value=None if trial.state == "failed" else trial.loss,
        params=dict(trial.values),
        distributions=dict(space),
        intermediate_values=dict(enumerate(trial.scores)),
        user_attrs=attributes | ({"problem": trial.problem} if trial.problem else {}),
    )
    assert frozen.datetime_complete is not None
    frozen.datetime_start = frozen.datetime_complete - timedelta(seconds=trial.seconds)
    return frozen


def _from_optuna(trial: FrozenTrial) -> Trial:
    return Trial(
        number=trial.user_attrs["number"],
        values=dict(trial.params),
        scores=tuple(trial.intermediate_values[step] for step in sorted(trial.intermediate_values)),
        state=_STATES[trial.state],
        start_seconds=trial.user_attrs["start_seconds"],
        seconds=trial.user_attrs["seconds"],
        problem=trial.user_attrs.get("problem", ""),
    )
