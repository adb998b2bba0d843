"""The three servers together: their ports, passwords, start order, and the environment that points the project at them."""

from __future__ import annotations

import json
import secrets
import shlex
from dataclasses import dataclass
from pathlib import Path

from deploy.local_servers.postgres import Postgres
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
    """

    def __init__(self, folder: Path, ports: Ports) -> None:
        self._folder = folder.resolve()
        self._passwords = self._read_passwords()
        self.postgres = Postgres(self._folder / "postgres", ports.postgres, self._passwords["postgres"])
        self.s3 = S3(self._folder / "s3", ports.s3, self._passwords["s3"])
        self.tracking = Tracking(self._folder / "mlflow", ports.tracking, self._passwords["tracking"])

    def start(self) -> None:
        """Start what does not run yet, and create databases, buckets and users that are missing."""
        self.start_postgres()
        self.start_s3()
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
        for server in (self.tracking, self.s3, self.postgres):
            server.stop()

    def status(self) -> dict[str, bool]:
        """Return which servers run."""
        servers = {"PostgreSQL": self.postgres, "S3": self.s3, "MLflow": self.tracking}
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
        file.touch(mode=0o600)
        lines = (f"export {name}={shlex.quote(value)}\n" for name, value in self.environment().items())
        file.write_text("".join(lines), encoding="utf-8")
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
            self._folder.mkdir(parents=True, exist_ok=True)
            file.touch(mode=0o600)
            file.write_text(json.dumps({name: secrets.token_urlsafe(24) for name in PASSWORDS}), encoding="utf-8")
        passwords: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))
        return passwords
