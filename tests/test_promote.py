"""`kedro promote`, with the test's own registry."""

import shutil
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
from click.testing import CliRunner, Result

from churn_pipeline import cli

Promote = Callable[..., Result]


@pytest.fixture
def promote(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Promote:
    """The command, on a table with three versions: passed, refused, passed; the last is the challenger."""
    shutil.copy(empty_store, tmp_path)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.setenv(name, uri)
    monkeypatch.setattr(cli, "_configure_tracking", lambda _: None)
    client = mlflow.MlflowClient(uri, uri)
    client.create_registered_model("churn_mine")
    for verdict in ("first", "worse", "better"):
        made = client.create_model_version("churn_mine", f"file://{tmp_path}", tags={"gate": verdict})
        client.set_registered_model_alias("churn_mine", "challenger", made.version)
    monkeypatch.setattr(mlflow, "MlflowClient", lambda: client)
    return lambda *words: CliRunner().invoke(cli.promote, words)


def champion() -> int:
    return int(mlflow.MlflowClient().get_model_version_by_alias("churn_mine", "champion").version)


def test_the_challenger_is_promoted_and_an_older_version_can_be_restored(promote: Promote) -> None:
    done = promote("mine")
    assert (done.exit_code, champion()) == (0, 3)
    assert done.output == "Version 3 of churn_mine is now the champion (gate: better).\n"
    back = promote("mine", "--version", "1")
    assert (back.exit_code, champion()) == (0, 1)


def test_a_version_that_failed_the_gate_needs_force(promote: Promote) -> None:
    promote("mine")
    refused = promote("mine", "--version", "2")
    assert (refused.exit_code, champion()) == (1, 3)
    assert "Version 2 was not promoted: its gate verdict is 'worse'." in refused.output
    assert promote("mine", "--version", "2", "--force").exit_code == 0
    assert champion() == 2


def test_a_missing_version_or_table_is_an_error(promote: Promote) -> None:
    assert "churn_mine has no version 9" in promote("mine", "--version", "9").output
    assert "Table 'others' has no challenger" in promote("others").output
