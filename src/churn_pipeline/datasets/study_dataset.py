"""Where the searches of candidates are remembered, shown and recorded: a SQLite file, the terminal, MLflow."""

from __future__ import annotations

import fcntl
import logging
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import mlflow
import optuna
from kedro.io import AbstractDataset, DatasetError
from mlflow.entities import Metric, Param, RunTag
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import event
from tqdm import tqdm  # type: ignore[import-untyped]

from churn_pipeline.modelling.studies import Progress, Trial

logger = logging.getLogger(__name__)

_STATES = {"complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}


class StudyDataset(AbstractDataset[None, "CandidateStudies"]):
    """The studies of a candidate: it loads as what opens them, and they save themselves, trial by trial.

    Optuna's own tools read the file too (``optuna-dashboard sqlite:///…/studies.db``). Trials that ended are in it
    however a process is killed. While MLflow has an active run, each trial is also a run nested in it.

    Parameters
    ----------
    filepath
        The SQLite file; studies of other candidates and of other data may be in it.
    candidate
        The candidate's name.

    Examples
    --------
    >>> from churn_pipeline.datasets import StudyDataset
    >>> studies = StudyDataset(filepath="data/06_models/telco/studies.db", candidate="splines").load()
    >>> studies.candidate
    'splines'
    """

    def __init__(self, filepath: str, candidate: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath, self._candidate = Path(filepath), candidate
        self._logging_activated = True
        self.metadata = metadata

    def load(self) -> CandidateStudies:
        """What opens the candidate's studies."""
        active = mlflow.active_run() if self._logging_activated else None
        return CandidateStudies(self._filepath, self._candidate, active)

    def save(self, data: None) -> NoReturn:
        """Refused: a study saves itself."""
        raise DatasetError("A study saves itself, trial by trial; no node saves one.")

    def _exists(self) -> bool:
        return self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath), "candidate": self._candidate}


class CandidateStudies:
    """Opens the studies of a candidate; see `churn_pipeline.modelling.studies.Studies`.

    Parameters
    ----------
    file
        The SQLite file.
    candidate
        The candidate's name.
    active
        The MLflow run to nest trials in; None records nothing.
    """

    def __init__(self, file: Path, candidate: str, active: mlflow.ActiveRun | None = None) -> None:
        self._file, self._active = file, active
        self.candidate = candidate

    @contextmanager
    def open(self, name: str, space: Mapping[str, BaseDistribution]) -> Iterator[StoredStudy]:
        """The study of this name, created if it is new; it belongs to this process until it is closed.

        Raises
        ------
        DatasetError
            When another process is searching the same candidate of the same table.
        """
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            stack.enter_context(_owned(self._file.with_name(f"{self.candidate}.lock"), self.candidate))
            recorder = stack.enter_context(_Recorder(self._active, self.candidate, name))
            line = stack.enter_context(_Line(self.candidate))
            yield StoredStudy(_open_study(self._file, name), space, recorder, line)


