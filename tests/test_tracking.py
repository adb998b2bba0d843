"""Names of runs and of their parameters in MLflow."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import mlflow
import pytest
from deploy.local_servers import Servers
from deploy.local_servers.servers import PROJECT
from mlflow.entities import Run, RunData, RunInfo
from pydantic import BaseModel

from churn_pipeline.tracking import flatten_parameter, log_parameter, page_of, run_name
from tests.conftest import Project

BEGAN = datetime(2026, 5, 4, 13, 7)


class Settings(BaseModel):
    names: tuple[str, ...] = ("auc", "brier")
    limit: float | None = None
    inner: dict[str, dict[str, float]] = {"C": {"low": 0.1}}
    empty: str = ""


@pytest.mark.parametrize(
    ("pipelines", "tags", "name"),
    [
        ("['training']", {}, "telco training · 2026-05-04 13:07"),
        ("['training']", {"candidate": "splines"}, "splines · telco training · 2026-05-04 13:07"),
        ("", {"candidate": "a+b+c"}, "blend of 3 · telco training+packaging · 2026-05-04 13:07"),
        ("['packaging']", {"packaged.version": "7"}, "telco packaging of version 7 · 2026-05-04 13:07"),
        ("['training']", {"to_nodes": "splines.search"}, "telco a part · 2026-05-04 13:07"),
        ("['modelling', 'evaluation']", {}, "telco modelling+evaluation · 2026-05-04 13:07"),
    ],
)
def test_a_run_is_named_by_its_result(pipelines: str, tags: dict[str, str], name: str) -> None:
    assert run_name("telco", pipelines, BEGAN, tags) == name


def test_each_setting_is_one_parameter_and_unset_ones_are_left_out() -> None:
    assert dict(flatten_parameter("choice", Settings())) == {"choice.names": "auc, brier", "choice.inner.C.low": "0.1"}
    assert dict(flatten_parameter("seed", 5)) == {"seed": "5"}
    assert dict(flatten_parameter("allowed", [])) == {}
    assert dict(flatten_parameter("switch", False)) == {"switch": "False"}


def test_the_page_of_a_run_is_on_the_server_and_shows_no_login(monkeypatch: pytest.MonkeyPatch) -> None:
    info = RunInfo("7f", "3", "ann", "RUNNING", 0, None, "active")
    run = Run(info, RunData())
    for address, page in (
        ("https://ann:secret@mlflow.example.com/team/", "https://mlflow.example.com/team/#/experiments/3/runs/7f"),
        ("sqlite:///mlruns/mlflow.db", None),
    ):
        monkeypatch.setattr(mlflow, "get_tracking_uri", lambda address=address: address)
        assert page_of(run) == page


def test_a_run_has_its_settings_as_parameters_and_no_path_of_this_machine(project: Project) -> None:
    ended = project.kedro("run", "--pipelines", "data_engineering")

    assert ended.code == 0, ended.output
    client = mlflow.MlflowClient(f"sqlite:///{project.path}/mlruns/mlflow.db")
    # If kedro-mlflow's own hook were active too, both would start a run.
    [run] = client.search_runs([client.get_experiment_by_name("churn_simulated").experiment_id])
    assert run.data.params["split.folds"] == "5"
    assert run.data.params["quarantine.max_share"] == "0.01"
    assert not [name for name in run.data.params if name.startswith("candidates.")]
    assert run.data.tags["mlflow.source.name"] == "kedro run"
    assert paths_in(run.data.tags) == {}


def paths_in(tags: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in tags.items() if str(value).startswith(("/", "file:"))}


@pytest.mark.slow
def test_two_tasks_may_log_the_same_parameters_at_the_same_moment(
    postgres: Servers, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a database that lets two clients write at once, as SQLite does not."""
    monkeypatch.setenv("PGPASSWORD", postgres.environment()["PGPASSWORD"])
    # The experiment of an earlier test
    monkeypatch.setattr(mlflow.tracking.fluent, "_active_experiment_id", None)
    with postgres_store(postgres, database) as run_id:
        together = threading.Barrier(8)

        def log(number: int) -> None:
            with mlflow.start_run(run_id):
                for name in map(str, range(20)):
                    together.wait()
                    log_parameter(name, {"a": 1, "b": 2})

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(log, range(8)))
        assert len(mlflow.get_run(run_id).data.params) == 40


@contextmanager
def postgres_store(servers: Servers, database: str) -> Iterator[str]:
    """A run in MLflow's tables in a database."""
    before = mlflow.get_tracking_uri()
    address = servers.environment()["CHURN_STUDIES"].removesuffix(PROJECT) + database
    mlflow.set_tracking_uri(address)
    try:
        yield mlflow.MlflowClient().create_run("0").info.run_id
    finally:
        mlflow.set_tracking_uri(before)
