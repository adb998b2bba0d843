"""Reproduces a run as a user does, from its commit and its lock, and lists the parts that are not the same."""

import shutil
import subprocess
from pathlib import Path

import mlflow
import pytest
from tests.conftest import ROOT, Project, quick_parameters, shorten


@pytest.fixture
def checkout(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A clone of the last commit, with an empty store."""
    path = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(path)], check=True)
    (path / "mlruns").mkdir()
    shutil.copy(empty_store, path / "mlruns")
    (path / "conf/local").mkdir(exist_ok=True)
    monkeypatch.chdir(path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    project = Project(path)
    project.configure(**quick_parameters())
    return project


@pytest.mark.slow
def test_a_changed_data_file_and_a_changed_lock_are_named(checkout: Project) -> None:
    # Neither change is committed: the rebuilt run uses the data and the lock of the commit.
    shorten(checkout.path)
    with (checkout.path / "requirements/requirements.lock").open("a", encoding="utf-8") as lock:
        lock.write("# one line more\n")
    trained = checkout.kedro("run", "--pipelines", "training")
    assert trained.code == 0, trained.output
    runs = mlflow.MlflowClient(f"sqlite:///{checkout.path}/mlruns/mlflow.db").search_runs(["1"])
    (run,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]

    reproduced = checkout.kedro("reproduce", run.info.run_id)

    assert reproduced.code == 1, reproduced.output
    parts = {line.split(maxsplit=1)[0]: line for line in reproduced.output.splitlines() if "same" in line.lower()}
    assert all("NOT THE SAME" in parts[name] for name in ("data", "lock", "code", "holdout", "metrics", "model"))
    assert "NOT THE SAME" not in parts["contract"]
    assert "uncommitted changes" in parts["code"]
