"""Fixtures: PostgreSQL, S3 and an MLflow server on loopback, each started by the first test that needs it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
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


@pytest.fixture(scope="session")
def local_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """The servers, none of them started."""
    folder = tmp_path_factory.mktemp("servers")
    # pytest's folders are private, but PostgreSQL's own user must reach its files if the tests run as root.
    for parent in (folder, *folder.parents[:3]):
        parent.chmod(parent.stat().st_mode | 0o011)
    servers = Servers(folder, Ports(free_port(), free_port(), free_port()))
    yield servers
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
    with postgres.postgres.connect() as admin:  # a new connection: the test may have restarted the server
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
