"""Shared fixtures: a project of a test's own, run as a user runs it."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner

import churn_pipeline

churn_pipeline.prepare()
from churn_pipeline.configuration import local_tracking_uris  # noqa: E402 - prepare() comes before every other import

# Tests without a store of their own record in a temporary one. A project still uses its own: this is no exported server.
os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{tempfile.mkdtemp()}/mlflow.db"
local_tracking_uris.add(os.environ["MLFLOW_TRACKING_URI"])
ROOT = Path(__file__).parents[1]
PUBLIC = os.environ.get("CHURN_PUBLIC_DATA")
needs_public_data = pytest.mark.skipif(not PUBLIC, reason="CHURN_PUBLIC_DATA names no folder of public tables")


class Ended(NamedTuple):
    """How a command ended: its exit code and all that it printed."""

    code: int
    output: str


class Project(NamedTuple):
    """A copy of the project's conf and committed data in a folder of its own, with its own MLflow store."""

    path: Path

    def kedro(self, *words: str) -> Ended:
        """Run a command of this project, as ``kedro …`` does, in this process."""
        from kedro.framework.startup import bootstrap_project

        from churn_pipeline.cli import cli

        metadata = bootstrap_project(self.path)
        result = CliRunner().invoke(cli, list(words), obj=metadata)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ended(result.exit_code, result.output)

    def table(self, name: str, text: str) -> None:
        """Write a private table file."""
        folder = self.path / "conf" / "local" / "tables"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.yml").write_text(text, encoding="utf-8")


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with its tables: making one takes seconds, copying it none."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    folder = tmp_path_factory.mktemp("store")
    SqlAlchemyStore(f"sqlite:///{folder}/mlflow.db", (folder / "artifacts").as_uri())
    return folder / "mlflow.db"


@pytest.fixture(scope="session")
def make_project(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Callable[[], Project]:
    """Copies the project to a new folder at each call."""

    def make() -> Project:
        path = tmp_path_factory.mktemp("project")
        (path / "mlruns").mkdir()
        shutil.copy(empty_store, path / "mlruns")
        shutil.copytree(ROOT / "conf", path / "conf", ignore=shutil.ignore_patterns("local"))
        (path / "conf" / "local").mkdir()
        # Searches have tests of their own; these take two trials of each.
        (path / "conf" / "local" / "parameters_search.yml").write_text("search: {trials: 2}\n", encoding="utf-8")
        (path / "src").mkdir()
        shutil.copytree(ROOT / "requirements", path / "requirements")
        (path / "bentos").mkdir()
        shutil.copy(ROOT / "bentos" / "Dockerfile.j2", path / "bentos")
        shutil.copy(ROOT / "pyproject.toml", path)
        shutil.copytree(
            ROOT / "data" / "01_raw",
            path / "data" / "01_raw",
            ignore=lambda _, names: [
                name for name in names if name not in ("simulated_customers.csv", "simulated_truth.csv")
            ],
        )
        return Project(path)

    return make


@pytest.fixture
def project(make_project: Callable[[], Project], monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """A project of this test's own; commands run inside it."""
    made = make_project()
    monkeypatch.chdir(made.path)
    return made
