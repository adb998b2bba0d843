"""Trials as nested MLflow runs."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import mlflow
from mlflow.entities import Metric, Param, RunTag

from churn_pipeline.contract.errors import ProjectError
from churn_pipeline.modelling.studies import Trial
from churn_pipeline.tracking_server import is_unreachable


class TrialRecorder:
    """Writes each trial to MLflow as a run nested in the active one.

    A thread writes, so that no trial waits for the tracking server. A task that runs again adds only the trials that the run
    lacks.

    Parameters
    ----------
    parent
        The MLflow run in which trials are nested; None records nothing.
    candidate
        The candidate's name.
    study
        The study's name.
    """

    def __init__(self, parent: mlflow.ActiveRun | None, candidate: str, study: str) -> None:
        self._parent, self._candidate, self._study = parent, candidate, study
        self._recorded: set[int] = set()
        self._queue: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write_queued, name=f"record {candidate}", daemon=True)
        self._error: Exception | None = None

    def __enter__(self) -> TrialRecorder:
        if self._parent is not None:
            self._client = mlflow.MlflowClient()
            self._queue.put(self._find_recorded)
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._parent is None:
            return
        self._queue.put(None)
        self._thread.join()
        if self._error is not None and kind is None:
            if is_unreachable(self._error):
                raise self._error  # the command explains it
            raise ProjectError(
                f"Trials of {self._candidate} could not be written to MLflow",
                f"{self._error}. They are stored in the study: repair the tracking server and run again. The next run "
                "records them without repeating them.",
            ) from self._error

    def record(self, trial: Trial) -> None:
        """Record a trial, unless it is already recorded."""
        if self._parent is not None:
            self._queue.put(partial(self._write, trial, time.time()))

    def record_tuned(self, values: Mapping[str, Any]) -> None:
        """Write the search's result as parameters of the active run."""
        if self._parent is not None:
            params = [Param(f"tuned.{self._candidate}.{name}", str(value)) for name, value in values.items()]
            self._queue.put(partial(self._client.log_batch, self._parent.info.run_id, params=params))

    def _write_queued(self) -> None:
        while (write := self._queue.get()) is not None:
            if self._error is None:
                try:
                    write()
                except Exception as error:
                    self._error = error

    def _find_recorded(self) -> None:
        """Find the trials that an earlier process recorded in this run, and remove those that it did not complete."""
        assert self._parent is not None
        info = self._parent.info
        mine = f"tags.mlflow.parentRunId = '{info.run_id}' AND tags.study = '{self._study}'"
        token = None
        while True:
            page = self._client.search_runs([info.experiment_id], mine, page_token=token)
            for run in page:
                if run.info.status == "RUNNING":
                    self._client.delete_run(run.info.run_id)
                else:
                    self._recorded.add(int(run.data.tags["trial"]))
            if not (token := page.token):
                return

    def _write(self, trial: Trial, ended: float) -> None:
        assert self._parent is not None
        if trial.number in self._recorded:
            return
        self._recorded.add(trial.number)
        parent, end = self._parent.info, int(ended * 1000)
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
            {"problem": problem_type(trial)} if trial.problem else {}
        )
        self._client.log_batch(
            run.info.run_id,
            metrics=metrics,
            params=[Param(name, str(value)) for name, value in trial.values.items()],
            tags=[RunTag(name, value) for name, value in tags.items()],
        )
        self._client.set_terminated(run.info.run_id, "FAILED" if trial.state == "failed" else "FINISHED", end)


def problem_type(trial: Trial) -> str:
    """Return the type of the error that a trial failed with.

    The message may quote a customer's value, so only the study keeps it.

    Examples
    --------
    >>> problem_type(Trial(3, {}, (), "failed", 0.0, 0.0, "ValueError: could not convert 'x'"))
    'ValueError'
    """
    return trial.problem.partition(":")[0]
