"""Studies survive their process; trials are runs nested in the active MLflow run; a terminal shows one line."""

import io
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import optuna
import pandas as pd
import pytest
from deploy.local_servers.programs import free_port
from kedro.io import DatasetError

from churn_pipeline.command_errors import actionable
from churn_pipeline.contract.errors import ProjectError
from churn_pipeline.datasets import StudyDataset
from churn_pipeline.datasets.study_dataset import CandidateStudies
from churn_pipeline.datasets.study_progress import SearchProgressLine
from churn_pipeline.evaluation.metrics import log_loss
from churn_pipeline.modelling.candidates import Candidate
from churn_pipeline.modelling.cross_validation import Task
from churn_pipeline.modelling.search import SearchResult, SearchSettings, search_candidate
from churn_pipeline.modelling.studies import Progress

CANDIDATE = Candidate.model_validate(
    {
        "class": "sklearn.linear_model.LogisticRegression",
        "numeric": "scaled",
        "arguments": {"C": 1.0, "fit_intercept": True},
        "space": {
            "arguments": {"C": {"low": 1e-4, "high": 100.0, "log": True}, "fit_intercept": {"choices": [True, False]}}
        },
    }
)


def make_task(seed: int = 3) -> Task:
    rng = np.random.default_rng(0)
    features = pd.DataFrame({f"x{column}": rng.normal(size=200) for column in range(4)})
    churned = pd.Series((features["x0"] + rng.normal(size=200) > 0.5).astype("int64"))
    part = np.arange(200) % 3
    folds = {f"fold_{k}": (part != k, part == k) for k in range(3)}
    return Task(features, churned, folds, list(features), [], log_loss, seed)


def search(file: Path, trials: int = 8, task: Task | None = None, **changes: Any) -> SearchResult:
    studies = StudyDataset(filepath=str(file), candidate="logistic").load()
    return search_candidate(task or make_task(), CANDIDATE, SearchSettings(trials=trials, **changes), studies)


def trials_of(file: Path, study: str) -> list[tuple[Any, ...]]:
    stored = optuna.load_study(study_name=study, storage=f"sqlite:///{file}").trials
    # Optuna numbers trials in the order in which they ended.
    trials = [(t.user_attrs["number"], t.state.name, t.params, t.intermediate_values, t.value) for t in stored]
    return sorted(trials, key=lambda trial: trial[0])


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[SearchResult, list[tuple[Any, ...]]]:
    file = tmp_path_factory.mktemp("uninterrupted") / "studies.db"
    found = search(file)
    return found, trials_of(file, found.report["study"])


@pytest.fixture
def active(tmp_path: Path, empty_store: Path) -> Iterator[mlflow.ActiveRun]:
    """A run in a SQLite store of this test's own."""
    before = mlflow.get_tracking_uri()
    (tmp_path / "mlflow.db").write_bytes(empty_store.read_bytes())
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = mlflow.create_experiment("searches", artifact_location=f"file://{tmp_path}/artifacts")
    with mlflow.start_run(experiment_id=experiment) as run:
        yield run
    mlflow.set_tracking_uri(before)


def nested(run: mlflow.ActiveRun) -> list[mlflow.entities.Run]:
    words = f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
    found = mlflow.MlflowClient().search_runs([run.info.experiment_id], words)
    return sorted(found, key=lambda child: int(child.data.tags["trial"]))


# ---- storage -------------------------------------------------------------------------------------------------------


def test_a_study_is_an_optuna_study_that_is_not_repeated(tmp_path: Path) -> None:
    found = search(tmp_path / "folder" / "studies.db")
    stored = trials_of(tmp_path / "folder" / "studies.db", found.report["study"])
    assert [number for number, *_ in stored] == list(range(8))
    assert {state for _, state, *_ in stored} <= {"COMPLETE", "PRUNED"}
    assert min(value for _, state, _, _, value in stored if state == "COMPLETE") == found.report["log_loss"]
    again = search(tmp_path / "folder" / "studies.db")
    assert trials_of(tmp_path / "folder" / "studies.db", again.report["study"]) == stored
    assert again.report == found.report
    pd.testing.assert_frame_equal(
        again.predictions[0].drop(columns="seconds"), found.predictions[0].drop(columns="seconds")
    )


def test_other_data_or_another_seed_starts_another_study(tmp_path: Path) -> None:
    task = make_task()
    changed = task.features.copy()
    changed.loc[0, "x0"] = 0.0
    tasks = [task, replace(task, features=changed), make_task(seed=4)]
    names = {search(tmp_path / "studies.db", 2, used).report["study"] for used in tasks}
    assert len(names) == 3
    assert set(optuna.get_all_study_names(f"sqlite:///{tmp_path}/studies.db")) == names


