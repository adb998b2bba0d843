"""The three servers together: their ports, passwords, start order, and the environment that points the project at them."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psycopg
import requests
from botocore.exceptions import BotoCoreError, ClientError

from deploy.local_servers.postgres import Postgres
from deploy.local_servers.programs import ServerError, write_private
from deploy.local_servers.s3 import REGION, S3
from deploy.local_servers.tracking import Tracking

PROJECT = "churn"  # the user, key, database and bucket of this project
MLFLOW = "mlflow"  # the same of the tracking server
MLFLOW_USERS = "mlflow_users"
PASSWORDS = (
    *("postgres", "postgres_project", "postgres_mlflow", "postgres_users"),
    *("s3", "s3_churn", "s3_mlflow", "tracking", "tracking_project", "cookies"),
)


@dataclass(frozen=True)
class Ports:
    """Ports on loopback."""

    postgres: int
    s3: int
    tracking: int


class Servers:
    """PostgreSQL, S3 and MLflow's tracking server in one folder.

    Passwords are drawn at the first start and kept in ``passwords.json``, which only this user may read.

    Parameters
    ----------
    folder
        The folder of all their files.
    ports
        Ports on loopback.
    postgres_options
        Further options of PostgreSQL.
    """

    def __init__(self, folder: Path, ports: Ports, postgres_options: str = "") -> None:
        self._folder, self._ports = folder.resolve(), ports
        self._passwords = self._read_passwords()
        self.postgres = Postgres(
            self._folder / "postgres", ports.postgres, self._passwords["postgres"], postgres_options
        )
        self.s3 = S3(self._folder / "s3", ports.s3, self._passwords["s3"])
        self.tracking = Tracking(self._folder / "mlflow", ports.tracking, self._passwords["tracking"])

    def start(self) -> None:
        """Start what does not run yet, and create databases, buckets and users that are missing.

        Raises
        ------
        ServerError
            If a server cannot be started, runs on another port, or refuses the stored passwords.
        """
        with self._locked():
            self._check_ports()
            try:
                self.start_postgres()
                self.start_s3()
                self._start_tracking()
            except (psycopg.Error, BotoCoreError, ClientError, requests.RequestException) as error:
                raise ServerError(
                    f"A server does not accept {self._folder / 'passwords.json'}, or stopped: {error}\n"
                    f"Read the logs in {self._folder}. Without its passwords, delete the folder; its data are lost."
                ) from error

    def _start_tracking(self) -> None:
        word = self._passwords
        self.tracking.start(
            self.postgres.url(MLFLOW, word["postgres_mlflow"]),
            self.postgres.url(MLFLOW_USERS, word["postgres_users"]),
            f"s3://{MLFLOW}",
            {**self._s3_environment(MLFLOW), "MLFLOW_FLASK_SERVER_SECRET_KEY": word["cookies"]},
            {PROJECT: word["tracking_project"]},
            [PROJECT],
        )

    def start_postgres(self) -> None:
        """Start PostgreSQL, and create the missing databases."""
        word = self._passwords
        self.postgres.start(
            {PROJECT: word["postgres_project"], MLFLOW: word["postgres_mlflow"], MLFLOW_USERS: word["postgres_users"]}
        )

    def start_s3(self) -> None:
        """Start S3, and create the missing buckets."""
        keys = {name: self._passwords[f"s3_{name}"] for name in (PROJECT, MLFLOW)}
        self.s3.start(keys, {name: [name] for name in keys})

    def stop(self) -> None:
        """Stop all servers; their data stay."""
        with self._locked():
            for server in (self.tracking, self.s3, self.postgres):
                server.stop()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let no other process start or stop these servers meanwhile."""
        with (self._folder / "lock").open("w", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _check_ports(self) -> None:
        """Remember the ports, and check that the servers that run use them."""
        file, wanted = self._folder / "ports.json", asdict(self._ports)
        used = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else wanted
        if used != wanted and any(self.status().values()):
            ports = ", ".join(f"{name} {port}" for name, port in used.items())
            raise ServerError(f"The servers run on other ports ({ports}): stop them first with `make down-local`")
        write_private(file, json.dumps(wanted))

    def status(self) -> dict[str, bool]:
        """Return which servers run."""
        servers: dict[str, Postgres | S3 | Tracking] = {
            "PostgreSQL": self.postgres,
            "S3": self.s3,
            "MLflow": self.tracking,
        }
        return {name: server.is_running() for name, server in servers.items()}

    def locations(self) -> dict[str, str]:
        """Return the three settings that say where things are stored, without secrets."""
        return {
            "MLFLOW_TRACKING_URI": self.tracking.url,
            "CHURN_DATA_ROOT": f"s3://{PROJECT}/data",
            "CHURN_STUDIES": self.postgres.url(PROJECT),
        }

    def environment(self) -> dict[str, str]:
        """Return the whole environment of a user of these servers, with secrets."""
        return {
            **self.locations(),
            "PGPASSWORD": self._passwords["postgres_project"],
            "MLFLOW_TRACKING_USERNAME": PROJECT,
            "MLFLOW_TRACKING_PASSWORD": self._passwords["tracking_project"],
            **self._s3_environment(PROJECT),
        }

    def write_environment(self) -> Path:
        """Write `environment` as a shell script that only this user may read."""
        file = self._folder / "environment.sh"
        write_private(
            file, "".join(f"export {name}={shlex.quote(value)}\n" for name, value in self.environment().items())
        )
        return file

    def _s3_environment(self, key: str) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.s3.url,
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": self._passwords[f"s3_{key}"],
            "AWS_DEFAULT_REGION": REGION,
        }

    def _read_passwords(self) -> dict[str, str]:
        file = self._folder / "passwords.json"
        if not file.is_file():
            # Root's PostgreSQL runs as another user, who must be able to enter the folder.
            self._folder.mkdir(parents=True, exist_ok=True)
            self._folder.chmod(0o711 if os.geteuid() == 0 else 0o700)
            write_private(file, json.dumps({name: secrets.token_urlsafe(24) for name in PASSWORDS}))
        passwords: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))
        return passwords
