import hashlib
import hmac
import json
import os
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.customers import make_contract
from tests.serving.log_lines import Lines, configured
from tests.serving.manifest import MANIFEST

from churn_pipeline.contract.example import example_customers
from churn_pipeline.serving import prediction_log
from churn_pipeline.serving.metrics import Metrics
from churn_pipeline.serving.prediction_log import PredictionLog
from churn_pipeline.serving.settings import Settings

ID_KEY = "a key of sixteen characters"
CONTRACT = make_contract()
CUSTOMER: dict[str, Any] = json.loads(example_customers(CONTRACT).to_json(orient="records"))[0]


@pytest.fixture
def lines() -> Iterator[Lines]:
    with configured() as read:
        yield read


class Log:
    """A prediction log in a folder, with methods to read it."""

    def __init__(self, folder: Path | None, **given: str) -> None:
        names = {"authentication": "off", **({"prediction_log": str(folder)} if folder else {}), **given}
        settings = Settings.from_environment({f"CHURN_SERVING_{name.upper()}": value for name, value in names.items()})
        self.folder = folder
        self.metrics = Metrics()
        self.log = PredictionLog(settings, MANIFEST, CONTRACT, self.metrics)

    def write(self, request_id: str, rows: int = 1, **changes: Any) -> None:
        customers = [{**CUSTOMER, "customer": f"C-{number}", **changes} for number in range(rows)]
        self.log.write(request_id, customers, np.linspace(0, 1, rows), np.linspace(0, 1, rows) >= 0.3)

    @property
    def files(self) -> list[Path]:
        return sorted(self.folder.glob("*")) if self.folder else []

    def read(self) -> list[dict[str, Any]]:
        self.log.close()
        return [json.loads(line) for file in self.files for line in file.read_text().splitlines()]

    def rows(self, outcome: str) -> float:
        return self.metrics.registry.get_sample_value("churn_prediction_log_rows_total", {"outcome": outcome}) or 0.0


def test_a_line_has_the_prediction_and_the_model(tmp_path: Path) -> None:
    log = Log(tmp_path / "log", prediction_log_id_key=ID_KEY)
    log.write("one", 2)
    first, second = log.read()
    assert first["features"] == {name: CUSTOMER[name] for name in CONTRACT.features}
    assert (first["request_id"], first["model_version"], first["model_digest"]) == ("one", "3", "3" * 64)
    assert [(line["churn_probability"], line["contact"]) for line in (first, second)] == [(0.0, False), (1.0, True)]
    assert first["time"].endswith("Z")
    assert log.rows("written") == 2


def test_an_id_is_logged_as_its_keyed_hash_or_not_at_all(tmp_path: Path) -> None:
    log = Log(tmp_path / "log", prediction_log_id_key=ID_KEY)
    log.write("one")
    [line] = log.read()
    assert line["customer"] == hmac.new(ID_KEY.encode(), b"C-0", hashlib.sha256).hexdigest()
    assert "C-0" not in log.files[0].read_text()
    without = Log(tmp_path / "without")
    without.write("one")
    assert "customer" not in without.read()[0]
    assert "C-0" not in without.files[0].read_text()


