"""`kedro rotate-holdout`: others are held out, and anchor, champion and challenger are refitted with their settings."""

import json
from collections.abc import Callable
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import yaml
from tests.conftest import Project

from churn_pipeline import rotation
from churn_pipeline.contract.errors import ProjectError
from churn_pipeline.contract.schema import read_contract
from churn_pipeline.datasets.registered_model import RegisteredVersionDataset

MODEL = "churn_simulated"


@pytest.fixture
def promoted(make_project: Callable[..., Project], monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with a champion, which is the anchor too, and another challenger."""
    project = make_project("logistic")
    monkeypatch.chdir(project.path)
    assert project.kedro("run", "--pipelines", "training").code == 0
    assert project.kedro("promote", "simulated").code == 0
    project.configure(candidates={"splines": _shipped("splines")})
    assert project.kedro("run", "--pipelines", "training").code == 0
    return project


def _shipped(name: str) -> dict[str, object]:
    from tests.conftest import quick_parameters

    return quick_parameters(name)["candidates"][name]


def aliases() -> dict[str, str]:
    found = mlflow.MlflowClient().get_registered_model(MODEL).aliases
    return {alias: str(version) for alias, version in found.items()}


def held_out(project: Project) -> set[str]:
    return set(
        pd.read_parquet(project.path / "data/07_model_output/simulated/holdout_predictions.parquet")["customerID"]
    )


def gate(project: Project) -> dict[str, object]:
    return json.loads((project.path / "data/08_reporting/simulated/gate.json").read_text(encoding="utf-8"))


def table_file(project: Project) -> Path:
    return project.path / "conf/base/tables/simulated.yml"


def test_models_are_refitted_under_the_new_rule(promoted: Project) -> None:
    before, text = held_out(promoted), table_file(promoted).read_text(encoding="utf-8")
    assert aliases() == {"anchor": "1", "champion": "1", "challenger": "2"}
    assert gate(promoted)["champion"] == "1"

    ended = promoted.kedro("rotate-holdout", "simulated")

    assert ended.code == 0, ended.output
    assert "anchor is version 3, champion is version 3, challenger is version 4" in ended.output
    assert aliases() == {"anchor": "3", "champion": "3", "challenger": "4"}
    changed = set(table_file(promoted).read_text(encoding="utf-8").splitlines()) - set(text.splitlines())
    assert changed == {"holdout_rotation: 1"}
    assert len(table_file(promoted).read_text(encoding="utf-8").splitlines()) == len(text.splitlines()) + 1
    after = held_out(promoted)
    assert 0.1 < len(before & after) / len(after) < 0.35  # a fifth by chance
    old, new = (RegisteredVersionDataset(name=MODEL, select=number).load() for number in (1, 3))
    assert repr(new.model) == repr(old.model)
    assert new.tags["model_digest"] != old.tags["model_digest"]
    assert new.tags["digest.contract"] == old.tags["digest.contract"]
    assert new.version_tags["holdout_rule"] != old.version_tags["holdout_rule"]
    compared = gate(promoted)
    assert (compared["champion"], compared["anchor"], compared["holdout_uses"]) == ("3", "3", 2)
    assert len(compared["comparisons"]) == 2  # log loss and profit, under one rule
    assert promoted.kedro("promote", "simulated", "--version", "3").code == 0


def test_a_failed_refit_restores_file_and_aliases(promoted: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    text = table_file(promoted).read_text(encoding="utf-8")
    refit, fitted = rotation._refit, []

    def once(*words: str) -> str:
        if fitted:
            raise ProjectError("The refit", "failed")
        fitted.append(refit(*words))
        return fitted[0]

    monkeypatch.setattr(rotation, "_refit", once)
    ended = promoted.kedro("rotate-holdout", "simulated")
    assert ended.code == 1
    assert table_file(promoted).read_text(encoding="utf-8") == text
    assert aliases() == {"anchor": "1", "champion": "1", "challenger": "2"}


def test_a_table_without_versions_is_rotated_twice(project: Project) -> None:
    for number in (1, 2):
        ended = project.kedro("rotate-holdout", "simulated")
        assert "nothing, there is no version" in ended.output
        assert read_contract(table_file(project)).holdout_rotation == number
    assert "There is no table 'missing'" in project.kedro("rotate-holdout", "missing").output


def test_a_file_that_cannot_be_edited_is_left_as_it_is(project: Project) -> None:
    text = json.dumps(yaml.safe_load(table_file(project).read_text(encoding="utf-8")))  # valid YAML in one line
    table_file(project).write_text(text, encoding="utf-8")
    ended = project.kedro("rotate-holdout", "simulated")
    assert ended.code == 1
    assert "add the line 'holdout_rotation: 1' to it at the top level" in ended.output
    assert table_file(project).read_text(encoding="utf-8") == text
