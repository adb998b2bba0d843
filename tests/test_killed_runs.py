"""Runs of processes that were killed."""

import os
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from kedro.pipeline import Pipeline

from churn_pipeline import killed_runs
from churn_pipeline.task_runs import check_task


@pytest.fixture
def experiment(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The id of an experiment in a store of this test's own."""
    (tmp_path / "mlflow.db").write_bytes(empty_store.read_bytes())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.set_tracking_uri(None)
    return mlflow.MlflowClient().create_experiment("killed", tmp_path.as_uri())


def test_only_runs_of_ended_processes_of_this_machine_are_ended(experiment: str) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    client = mlflow.MlflowClient()
    with mlflow.start_run(experiment_id=experiment) as own:
        killed_runs.tag_process()
        machine = client.get_run(own.info.run_id).data.tags[killed_runs.TAG].rpartition(" ")[0]
        processes = {"killed": f"{machine} {ended.pid}", "lives": f"{machine} {os.getppid()}"} | {
            "elsewhere": f"other {machine} {ended.pid}",
            "untagged": "",
        }
        runs = {
            name: client.create_run(experiment, tags={killed_runs.TAG: process} if process else {}).info.run_id
            for name, process in processes.items()
        }
        runs["trial"] = client.create_run(experiment, tags={"mlflow.parentRunId": runs["killed"]}).info.run_id

        killed_runs.end_killed_runs(experiment)

    statuses = {name: client.get_run(run_id).info.status for name, run_id in runs.items()}
    assert statuses == {
        "killed": "KILLED",
        "trial": "KILLED",
        "lives": "RUNNING",
        "elsewhere": "RUNNING",
        "untagged": "RUNNING",
    }
    assert client.get_run(own.info.run_id).info.status == "FINISHED"


def test_a_run_that_a_task_continues_has_no_single_process(experiment: str) -> None:
    client = mlflow.MlflowClient()
    run = client.create_run(experiment, tags={killed_runs.TAG: "machine 1"})

    check_task(run, {}, {}, Pipeline([]))

    assert killed_runs.TAG not in client.get_run(run.info.run_id).data.tags
