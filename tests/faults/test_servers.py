"""Servers that are down, slow, restarted or refuse a key: one message, and then the state of an uninterrupted training."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from deploy.local_servers.programs import free_port
from deploy.local_servers.servers import Servers
from mlflow import MlflowClient
from tests.conftest import ROOT, Project
from tests.faults.commands import TRAIN, paused, run
from tests.faults.conftest import Observe
from tests.faults.proxy import Proxy
from tests.faults.state import aliases, final_state, local_store
from tests.servers import Team

pytestmark = pytest.mark.faults
PRODUCTION = (*TRAIN, "--env", "production")
SEARCHING = "call churn_pipeline.datasets.study_recorder:TrialRecorder.record"
ALIAS = "call mlflow:MlflowClient.set_registered_model_alias"
# One retry instead of MLflow's seven, which take four minutes.
IMPATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
has_locations = pytest.mark.skipif(
    not (ROOT / "conf/production/globals.yml").is_file(), reason="data and studies are on this machine only"
)


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
    observe("tracking down at start", ended, f"ended after {ended.seconds:.0f} s")


@pytest.mark.parametrize(("name", "mode"), [("tracking down in the middle", "refuse"), ("tracking unavailable", "503")])
def test_a_server_that_is_lost_in_the_middle(
    name: str,
    mode: Any,
    project: Project,
    tracking: tuple[Proxy, dict[str, str]],
    uninterrupted: dict[str, Any],
    observe: Observe,
) -> None:
    proxy, environment = tracking
    with paused(project, *PRODUCTION, at="before evaluation.evaluate", environment=environment) as training:
        proxy.change(mode)
        ended = training.resume()
    assert ended.code == 1, ended.output
    proxy.change("pass")

    again = run(project, *PRODUCTION, environment=environment)

    assert again.code == 0, again.output
    _check_same(environment, uninterrupted)
    observe(name, ended, f"ended after {ended.seconds:.0f} s; same state after {again.seconds:.0f} s")


def test_a_server_that_is_lost_before_the_alias_moves(
    project: Project, tracking: tuple[Proxy, dict[str, str]], uninterrupted: dict[str, Any], observe: Observe
) -> None:
    proxy, environment = tracking
    direct = environment["MLFLOW_TRACKING_URI"]
    before = aliases(MlflowClient(direct))
    with paused(project, *PRODUCTION, at=ALIAS, environment=environment) as training:
        proxy.change("refuse")
        ended = training.resume()
    assert ended.code == 1, ended.output
    proxy.change("pass")
    assert aliases(MlflowClient(direct)) == before

    again = run(project, *PRODUCTION, environment=environment)

    assert again.code == 0, again.output
    _check_same(environment, uninterrupted)
    observe("tracking down at registration", ended, f"ended after {ended.seconds:.0f} s; the alias did not move")


def test_a_slow_server(
    project: Project, tracking: tuple[Proxy, dict[str, str]], uninterrupted: dict[str, Any], observe: Observe
) -> None:
    proxy, environment = tracking
    proxy.delay = 0.1

    ended = run(project, *PRODUCTION, environment=environment)

    assert ended.code == 0, ended.output
    _check_same(environment, uninterrupted)
    observe("tracking slow", ended, f"{proxy.requests:,} packets; ended well after {ended.seconds:.0f} s")


@has_locations
def test_postgres_that_is_down_at_the_start(project: Project, observe: Observe) -> None:
    studies = f"postgresql+psycopg://churn@127.0.0.1:{free_port()}/churn"
    environment = {"MLFLOW_TRACKING_URI": local_store(project), "CHURN_DATA_ROOT": "data", "CHURN_STUDIES": studies}

    ended = run(project, *PRODUCTION, environment=environment)

    assert ended.code == 1, ended.output
    observe("postgres down at start", ended, f"ended after {ended.seconds:.0f} s")


@has_locations
def test_postgres_that_is_restarted_during_a_search(
    project: Project, postgres: Servers, database: str, uninterrupted: dict[str, Any], observe: Observe
) -> None:
    everything = postgres.environment()
    environment = {
        "MLFLOW_TRACKING_URI": local_store(project),
        "CHURN_DATA_ROOT": "data",
        "CHURN_STUDIES": everything["CHURN_STUDIES"].removesuffix("churn") + database,
        "PGPASSWORD": everything["PGPASSWORD"],
    }
    with paused(project, *PRODUCTION, at=SEARCHING, environment=environment) as training:
        postgres.postgres.stop("immediate")
        postgres.start_postgres()
        ended = training.resume()

    again = run(project, *PRODUCTION, environment=environment)

    assert again.code == 0, again.output
    assert final_state(local_store(project))["model"] == uninterrupted["model"]
    observe("postgres restarted", ended, f"ended with code {ended.code}; same model after {again.seconds:.0f} s")


Break = Callable[[Proxy, dict[str, str]], None]


def _unavailable(proxy: Proxy, _: dict[str, str]) -> None:
    proxy.change("503")


def _wrong_key(_: Proxy, environment: dict[str, str]) -> None:
    environment["AWS_SECRET_ACCESS_KEY"] = "wrong"


def _no_bucket(_: Proxy, environment: dict[str, str]) -> None:
    environment["CHURN_DATA_ROOT"] = "s3://missing/data"


@has_locations
@pytest.mark.parametrize(
    ("name", "fault"), [("s3 unavailable", _unavailable), ("s3 wrong key", _wrong_key), ("s3 no bucket", _no_bucket)]
)
def test_s3_that_cannot_be_used(
    name: str,
    fault: Break,
    project: Project,
    s3: Servers,
    tmp_path: Path,
    uninterrupted: dict[str, Any],
    observe: Observe,
) -> None:
    _upload(s3, project, name)
    with Proxy(s3.s3.port) as proxy:
        right = {
            **{key: value for key, value in s3.environment().items() if key.startswith("AWS_")},
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}",
            "MLFLOW_TRACKING_URI": local_store(project),
            "CHURN_DATA_ROOT": f"s3://churn/{_folder(name)}",
            "CHURN_STUDIES": f"sqlite:///{tmp_path}/studies.db",
        }
        wrong = dict(right)
        fault(proxy, wrong)
        ended = run(project, *PRODUCTION, environment=wrong)
        assert ended.code == 1, ended.output
        proxy.change("pass")

        again = run(project, *PRODUCTION, environment=right)

    assert again.code == 0, again.output
    assert final_state(local_store(project))["model"] == uninterrupted["model"]
    assert not (project.path / "s3:").exists()
    observe(name, ended, f"ended after {ended.seconds:.0f} s; same model after {again.seconds:.0f} s")


def _folder(name: str) -> str:
    return name.replace(" ", "_")


def _upload(s3: Servers, project: Project, name: str) -> None:
    """Move the project's raw tables to the bucket, so that nothing local is left to read."""
    client = s3.s3.client()
    for file in (project.path / "data/01_raw").rglob("*"):
        if file.is_file():
            key = f"{_folder(name)}/{file.relative_to(project.path / 'data').as_posix()}"
            client.put_object(Bucket="churn", Key=key, Body=file.read_bytes())
    shutil.rmtree(project.path / "data")


def _check_same(environment: dict[str, str], uninterrupted: dict[str, Any]) -> None:
    state = final_state(environment["MLFLOW_TRACKING_URI"], environment["MLFLOW_EXPERIMENT_NAME"])
    assert state["aliases"]["challenger"] == uninterrupted["aliases"]["challenger"]
    assert {name: state[name] for name in ("status", "model")} == {
        name: uninterrupted[name] for name in ("status", "model")
    }
