"""A small project, what its uninterrupted training leaves, and the record of what was tried."""

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kedro.framework.startup import bootstrap_project
from tests.conftest import ROOT, Project, copy_project, shorten
from tests.faults.cases import CASES
from tests.faults.commands import KILLED, TRAIN, Ended, run
from tests.faults.page import write
from tests.faults.state import final_state, local_store

from churn_pipeline import configuration
from churn_pipeline.pipeline_registry import register_pipelines

CANDIDATE = "logistic"
ROWS = 1_000
SEED = int(os.environ.get("FAULTS_SEED") or random.SystemRandom().randrange(10_000))
Observe = Callable[..., None]


def pytest_report_header() -> str:
    """Name the seed of the random nodes."""
    return f"FAULTS_SEED={SEED}"


@pytest.fixture(scope="session")
def _seen() -> Iterator[dict[str, tuple[str, str]]]:
    """What each case showed; `make test-faults` writes it to the page."""
    seen: dict[str, tuple[str, str]] = {}
    yield seen
    if page := os.environ.get("FAULTS_PAGE"):
        write(ROOT / page, seen)


@pytest.fixture
def observe(_seen: dict[str, tuple[str, str]]) -> Observe:
    """Check what a command said, and keep it for the page."""

    def check(name: str, ended: Ended, where: str = "") -> None:
        case = CASES[name]
        assert "Traceback" not in ended.output, ended.output
        missing = [word for word in case.says if word not in ended.message]
        assert not (missing and ended.code), f"{missing} is missing from: {ended.message or ended.output}"
        message = "nothing: the shell says `Killed`" if ended.code == KILLED else ended.message or "nothing"
        _seen[name] = (case.where + (f" ({where})" if where else ""), message)

    return check


@pytest.fixture
def project(tmp_path: Path, empty_store: Path) -> Project:
    """A project of this test's own with one linear candidate."""
    return _project(tmp_path / "project", empty_store)


@pytest.fixture(scope="session")
def trained_project(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Project:
    """A project that was trained without any fault; `uninterrupted` is what that training left."""
    project = _project(tmp_path_factory.mktemp("uninterrupted") / "project", empty_store)
    ended = run(project, *TRAIN)
    assert ended.code == 0, ended.output
    return project


@pytest.fixture(scope="session")
def uninterrupted(trained_project: Project) -> dict[str, Any]:
    """The final state of a training without any fault; a test that changes the project needs it first."""
    return final_state(local_store(trained_project))


@pytest.fixture(scope="session")
def nodes(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> dict[str, list[str]]:
    """The nodes of each pipeline of the project."""
    project = _project(tmp_path_factory.mktemp("nodes") / "project", empty_store)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.path)
        patch.setattr(configuration, "current_loader", [])
        bootstrap_project(project.path)
        return {name: [node.name for node in pipeline.nodes] for name, pipeline in register_pipelines().items()}


@pytest.fixture
def random_node(nodes: dict[str, list[str]]) -> Callable[[str], str]:
    """A random node of a pipeline; FAULTS_SEED repeats a choice."""

    def choose(pipeline: str) -> str:
        return random.Random(f"{SEED} {pipeline}").choice(nodes[pipeline])

    return choose


def _project(path: Path, empty_store: Path) -> Project:
    project = copy_project(path, empty_store, CANDIDATE)
    shorten(project.path, rows=ROWS)
    for file in (path / "conf/local").glob("*.yml"):  # which `--env production` replaces
        shutil.copy(file, path / "conf/production")
    return project
