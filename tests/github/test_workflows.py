"""The workflows call existing make targets and scripts, with declared permissions."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from tests.conftest import ROOT

FILES = sorted((ROOT / ".github/workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))


def jobs() -> Iterator[Any]:
    for file in FILES:
        for name, job in yaml.safe_load(file.read_text(encoding="utf-8"))["jobs"].items():
            yield pytest.param(job, id=f"{file.stem}-{name}")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_workflow_calls_only_existing_targets_and_scripts(file) -> None:
    text = file.read_text(encoding="utf-8")

    assert set(re.findall(r"\bmake ([a-z-]+)", text)) <= TARGETS
    assert all((ROOT / script).is_file() for script in re.findall(r"\.github/scripts/\w+\.py", text))


@pytest.mark.parametrize("job", jobs())
def test_a_job_declares_its_permissions_and_timeout(job) -> None:
    assert "permissions" in job
    assert "uses" in job or job["timeout-minutes"] <= 60


def test_workflows_have_no_default_permissions() -> None:
    assert FILES
    assert all(yaml.safe_load(file.read_text(encoding="utf-8"))["permissions"] == {} for file in FILES)


def test_every_supported_python_is_tested() -> None:
    text = (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    matrix = yaml.safe_load(text)["jobs"]["test"]["strategy"]["matrix"]["python"]
    said = re.search(r"Python (.*?) with venv", (ROOT / "README.md").read_text(encoding="utf-8"))

    assert said is not None
    assert matrix == re.findall(r"3\.\d+", said[1])
