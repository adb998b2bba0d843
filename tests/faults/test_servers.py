"""Servers that are down, slow, restarted or refuse a key: one message, and then the state of an uninterrupted training."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from deploy.local_servers.programs import free_port
from deploy.local_servers.servers import PROJECT, Servers
from mlflow import MlflowClient
from tests.conftest import Project
from tests.faults.commands import TRAIN, Ended, paused, run
from tests.faults.conftest import Observe
from tests.faults.proxy import Mode, Proxy
from tests.faults.state import aliases, final_state, local_store
from tests.servers import Team

pytestmark = pytest.mark.faults
PRODUCTION = (*TRAIN, "--env", "production")
SEARCHING = "call churn_pipeline.datasets.study_recorder:TrialRecorder.record"
ALIAS = "call mlflow:MlflowClient.set_registered_model_alias"
# One retry instead of MLflow's seven, which take four minutes.
IMPATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
# Where the MLflow server is lost, and how.
LOST: dict[str, tuple[str, Mode]] = {
    "tracking down in the middle": ("call mlflow:MlflowClient.log_batch", "refuse"),
    "tracking unavailable": ("before evaluation.evaluate", "503"),
    "tracking down at registration": (ALIAS, "refuse"),
}


@pytest.fixture
def tracking(team: Team) -> Iterator[tuple[Proxy, dict[str, str]]]:
    """A proxy to the MLflow server, and the environment of a training that records through it; data stay here."""
    with Proxy(team.servers.tracking.port) as proxy:
        names = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_EXPERIMENT_NAME")
        own = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{proxy.port}", "CHURN_DATA_ROOT": "data", **IMPATIENT}
        yield proxy, {name: team.environment[name] for name in names} | own


def test_a_server_that_is_down_at_the_start(project: Project, observe: Observe) -> None:
    here = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{free_port()}", "CHURN_DATA_ROOT": "data", **IMPATIENT}

    ended = run(project, *PRODUCTION, environment=here)

    assert ended.code == 1, ended.output
    assert not (project.path / "data/03_primary").exists()
    observe("tracking down at start", ended)


def test_a_server_that_is_lost_in_the_middle(
    project: Project, tracking: tuple[Proxy, dict[str, str]], uninterrupted: dict[str, Any], observe: Observe
) -> None:
    proxy, environment = tracking
    client = MlflowClient(environment["MLFLOW_TRACKING_URI"])
    ended: dict[str, Ended] = {}
    before = aliases(client)
    for name, (point, mode) in LOST.items():
        with paused(project, *PRODUCTION, at=point, environment=environment) as training:
            proxy.change(mode)
            ended[name] = training.resume()
        assert ended[name].code == 1, ended[name].output
        proxy.change("pass")
        assert aliases(client) == before

    proxy.delay = 0.1
    slow = run(project, *PRODUCTION, environment=environment)

    assert slow.code == 0, slow.output
    state = final_state(environment["MLFLOW_TRACKING_URI"], environment["MLFLOW_EXPERIMENT_NAME"])
    assert state == uninterrupted
    for name, lost in ended.items():
        observe(name, lost)
    observe("tracking slow", slow)


def test_postgres_that_is_down_and_restarted(
    project: Project, postgres: Servers, database: str, uninterrupted: dict[str, Any], observe: Observe
) -> None:
    right = {"MLFLOW_TRACKING_URI": local_store(project), "CHURN_DATA_ROOT": "data", **_studies(postgres, database)}
    wrong = right | {"CHURN_STUDIES": f"postgresql+psycopg://churn@127.0.0.1:{free_port()}/churn"}

    down = run(project, *PRODUCTION, environment=wrong)
    assert down.code == 1, down.output
    with paused(project, *PRODUCTION, at=SEARCHING, environment=right) as training:
        postgres.postgres.stop("immediate")
        postgres.start_postgres()
        restarted = training.resume()

    assert restarted.code == 0, restarted.output
    assert final_state(local_store(project)) == uninterrupted
    observe("postgres down at start", down)
    observe("postgres restarted", restarted)


def test_s3_that_cannot_be_used(
    project: Project, s3: Servers, postgres: Servers, database: str, uninterrupted: dict[str, Any], observe: Observe
) -> None:
    _upload(s3, project, database)
    with Proxy(s3.s3.port) as proxy:
        right = {
            **{key: value for key, value in s3.environment().items() if key.startswith("AWS_")},
            **_studies(postgres, database),
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}",
            "MLFLOW_TRACKING_URI": local_store(project),
            "CHURN_DATA_ROOT": f"s3://churn/{database}",
        }
        ended = {
            "s3 wrong key": run(project, *PRODUCTION, environment=right | {"AWS_SECRET_ACCESS_KEY": "wrong"}),
            "s3 no bucket": run(project, *PRODUCTION, environment=right | {"CHURN_DATA_ROOT": "s3://missing/data"}),
        }
        with paused(project, *PRODUCTION, at="before evaluation.evaluate", environment=right) as training:
            proxy.change("503")
            ended["s3 unavailable"] = training.resume()
        proxy.change("pass")

        again = run(project, *PRODUCTION, environment=right)

    assert [one.code for one in ended.values()] == [1, 1, 1], ended
    assert again.code == 0, again.output
    assert final_state(local_store(project)) == uninterrupted
    assert not (project.path / "s3:").exists()
    for name, one in ended.items():
        observe(name, one)


def _studies(postgres: Servers, database: str) -> dict[str, str]:
    everything = postgres.environment()
    url = everything["CHURN_STUDIES"].removesuffix(PROJECT) + database
    return {"CHURN_STUDIES": url, "PGPASSWORD": everything["PGPASSWORD"]}


def _upload(s3: Servers, project: Project, folder: str) -> None:
    """Move the project's raw tables to the bucket, so that nothing local is left to read."""
    client = s3.s3.client()
    for file in (project.path / "data/01_raw").rglob("*"):
        if file.is_file():
            key = f"{folder}/{file.relative_to(project.path / 'data').as_posix()}"
            client.put_object(Bucket=PROJECT, Key=key, Body=file.read_bytes())
    shutil.rmtree(project.path / "data")
