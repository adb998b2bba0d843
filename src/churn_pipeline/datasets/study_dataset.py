"""Kedro dataset of a candidate's studies."""

from __future__ import annotations

import fcntl
import platform
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import mlflow
from kedro.io import AbstractDataset, DatasetError
from optuna.distributions import BaseDistribution

from churn_pipeline.contract.errors import ProjectError
from churn_pipeline.datasets.files import StoredFile, path_on_this_machine
from churn_pipeline.datasets.study_progress import SearchProgressLine
from churn_pipeline.datasets.study_recorder import TrialRecorder
from churn_pipeline.datasets.study_storage import OptunaStudy, StoredStudy, open_optuna_study

if TYPE_CHECKING:
    from sqlalchemy import URL


class StudyDataset(AbstractDataset[None, "CandidateStudies"]):
    """The studies of a candidate, in a SQLite file or on PostgreSQL.

    It loads as an object that opens studies, and a study stores each trial when the trial ends, so that nothing is lost
    when a process is killed. Optuna's tools read both stores (``optuna-dashboard sqlite:///…/studies.db``). While MLflow
    has an active run, each trial is also recorded as a run nested in it.

    Parameters
    ----------
    filepath
        The SQLite file; it may contain studies of other candidates and of other data. Only one search of a candidate runs
        for each file, even if trials are stored on PostgreSQL and the file does not exist.
    candidate
        The candidate's name.
    url
        SQLAlchemy's address of a PostgreSQL database, such as ``postgresql+psycopg://user@host/database``; None uses the
        SQLite file. ``PGPASSWORD`` gives the password.
    table
        The table's name, with which names of studies on PostgreSQL start.

    Examples
    --------
    >>> from churn_pipeline.datasets import StudyDataset
    >>> studies = StudyDataset(filepath="data/06_models/telco/studies.db", candidate="splines").load()
    >>> studies.candidate
    'splines'
    """

    def __init__(
        self,
        filepath: str,
        candidate: str,
        url: str | None = None,
        table: str = "",
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._filepath, self._candidate, self._table = filepath, candidate, table
        self._url = _parse(url) if url else None
        self.metadata = metadata

    def load(self) -> CandidateStudies:
        """Return an object that opens the candidate's studies.

        Raises
        ------
        DatasetError
            If `filepath` is not a local file and there is no `url`.
        """
        active = mlflow.active_run()
        if self._url is not None:
            return PostgresStudies(self._url, self._filepath, self._table, self._candidate, active)
        fix = "set `studies` in globals.yml (CHURN_STUDIES in production) to a PostgreSQL database"
        return CandidateStudies(path_on_this_machine(self._filepath, "A SQLite file", fix), self._candidate, active)

    def save(self, data: None) -> NoReturn:
        """Raise an error: a study stores its trials itself."""
        raise DatasetError("A node cannot save a study: it stores each trial itself. Use the dataset as an input only.")

    def _exists(self) -> bool:
        return self._url is not None or StoredFile(self._filepath).exists()

    def _describe(self) -> dict[str, Any]:
        url = self._url and self._url.render_as_string(hide_password=True)
        return {"filepath": self._filepath, "candidate": self._candidate, "url": url}


class CandidateStudies:
    """Opens the studies of one candidate in a SQLite file; see `churn_pipeline.modelling.studies.Studies`.

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
        with ExitStack() as stack:
            study = stack.enter_context(self._opened(name))
            recorder = stack.enter_context(TrialRecorder(self._parent, self.candidate, name))
            line = stack.enter_context(SearchProgressLine(self.candidate))
            yield StoredStudy(study, space, recorder, line)

    @contextmanager
    def _opened(self, name: str) -> Iterator[OptunaStudy]:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with _locked(self._file.with_name(f"{self.candidate}.lock"), self.candidate):
            yield open_optuna_study(self._file, name)


class PostgresStudies(CandidateStudies):
    """Opens the studies of one candidate on PostgreSQL; see `churn_pipeline.modelling.studies.Studies`.

    Parameters
    ----------
    url
        The database.
    filepath
        The file that would hold the studies without a database.
    table
        The table's name.
    candidate
        The candidate's name.
    parent
        The MLflow run in which trials are nested; None records nothing.
    """

    def __init__(
        self, url: URL, filepath: str, table: str, candidate: str, parent: mlflow.ActiveRun | None = None
    ) -> None:
        super().__init__(Path(filepath), candidate, parent)
        self._url, self._table = url, table
        # A local folder of the same name on another machine is another place.
        local = StoredFile(filepath).local_path
        self._place = f"{platform.node()}:{local.resolve()}" if local else filepath

    @contextmanager
    def _opened(self, name: str) -> Iterator[OptunaStudy]:
        from churn_pipeline.datasets.study_postgres import open_postgres_study

        with open_postgres_study(self._url, f"{self._table}.{name}", self.candidate, self._place) as study:
            yield study


def _parse(url: str) -> URL:
    try:
        from churn_pipeline.datasets.study_postgres import parse_url
    except ModuleNotFoundError as error:
        raise ProjectError(
            "Studies on PostgreSQL",
            f"need the package {error.name}: install churn_pipeline[production]",
        ) from error
    return parse_url(url)


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
