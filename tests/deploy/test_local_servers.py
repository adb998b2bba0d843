"""The servers of `make up-local`."""

import fsspec
import mlflow
import psycopg
import pytest
from deploy.local_servers.programs import ServerError, find_program
from deploy.local_servers.servers import Servers
from tests.servers import Team


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


def test_a_missing_program_is_named_with_its_package() -> None:
    with pytest.raises(ServerError, match="no-such-program is missing: install the package"):
        find_program("no-such-program", "the package")
