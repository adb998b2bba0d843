"""After `kill -9` at any node, the same command ends like an uninterrupted one, and no alias names an unfinished version."""

import shutil
from collections.abc import Callable
from typing import Any

import pytest
from mlflow import MlflowClient
from tests.conftest import Project
from tests.faults.commands import KILLED, TRAIN, run
from tests.faults.conftest import Observe
from tests.faults.state import MODEL, aliases, bento, final_state, local_store, statuses

REGISTER = "kill: call mlflow:MlflowClient.set_registered_model_alias"


def test_a_killed_split_runs_again(project: Project) -> None:
    words = ("run", "--pipelines", "data_engineering")
    killed = run(project, *words, fault="kill: saving holdout_customers")
    assert killed.code == KILLED, killed.output

    again = run(project, *words)

    assert again.code == 0, again.output
    assert statuses(local_store(project)) == ["FINISHED", "RUNNING"]


@pytest.mark.faults
@pytest.mark.parametrize("pipeline", ["data_engineering", "modelling", "evaluation"])
def test_a_training_that_was_killed_at_a_random_node_ends_like_an_uninterrupted_one(
    pipeline: str,
    project: Project,
    uninterrupted: dict[str, Any],
    random_node: Callable[[str], str],
    observe: Observe,
) -> None:
    node = random_node(pipeline)
    killed = run(project, *TRAIN, fault=f"kill: after {node}")
    assert killed.code == KILLED, killed.output
    assert aliases(MlflowClient(local_store(project))) == {}

    again = run(project, *TRAIN)

    assert again.code == 0, again.output
    assert final_state(local_store(project)) == uninterrupted
    observe(
        f"kill {pipeline}",
        killed,
        f"killed after {killed.seconds:.0f} s; same state after {again.seconds:.0f} s",
        f"`{node}`",
    )


@pytest.mark.faults
def test_a_search_that_was_killed_continues(project: Project, uninterrupted: dict[str, Any], observe: Observe) -> None:
    place = "churn_pipeline.datasets.study_recorder:TrialRecorder.record"  # a trial is stored before it is recorded
    killed = run(project, *TRAIN, fault=f"kill: call {place}")
    assert killed.code == KILLED, killed.output

    again = run(project, *TRAIN)

    assert again.code == 0, again.output
    assert "from an earlier run" in again.output
    assert "(0 pruned, 0 failed, 0 from an earlier run)" not in again.output
    assert final_state(local_store(project)) == uninterrupted
    observe("kill search", killed, f"killed after {killed.seconds:.0f} s; same state after {again.seconds:.0f} s")


@pytest.mark.faults
def test_an_alias_stays_if_the_registration_is_killed(
    project: Project, uninterrupted: dict[str, Any], observe: Observe
) -> None:
    store = local_store(project)
    assert run(project, *TRAIN).code == 0
    before = aliases(MlflowClient(store))
    killed = run(project, *TRAIN, fault=REGISTER)
    assert killed.code == KILLED, killed.output
    assert len(MlflowClient(store).search_model_versions(f"name='{MODEL}'")) == 2
    assert aliases(MlflowClient(store)) == before

    again = run(project, *TRAIN)

    assert again.code == 0, again.output
    assert aliases(MlflowClient(store)) == {"challenger": "3"}
    state = final_state(store)
    assert state["aliases"] == uninterrupted["aliases"]
    observe("kill registration", killed, f"killed after {killed.seconds:.0f} s; same model as version 3")


@pytest.mark.faults
def test_a_packaging_that_was_killed_makes_the_same_bento(
    project: Project, random_node: Callable[[str], str], observe: Observe
) -> None:
    package = ("run", "--pipelines", "packaging")
    assert run(project, *TRAIN).code == 0
    first = run(project, *package)
    assert first.code == 0, first.output
    before = bento(project)
    node = random_node("packaging")
    shutil.rmtree(project.path / "bentos/store")
    killed = run(project, *package, fault=f"kill: after {node}")
    assert killed.code == KILLED, killed.output

    again = run(project, *package)

    assert again.code == 0, again.output
    assert bento(project) == before
    observe(
        "kill packaging",
        killed,
        f"killed after {killed.seconds:.0f} s; same Bento after {again.seconds:.0f} s",
        f"`{node}`",
    )