class StoredStudy:
    """An Optuna study in a file, with what shows and records its trials; see `churn_pipeline.modelling.studies.Study`."""

    def __init__(
        self, study: optuna.Study, space: Mapping[str, BaseDistribution], recorder: _Recorder, line: _Line
    ) -> None:
        self._study, self._space, self._recorder, self._line = study, dict(space), recorder, line
        # A search begins trials in their order: Optuna's numbers are ours.
        stored = study.get_trials(deepcopy=False)
        self._ids = {trial.number: trial._trial_id for trial in stored}
        self._ended = {trial.number: _from_optuna(trial) for trial in stored if trial.state.is_finished()}

    def ended(self) -> Mapping[int, Trial]:
        """Trials that ended before, by number."""
        return self._ended

    def begin(self, number: int, values: Mapping[str, Any], clock: float) -> None:
        """Write that a trial begins; one that was cut short is there already, with the same values."""
        if number in self._ids:
            return
        started = create_trial(
            state=TrialState.RUNNING, params=dict(values), distributions=self._space, user_attrs={"clock": clock}
        )
        self._ids[number] = self._study._storage.create_new_trial(self._study._study_id, template_trial=started)

    def end(self, trial: Trial) -> None:
        """Write how a trial ended; its state last, so that without it the trial counts as cut short."""
        storage, known = self._study._storage, self._ids[trial.number]
        for step, score in enumerate(trial.scores):
            storage.set_trial_intermediate_value(known, step, score)
        about = {"clock": trial.clock, "seconds": trial.seconds} | ({"problem": trial.problem} if trial.problem else {})
        for key, value in about.items():
            storage.set_trial_user_attr(known, key, value)
        values = None if trial.state == "failed" else [trial.loss]
        storage.set_trial_state_values(known, TrialState[_STATES[trial.state]], values)
        if trial.problem:
            logger.warning(
                "Trial %d of %s failed: %s (its words are in the study)",
                trial.number,
                self._line.candidate,
                _problem_type(trial),
            )
        self._recorder.record(trial)

    def show(self, progress: Progress) -> None:
        """Show how far the search is."""
        self._line.show(progress)

    def conclude(self, report: Mapping[str, Any], trials: Sequence[Trial]) -> None:
        """Log the result, and record the trials that earlier runs did: every run's record is complete."""
        for trial in trials:
            self._recorder.record(trial)
        best = next(trial for trial in trials if trial.number == report["best_trial"])
        self._recorder.record_tuned({"trials": report["trials"], "best_trial": best.number, **best.values})
        self._line.close()
        logger.info(
            "%s: log loss %.4f in trial %d; %d trials (%d pruned, %d failed, %d done before) in %.0f s",
            self._line.candidate,
            report["log_loss"],
            report["best_trial"],
            report["trials"],
            report["pruned"],
            report["failed"],
            len(self._ended.keys() & {trial.number for trial in trials}),
            report["seconds"],
        )


class _Line:
    """One line on a terminal: trials done, the best log loss so far and the time left. Elsewhere nothing."""

    def __init__(self, candidate: str) -> None:
        self.candidate = candidate
        self._bar: tqdm | None = None
        self._closed = not sys.stderr.isatty()
        self._begun = time.time()

    def __enter__(self) -> _Line:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def show(self, progress: Progress) -> None:
        """Draw the line anew."""
        if self._closed:
            return
        if self._bar is None:
            layout = "{desc}: {n_fmt}/{total_fmt} trials |{bar:20}| {elapsed}{postfix}"
            unlimited = "{desc}: {n_fmt} trials, {elapsed}{postfix}"
            chosen = layout if progress.total else unlimited
            self._bar = tqdm(total=progress.total, desc=self.candidate, bar_format=chosen, leave=False, file=sys.stderr)
            self._bar.start_t = self._begun  # the first trial may have taken long
        best = (
            f"best log loss {progress.best.loss:.4f} (trial {progress.best.number})"
            if progress.best
            else "no score yet"
        )
        left = f"{tqdm.format_interval(progress.left)} left"
        self._bar.set_postfix_str(f"{best}, {left}", refresh=False)
        self._bar.n = progress.done
        self._bar.refresh()

    def close(self) -> None:
        """Take the line away."""
        self._closed = True
        if self._bar is not None:
            self._bar.close()


