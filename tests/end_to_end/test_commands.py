"""Kedro's commands as processes, started in subfolders of the project."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import ROOT, Project


def _kedro(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("KEDRO_", "COV_", "MLFLOW_"))
    }
    command = [str(Path(sys.executable).parent / "kedro"), *words]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def test_a_run_from_a_subfolder_uses_the_projects_store_and_data(project: Project) -> None:
    below = project.path / "notebooks"
    below.mkdir()

    ended = _kedro(below, "run", "--pipeline", "data_engineering")

    assert ended.returncode == 0, ended.stderr
    assert (project.path / "data/03_primary/simulated/customers.parquet").is_file()
    assert not [file for file in below.rglob("*") if file.is_file()]
    assert "anonymous usage data" not in ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("folder", "words", "expected"),
    [
        ("src", ("registry", "describe", "training"), "gradient_boosting.search"),
        ("notebooks", ("catalog", "describe-datasets", "--pipeline", "modelling"), "leaderboard"),
        ("data/08_reporting", ("table", "page", "telco"), "| `tenure` | numeric feature |"),
        ("conf/base", ("table", "page", "telco"), "| `tenure` | numeric feature |"),
    ],
)
def test_a_command_works_in_any_folder_of_the_project(folder: str, words: tuple[str, ...], expected: str) -> None:
    ended = _kedro(ROOT / folder, *words)

    assert ended.returncode == 0, ended.stderr
    assert expected in ended.stdout


@pytest.mark.parametrize("folder", ["src", "notebooks"])
def test_the_package_runs_in_any_folder_of_the_project(folder: str) -> None:
    command = [sys.executable, "-m", "churn_pipeline", "--pipelines", "nothing"]
    run = subprocess.run(command, cwd=ROOT / folder, capture_output=True, text=True, timeout=300, check=False)

    assert run.returncode == 1
    assert "Failed to find the pipeline named 'nothing'" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_checkout_runs_its_own_code_in_any_environment(project: Project) -> None:
    shutil.copytree(ROOT / "src", project.path / "src", dirs_exist_ok=True)
    cli = project.path / "src/churn_pipeline/cli.py"
    cli.write_text(f'{cli.read_text(encoding="utf-8")}\nprint("the code beside")\n', encoding="utf-8")

    assert "the code beside" in _kedro(project.path / "conf", "table", "--help").stdout
