import fcntl
import hashlib
import hmac
import json
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.customers import make_contract
from tests.serving.log_lines import Lines, configured
from tests.serving.manifest import MANIFEST

from churn_pipeline.contract.example import example_customers
from churn_pipeline.serving import prediction_files, prediction_log
from churn_pipeline.serving.metrics import Metrics
from churn_pipeline.serving.prediction_log import LoggedModel, PredictionLog
from churn_pipeline.serving.request_ids import RequestId
from churn_pipeline.serving.settings import Settings

ID_KEY = "a key of sixteen characters"
CONTRACT = make_contract()
MODEL = LoggedModel.of(MANIFEST, CONTRACT)
CUSTOMER: dict[str, Any] = json.loads(example_customers(CONTRACT).to_json(orient="records"))[0]


@pytest.fixture
def lines() -> Iterator[Lines]:
    with configured() as read:
        yield read


def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "the condition never held"
        time.sleep(0.01)


class Log:
    """A prediction log in a folder, with methods to read it."""

    def __init__(self, folder: Path | None, **given: str) -> None:
        names = {"authentication": "off", **({"prediction_log": str(folder)} if folder else {}), **given}
        settings = Settings.from_environment({f"CHURN_SERVING_{name.upper()}": value for name, value in names.items()})
        self.folder = folder
        self.metrics = Metrics()
        self.log = PredictionLog(settings, self.metrics)

    def write(self, request_id: str, rows: int = 1, **changes: Any) -> None:
        customers = [{**CUSTOMER, "customer": f"C-{number}", **changes} for number in range(rows)]
        self.log.write(request_id, MODEL, customers, np.linspace(0, 1, rows), np.linspace(0, 1, rows) >= 0.3)

    def wait(self) -> None:
        until(lambda: self.log.waiting_rows == 0)

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


def stored(folder: Path, name: str, days: float = 0.0, size: int = 0) -> Path:
    """A file that a service of the past wrote."""
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_bytes(b"x" * size)
    os.utime(file, (time.time() - days * 86_400,) * 2)
    return file


def test_only_old_prediction_log_files_are_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    for name, days in (("predictions-old.jsonl", 8), ("predictions-young.jsonl", 6), ("notes.txt", 800)):
        stored(folder, name, days)
    log = Log(folder, prediction_log_days="7")
    log.write("one")
    log.read()
    names = {file.name for file in log.files}
    assert {"predictions-young.jsonl", "notes.txt"} < names
    assert "predictions-old.jsonl" not in names


def test_old_files_are_deleted_again_and_again_although_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction_files, "SWEEP_SECONDS", 0.0)
    first = stored(tmp_path / "log", "predictions-first.jsonl", days=8)
    log = Log(tmp_path / "log", prediction_log_days="7")
    until(lambda: not first.exists())
    second = stored(tmp_path / "log", "predictions-second.jsonl", days=8)
    until(lambda: not second.exists())
    log.log.close()
    assert log.files == []


def test_a_file_without_lines_for_a_day_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction_files, "SWEEP_SECONDS", 0.0)
    log = Log(tmp_path / "log", prediction_log_days="1e12")
    log.write("one")
    until(lambda: log.rows("written") == 1)
    [file] = log.files
    assert locked(file)
    monkeypatch.setattr(prediction_files, "DAY", 1e-6)
    until(lambda: not locked(file))
    log.log.close()


