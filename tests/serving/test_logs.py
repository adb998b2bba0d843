import asyncio
import json
import logging
import threading
import time
import warnings
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.serving.log_lines import Lines, configured

from churn_pipeline.serving import logs

OURS = logging.getLogger("churn_pipeline.serving.anything")
VALUE = "Jane Doe, 42"


@pytest.fixture
def lines() -> Iterator[Lines]:
    with configured() as read:
        yield read


def test_a_line_has_time_level_logger_and_event(lines: Lines) -> None:
    OURS.warning("The model was loaded in %d ms", 7)
    [line] = lines()
    assert (line["level"], line["logger"]) == ("warning", "churn_pipeline.serving.anything")
    assert line["event"] == "The model was loaded in 7 ms"
    assert abs(datetime.fromisoformat(line["time"]).timestamp() - time.time()) < 5


@given(st.text(), st.dictionaries(st.text(min_size=1), st.text() | st.integers() | st.none() | st.booleans()))
def test_any_facts_are_one_line_of_json(event: str, facts: dict[str, Any]) -> None:
    record = logging.makeLogRecord({"name": logs.OURS, "msg": event, "facts": facts, "levelno": 20})
    text = logs.JsonFormatter().format(record)
    assert "\n" not in text
    assert facts.items() <= json.loads(text).items()


def test_an_exception_is_logged_as_type_and_location_only(lines: Lines) -> None:
    try:
        raise ValueError(VALUE)
    except ValueError:
        OURS.exception("It failed")
    [line] = lines()
    assert line["exception"] == "ValueError"
    assert line["place"].endswith("test_an_exception_is_logged_as_type_and_location_only")
    assert "test_logs.py:" in line["place"]
    assert VALUE not in str(line)


def test_warnings_and_errors_of_libraries_are_logged_as_templates(lines: Lines) -> None:
    logging.getLogger("bentoml.server").error("Exception on %s [%s]", VALUE, "POST", exc_info=ValueError(VALUE))
    logging.getLogger("uvicorn.error").error("Exception in ASGI application\n", exc_info=ValueError(VALUE))
    logging.getLogger("asyncio").error(f"Task exception was never retrieved\nfuture: <Task exception={VALUE}>")
    warnings.warn(f"Odd value {VALUE}", UserWarning, stacklevel=1)
    logged = lines()
    assert [line["event"] for line in logged] == [
        "Exception on %s [%s]",
        "Exception in ASGI application",
        "Task exception was never retrieved",
        "A warning",
    ]
    assert logged[-1]["warning"] == "UserWarning"
    assert VALUE not in str(logged)


def test_uvicorns_access_log_is_off_and_bentomls_start_is_logged(lines: Lines) -> None:
    access = logging.getLogger("uvicorn.access")
    access.info('%s - "%s %s"', "127.0.0.1", "GET", f"/?name={VALUE}")
    assert not access.propagate  # without a handler, uvicorn does not format the line
    logging.getLogger("bentoml.serve").info("Service %s initialized", "Churn")
    assert [line["event"] for line in lines()] == ["Service Churn initialized"]


def test_an_asyncio_error_is_logged_without_values(lines: Lines) -> None:
    async def fails() -> None:
        raise ValueError(VALUE)

    async def story() -> None:
        task = asyncio.create_task(fails())
        await asyncio.sleep(0)
        del task

    asyncio.run(story())
    logged = lines()
    assert [line["exception"] for line in logged] == ["ValueError"]
    assert VALUE not in str(logged)


@pytest.mark.parametrize(("level", "kept"), [("debug", 3), ("info", 2), ("warning", 1), ("error", 0)])
def test_the_log_level_is_applied(level: str, kept: int) -> None:
    with configured(level) as read:
        logs.log(OURS, logging.DEBUG, "one", {})
        logs.log(logs.AUDIT, logging.DEBUG, "not of the audit trail", {})
        logs.log(OURS, logging.INFO, "two", {"rows": 1})
        OURS.warning("three")
        assert len(read()) == kept


class Stuck:
    """A stream that blocks until it is released."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.text = ""

    def write(self, text: str) -> None:
        self.release.wait(10)
        self.text += text

    def flush(self) -> None:
        pass


def test_a_stuck_disk_blocks_no_caller_and_dropped_lines_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "WAITING_LINES", 100)
    stream = Stuck()
    dropped: list[int] = []
    handler = logs.BackgroundHandler(stream, dropped.append)  # type: ignore[arg-type]
    handler.setFormatter(logs.JsonFormatter())
    record = logging.makeLogRecord({"name": logs.OURS, "msg": "line", "levelno": 20})
    started = time.perf_counter()
    for _ in range(500):
        handler.handle(record)
    assert time.perf_counter() - started < 1
    stream.release.set()
    handler.close()
    assert sum(dropped) + stream.text.count("\n") == 500
    assert sum(dropped) >= 300


def test_the_audit_trail_does_not_depend_on_the_level() -> None:
    with configured("error") as read:
        logs.log(logs.AUDIT, logging.INFO, "access", {"outcome": "granted"})
        assert [line["outcome"] for line in read()] == ["granted"]


def test_lines_that_wait_too_long_at_the_end_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "CLOSE_SECONDS", 0.1)
    stream = Stuck()
    dropped: list[int] = []
    handler = logs.BackgroundHandler(stream, dropped.append)  # type: ignore[arg-type]
    handler.setFormatter(logs.JsonFormatter())
    for _ in range(7):
        handler.handle(logging.makeLogRecord({"name": logs.OURS, "msg": "line", "levelno": 20}))
    handler.close()
    assert sum(dropped) == 7
    stream.release.set()


def test_lines_lost_to_a_failing_stream_are_counted() -> None:
    class Full(Stuck):
        def write(self, text: str) -> None:
            raise OSError(28, "No space left on device")

    dropped: list[int] = []
    handler = logs.BackgroundHandler(Full(), dropped.append)  # type: ignore[arg-type]
    handler.setFormatter(logs.JsonFormatter())
    handler.handle(logging.makeLogRecord({"name": logs.OURS, "msg": "line", "levelno": 20}))
    handler.handle(logging.makeLogRecord({"name": logs.OURS, "msg": "%d", "args": ("x",), "levelno": 20}))
    handler.close()
    assert sum(dropped) == 2
