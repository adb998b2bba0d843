"""MLflow's tracking server with users, and artifacts that it passes on to S3."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import requests

from deploy.local_servers.programs import HOST, Background, check_port, write_private

ADMIN = "admin"
NOT_FOUND = 404
QUIET = {
    # The jobs are for language models; waiting for them takes six processes of 260 MB each.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "PYTHONWARNINGS": "ignore:starlette.middleware.wsgi is deprecated",
}
# The folder of the module that decides who may promote
LOGIN = Path(__file__).parents[1] / "tracking_server"
PROMOTER = "promoter"
WORKSPACE = "default"


class Tracking:
    """An MLflow server; every request needs a user and a password.

    Parameters
    ----------
    folder
        The folder of its settings and log.
    port
        The port on loopback.
    password
        The password of the user `ADMIN`.
    """

    def __init__(self, folder: Path, port: int, password: str) -> None:
        self._folder, self.port, self._password = folder, port, password
        self._server = Background("mlflow", folder)

    @property
    def url(self) -> str:
        """The address of the server."""
        return f"http://{HOST}:{self.port}"

    def start(
        self,
        backend: str,
        users_database: str,
        artifacts: str,
        environment: Mapping[str, str],
        users: Mapping[str, str],
        promoters: Sequence[str] = (),
    ) -> None:
        """Start the server and create the missing users and roles.

        Parameters
        ----------
        backend, users_database
            SQLAlchemy's addresses of the databases for runs and for users.
        artifacts
            Where the server stores artifacts, such as ``s3://mlflow``.
        environment
            Credentials of the artifact store, and the secret of the server's cookies.
        users
            Passwords by user.
        promoters
            Users who may promote versions.
        """
        if self._server.process() is None:
            check_port(self.port, "MLflow", "TRACKING_PORT")
            settings = self._write_settings(users_database)
            command = [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", "--host", HOST]
            command += ["--port", str(self.port), "--workers", "1", "--backend-store-uri", backend]
            command += ["--artifacts-destination", artifacts, "--serve-artifacts"]
            own = {"MLFLOW_AUTH_CONFIG_PATH": str(settings), "PYTHONPATH": str(LOGIN)}
            self._server.start(command, {**QUIET, **environment, **own})
        self._server.wait_until(self._answers)
        self._create_users(users)
        self._give_role(promoters)

    def stop(self) -> None:
        """Stop the server."""
        self._server.stop()

    def is_running(self) -> bool:
        """Return whether the server runs."""
        return self._server.process() is not None

    def _write_settings(self, users_database: str) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = self._folder / "users.ini"
        values = {
            # A new user may read everything, and change only what they created, until someone grants more.
            "default_permission": "READ",
            "database_uri": users_database,
            "admin_username": ADMIN,
            "admin_password": self._password,
            "authorization_function": "churn_roles:authenticate",
            # Checking a password takes 0.1 s of CPU, so the server remembers a right one for a minute.
            "auth_cache_ttl_seconds": "60",
        }
        lines = ["[mlflow]", *(f"{name} = {value.replace('%', '%%')}" for name, value in values.items())]
        write_private(file, "\n".join(lines) + "\n")
        return file

    def _create_users(self, users: Mapping[str, str]) -> None:
        for name, password in users.items():
            if self._call("GET", "users/get", {"username": name}).status_code == NOT_FOUND:
                self._call("POST", "users/create", {"username": name, "password": password}).raise_for_status()

    def _give_role(self, users: Sequence[str]) -> None:
        """Give users the role `PROMOTER`, which may change every registered model."""
        roles = self._call("GET", "roles/list", {"workspace": WORKSPACE}, 3).json()["roles"]
        role = next((role for role in roles if role["name"] == PROMOTER), None)
        if role is None:
            made = self._call("POST", "roles/create", {"workspace": WORKSPACE, "name": PROMOTER}, 3)
            role = made.json()["role"]
            grant = {"resource_type": "registered_model", "resource_pattern": "*", "permission": "EDIT"}
            self._call("POST", "roles/permissions/add", {"role_id": role["id"], **grant}, 3).raise_for_status()
        for user in users:
            held = self._call("GET", "users/roles/list", {"username": user}, 3).json()["roles"]
            if PROMOTER not in {role["name"] for role in held}:
                self._call("POST", "roles/assign", {"username": user, "role_id": role["id"]}, 3).raise_for_status()

    def _call(self, method: str, what: str, values: Mapping[str, Any], version: int = 2) -> requests.Response:
        """Call MLflow's interface for users and roles as `ADMIN`."""
        url = f"{self.url}/api/{version}.0/mlflow/{what}"
        given: dict[str, Any] = {"params": values} if method == "GET" else {"json": values}
        return requests.request(method, url, auth=(ADMIN, self._password), timeout=30, **given)

    def _answers(self) -> bool:
        try:
            requests.get(f"{self.url}/health", timeout=5)
        except requests.RequestException:
            return False
        return True
