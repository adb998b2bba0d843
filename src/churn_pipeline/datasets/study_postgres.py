"""Studies on PostgreSQL: one connection holds a search's locks and stores its trials, and is replaced when it breaks."""

from __future__ import annotations

import hashlib
import os
import platform
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import Any, TypeVar

import optuna
import psycopg
from kedro.io import DatasetError
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial
from sqlalchemy import URL, NullPool, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from churn_pipeline.contract.errors import ProjectError
from churn_pipeline.datasets.study_storage import quiet_optuna

T = TypeVar("T")
EXAMPLE = "postgresql+psycopg://user@host/database"
RECONNECT_SECONDS = 120  # a restarted server recovers from its log first
PAUSE_SECONDS = 1.0
# Both ends notice within a minute that the network or the other machine is gone; the server then releases the locks.
CONNECT_ARGS = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
SESSION_OPTIONS = (
    "-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3 -c idle_session_timeout=0"
)
TABLES = "churn-pipeline: Optuna's tables"
HOLDER = """
    SELECT activity.application_name FROM pg_locks AS held JOIN pg_stat_activity AS activity USING (pid)
    WHERE held.locktype = 'advisory' AND held.granted AND held.objsubid = 1
      AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND ((held.classid::bigint << 32) | held.objid::bigint) = %s
"""


