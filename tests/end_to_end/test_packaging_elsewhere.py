"""Packaging in another folder than the training's: it needs the registry and the hold-out samples, and nothing else."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import bentoml
import mlflow
import pytest
import yaml
from tests.conftest import Project, Trained, copy_project, shorten
from tests.end_to_end.test_packaging import last_bento


def empty_project(folder: Path, empty_store: Path, data_root: Path) -> Project:
    """A copy of the project without data, that shares only ``data_root``."""
    project = copy_project(folder, empty_store)
    shutil.rmtree(project.path / "data")
    shutil.rmtree(project.path / "mlruns")
    (project.path / "conf/local/globals.yml").write_text(
        yaml.safe_dump({"data_root": str(data_root)}), encoding="utf-8"
    )
    return project


def package(project: Project, *params: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kedro", "run", "--pipelines", "packaging"]
    if params:
        command += ["--params", ",".join(params)]
    return subprocess.run(command, cwd=project.path, capture_output=True, text=True, check=False)


def test_an_empty_folder_gives_the_same_bento(
    trained: Trained, tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared"
    shutil.copytree(trained.project.path / "data/holdout_samples", shared / "holdout_samples")
    project = empty_project(tmp_path / "second", empty_store, shared)
    shutil.copy(trained.project.path / "mlruns/mlflow.db", tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "second")

    ended = package(project)

    assert ended.returncode == 0, ended.stderr
    assert last_bento(project, "simulated").tag == last_bento(trained.project, "simulated").tag


@pytest.mark.slow
def test_a_version_is_packaged_with_the_sample_of_its_own_training(
    make_project: Callable[..., Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project("logistic")
    monkeypatch.chdir(project.path)
    assert project.kedro("run").code == 0
    first = last_bento(project, "simulated").tag

    shorten(project.path, 1_500)  # another table, and so another hold-out
    assert project.kedro("run", "--pipelines", "training").code == 0
    ended = project.kedro("run", "--pipelines", "packaging", "--params", "packaging.model=1")

    assert ended.code == 0, ended.output
    assert last_bento(project, "simulated").tag == first


@pytest.mark.slow
def test_a_three_level_name_is_used_from_training_to_rotation(
    make_project: Callable[..., Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project("logistic")
    monkeypatch.chdir(project.path)
    names = {"model_name": "main.churn.{table}", "experiment_name": "/Shared/{table}", "bento_name": "Main.{table}"}
    (project.path / "conf/local/globals.yml").write_text(yaml.safe_dump(names), encoding="utf-8")

    ended = project.kedro("run")

    assert ended.code == 0, ended.output
    client = mlflow.MlflowClient()
    assert client.get_experiment_by_name("/Shared/simulated") is not None
    assert [model.name for model in client.search_registered_models()] == ["main.churn.simulated"]
    store = project.path / "bentos/store/bentos/main.simulated"
    bento = bentoml.Bento.from_path(store / (store / "latest").read_text(encoding="utf-8"))
    assert bento.info.labels["model_name"] == "main.churn.simulated"
    assert (project.path / "bentos/Main.simulated.bento").is_file()
    promoted = project.kedro("promote", "simulated")
    assert "Version 1 of main.churn.simulated is now the champion" in promoted.output
    rotated = project.kedro("rotate-holdout", "simulated")
    assert "anchor is version 2, champion is version 2, challenger is version 2" in rotated.output
    aliases = client.get_registered_model("main.churn.simulated").aliases
    assert {alias: str(version) for alias, version in aliases.items()} == dict.fromkeys(aliases, "2")


def test_a_name_that_mlflow_rejects_is_refused_before_the_training(project: Project) -> None:
    (project.path / "conf/local/globals.yml").write_text("model_name: team/churn\n", encoding="utf-8")
    ended = project.kedro("run", "--pipelines", "training")
    assert ended.code == 1
    assert "has a / or : in it: correct model_name in globals.yml" in ended.output
    assert "Traceback" not in ended.output
