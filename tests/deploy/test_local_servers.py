"""The servers of `make up-local`."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import mlflow
import psutil
import psycopg
import pytest
from deploy.local_servers.programs import HOST, ServerError, find_program, free_port
from deploy.local_servers.servers import PASSWORDS, Ports, Servers
from tests.conftest import ROOT
from tests.servers import Team, open_folder

PORTS = ("POSTGRES_PORT", "S3_PORT", "TRACKING_PORT")


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder() as made:
        yield made


@pytest.mark.slow
def test_a_team_uses_all_three_servers_with_its_own_keys_only(team: Team) -> None:
    root = team.environment["CHURN_DATA_ROOT"]
    with fsspec.open(f"{root}/note.txt", "w") as file:
        file.write("stored")
    with fsspec.open(f"{root}/note.txt") as file:
        assert file.read() == b"stored"
    with pytest.raises(PermissionError):
        fsspec.filesystem("s3").ls("s3://mlflow")

    url = team.environment["CHURN_STUDIES"].replace("+psycopg", "")
    with psycopg.connect(url) as connection:
        assert connection.execute("select 1").fetchone() == (1,)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url, password="wrong")

    mlflow.set_tracking_uri(team.environment["MLFLOW_TRACKING_URI"])
    mlflow.set_experiment(team.environment["MLFLOW_EXPERIMENT_NAME"])
    with mlflow.start_run() as run:
        mlflow.log_text("logged", "note.txt")
    assert mlflow.artifacts.load_text(f"{run.info.artifact_uri}/note.txt") == "logged"


def test_stored_data_survive_a_restart(postgres: Servers, database: str) -> None:
    with postgres.postgres.connect(database) as connection:
        connection.execute("create table kept (n int)")
    postgres.postgres.stop()
    assert not postgres.postgres.is_running()
    postgres.start_postgres()
    with postgres.postgres.connect(database) as connection:
        assert connection.execute("select count(*) from kept").fetchone() == (0,)


def test_s3_starts_again_with_its_files_after_a_kill(s3: Servers) -> None:
    s3.s3.client().put_object(Bucket="churn", Key="kept.txt", Body=b"kept")
    s3.s3.stop(signal.SIGKILL)
    assert not s3.s3.is_running()

    s3.start_s3()

    assert s3.s3.client().get_object(Bucket="churn", Key="kept.txt")["Body"].read() == b"kept"


def test_only_the_owner_enters_the_folder_of_s3(s3: Servers) -> None:
    assert stat.S_IMODE((s3._folder / "s3").stat().st_mode) == 0o700  # its files are readable by all


def test_postgres_starts_again_after_a_kill(postgres: Servers, database: str) -> None:
    [pid] = _listeners(postgres.postgres.port)
    server = psutil.Process(pid)
    server.kill()
    server.wait(timeout=30)

    postgres.start_postgres()

    with postgres.postgres.connect(database) as connection:
        assert connection.execute("select 1").fetchone() == (1,)


def test_a_database_folder_that_was_not_finished_is_made_anew(folder: Path) -> None:
    servers = _servers(folder)
    unfinished = folder / "servers" / "postgres.unfinished"
    unfinished.mkdir()
    (unfinished / "PG_VERSION").write_text("15\n")

    try:
        servers.start_postgres()
        assert servers.postgres.is_running()
    finally:
        servers.stop()


def test_a_missing_program_is_named_with_its_package() -> None:
    with pytest.raises(ServerError, match="no-such-program is missing: install the package"):
        find_program("no-such-program", "the package")


def test_a_used_port_is_named_with_its_variable(folder: Path) -> None:
    servers = _servers(folder)
    with socket.socket() as other:
        other.bind((HOST, servers.s3.port))
        other.listen()
        with pytest.raises(ServerError, match=f"^Port {servers.s3.port} of S3 is in use: .* S3_PORT="):
            servers.start_s3()


@pytest.mark.parametrize("port", ["", "many", "0", "70000"])
def test_a_wrong_port_is_one_line(port: str, folder: Path) -> None:
    ended = _command(folder, "up", dict.fromkeys(PORTS, port))

    assert ended.returncode == 1
    assert ended.stderr.splitlines() == [
        f"POSTGRES_PORT is '{port}': give a port from 1 to 65535, such as POSTGRES_PORT=5433"
    ]


def test_running_servers_keep_their_ports(folder: Path) -> None:
    first = _servers(folder)
    first._check_ports()
    first.start_s3()
    try:
        with pytest.raises(ServerError, match=rf"other ports \(postgres .*, s3 {first.s3.port}, .*`make down-local`"):
            _servers(folder).start()
    finally:
        first.s3.stop(signal.SIGKILL)
        first.stop()


def test_each_folder_has_its_own_passwords_that_only_its_owner_reads(folder: Path) -> None:
    one, other = _servers(folder / "one"), _servers(folder / "other")
    one.write_environment()

    folder = folder / "one" / "servers"
    assert stat.S_IMODE(folder.stat().st_mode) == (0o711 if os.geteuid() == 0 else 0o700)
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}
    passwords = json.loads((folder / "passwords.json").read_text())
    assert len(set(passwords.values())) == len(PASSWORDS)
    assert min(map(len, passwords.values())) >= 32
    assert not {*one.environment().values()} & {*passwords.values()} & {*other.environment().values()}
    assert not [name for name, value in one.locations().items() if set(passwords.values()) & {value}]


@pytest.mark.slow
def test_up_twice_down_and_up_again_from_the_command_line(folder: Path) -> None:
    ports = {name: str(free_port()) for name in PORTS}
    try:
        first = _command(folder, "up", ports)
        again = _command(folder, "up", ports)
        assert (first.returncode, again.returncode) == (0, 0), first.stderr
        assert first.stdout == again.stdout
        assert f"export MLFLOW_TRACKING_URI=http://127.0.0.1:{ports['TRACKING_PORT']}\n" in first.stdout
        assert (
            f"export CHURN_STUDIES=postgresql+psycopg://churn@127.0.0.1:{ports['POSTGRES_PORT']}/churn" in first.stdout
        )
        assert "export CHURN_DATA_ROOT=s3://churn/data\n" in first.stdout
        # The file alone is enough: `source` it, and MLflow accepts its user.
        code = "import mlflow; mlflow.set_experiment('kept')"
        script = f'set -e; source .servers/environment.sh; {sys.executable} -c "{code}"'
        subprocess.run(["bash", "-c", script], cwd=folder, check=True, env=_clean_environment())

        stopped = _command(folder, "down", ports)
        assert (stopped.returncode, list(_listeners(*map(int, ports.values())))) == (0, [])
        assert _command(folder, "up", ports).returncode == 0
        code = "import mlflow; assert mlflow.get_experiment_by_name('kept')"
        script = f'set -e; source .servers/environment.sh; {sys.executable} -c "{code}"'
        subprocess.run(["bash", "-c", script], cwd=folder, check=True, env=_clean_environment())
    finally:
        _command(folder, "down", ports)


def _servers(path: Path) -> Servers:
    return Servers(path / "servers", Ports(free_port(), free_port(), free_port()))


def _listeners(*ports: int) -> set[int]:
    connections = psutil.net_connections("tcp")
    return {one.pid for one in connections if one.status == psutil.CONN_LISTEN and one.laddr.port in ports and one.pid}


def _clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "AWS_", "CHURN_"))}


def _command(folder: Path, word: str, ports: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deploy.local_servers", word],
        cwd=folder,
        env={**_clean_environment(), **ports, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