KILLED = """
import sys, time
from pathlib import Path
from tests.datasets import test_study_dataset as here
from churn_pipeline.modelling import cross_validation
plain = cross_validation.validate_fold
def slow(*args):
    time.sleep(0.03)
    return plain(*args)
cross_validation.validate_fold = slow
cross_validation.ROWS_FOR_THREADS = 0
print("ready", flush=True)
here.search(Path(sys.argv[1]))
"""


@pytest.mark.parametrize("trials_before", [0, 4])
def test_a_killed_search_resumes_and_ends_like_an_uninterrupted_one(
    tmp_path: Path, uninterrupted: tuple[SearchResult, list[tuple[Any, ...]]], trials_before: int
) -> None:
    expected, stored = uninterrupted
    file = tmp_path / "studies.db"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(file)], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    while process.poll() is None and _ended(file) < trials_before:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    survived = _ended(file)
    assert trials_before <= survived < 8

    found = search(file)

    assert trials_of(file, found.report["study"]) == stored
    assert found.candidates[0] == expected.candidates[0]
    assert found.report["log_loss"] == expected.report["log_loss"]
    pd.testing.assert_frame_equal(
        found.predictions[0].drop(columns="seconds"), expected.predictions[0].drop(columns="seconds")
    )


def _ended(file: Path) -> int:
    import sqlite3

    if not file.exists():
        return 0
    with sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=10) as connection:
        try:
            return int(
                connection.execute("select count(*) from trials where state not in ('RUNNING', 'WAITING')").fetchone()[
                    0
                ]
            )
        except sqlite3.OperationalError:
            return 0


def test_two_processes_do_not_search_the_same_candidate(tmp_path: Path) -> None:
    studies = StudyDataset(filepath=str(tmp_path / "studies.db"), candidate="logistic").load()
    with studies.open("logistic-1", {}), pytest.raises(DatasetError, match="Another process is searching logistic"):
        search(tmp_path / "studies.db")
    search(tmp_path / "studies.db", 1)


def test_a_study_is_not_saved_by_a_node(tmp_path: Path) -> None:
    dataset = StudyDataset(filepath=str(tmp_path / "studies.db"), candidate="logistic")
    assert not dataset.exists()
    assert "studies.db" in str(dataset)
    with pytest.raises(DatasetError, match="stores each trial itself"):
        dataset.save("anything")


# ---- MLflow --------------------------------------------------------------------------------------------------------


def test_every_trial_is_a_run_nested_in_the_active_one(tmp_path: Path, active: mlflow.ActiveRun) -> None:
    found = search(tmp_path / "studies.db")
    children = nested(active)
    stored = trials_of(tmp_path / "studies.db", found.report["study"])
    assert len(children) == len(stored) == 8
    for child, (number, state, params, scores, value) in zip(children, stored, strict=True):
        assert (child.data.tags["trial"], child.data.tags["state"].upper()) == (str(number), state)
        assert child.data.tags["study"] == found.report["study"]
        assert child.data.params == {name: str(given) for name, given in params.items()}
        history = mlflow.MlflowClient().get_metric_history(child.info.run_id, "fold_log_loss")
        assert [metric.value for metric in sorted(history, key=lambda metric: metric.step)] == list(scores.values())
        assert child.data.metrics["log_loss"] == pytest.approx(np.mean(list(scores.values())))
        assert child.data.metrics["seconds"] > 0
        assert child.info.status == "FINISHED"
        assert state == "PRUNED" or child.data.metrics["log_loss"] == value


def test_tuned_values_are_parameters_of_the_active_run(tmp_path: Path, active: mlflow.ActiveRun) -> None:
    found = search(tmp_path / "studies.db")
    params = mlflow.get_run(active.info.run_id).data.params
    best = nested(active)[found.report["best_trial"]]
    assert params == {
        "tuned.logistic.trials": "8",
        "tuned.logistic.best_trial": best.data.tags["trial"],
        **{f"tuned.logistic.{name}": value for name, value in best.data.params.items()},
    }


def test_a_resumed_search_records_the_stored_trials_too(tmp_path: Path, active: mlflow.ActiveRun) -> None:
    untracked = CandidateStudies(tmp_path / "studies.db", "logistic", parent=None)
    search_candidate(make_task(), CANDIDATE, SearchSettings(trials=3), untracked)
    assert nested(active) == []
    search(tmp_path / "studies.db", 5)
    assert [child.data.tags["trial"] for child in nested(active)] == ["0", "1", "2", "3", "4"]


