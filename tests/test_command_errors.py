"""Which errors end in a message and which in a traceback; a failed command leaves no run open."""

import logging
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import mlflow
import pandas as pd
import psycopg
import pytest
from click.testing import CliRunner
from kedro.io import DataCatalog, DatasetError
from kedro_datasets.pandas import CSVDataset, ParquetDataset
from sqlalchemy.exc import DBAPIError, OperationalError

from churn_pipeline import progress
from churn_pipeline.command_errors import Command, actionable
from churn_pipeline.progress import RunProgress

ABSENT = FileNotFoundError(2, "No such file or directory", "model.skops")


def _raised(fail: Callable[[], None]) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        fail()
    return caught.value


def _while_handling(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        try:
            raise ABSENT
        except FileNotFoundError:
            raise error  # noqa: B904

    return fail


def _instead_of(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        try:
            raise ABSENT
        except FileNotFoundError:
            raise error from None

    return fail


def _because(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        try:
            raise ABSENT
        except FileNotFoundError as absent:
            raise error from absent

    return fail


@pytest.mark.parametrize("fail", [_because(DatasetError("failed")), _because(RuntimeError("failed"))])
def test_an_error_caused_by_a_missing_file_names_the_file(fail: Callable[[], None]) -> None:
    assert str(actionable(_raised(fail))).startswith("model.skops does not exist")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("dataset", [CSVDataset, ParquetDataset])
def test_a_full_disk_is_one_line_that_names_the_dataset(dataset: type[CSVDataset | ParquetDataset]) -> None:
    catalog = DataCatalog({"leaderboard": dataset(filepath="/dev/full")})

    message = str(actionable(_raised(lambda: catalog.save("leaderboard", pd.DataFrame({"x": range(50_000)})))))

    assert message.startswith("The disk is full: the dataset 'leaderboard' could not be written. Free space")
    assert len(message.splitlines()) == 1


def test_an_error_that_kedro_raises_over_a_missing_file_names_the_file() -> None:
    assert actionable(_raised(_while_handling(DatasetError("failed")))) == "failed"
    assert str(actionable(_raised(_while_handling(_KedroError("failed"))))).startswith("model.skops does not exist")


class _KedroError(Exception):
    __module__ = "kedro.runner.task"


@pytest.mark.parametrize("fail", [_while_handling(KeyError("cell")), _instead_of(KeyError("cell"))])
def test_a_defect_while_a_missing_file_is_handled_is_a_defect(fail: Callable[[], None]) -> None:
    assert actionable(_raised(fail)) is None


@pytest.fixture
def recording(tmp_path: Path, empty_store: Path) -> Iterator[str]:
    """The id of an open run in this test's own store."""
    before = mlflow.get_tracking_uri()
    (tmp_path / "mlflow.db").write_bytes(empty_store.read_bytes())
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = mlflow.create_experiment("failing", artifact_location=f"file://{tmp_path}/artifacts")
    yield mlflow.start_run(experiment_id=experiment).info.run_id
    mlflow.end_run()
    mlflow.set_tracking_uri(before)


def _command(error: Exception) -> Command:
    def fail() -> None:
        progress.show(RunProgress("training", ["split"], {}))
        raise error

    return Command("failing", callback=fail)


@pytest.mark.parametrize("error", [ABSENT, KeyError("a defect"), click.ClickException("refused")])
def test_a_failed_command_leaves_no_progress_line_and_no_open_run(error: Exception, recording: str) -> None:
    ended = CliRunner().invoke(_command(error))

    assert ended.exit_code == 1
    assert progress.shown_lines == []
    assert mlflow.active_run() is None
    assert mlflow.get_run(recording).info.status == "FAILED"


def test_a_run_that_cannot_be_ended_does_not_hide_the_error(
    recording: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(status: str) -> None:
        raise OperationalError("update", {}, OSError("disk full"))

    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING):
        patched.setattr(mlflow, "end_run", refuse)
        ended = CliRunner().invoke(_command(ABSENT))

    assert ended.exit_code == 1
    assert "model.skops does not exist" in ended.output
    assert "could not be marked as FAILED (OperationalError)" in caplog.text


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (sqlite3.OperationalError("database is locked"), "A database cannot be used: database is locked."),
        (
            psycopg.errors.AdminShutdown("terminating connection\nDETAIL: ..."),
            "cannot be used: terminating connection.",
        ),
        (
            psycopg.errors.InvalidTextRepresentation('invalid input: "Alice"'),
            "cannot be used: InvalidTextRepresentation.",
        ),
    ],
)
def test_a_database_error_shows_its_reason_and_no_value(error: Exception, shown: str) -> None:
    message = str(actionable(DBAPIError("INSERT INTO customers VALUES (?)", ("Alice",), error)))

    assert shown in message
    assert "Alice" not in message
    assert len(message.splitlines()) == 1
