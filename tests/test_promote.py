"""`kedro promote`, with the test's own registry."""

import shutil
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
from click.testing import CliRunner, Result
from deploy.local_servers.programs import free_port

from churn_pipeline import cli, rotation
from churn_pipeline.configuration import LOADER_ARGS, TableConfigLoader
from churn_pipeline.promotion import find_version
from tests.conftest import ROOT

Promote = Callable[..., Result]
SAME = {"contract_digest": "c", "holdout_rule": "r"}


def _shipped(table: str) -> TableConfigLoader:
    return TableConfigLoader(str(ROOT / "conf"), runtime_params={"table": table}, **LOADER_ARGS)


@pytest.fixture
def client(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> mlflow.MlflowClient:
    """A registry of this test's own with the model churn_mine, without versions."""
    shutil.copy(empty_store, tmp_path)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.setenv(name, uri)
    monkeypatch.setattr(cli, "_configure_tracking", lambda _, table: _shipped(table))
    client = mlflow.MlflowClient(uri, uri)
    client.create_registered_model("churn_mine")
    monkeypatch.setattr(mlflow, "MlflowClient", lambda: client)
    return client


def register(verdict: str, champion: str = "none", anchor: str = "none", beats: bool = False, **tags: str) -> None:
    """Register a challenger with the tags of its training."""
    client = mlflow.MlflowClient()
    tags = {
        **SAME,
        "gate": verdict,
        "gate_champion": champion,
        "gate_anchor": anchor,
        "gate_beats_anchor": str(beats).lower(),
        **tags,
    }
    made = client.create_model_version("churn_mine", "file:///nowhere", tags=tags)
    client.set_registered_model_alias("churn_mine", "challenger", made.version)


@pytest.fixture
def promote(client: mlflow.MlflowClient) -> Promote:
    """The command, on a table whose first version has just become the champion."""

    def run(*words: str) -> Result:
        return CliRunner().invoke(cli.promote, ["mine", *words])

    register("first")
    assert run().exit_code == 0
    return run


def alias(name: str) -> int:
    return int(mlflow.MlflowClient().get_model_version_by_alias("churn_mine", name).version)


def test_the_first_champion_is_the_anchor(promote: Promote) -> None:
    assert (alias("champion"), alias("anchor")) == (1, 1)


def test_a_better_challenger_becomes_champion_and_anchor(promote: Promote) -> None:
    register("better", "1", "1", beats=True)
    done = promote()
    assert (done.exit_code, alias("champion"), alias("anchor")) == (0, 2, 2)
    assert done.output == "Version 2 of churn_mine is now the champion (gate: better). The anchor is version 2.\n"


def test_a_challenger_that_is_no_worse_leaves_the_anchor(promote: Promote) -> None:
    register("no worse", "1", "1")
    assert promote().exit_code == 0
    register("better", "2", "1")  # than the champion, but not than the anchor
    assert promote().exit_code == 0
    assert (alias("champion"), alias("anchor")) == (3, 1)


def test_a_version_with_the_former_names_of_the_gates_tags_is_promoted(promote: Promote) -> None:
    tags = {**SAME, "gate": "better", "gate.champion": "1", "gate.anchor": "1", "gate.beats_anchor": "true"}
    made = mlflow.MlflowClient().create_model_version("churn_mine", "file:///nowhere", tags=tags)
    assert promote("--version", str(made.version)).exit_code == 0
    assert (alias("champion"), alias("anchor")) == (2, 2)


@pytest.mark.parametrize("verdict", ["worse", "cannot tell", "refused"])
def test_a_version_that_failed_the_gate_needs_force(promote: Promote, verdict: str) -> None:
    register(verdict, "1", "1")
    refused = promote()
    assert (refused.exit_code, alias("champion")) == (1, 1)
    assert f"Version 2 was not promoted: its gate verdict is '{verdict}'." in refused.output
    assert promote("--force").exit_code == 0
    assert (alias("champion"), alias("anchor")) == (2, 1)  # the standard to meet stays
    assert promote("--force", "--reset-anchor").exit_code == 0
    assert alias("anchor") == 2


@pytest.mark.parametrize(("moved", "tags"), [("champion", ("7", "1")), ("anchor", ("1", "7"))])
def test_a_superseded_verdict_is_refused(promote: Promote, moved: str, tags: tuple[str, str]) -> None:
    register("better", *tags, beats=True)
    refused = promote()
    assert (refused.exit_code, alias("champion")) == (1, 1)
    assert f"compares it with {moved} 7, but the {moved} is 1 now" in refused.output
    assert "kedro run --pipelines training --params table=mine" in refused.output
    assert promote("--force").exit_code == 0


def test_two_challengers_of_one_champion_cannot_both_be_promoted(promote: Promote) -> None:
    register("better", "1", "1", beats=True)
    register("no worse", "1", "1")
    assert promote("--version", "2").exit_code == 0
    assert "superseded" in promote("--help").output
    assert promote("--version", "3").exit_code == 1
    assert alias("champion") == 2


def test_force_moves_no_anchor_on_the_strength_of_a_superseded_verdict(promote: Promote) -> None:
    register("better", "1", "1", beats=True)
    register("better", "1", "1", beats=True)
    assert promote("--version", "2").exit_code == 0
    assert promote("--version", "3", "--force").exit_code == 0
    assert (alias("champion"), alias("anchor")) == (3, 2)


def test_a_former_champion_may_return_and_the_anchor_stays(promote: Promote) -> None:
    register("better", "1", "1", beats=True)
    promote()
    back = promote("--version", "1")
    assert (back.exit_code, alias("champion"), alias("anchor")) == (0, 1, 2)
    again = promote("--version", "2")
    assert (again.exit_code, alias("champion"), alias("anchor")) == (0, 2, 2)


@pytest.mark.parametrize("done", [0, 1, 2])
def test_an_interrupted_promotion_is_completed_by_the_same_command(
    done: int, promote: Promote, client: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    register("better", "1", "1", beats=True)
    writes = 0

    def interrupted(write: Callable[..., None]) -> Callable[..., None]:
        def call(*words: str) -> None:
            nonlocal writes
            if writes == done:
                raise ConnectionError
            writes += 1
            write(*words)

        return call

    with monkeypatch.context() as broken:
        for name in ("set_registered_model_alias", "set_model_version_tag"):
            broken.setattr(client, name, interrupted(getattr(client, name)))
        assert isinstance(promote().exception, ConnectionError)
    assert promote().exit_code == 0
    assert (alias("champion"), alias("anchor")) == (2, 2)
    assert rotation.PROMOTED in client.get_model_version("churn_mine", "2").tags


def test_champion_and_anchor_may_return_after_a_rotation(
    promote: Promote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register("no worse", "1", "1")
    promote()
    assert (alias("champion"), alias("anchor")) == (2, 1)

    def refit(*_: object) -> str:
        register("cannot tell", "2", "1", holdout_rule="rotated")
        return str(alias("challenger"))

    (tmp_path / "conf/base/tables").mkdir(parents=True)
    shutil.copy(ROOT / "conf/base/tables/simulated.yml", tmp_path / "conf/base/tables/mine.yml")
    loader = TableConfigLoader(str(tmp_path / "conf"), runtime_params={"table": "mine"}, **LOADER_ARGS)
    monkeypatch.setattr(rotation, "_loader", lambda *_: loader)
    monkeypatch.setattr(rotation, "_refit", refit)
    assert rotation.rotate(tmp_path, "mine") == {"anchor": "3", "champion": "4", "challenger": "4"}
    for version in ("3", "4"):
        assert promote("--version", version).exit_code == 0
        assert (alias("champion"), alias("anchor")) == (int(version), 3)


@pytest.mark.parametrize("changed", [{"contract_digest": "other"}, {"holdout_rule": "other"}])
def test_a_changed_contract_or_rule_resets_the_anchor(promote: Promote, changed: dict[str, str]) -> None:
    register("cannot tell", "1", "1", **changed)
    assert promote("--force").exit_code == 0
    assert (alias("champion"), alias("anchor")) == (2, 2)


def test_a_version_registered_without_these_tags_needs_force(client: mlflow.MlflowClient) -> None:
    client.create_model_version("churn_mine", "file:///nowhere", tags={"gate": "better"})
    refused = CliRunner().invoke(cli.promote, ["mine", "--version", "1"])
    assert "compares it with champion unknown" in refused.output


def test_a_lost_server_is_not_taken_for_a_missing_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    lost = mlflow.MlflowClient(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(mlflow.MlflowException):
        find_version(lost, "churn_mine", 9)


def test_a_missing_version_or_table_is_an_error(promote: Promote) -> None:
    assert "churn_mine has no version 9" in promote("--version", "9").output
    others = CliRunner().invoke(cli.promote, ["others"])
    assert "The model 'churn_others' has no challenger" in others.output
