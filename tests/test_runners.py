"""Kedro's runners: the same record with one thread or several; a runner that would lose records is refused in one line."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
from kedro.framework.hooks.manager import _create_hook_manager, _register_hooks
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.io import DataCatalog
from kedro.pipeline import Node, Pipeline
from kedro.runner import ParallelRunner, SequentialRunner, ThreadRunner

from churn_pipeline.contract.errors import ProjectError
from churn_pipeline.datasets import StudyDataset
from churn_pipeline.modelling.search import SearchSettings, search_candidate
from churn_pipeline.modelling.studies import Studies
from churn_pipeline.runners import RunnerHooks
from tests.conftest import Project, shorten
from tests.datasets.test_study_dataset import CANDIDATE, make_task, nested

LINEAR = {
    "class": "sklearn.linear_model.LogisticRegression",
    "arguments": {"C": 1.0},
    "numeric": "scaled",
    "space": {"arguments": {"C": {"low": 0.01, "high": 10.0, "log": True}}},
}
TRAIN = ("run", "--pipelines", "training")
# Names and times of a run, and what depends on them.
OF_ONE_RUN = {"mlflow.runName", "mlflow.note.content", "mlflow.parentRunId", "mlflow.log-model.history"}


@pytest.fixture
def linear(make_project: Callable[..., Project], monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with two linear candidates and few customers; commands run inside it."""
    project = make_project()
    shorten(project.path, rows=1_000)
    project.configure(candidates={"logistic": LINEAR, "second": LINEAR})
    monkeypatch.chdir(project.path)
    return project


def _recorded(project: Project) -> list[dict[str, Any]]:
    """The run and its trials, without what differs between two runs of the same command."""
    client = mlflow.MlflowClient(f"sqlite:///{project.path}/mlruns/mlflow.db")
    experiment = client.get_experiment_by_name("churn_simulated")
    runs = [
        {
            "tags": {name: value for name, value in run.data.tags.items() if name not in OF_ONE_RUN},
            "params": run.data.params,
            "metrics": {name: value for name, value in run.data.metrics.items() if name != "seconds"},
            "inputs": [given.dataset.digest for given in run.inputs.dataset_inputs],
            "artifacts": sorted(file.path for file in client.list_artifacts(run.info.run_id, "reports")),
            "status": run.info.status,
        }
        for run in client.search_runs([experiment.experiment_id])
    ]
    return sorted(runs, key=lambda run: (run["tags"].get("candidate", ""), run["tags"].get("trial", "")))


def test_threads_record_what_one_thread_records(
    linear: Project, make_project: Callable[..., Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    sequential = linear.kedro(*TRAIN)
    assert sequential.code == 0, sequential.output
    other = make_project()
    shorten(other.path, rows=1_000)
    other.configure(candidates={"logistic": LINEAR, "second": LINEAR})
    monkeypatch.chdir(other.path)
    threaded = other.kedro(*TRAIN, "--runner", "ThreadRunner")
    assert threaded.code == 0, threaded.output

    expected, recorded = _recorded(linear), _recorded(other)

    assert Counter(run["tags"].get("candidate") for run in recorded if "trial" in run["tags"]) == {
        "logistic": 2,
        "second": 2,
    }
    assert recorded == expected


def test_a_search_that_is_the_first_node_of_its_thread_records_its_trials(tmp_path: Path, empty_store: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(empty_store.read_bytes())
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = mlflow.create_experiment("searches", artifact_location=f"file://{tmp_path}/artifacts")

    def search(studies: Studies) -> int:
        report = search_candidate(make_task(), CANDIDATE, SearchSettings(trials=3), studies).report
        return int(report["trials"])

    catalog = DataCatalog({"studies": StudyDataset(filepath=str(tmp_path / "studies.db"), candidate="logistic")})
    manager = _create_hook_manager()
    _register_hooks(manager, [RunnerHooks()])
    pipeline = Pipeline([Node(search, "studies", "trials")])
    with mlflow.start_run(experiment_id=experiment) as run:
        manager.hook.before_pipeline_run(run_params={}, pipeline=pipeline, catalog=catalog)
        ThreadRunner().run(pipeline, catalog, manager)

    assert len(nested(run)) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--runner", "ParallelRunner"), "cannot run in several processes"),
        (("--async",), "would lose tags, metrics and artifacts"),
        (("--runner-params", "is_async=True"), "would lose tags, metrics and artifacts"),
    ],
)
def test_a_runner_that_would_lose_records_is_refused_in_one_line(
    linear: Project, words: tuple[str, ...], message: str
) -> None:
    ended = linear.kedro(*TRAIN, *words)

    assert ended.code == 1
    assert message in ended.output
    assert "Traceback" not in ended.output
    client = mlflow.MlflowClient(f"sqlite:///{linear.path}/mlruns/mlflow.db")
    experiment = client.get_experiment_by_name("churn_simulated")
    assert experiment is None or not client.search_runs([experiment.experiment_id]), "no run was started"


@pytest.mark.parametrize("runner", [ParallelRunner, lambda: SequentialRunner(is_async=True)])
def test_a_session_refuses_the_same_runners(linear: Project, runner: Callable[[], Any]) -> None:
    bootstrap_project(linear.path)
    with KedroSession.create(linear.path) as session, pytest.raises(ProjectError, match="use SequentialRunner"):
        session.run(pipeline_names=["data_engineering"], runner=runner())