def locked(file: Path) -> bool:
    with file.open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_all_files_together_stay_below_the_total_size(tmp_path: Path) -> None:
    largest = []
    log = Log(tmp_path / "log", prediction_log_bytes="5000", prediction_log_total_bytes="20000")
    for number in range(100):
        log.write(f"request-{number}", 3)
        log.wait()
        largest.append(sum(file.stat().st_size for file in log.files))
    assert max(largest) <= 20_000
    assert largest[-1] > 10_000
    left = [line["request_id"] for line in log.read()]
    assert sorted(left) == sorted(3 * [f"request-{number}" for number in range(100 - len(left) // 3, 100)])


def test_two_workers_together_stay_below_the_total_size(tmp_path: Path) -> None:
    sizes = {"prediction_log_bytes": "5000", "prediction_log_total_bytes": "20000", "workers": "2"}
    logs = [Log(tmp_path / "log", **sizes) for _ in range(2)]
    for number in range(60):
        log = logs[number % 3 == 0]
        log.write(f"request-{number}", 3)
        log.wait()
        if number % 7 == 0:
            log.log.close()
        assert sum(file.stat().st_size for file in log.files) <= 20_000
    assert sum(log.rows("written") for log in logs) == 180
    for log in logs:
        log.log.close()


def test_a_file_that_another_process_writes_is_never_deleted(tmp_path: Path, lines: Lines) -> None:
    folder = tmp_path / "log"
    others = stored(folder, "predictions-others.jsonl", days=40, size=15_000)
    oldest = stored(folder, "predictions-oldest.jsonl", days=3, size=8_000)
    old = stored(folder, "predictions-old.jsonl", days=2, size=8_000)
    script = (
        "import fcntl, sys\n"
        "file = open(sys.argv[1], 'ab')\n"
        "fcntl.flock(file, fcntl.LOCK_EX)\n"
        "print('locked', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(others)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        log = Log(folder, prediction_log_bytes="5000", prediction_log_total_bytes="30000")
        log.write("one")
        log.log.close()
        assert (others.exists(), oldest.exists(), old.exists()) == (True, False, True)
        process.communicate()
    [line] = [line for line in lines() if line["level"] == "warning"]
    assert line["event"] == "Deleted prediction log files: 1, because of their total size"


def test_a_file_that_cannot_be_deleted_keeps_no_other_and_is_logged(tmp_path: Path, lines: Lines) -> None:
    folder = tmp_path / "log"
    (folder / "predictions-folder.jsonl").mkdir(parents=True)
    os.utime(folder / "predictions-folder.jsonl", (0, 0))
    old = stored(folder, "predictions-old.jsonl", days=40)
    Log(folder).log.close()
    assert not old.exists()
    assert [line["exception"] for line in lines() if line["level"] == "error"] == ["IsADirectoryError"]


def test_rows_that_are_lost_at_the_end_are_counted_and_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: Lines
) -> None:
    release = threading.Event()
    write = os.write
    monkeypatch.setattr(prediction_files.os, "write", lambda *a: (release.wait(10), write(*a))[1])
    monkeypatch.setattr(prediction_log, "CLOSE_SECONDS", 0.1)
    log = Log(tmp_path / "log")
    for number in range(5):
        log.write(f"request-{number}", 10)
    log.log.close()
    assert log.rows("lost") == 50
    [line] = [line for line in lines() if line["level"] == "error"]
    assert line["event"] == "The prediction log was closed after 0.1 s: 50 customers are not logged"
    release.set()
    until(lambda: log.rows("written") == 50)


def test_rows_of_several_threads_are_counted_exactly(tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=lambda: [log.write("one") for _ in range(2_000)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert len(log.read()) == log.rows("written") == 8_000 - log.rows("dropped")
    assert log.log.waiting_rows == 0


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


def test_a_caller_does_not_decide_whether_its_request_is_in_the_sample(tmp_path: Path) -> None:
    log = Log(tmp_path / "log", prediction_log_share="0.5")
    ids = [RequestId.make(b"always-the-same") for _ in range(400)]
    for request_id in ids:
        log.write(request_id)
    logged = log.read()
    assert 120 < len(logged) < 280
    assert {line["caller_request_id"] for line in logged} == {"always-the-same"}
    assert {line["request_id"] for line in logged} < {request_id.own for request_id in ids}


def test_a_stuck_disk_delays_no_answer_and_drops_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    write = os.write
    monkeypatch.setattr(prediction_files.os, "write", lambda *a: (release.wait(10), write(*a))[1])
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

    monkeypatch.setattr(prediction_files.os, "write", fails)
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
