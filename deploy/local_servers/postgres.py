"""A PostgreSQL server with one role and one database for each use."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from deploy.local_servers.programs import HOST, ServerError, check_port, find_program

PACKAGE = "PostgreSQL 14 or later (Debian: apt install postgresql; macOS: brew install postgresql@17)"
ADMIN = "admin"


class Postgres:
    """PostgreSQL in a folder; passwords are required (SCRAM-SHA-256).

    PostgreSQL refuses to run as root. For root, its files belong to the system's user ``postgres``, who runs it.

    Parameters
    ----------
    folder
        The folder of the database files.
    port
        The port on loopback.
    password
        The password of the role `ADMIN`.
    options
        Further options of the server.
    """

    def __init__(self, folder: Path, port: int, password: str, options: str = "") -> None:
        self._folder, self.port, self._password, self._options = folder, port, password, options
        self._user: dict[str, Any] = (
            {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        )

    def start(self, databases: Mapping[str, str]) -> None:
        """Start the server and create the missing databases, each with an owner of the same name.

        Parameters
        ----------
        databases
            The owner's password by database.
        """
        if not self.is_running():
            check_port(self.port, "PostgreSQL", "POSTGRES_PORT")
            if not (self._folder / "PG_VERSION").is_file():
                self._initialise()
            options = f"-h {HOST} -p {self.port} -c unix_socket_directories='' {self._options}"
            self._run(
                "pg_ctl",
                ["start", "--wait", "--silent", "-D", self._folder, "-l", self._folder / "server.log", "-o", options],
            )
        with self.connect() as connection:
            for name, password in databases.items():
                _create_database(connection, name, password)

    def stop(self, mode: str = "fast") -> None:
        """Stop the server; mode ``immediate`` is like a power cut."""
        if self.is_running():
            self._run("pg_ctl", ["stop", "--wait", "--silent", "-D", self._folder, "-m", mode])

    def is_running(self) -> bool:
        """Return whether the server runs."""
        if not (self._folder / "PG_VERSION").is_file():
            return False
        command = [str(_program("pg_ctl")), "status", "-D", str(self._folder)]
        return subprocess.run(command, capture_output=True, check=False, cwd="/", **self._user).returncode == 0

    def connect(self, database: str = "postgres") -> psycopg.Connection[Any]:
        """Connect as `ADMIN`, in autocommit mode."""
        return psycopg.connect(
            host=HOST,
            port=self.port,
            user=ADMIN,
            password=self._password,
            dbname=database,
            autocommit=True,
            connect_timeout=10,
        )

    def url(self, database: str, password: str | None = None) -> str:
        """Return SQLAlchemy's address of a database for its owner; without a password, PGPASSWORD must give it."""
        user = database if password is None else f"{database}:{password}"
        return f"postgresql+psycopg://{user}@{HOST}:{self.port}/{database}"

    def _initialise(self) -> None:
        # Renamed when complete: after a kill in the middle, the next start begins anew.
        unfinished = self._folder.with_name(f"{self._folder.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True, mode=0o700)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=unfinished.parent) as password_file:
            password_file.write(self._password)
            password_file.flush()
            if self._user:
                _give_to_postgres(unfinished, Path(password_file.name))
            options = f"--username {ADMIN} --auth scram-sha-256 --encoding UTF8 --no-locale --no-sync".split()
            self._run("initdb", ["-D", unfinished, "--pwfile", password_file.name, *options])
        unfinished.rename(self._folder)

    def _run(self, name: str, words: Sequence[str | Path]) -> None:
        command = [str(_program(name)), *map(str, words)]
        with tempfile.TemporaryFile() as output:  # not a pipe: the server would keep it open
            done = subprocess.run(command, stdout=output, stderr=output, check=False, cwd="/", **self._user)
            output.seek(0)
            if done.returncode:
                said = output.read().decode(errors="replace").strip()[-2000:]
                raise ServerError(f"PostgreSQL: {name} failed (log: {self._folder / 'server.log'}):\n{said}")


def _program(name: str) -> Path:
    # Debian and Homebrew keep them out of PATH. The newest comes first.
    found = [*Path("/usr/lib/postgresql").glob("*/bin"), *Path("/opt/homebrew/opt").glob("postgresql@*/bin")]
    return find_program(name, PACKAGE, sorted(found, key=_version, reverse=True))


def _version(folder: Path) -> float:
    return float(folder.parent.name.rpartition("@")[2])


def _give_to_postgres(folder: Path, password_file: Path) -> None:
    try:
        shutil.chown(folder, "postgres", "postgres")
        shutil.chown(password_file, "postgres", "postgres")
    except LookupError:
        raise ServerError(
            "PostgreSQL does not run as root: create a system user postgres, or run this as another user"
        ) from None
    for parent in folder.resolve().parents:
        if not parent.stat().st_mode & 0o001:
            raise ServerError(f"The user postgres may not enter {parent}: run this as another user than root")


def _create_database(connection: psycopg.Connection[Any], name: str, password: str) -> None:
    role = sql.Identifier(name)
    if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [name]).fetchone() is None:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, sql.Literal(password)))
    if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone() is None:
        connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(role, role))
    connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(role))
