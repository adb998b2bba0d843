"""After `kill -9` at any node, the same command ends like an uninterrupted one, and no alias names an unfinished version."""

import shutil
from collections.abc import Callable
from typing import Any

import pytest
from mlflow import MlflowClient
from tests.conftest import Project
from tests.faults.commands import KILLED, TRAIN, Ended, run
from tests.faults.conftest import Observe
from tests.faults.state import MODEL, aliases, bento, final_state, local_store, statuses

REGISTER = "kill: call mlflow:MlflowClient.set_registered_model_alias"
# A trial is stored before it is recorded.
SEARCHING = "kill: call churn_pipeline.datasets.study_recorder:TrialRecorder.record"


def test_a_killed_split_runs_again(project: Project) -> None:
    words = ("run", "--pipelines", "data_engineering")
    killed = run(project, *words, fault="kill: saving holdout_customers")
    assert killed.code == KILLED, killed.output

    again = run(project, *words)

    assert again.code == 0, again.output
    assert statuses(local_store(project)) == ["FINISHED", "KILLED"]


@pytest.mark.faults
def test_a_training_that_was_killed_in_each_pipeline_ends_like_an_uninterrupted_one(
    project: Project, uninterrupted: dict[str, Any], random_node: Callable[[str], str], observe: Observe
) -> None:
    points = {f"kill {pipeline}": random_node(pipeline) for pipeline in ("data_engineering", "modelling", "evaluation")}
    faults = {name: f"kill: after {node}" for name, node in points.items()} | {"kill search": SEARCHING}
    store = local_store(project)
    killed: dict[str, Ended] = {}
    for name in ("kill data_engineering", "kill search", "kill modelling", "kill evaluation"):
        killed[name] = run(project, *TRAIN, fault=faults[name])
        assert killed[name].code == KILLED, killed[name].output
        assert aliases(MlflowClient(store)) == {}

    again = run(project, *TRAIN)

    assert again.code == 0, again.output
    assert "2 from an earlier run" in again.output
    assert final_state(store) == uninterrupted
    for name, ended in killed.items():
        observe(name, ended, f"`{points[name]}`" if name in points else "")


@pytest.mark.faults
def test_an_alias_stays_if_the_registration_is_killed(
    trained_project: Project, uninterrupted: dict[str, Any], observe: Observe
) -> None:
    store = local_store(trained_project)
    before = aliases(MlflowClient(store))
    killed = run(trained_project, *TRAIN, fault=REGISTER)
    assert killed.code == KILLED, killed.output
    [unfinished, *_] = MlflowClient(store).search_model_versions(f"name='{MODEL}'", order_by=["version_number DESC"])
    assert unfinished.version not in before.values()
    assert aliases(MlflowClient(store)) == before

    again = run(trained_project, *TRAIN)

    assert again.code == 0, again.output
    assert aliases(MlflowClient(store)) == {"challenger": str(int(unfinished.version) + 1)}
    assert final_state(store)["aliases"] == uninterrupted["aliases"]
    observe("kill registration", killed)


@pytest.mark.faults
def test_a_packaging_that_was_killed_makes_the_same_bento(
    trained_project: Project, random_node: Callable[[str], str], observe: Observe
) -> None:
    package = ("run", "--pipelines", "packaging")
    first = run(trained_project, *package)
    assert first.code == 0, first.output
    before = bento(trained_project)
    node = random_node("packaging")
    shutil.rmtree(trained_project.path / "bentos/store")
    killed = run(trained_project, *package, fault=f"kill: after {node}")
    assert killed.code == KILLED, killed.output

    again = run(trained_project, *package)

    assert again.code == 0, again.output
    assert bento(trained_project) == before
    observe("kill packaging", killed, f"`{node}`")
