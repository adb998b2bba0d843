"""Fixtures: PostgreSQL, S3 and an MLflow server on loopback, each started by the first test that needs it."""

from __future__ import annotations

import signal
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from deploy.local_servers import Servers
from deploy.local_servers.programs import free_port
from deploy.local_servers.servers import PROJECT, Ports
from psycopg import sql


class Team(NamedTuple):
    """A project's place on the servers: an empty database and an empty folder in the bucket.

    Attributes
    ----------
    servers
        The servers.
    environment
        The environment variables that point the project at this place.
    """

    servers: Servers
    environment: dict[str, str]


@contextmanager
def open_folder() -> Iterator[Path]:
    """A temporary folder that every user may enter; for root, PostgreSQL runs as another user.

    Each session of pytest makes the folders of all its sessions private, so this is none of them.
    """
    with tempfile.TemporaryDirectory(prefix="servers-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o711)
        yield Path(name)


@pytest.fixture(scope="session")
def _servers_folder() -> Iterator[Path]:
    with open_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def local_servers(_servers_folder: Path) -> Iterator[Servers]:
    """The servers, none of them started."""
    # Tests keep no data: PostgreSQL need not wait for the disk.
    servers = Servers(
        _servers_folder / "servers",
        Ports(free_port(), free_port(), free_port()),
        "-c fsync=off -c full_page_writes=off",
    )
    yield servers
    servers.s3.stop(signal.SIGKILL)  # it would take 15 seconds to stop
    servers.stop()


@pytest.fixture(scope="session")
def servers(local_servers: Servers) -> Servers:
    """All three servers. A test that needs only one of them starts faster with `postgres` or `s3`."""
    local_servers.start()
    return local_servers


@pytest.fixture(scope="session")
def s3(local_servers: Servers) -> Servers:
    """The servers, with S3 started."""
    local_servers.start_s3()
    return local_servers


@pytest.fixture(scope="session")
def postgres(local_servers: Servers) -> Servers:
    """The servers, with PostgreSQL started."""
    local_servers.start_postgres()
    return local_servers


@pytest.fixture
def database(postgres: Servers) -> Iterator[str]:
    """The name of an empty database that the project's role owns, for one test."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    with postgres.postgres.connect() as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), sql.Identifier(PROJECT)))
    yield name
    postgres.start_postgres()  # the test may have stopped it
    with postgres.postgres.connect() as admin:
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def team(servers: Servers, database: str, monkeypatch: pytest.MonkeyPatch) -> Team:
    """An empty place on the servers for one test, which this process and its children use."""
    everything = servers.environment()
    place = {
        "CHURN_DATA_ROOT": f"{everything['CHURN_DATA_ROOT']}/{database}",
        "CHURN_STUDIES": everything["CHURN_STUDIES"].removesuffix(PROJECT) + database,
        "MLFLOW_EXPERIMENT_NAME": database,
    }
    for name, value in (everything | place).items():
        monkeypatch.setenv(name, value)
    return Team(servers, everything | place)