def parse_url(url: str) -> URL:
    """Parse the address of a PostgreSQL database.

    Raises
    ------
    ProjectError
        If it is no such address. The message does not quote it, because it may contain a password.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        parsed = None
    if parsed is None or parsed.drivername.partition("+")[0] not in ("postgresql", "postgres"):
        raise ProjectError(
            "`studies` in globals.yml (CHURN_STUDIES in production)",
            f"is not the address of a PostgreSQL database: write {EXAMPLE}, or null for a SQLite file",
        )
    return parsed.set(drivername="postgresql+psycopg")


class ConnectionLostError(Exception):
    """The connection of a search broke, and the server released its locks."""


class SearchConnection:
    """The connection of one search. It holds the search's locks, so that nothing is stored without them.

    Advisory locks belong to a connection: the server releases them when the process dies. Optuna gets its connections from
    `connect` only. It gets no second one before `allow`, because an insert may have succeeded before the connection broke.

    Parameters
    ----------
    url
        The database, as `parse_url` returns it.
    candidate
        The candidate's name, for messages.
    locks
        What no other process may search at the same time.
    """

    def __init__(self, url: URL, candidate: str, locks: Sequence[str]) -> None:
        self._url, self._candidate, self._keys = url, candidate, [_key(name) for name in locks]
        self._name = f"churn-pipeline {uuid.uuid4().hex[:8]}: {os.getpid()} on {platform.node()}"[:63]
        self._connection: psycopg.Connection[Any] | None = None
        self._may_connect = True
        self.was_lost = False

    def connect(self) -> psycopg.Connection[Any]:
        """Connect and take the locks.

        Raises
        ------
        ConnectionLostError
            If the first connection broke, and `allow` was not called since.
        DatasetError
            If another process holds a lock.
        """
        if not self._may_connect:
            raise ConnectionLostError("the connection broke")
        connection = connect(self._url, self._name)
        try:
            self._lock(connection)
        except BaseException:
            connection.close()
            raise
        self._connection, self._may_connect = connection, False
        return connection

    def allow(self) -> None:
        """Let Optuna connect again."""
        self._may_connect = self.was_lost = True

    def close(self) -> None:
        """Close the connection, which releases the locks."""
        self._may_connect = False
        if self._connection is not None:
            self._connection.close()

    def _lock(self, connection: psycopg.Connection[Any]) -> None:
        # Behind a broken network, the server may still keep the lost connection of this search, with its locks.
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE application_name = %s AND pid <> pg_backend_pid()",
            [self._name],
        )
        for key in self._keys:
            (is_taken,) = connection.execute("SELECT pg_try_advisory_lock(%s)", [key]).fetchone() or (False,)
            if not is_taken:
                holder = connection.execute(HOLDER, [key]).fetchone()
                name = str(holder[0] or "") if holder else ""
                who = f" ({name.partition(': ')[2]})" if ": " in name else ""
                raise DatasetError(
                    f"Another process{who} is searching {self._candidate} on this table: wait until it ends, or stop it."
                )
        connection.commit()


class PostgresStudy:
    """An Optuna study that outlives a restart of the server.

    A call that fails because the connection broke is repeated, after the locks are taken again, for `RECONNECT_SECONDS`. A
    trial whose insert was not confirmed is not inserted twice.

    Parameters
    ----------
    study
        The Optuna study.
    connection
        Its connection.
    where
        The database, for messages.
    """

    def __init__(self, study: optuna.Study, connection: SearchConnection, where: str) -> None:
        self._study, self._connection, self._where = study, connection, where

    def get_trials(self, deepcopy: bool = True) -> list[FrozenTrial]:
        """Return all stored trials."""
        return self._repeat(lambda: self._study.get_trials(deepcopy=deepcopy))

    @property
    def user_attrs(self) -> dict[str, Any]:
        """Attributes of the study."""
        return self._repeat(lambda: self._study.user_attrs)

    def set_user_attr(self, key: str, value: Any) -> None:
        """Set an attribute of the study."""
        self._repeat(lambda: self._study.set_user_attr(key, value))

    def add_trial(self, trial: FrozenTrial) -> None:
        """Store a trial, unless it is stored already."""
        self._repeat(partial(self._add, trial))

    def _add(self, trial: FrozenTrial) -> None:
        # Without the lock, another process may have searched on; or the insert succeeded and its confirmation was lost.
        if self._connection.was_lost and trial.user_attrs["number"] in {
            stored.user_attrs["number"] for stored in self._study.get_trials(deepcopy=False)
        }:
            return
        self._study.add_trial(trial)

    def _repeat(self, call: Callable[[], T]) -> T:
        deadline = time.monotonic() + RECONNECT_SECONDS
        while True:
            try:
                return call()
            except (ConnectionLostError, StorageInternalError, SQLAlchemyError) as error:
                if not is_disconnected(error) or time.monotonic() > deadline:
                    raise database_error(self._where, error) from error
                if not isinstance(error, ConnectionLostError):
                    time.sleep(PAUSE_SECONDS)
                self._connection.allow()


@contextmanager
def open_postgres_study(url: URL, name: str, candidate: str, place: str) -> Iterator[PostgresStudy]:
    """Open an Optuna study on PostgreSQL, or create it; until it is closed, no other process can open it.

    Parameters
    ----------
    url
        The database, as `parse_url` returns it. Optuna's tables are created if they are missing.
    name
        The study's name.
    candidate
        The candidate's name.
    place
        Where the training writes its results: a second training there may not search the same candidate either.

    Raises
    ------
    DatasetError
        If another process searches the candidate.
    ProjectError
        If the database cannot be used.
    """
    connection = SearchConnection(url, candidate, [f"study {name}", f"place {place} {candidate}"])
    # Connections come from `connect`, so Optuna needs no password and cannot print one.
    address = url.set(password=None).render_as_string()
    with closing(connection):
        try:
            with quiet_optuna():
                study = _open(url, address, name, connection)
        except (ConnectionLostError, StorageInternalError, SQLAlchemyError, RuntimeError, psycopg.Error) as error:
            raise database_error(address, error) from error
        yield PostgresStudy(study, connection, address)


def _open(url: URL, address: str, name: str, connection: SearchConnection) -> optuna.Study:
    tables = connect(url, TABLES)
    with closing(tables):
        # Two processes that create tables at once would fail.
        tables.execute("SELECT pg_advisory_lock(%s)", [_key(TABLES)])
        optuna.storages.RDBStorage(address, {"creator": partial(connect, url, TABLES), "poolclass": NullPool})
    kwargs = {
        "creator": connection.connect,
        "pool_size": 1,
        "max_overflow": 0,
        "pool_pre_ping": True,
        "hide_parameters": True,
    }
    storage = optuna.storages.RDBStorage(address, kwargs, skip_compatibility_check=True, skip_table_creation=True)
    return optuna.create_study(storage=storage, study_name=name, direction="minimize", load_if_exists=True)


def connect(url: URL, name: str) -> psycopg.Connection[Any]:
    """Connect to a database under a name that its administrator sees; libpq also reads PGPASSWORD and ~/.pgpass."""
    _, given = url.get_dialect()().create_connect_args(url)
    options = f"{SESSION_OPTIONS} {given.pop('options', '')}"
    return psycopg.connect(**{**CONNECT_ARGS, **given, "options": options, "application_name": name})


def is_disconnected(error: BaseException) -> bool:
    """Whether the database does not answer, or closed the connection, for example because it restarts."""
    root = _root(error)
    if not isinstance(root, psycopg.OperationalError):
        return isinstance(root, ConnectionLostError)
    # No SQLSTATE: the network; 08: connection; 57P: the server stops or starts; 53300: too many connections.
    return root.sqlstate is None or root.sqlstate.startswith(("08", "57P", "53300"))


def database_error(where: str, error: BaseException) -> ProjectError:
    """Return the error for the user: the database's own reason, without SQL and its values."""
    root = _root(error)
    reason = str(root).partition("\n")[0].strip() or type(root).__name__
    return ProjectError(
        f"The database of searches {where}",
        f"cannot be used ({reason}). Finished trials are stored. Correct that, or CHURN_STUDIES, and run the same command "
        "again: the search continues",
    )


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _key(name: str) -> int:
    """Number of an advisory lock."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