def test_a_repeated_search_adds_the_trials_that_the_run_lacks(tmp_path: Path, active: mlflow.ActiveRun) -> None:
    """As when a task is killed and started again in the same run."""
    found = search(tmp_path / "studies.db", 3)
    tags = {"mlflow.parentRunId": active.info.run_id, "candidate": "logistic", "study": found.report["study"]}
    mlflow.MlflowClient().create_run(active.info.experiment_id, tags=tags)  # killed before it wrote the rest
    search(tmp_path / "studies.db", 3)
    assert [child.data.tags["trial"] for child in nested(active)] == ["0", "1", "2"]


def test_a_failing_tracking_server_is_reported_and_no_trial_is_lost(
    tmp_path: Path, active: mlflow.ActiveRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise mlflow.MlflowException("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(mlflow.MlflowClient, "create_run", refuse)
        with pytest.raises(ProjectError, match=r"could not be written to MLflow:\n  - disk full"):
            search(tmp_path / "studies.db", 3)
    found = search(tmp_path / "studies.db", 3)
    assert len(nested(active)) == found.report["trials"] == 3


def test_a_lost_tracking_server_is_explained(
    tmp_path: Path, active: mlflow.ActiveRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    lost = mlflow.MlflowClient(f"http://127.0.0.1:{free_port()}")
    monkeypatch.setattr(mlflow.MlflowClient, "create_run", lambda self, *args, **kwargs: lost.get_experiment("0"))
    with pytest.raises(mlflow.MlflowException) as caught:
        search(tmp_path / "studies.db", 3)
    message = actionable(caught.value)
    assert message is not None
    assert message.startswith("The MLflow tracking server cannot be used:\n  - it does not answer: start it")
    assert "finished trials of a search are stored" in message


# ---- terminal and log ---------------------------------------------------------------------------------------------------


def test_a_terminal_shows_one_line_and_a_file_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for kind, file in ((Terminal, "a.db"), (io.StringIO, "b.db")):
        caplog.clear()
        screen = kind()
        monkeypatch.setattr(sys, "stderr", screen)
        with caplog.at_level(logging.INFO, "churn_pipeline"):
            search(tmp_path / file, 4)
        shown = screen.getvalue()
        if kind is Terminal:
            assert "logistic: 4/4 trials" in shown
            assert "best log loss 0." in shown
            assert "left" in shown
            assert "\n" not in shown.strip()
        else:
            assert shown == ""
        assert [record.message.split(":")[0] for record in caplog.records] == ["logistic"]
        assert "4 trials (0 pruned, 0 failed, 0 from an earlier run)" in caplog.text


def test_a_failed_trial_is_logged_and_tagged_by_error_type_and_only_the_study_keeps_the_message(
    tmp_path: Path, active: mlflow.ActiveRun, caplog: pytest.LogCaptureFixture
) -> None:
    given = Candidate.model_validate(
        {
            "class": "sklearn.linear_model.LogisticRegression",
            "arguments": {"solver": "lbfgs"},
            "space": {"arguments": {"solver": {"choices": ["lbfgs", "no such"]}}},
        }
    )
    file = tmp_path / "studies.db"
    dataset = StudyDataset(filepath=str(file), candidate="logistic")
    reports = [search_candidate(make_task(), given, SearchSettings(trials=6), dataset.load()).report for _ in range(2)]
    assert reports[0] == reports[1]
    failed = reports[0]["failed"]
    assert failed > 0
    assert caplog.text.count("failed with InvalidParameterError (full message in the study)") == failed
    assert "no such" not in caplog.text
    tags = [child.data.tags.get("problem") for child in nested(active) if child.data.tags["state"] == "failed"]
    assert tags == ["InvalidParameterError"] * failed, "a run shows each trial once, however often it is searched"
    kept = optuna.load_study(study_name=reports[0]["study"], storage=f"sqlite:///{file}").trials
    assert sum("no such" in trial.user_attrs.get("problem", "") for trial in kept) == failed


def test_a_time_limited_search_shows_no_total(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    with SearchProgressLine("logistic") as line:
        line.show(Progress(3, None, None, 65.0))
    assert "logistic: 3 trials, 00:00" in screen.getvalue()
    assert "no score yet, 01:05 left" in screen.getvalue()
