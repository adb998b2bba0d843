"""Mistakes at the keyboard, in files and of the machine end in one message; Ctrl-C ends in a line that says how to go on."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import ROOT, Project, shorten

TRAIN = ("run", "--pipelines", "training")


def _nothing(path: Path) -> None:
    pass


def _writes(name: str, text: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text, encoding="utf-8")

    return write


def _file_for_folder(path: Path) -> None:
    """Put a file where a folder is needed: it fails like a disk without rights, but for root too."""
    (path / "data" / "03_primary").write_text("", encoding="utf-8")


def _broken_database(path: Path) -> None:
    (path / "mlruns" / "mlflow.db").write_bytes(b"no database" * 1000)


MISTAKES: dict[str, tuple[Callable[[Path], None], tuple[str, ...], tuple[str, ...]]] = {
    "another pipeline": (_nothing, ("run", "--pipelines", "trainng"), ("'trainng'", "training", "kedro registry list")),
    "another node": (
        _nothing,
        (*TRAIN, "--from-nodes", "evaluates"),
        ("nodes named ['evaluates']", "kedro registry describe"),
    ),
    "another tag": (_nothing, (*TRAIN, "--tags", "none"), ("contains no nodes",)),
    "another runner": (_nothing, (*TRAIN, "--runner", "Fast"), ("no attribute 'Fast'",)),
    "another environment": (_nothing, (*TRAIN, "--env", "prodction"), ("configuration has mistakes", "conf/prodction")),
    "another parameter": (_nothing, (*TRAIN, "--params", "tabel=telco"), ("no parameter 'tabel'", "mean 'table'")),
    "another type": (_nothing, (*TRAIN, "--params", "search.trials=many"), ("configuration has mistakes", "trials")),
    "a part before the whole": (
        _nothing,
        (*TRAIN, "--from-nodes", "evaluation.evaluate"),
        ("does not exist", "the whole pipeline"),
    ),
    "broken YAML": (_writes("conf/local/parameters.yml", "search: {trials: 2\n"), TRAIN, ("parameters.yml", "line")),
    "a key twice": (
        _writes("conf/local/parameters_more.yml", "search: {trials: 3}\n"),
        TRAIN,
        ("Duplicate keys", "parameters_more.yml", "search"),
    ),
    "an unknown dataset": (
        _writes("conf/local/catalog.yml", "customers: {type: pandas.CVSDataset, filepath: x.csv}\n"),
        TRAIN,
        ("'CVSDataset' was not found",),
    ),
    "a broken table file": (
        _writes("conf/local/tables/mine.yml", "roles: [\n"),
        (*TRAIN, "--params", "table=mine"),
        ("mine.yml",),
    ),
    "no folder to write to": (
        _file_for_folder,
        ("run", "--pipelines", "data_engineering"),
        ("03_primary", "cannot be used"),
    ),
    "no database": (_broken_database, TRAIN, ("mlruns/mlflow.db", "not a database")),
    "another version": (
        _nothing,
        ("run", "--pipelines", "packaging", "--params", "packaging.model=99"),
        ("has no version 99", "packaging.model"),
    ),
    "another table to check": (_nothing, ("table", "check", "nowhere"), ("no table 'nowhere'", "telco")),
    "another table to show": (_nothing, ("table", "page", "nowhere"), ("nowhere",)),
    "no file to draft": (_nothing, ("table", "draft", "nothing.csv"), ("nothing.csv", "does not exist")),
    "a folder to draft": (_nothing, ("table", "draft", "conf"), ("conf", "cannot be used")),
    "nothing to promote": (
        _nothing,
        ("promote", "simulated"),
        ("The model 'churn_simulated' has no challenger", "train one first"),
    ),
    "another run": (_nothing, ("reproduce", "0123abc"), ("no record of the run 0123abc",)),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_with_a_message(mistake: str, project: Project) -> None:
    make, words, expected = MISTAKES[mistake]
    make(project.path)

    ended = project.kedro(*words)

    assert ended.code == 1, ended.output
    for part in expected:
        assert part in ended.output
    assert "Traceback" not in ended.output


def test_a_missing_tracking_server_is_reported_at_once(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        monkeypatch.setenv("CHURN_DATA_ROOT", "data")
        begin = time.monotonic()

        ended = project.kedro(*TRAIN, "--env", "production")

    assert ended.code == 1
    assert f"The MLflow tracking server {address}:\n  - does not answer" in ended.output
    assert time.monotonic() - begin < 30


# A process that a script started in the background ignores Ctrl-C, and so do its children: these tests may be one.
INTERRUPTIBLE = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""


def _started(project: Project, *words: str) -> subprocess.Popen[str]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("KEDRO_", "MLFLOW_", "COV_"))
    }
    return subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, str(Path(sys.executable).parent / "kedro"), *words],
        cwd=project.path,
        env={**environment, "PYTHONPATH": str(ROOT / "src")},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _trials(project: Project) -> int:
    file = project.path / "data/06_models/simulated/studies.db"
    if not file.is_file():
        return 0
    try:
        with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as database:
            (ended,) = database.execute("SELECT count(*) FROM trials WHERE state = 'COMPLETE'").fetchone()
    except sqlite3.OperationalError:
        return 0  # its tables are being made
    return int(ended)


def test_after_ctrl_c_the_same_command_continues(project: Project) -> None:
    shorten(project.path, rows=1_000)
    project.configure(
        search={"trials": 500, "seconds": None},
        candidates={
            "logistic": {
                "class": "sklearn.linear_model.LogisticRegression",
                "arguments": {"C": 1.0},
                "numeric": "scaled",
                "space": {"arguments": {"C": {"low": 0.01, "high": 10.0}}},
            }
        },
    )
    running = _started(project, *TRAIN)
    deadline = time.monotonic() + 120
    while _trials(project) < 3 and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)

    os.killpg(running.pid, signal.SIGINT)  # as a terminal does: to all that the command started
    _, said = running.communicate(timeout=60)

    assert running.returncode == 130, said
    assert "Stopped in node" in said
    assert "logistic.search. The same command resumes" in said
    assert "Traceback" not in said
    assert "\x1b" not in said
    with sqlite3.connect(project.path / "mlruns/mlflow.db") as database:
        assert database.execute("SELECT status FROM runs WHERE name NOT LIKE 'logistic %'").fetchall() == [("KILLED",)]

    kept = _trials(project)
    assert kept >= 3
    project.configure(search={"trials": kept, "seconds": None})
    again = project.kedro(*TRAIN, "--to-nodes", "logistic.search")
    assert again.code == 0, again.output
    assert _trials(project) >= kept