def test_only_features_are_logged(tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    log.write("one", age=41, churn="Yes", note="Jane Doe")
    assert set(log.read()[0]["features"]) == set(CONTRACT.features)
    assert "Jane" not in log.files[0].read_text()


def test_numpy_and_non_finite_values_are_written_as_json(tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    log.write("one", total=float("nan"), charge=np.float32(2.5), calls=np.int64(3), months=np.float64("inf"))
    features = log.read()[0]["features"]
    assert (features["total"], features["charge"], features["calls"], features["months"]) == (None, 2.5, 3, None)


def test_only_the_owner_can_read_it(tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    log.write("one")
    log.read()
    assert stat.S_IMODE(log.files[0].stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o700


def test_without_a_folder_nothing_is_written_and_no_thread_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    threads = threading.active_count()
    log = Log(None)
    log.write("one", 100)
    assert threading.active_count() == threads
    log.log.close()
    assert list(tmp_path.iterdir()) == []


def test_files_are_rotated_by_size_without_splitting_or_losing_lines(tmp_path: Path) -> None:
    log = Log(tmp_path / "log", prediction_log_bytes="5000")
    for number in range(40):
        log.write(f"request-{number}", 3)
    assert len(log.read()) == 120
    assert len(log.files) > 3
    assert all(file.stat().st_size <= 5000 for file in log.files)


def test_a_line_larger_than_the_maximum_file_size_is_written(tmp_path: Path) -> None:
    log = Log(tmp_path / "log", prediction_log_bytes="10")
    log.write("one", 3)
    assert len(log.read()) == 3
    assert len(log.files) == 3


def test_only_old_prediction_log_files_are_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    now = time.time()
    for name, days in (("predictions-old.jsonl", 8), ("predictions-young.jsonl", 6), ("notes.txt", 800)):
        (folder / name).write_text("")
        os.utime(folder / name, (now - days * 86_400,) * 2)
    log = Log(folder, prediction_log_days="7")
    log.write("one")
    log.read()
    names = {file.name for file in log.files}
    assert {"predictions-young.jsonl", "notes.txt"} < names
    assert "predictions-old.jsonl" not in names


def test_the_sample_has_the_configured_share_and_is_deterministic(tmp_path: Path) -> None:
    logged = []
    for number in range(2):
        log = Log(tmp_path / str(number), prediction_log_share="0.25")
        for request in range(2_000):
            log.write(f"request-{request}")
        logged.append({line["request_id"] for line in log.read()})
        assert log.rows("sampled_out") + log.rows("written") == 2_000
    assert logged[0] == logged[1]
    assert 400 < len(logged[0]) < 600
    none = Log(tmp_path / "none", prediction_log_share="0")
    none.write("one")
    assert none.read() == []


def test_a_stuck_disk_delays_no_answer_and_drops_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    write = os.write
    monkeypatch.setattr(prediction_log.os, "write", lambda *a: (release.wait(10), write(*a))[1])
    monkeypatch.setattr(prediction_log, "WAITING_ROWS", 100)
    log = Log(tmp_path / "log")
    started = time.perf_counter()
    for number in range(100):
        log.write(f"request-{number}", 10)
    assert time.perf_counter() - started < 1
    release.set()
    assert len(log.read()) == log.rows("written") == 1_000 - log.rows("dropped")
    assert log.rows("dropped") >= 700


def test_a_request_larger_than_the_queue_is_logged_if_the_queue_is_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction_log, "WAITING_ROWS", 5)
    log = Log(tmp_path / "log")
    log.write("one", 50)
    assert len(log.read()) == 50


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), PermissionError(13, "Permission denied")])
def test_a_failing_disk_fails_no_answer_and_is_logged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: Lines, error: OSError
) -> None:
    log = Log(tmp_path / "log")
    write = os.write
    half = []

    def fails(file: int, data: bytes) -> int:
        if half:
            raise error
        half.append(write(file, data[: len(data) // 2]))
        return half[0]

    monkeypatch.setattr(prediction_log.os, "write", fails)
    for number in range(5):
        log.write(f"request-{number}")
    log.log.close()
    monkeypatch.undo()
    log.write("after")
    assert [line["request_id"] for line in log.read()] == ["after"], "no partial line may be left"
    assert log.rows("failed") == 5
    errors = [line for line in lines() if line["level"] == "error"]
    assert [line["exception"] for line in errors] == [type(error).__name__]


def test_a_deleted_folder_is_created_again(tmp_path: Path) -> None:
    import shutil

    log = Log(tmp_path / "log")
    log.write("one")
    time.sleep(0.15)
    shutil.rmtree(tmp_path / "log")
    log.write("two")
    assert [line["request_id"] for line in log.read()] == ["two"]
    assert log.rows("failed") == 0


def test_a_folder_that_cannot_be_created_fails_no_answer(tmp_path: Path, lines: Lines) -> None:
    (tmp_path / "file").write_text("")
    log = Log(tmp_path / "file" / "log")
    log.write("one", 4)
    log.log.close()
    assert log.rows("failed") == 4
    assert [line["level"] for line in lines()] == ["error"]


def test_a_value_that_is_not_json_fails_only_its_request(tmp_path: Path, lines: Lines) -> None:
    log = Log(tmp_path / "log")
    log.write("one", plan=object())
    log.write("two")
    assert [line["request_id"] for line in log.read()] == ["two"]
    assert (log.rows("failed"), log.rows("written")) == (1, 1)
    assert len(lines()) == 1
