"""The packaged project's own entry point."""

import os
from pathlib import Path

import pytest
from kedro.framework.project import LOGGING

import churn_pipeline
from churn_pipeline.__main__ import main

LOGGING_FILE = Path(__file__).parents[1] / "conf" / "logging.yml"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment variables, which a test may change."""
    changed = os.environ.copy()
    monkeypatch.setattr(os, "environ", changed)
    return changed


def test_the_entry_point_is_kedro_run(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])

    assert ended.value.code == 0
    assert "--pipelines" in capsys.readouterr().out


def test_the_entry_point_quietens_the_stack_as_kedro_does(environment: dict[str, str]) -> None:
    environment.pop("OMP_WAIT_POLICY", None)

    with pytest.raises(SystemExit):
        main(["--help"])

    assert environment["OMP_WAIT_POLICY"] == "PASSIVE"


@pytest.mark.parametrize("chosen", [None, "mine.yml"])
def test_from_a_folder_of_the_project_the_log_is_the_projects_unless_another_is_chosen(
    chosen: str | None, environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configured: list[object] = []
    monkeypatch.setattr(LOGGING, "configure", configured.append)
    environment.pop("KEDRO_LOGGING_CONFIG", None)
    if chosen:
        environment["KEDRO_LOGGING_CONFIG"] = chosen
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "logging.yml").write_bytes(LOGGING_FILE.read_bytes())

    churn_pipeline._log_as_said_in(tmp_path)

    assert len(configured) == (0 if chosen else 1)