class _Recorder:
    """Makes each trial a run nested in the active one, in a thread of its own: no trial waits for the tracking server."""

    def __init__(self, active: mlflow.ActiveRun | None, candidate: str, study: str) -> None:
        self._active, self._candidate, self._study = active, candidate, study
        self._recorded: set[int] = set()
        self._queue: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"record {candidate}", daemon=True)
        self._problem: Exception | None = None

    def __enter__(self) -> _Recorder:
        if self._active is not None:
            self._client = mlflow.MlflowClient()
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._active is None:
            return
        self._queue.put(None)
        self._thread.join()
        if self._problem is not None and kind is None:
            raise DatasetError(
                f"Trials of {self._candidate} could not be written to MLflow ({self._problem}). They are in the study: "
                "mend the tracking server and run again, which records them without repeating them."
            ) from self._problem

    def record(self, trial: Trial) -> None:
        """Record a trial, unless it is recorded already."""
        if self._active is not None and trial.number not in self._recorded:
            self._recorded.add(trial.number)
            self._queue.put(partial(self._write, trial, time.time()))

    def record_tuned(self, values: Mapping[str, Any]) -> None:
        """Write what the search found as parameters of the active run."""
        if self._active is not None:
            params = [Param(f"tuned.{self._candidate}.{name}", str(value)) for name, value in values.items()]
            self._queue.put(partial(self._client.log_batch, self._active.info.run_id, params=params))

    def _work(self) -> None:
        while (write := self._queue.get()) is not None:
            if self._problem is None:
                try:
                    write()
                except Exception as problem:
                    self._problem = problem

    def _write(self, trial: Trial, ended: float) -> None:
        assert self._active is not None
        parent, end = self._active.info, int(ended * 1000)
        run = self._client.create_run(
            parent.experiment_id,
            start_time=end - int(trial.seconds * 1000),
            run_name=f"{self._candidate} {trial.number}",
            tags={"mlflow.parentRunId": parent.run_id, "candidate": self._candidate, "study": self._study},
        )
        metrics = [Metric("fold_log_loss", score, end, step) for step, score in enumerate(trial.scores, start=1)]
        metrics += [Metric("log_loss", trial.loss, end, 0)] if trial.scores else []
        metrics += [Metric("seconds", trial.seconds, end, 0)]
        tags = {"trial": str(trial.number), "state": trial.state} | (
            {"problem": _problem_type(trial)} if trial.problem else {}
        )
        self._client.log_batch(
            run.info.run_id,
            metrics=metrics,
            params=[Param(name, str(value)) for name, value in trial.values.items()],
            tags=[RunTag(name, value) for name, value in tags.items()],
        )
        self._client.set_terminated(run.info.run_id, "FAILED" if trial.state == "failed" else "FINISHED", end)


def _problem_type(trial: Trial) -> str:
    """Why a trial failed, without the words of the error: they may quote a cell, and the study alone keeps them."""
    return trial.problem.partition(":")[0]


@contextmanager
def _owned(lock: Path, candidate: str) -> Iterator[None]:
    """Keep other processes out of a candidate's studies; the system lets go of the lock however this process ends."""
    with lock.open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DatasetError(
                f"Another process is searching {candidate} of this table: wait for it, or end it."
            ) from None
        yield


def _open_study(file: Path, name: str) -> optuna.Study:
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        storage = optuna.storages.RDBStorage(f"sqlite:///{file}", engine_kwargs={"connect_args": {"timeout": 60}})
        event.listen(storage.engine, "connect", _write_ahead)
        storage.engine.dispose()
        return optuna.create_study(storage=storage, study_name=name, direction="minimize", load_if_exists=True)
    finally:
        optuna.logging.set_verbosity(verbosity)


def _write_ahead(connection: Any, _: object) -> None:
    # A commit is one append, not two waits for the disk: 4 ms a trial where SQLite left alone takes 100. What is
    # committed outlives the process; only a power cut may take the last trials, and it never harms the file.
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def _from_optuna(trial: FrozenTrial) -> Trial:
    states: dict[str, Any] = {theirs: ours for ours, theirs in _STATES.items()}
    return Trial(
        number=trial.number,
        values=dict(trial.params),
        scores=tuple(trial.intermediate_values[step] for step in sorted(trial.intermediate_values)),
        state=states[trial.state.name],
        clock=trial.user_attrs["clock"],
        seconds=trial.user_attrs["seconds"],
        problem=trial.user_attrs.get("problem", ""),
    )
