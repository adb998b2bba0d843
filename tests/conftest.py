"""Shared fixtures: small projects that are run as a user runs them, and one that is trained once for all tests."""

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from click.testing import CliRunner

import churn_pipeline
from churn_pipeline.modelling import cross_validation

churn_pipeline.prepare()
from churn_pipeline.configuration import local_tracking_uris  # noqa: E402 - prepare() comes before every other import

pytest_plugins = ["tests.servers"]
# Tests without a store of their own record in a temporary one. A project still uses its own: this is no exported server.
STORE = f"sqlite:///{tempfile.mkdtemp()}/mlflow.db"
os.environ["MLFLOW_TRACKING_URI"] = STORE
local_tracking_uris.add(STORE)
ROOT = Path(__file__).parents[1]
ROWS = 2_000
# The search fits the folds of smaller tables in processes of their own.
IN_PROCESSES = cross_validation.ROWS_FOR_THREADS
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

    def configure(self, **blocks: Any) -> None:
        """Override parameters, each block in a file of its own; `candidates` are the only ones that remain."""
        for name, block in blocks.items():
            content = {**_switched_off(block), **block} if name == "candidates" else block
            file = self.path / "conf" / "local" / f"parameters_{name}.yml"
            file.write_text(yaml.safe_dump({name: content}, sort_keys=False), encoding="utf-8")

    def table(self, name: str, text: str) -> None:
        """Write a private table file."""
        folder = self.path / "conf" / "local" / "tables"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.yml").write_text(text, encoding="utf-8")


def _switched_off(candidates: dict[str, Any]) -> dict[str, None]:
    """The shipped candidates other than these, each switched off."""
    base = yaml.safe_load((ROOT / "conf/base/parameters_modelling.yml").read_text(encoding="utf-8"))
    return {name: None for name in base["candidates"] if name not in candidates}


class Trained(NamedTuple):
    """A project with a trained and packaged model, and what its training printed."""

    project: Project
    printed: str


Share = Callable[[str, Callable[[Path], None]], Path]


@pytest.fixture(scope="session")
def share(tmp_path_factory: pytest.TempPathFactory) -> Share:
    """Make a folder once for all workers of pytest-xdist: ``share(name, make)`` calls ``make(folder)`` the first time."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def get(name: str, make: Callable[[Path], None]) -> Path:
        folder, done = shared / f"shared_{name}", shared / f"shared_{name}.done"
        with (shared / f"shared_{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return get


@pytest.fixture(autouse=True)
def _folds_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting processes takes longer than fitting a test's small folds; `trained` and tests of the search start them."""
    monkeypatch.setattr(cross_validation, "ROWS_FOR_THREADS", 0)


@pytest.fixture(autouse=True)
def _own_tracking_uri(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow exports the store that a test sets; the next test must not take it for a person's server."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", STORE)


@pytest.fixture(scope="session")
def empty_store(share: Share) -> Path:
    """An MLflow database with its tables: making one takes seconds, copying it none."""

    def make(folder: Path) -> None:
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        SqlAlchemyStore(f"sqlite:///{folder}/mlflow.db", (folder / "artifacts").as_uri())

    return share("store", make) / "mlflow.db"


def quick_parameters(*candidates: str) -> dict[str, Any]:
    """The shipped parameters of these candidates, else of all, with two trials, few trees and few bootstrap resamples."""
    base: dict[str, Any] = {}
    for name in ("modelling", "evaluation", "packaging"):
        base |= yaml.safe_load((ROOT / f"conf/base/parameters_{name}.yml").read_text(encoding="utf-8"))
    shipped = base["candidates"]
    shipped["random_forest"]["arguments"]["n_estimators"] = 20
    shipped["gradient_boosting"]["copies"] = 2
    shipped["gradient_boosting"]["arguments"] |= {"n_estimators": 200, "early_stopping_rounds": 10}
    return {
        "search": {**base["search"], "trials": 2, "seconds": None},
        "candidates": {name: shipped[name] for name in candidates or shipped},
        "evaluation": {**base["evaluation"], "resamples": 200},
        "decision": {**base["decision"], "segment_resamples": 100},
        "packaging": {**base["packaging"], "hard_rows": 2_000},
    }


def shorten(project: Path, rows: int = ROWS) -> None:
    """Keep the first customers of the project's simulated table, and the truth about them."""
    for name in ("simulated_customers.csv", "simulated_truth.csv"):
        lines = (ROOT / "data/01_raw" / name).read_text(encoding="utf-8").splitlines(keepends=True)
        (project / "data/01_raw" / name).write_text("".join(lines[: rows + 1]), encoding="utf-8")


def copy_project(path: Path, empty_store: Path, *candidates: str) -> Project:
    """Copy the project's configuration and committed data to a folder, with few customers and quick parameters."""
    (path / "mlruns").mkdir(parents=True)
    shutil.copy(empty_store, path / "mlruns")
    shutil.copytree(ROOT / "conf", path / "conf", ignore=shutil.ignore_patterns("local"))
    (path / "conf" / "local").mkdir()
    (path / "src").mkdir()
    shutil.copytree(ROOT / "requirements", path / "requirements")
    (path / "bentos").mkdir()
    shutil.copy(ROOT / "bentos" / "Dockerfile.j2", path / "bentos")
    shutil.copy(ROOT / "pyproject.toml", path)
    simulated = ("simulated_customers.csv", "simulated_truth.csv")
    shutil.copytree(
        ROOT / "data" / "01_raw",
        path / "data" / "01_raw",
        ignore=lambda _, names: [name for name in names if name not in simulated],
    )
    shorten(path)
    project = Project(path)
    project.configure(**quick_parameters(*candidates))
    return project


@pytest.fixture(scope="session")
def make_project(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Callable[..., Project]:
    """Copies the project to a new folder at each call: ``make_project("logistic")`` with one of the candidates."""
    return lambda *candidates: copy_project(tmp_path_factory.mktemp("project") / "copy", empty_store, *candidates)


@pytest.fixture
def project(make_project: Callable[..., Project], monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project of this test's own with a linear candidate and one of trees; commands run inside it."""
    made = make_project("logistic", "gradient_boosting")
    monkeypatch.chdir(made.path)
    return made


@pytest.fixture(scope="session")
def trained(share: Share, empty_store: Path) -> Trained:
    """A project that trained on the simulated table and packaged the model; shared by all tests, which must not change it."""

    def make(folder: Path) -> None:
        project = copy_project(folder / "project", empty_store)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(project.path)
            patch.delenv("MLFLOW_REGISTRY_URI", raising=False)  # MLflow sets it when a test sets a registry
            patch.setattr(cross_validation, "ROWS_FOR_THREADS", IN_PROCESSES)
            ended = project.kedro("run", "--pipelines", "training")
            assert ended.code == 0, ended.output
            packaged = project.kedro("run", "--pipelines", "packaging")
            assert packaged.code == 0, packaged.output
        (folder / "printed.json").write_text(json.dumps(ended.output), encoding="utf-8")

    folder = share("trained", make)
    return Trained(Project(folder / "project"), json.loads((folder / "printed.json").read_text(encoding="utf-8")))
