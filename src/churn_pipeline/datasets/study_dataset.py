"""Kedro dataset of a candidate's studies."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import mlflow
from kedro.io import AbstractDataset, DatasetError
from optuna.distributions import BaseDistribution

from churn_pipeline.datasets.files import path_on_this_machine
from churn_pipeline.datasets.study_progress import SearchProgressLine
from churn_pipeline.datasets.study_recorder import TrialRecorder
from churn_pipeline.datasets.study_storage import StoredStudy, open_optuna_study


class StudyDataset(AbstractDataset[None, "CandidateStudies"]):
    """The studies of a candidate, in a SQLite file.

    It loads as an object that opens studies, and a study stores each trial when the trial ends, so that nothing is lost
    when a process is killed. Optuna's tools read the file too (``optuna-dashboard sqlite:///…/studies.db``). While MLflow
    has an active run, each trial is also recorded as a run nested in it.

    Parameters
    ----------
    filepath
        The SQLite file; it may contain studies of other candidates and of other data.
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
        self._address, self._candidate = filepath, candidate
        self.metadata = metadata

    def load(self) -> CandidateStudies:
        """Return an object that opens the candidate's studies.

        Raises
        ------
        DatasetError
            If the file is not on this machine.
        """
        return CandidateStudies(self._filepath, self._candidate, mlflow.active_run())

    @property
    def _filepath(self) -> Path:
        fix = "SQLite needs a file on this machine; set CHURN_STUDIES to a database's address"
        return path_on_this_machine(self._address, "The trials of searches", fix)

    def save(self, data: None) -> NoReturn:
        """Raise an error: a study stores its trials itself."""
        raise DatasetError("A node cannot save a study: it stores each trial itself. Use the dataset as an input only.")

    def _exists(self) -> bool:
        return self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._address, "candidate": self._candidate}


class CandidateStudies:
    """Opens the studies of one candidate; see `churn_pipeline.modelling.studies.Studies`.

    Parameters
    ----------
    file
        The SQLite file.
    candidate
        The candidate's name.
    parent
        The MLflow run in which trials are nested; None records nothing.
    """

    def __init__(self, file: Path, candidate: str, parent: mlflow.ActiveRun | None = None) -> None:
        self._file, self._parent = file, parent
        self.candidate = candidate

    @contextmanager
    def open(self, name: str, space: Mapping[str, BaseDistribution]) -> Iterator[StoredStudy]:
        """Open the study of this name, or create it. Only one process at a time can open a candidate's studies.

        Raises
        ------
        DatasetError
            If another process is searching the same candidate of the same table.
        """
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            stack.enter_context(_locked(self._file.with_name(f"{self.candidate}.lock"), self.candidate))
            recorder = stack.enter_context(TrialRecorder(self._parent, self.candidate, name))
            line = stack.enter_context(SearchProgressLine(self.candidate))
            yield StoredStudy(open_optuna_study(self._file, name), space, recorder, line)


@contextmanager
def _locked(lock: Path, candidate: str) -> Iterator[None]:
    """Lock a candidate's studies; the operating system releases the lock even if this process is killed."""
    with lock.open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DatasetError(
                f"Another process is searching {candidate} on this table: wait until it ends, or stop it."
            ) from None
        yield
