"""The packaged project's entry point, and what is set up before a command runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from kedro.framework.project import LOGGING

import churn_pipeline
from churn_pipeline.__main__ import main
from tests.conftest import Project

LOGGING_FILE = Path(__file__).parents[1] / "conf" / "logging.yml"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A copy of the environment variables that a test may change."""
    changed = os.environ.copy()
    monkeypatch.setattr(os, "environ", changed)
    return changed


def test_the_entry_point_is_kedro_run(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])

    assert ended.value.code == 0
    assert "--pipelines" in capsys.readouterr().out


def test_the_entry_point_prepares_the_process(environment: dict[str, str]) -> None:
    environment.pop("OMP_WAIT_POLICY", None)

    with pytest.raises(SystemExit):
        main(["--help"])

    assert environment["OMP_WAIT_POLICY"] == "PASSIVE"


def test_the_entry_point_has_the_commands_of_this_project(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("promote", "rotate-holdout", "verify-bundle", "reproduce", "table", "run"):
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert ended.value.code == 0
        assert f"Usage: churn-pipeline {command}" in capsys.readouterr().out


def test_windows_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(SystemExit, match="does not run on Windows itself: install it in WSL 2"):
        churn_pipeline.prepare()


@pytest.mark.parametrize("chosen", [None, "mine.yml"])
def test_a_subfolder_uses_the_projects_logging_unless_another_file_is_chosen(
    chosen: str | None, environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configured: list[object] = []
    monkeypatch.setattr(LOGGING, "configure", configured.append)
    environment.pop("KEDRO_LOGGING_CONFIG", None)
    if chosen:
        environment["KEDRO_LOGGING_CONFIG"] = chosen
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "logging.yml").write_bytes(LOGGING_FILE.read_bytes())

    churn_pipeline._use_logging_of(tmp_path)

    assert len(configured) == (0 if chosen else 1)


# ---- other projects in the same environment --------------------------------------------------------------------------

PREPARED = ("OMP_WAIT_POLICY", "PYTHONWARNINGS", "DO_NOT_TRACK", "BENTOML_DO_NOT_TRACK", "MLFLOW_CONFIGURE_LOGGING")


@pytest.fixture
def other_project(tmp_path: Path) -> Path:
    """Another, empty Kedro project."""
    (tmp_path / "pyproject.toml").write_text(
        '[tool.kedro]\npackage_name = "other"\nproject_name = "other"\nkedro_init_version = "1.7.0"\n', encoding="utf-8"
    )
    package = tmp_path / "src" / "other"
    package.mkdir(parents=True)
    for name in ("__init__.py", "settings.py"):
        (package / name).write_text("", encoding="utf-8")
    (package / "pipeline_registry.py").write_text("def register_pipelines():\n    return {}\n", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("broken", [False, True])
def test_kedros_entry_point_leaves_another_project_as_it_is(
    broken: bool, other_project: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if broken:
        (other_project / "pyproject.toml").write_text("[tool.kedro\n", encoding="utf-8")
    for name in PREPARED:
        environment.pop(name, None)
    before = dict(environment)
    (other_project / "src").mkdir(exist_ok=True)
    monkeypatch.chdir(other_project / "src")

    churn_pipeline.prepare_own_project()

    assert environment == before


def test_kedros_entry_point_prepares_this_project(
    project: Project, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in PREPARED:
        environment.pop(name, None)
    monkeypatch.setattr(churn_pipeline, "__path__", list(churn_pipeline.__path__))

    churn_pipeline.prepare_own_project()

    assert set(PREPARED) <= environment.keys()


# Prints the variables as a command of the project sees them.
SHOW = "import os, kedro.framework.cli.cli as c; c._init_plugins(); print([n for n in os.environ if n in {names}])"


def test_kedro_itself_starts_another_project_unprepared(other_project: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in PREPARED}
    shown = subprocess.run(
        [sys.executable, "-c", SHOW.format(names=PREPARED)],
        cwd=other_project,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )

    assert shown.stdout.splitlines()[-1] == "[]", shown.stderr


# ---- telemetry -------------------------------------------------------------------------------------------------------

# A session made in Python: Kedro calls no entry point for it. What would be sent is printed.
SESSION = """
import sys
import kedro_telemetry.plugin as telemetry
import requests
requests.post = lambda *args, **kwargs: print("SENT", args)
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
bootstrap_project(sys.argv[1])
with KedroSession.create(sys.argv[1]) as session:
    session.load_context().catalog
import mlflow.telemetry
print("mlflow", mlflow.telemetry.get_telemetry_client())
"""


def test_a_session_made_in_python_sends_no_usage_data_without_a_telemetry_file(project: Project) -> None:
    assert not (project.path / ".telemetry").exists()
    ci = ("CI", "GITHUB_ACTIONS", "PYTEST_CURRENT_TEST")
    environment = {name: value for name, value in os.environ.items() if name not in (*PREPARED, *ci)}

    ended = subprocess.run(
        [sys.executable, "-c", SESSION, str(project.path)],
        cwd=project.path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    assert "SENT" not in ended.stdout
    assert "mlflow None" in ended.stdout
    assert "anonymous usage data" not in ended.stdout + ended.stderr
    assert "kedro_telemetry" not in (project.path / "pyproject.toml").read_text(encoding="utf-8")


def test_the_commands_of_table_start_without_mlflow_and_plugins() -> None:
    code = (
        "import sys\nfrom churn_pipeline.__main__ import main\n"
        "main(['table', 'page', 'telco'], standalone_mode=False)\n"
        "assert not {'mlflow', 'kedro_mlflow', 'kedro_viz', 'sklearn', 'matplotlib'} & sys.modules.keys()\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert ended.returncode == 0, ended.stderr
    assert "| `tenure` | numeric feature |" in ended.stdout
