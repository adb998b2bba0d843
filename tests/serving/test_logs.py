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


def test_a_line_says_when_how_grave_who_and_what(lines: Lines) -> None:
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


def test_an_exception_is_its_type_and_place_and_never_its_words(lines: Lines) -> None:
    try:
        raise ValueError(VALUE)
    except ValueError:
        OURS.exception("It failed")
    [line] = lines()
    assert line["exception"] == "ValueError"
    assert line["place"].endswith("test_an_exception_is_its_type_and_place_and_never_its_words")
    assert "test_logs.py:" in line["place"]
    assert VALUE not in str(line)


def test_others_warnings_and_errors_are_their_templates(lines: Lines) -> None:
    logging.getLogger("bentoml.server").error("Exception on %s [%s]", VALUE, "POST", exc_info=ValueError(VALUE))
    logging.getLogger("uvicorn.error").error("Exception in ASGI application\n", exc_info=ValueError(VALUE))
    logging.getLogger("asyncio").error(f"Task exception was never retrieved\nfuture: <Task exception={VALUE}>")
    warnings.warn(f"Odd value {VALUE}", UserWarning, stacklevel=1)
    told = lines()
    assert [line["event"] for line in told] == [
        "Exception on %s [%s]",
        "Exception in ASGI application",
        "Task exception was never retrieved",
        "A warning",
    ]
    assert told[-1]["warning"] == "UserWarning"
    assert VALUE not in str(told)


def test_uvicorns_lines_of_access_are_off_and_bentomls_of_start_are_kept(lines: Lines) -> None:
    access = logging.getLogger("uvicorn.access")
    access.info('%s - "%s %s"', "127.0.0.1", "GET", f"/?name={VALUE}")
    assert not access.propagate  # and without a handler, uvicorn does not make the line
    logging.getLogger("bentoml.serve").info("Service %s initialized", "Churn")
    assert [line["event"] for line in lines()] == ["Service Churn initialized"]


def test_an_error_that_asyncio_finds_tells_no_value(lines: Lines) -> None:
    async def fails() -> None:
        raise ValueError(VALUE)

    async def story() -> None:
        task = asyncio.create_task(fails())
        await asyncio.sleep(0)
        del task

    asyncio.run(story())
    told = lines()
    assert [line["exception"] for line in told] == ["ValueError"]
    assert VALUE not in str(told)


@pytest.mark.parametrize(("level", "kept"), [("debug", 3), ("info", 2), ("warning", 1), ("error", 0)])
def test_the_level_is_kept(level: str, kept: int) -> None:
    with configured(level) as read:
        logs.log(OURS, logging.DEBUG, "one", {})
        logs.log(OURS, logging.INFO, "two", {"rows": 1})
        OURS.warning("three")
        assert len(read()) == kept


class Stuck:
    """A stream on a disk that does not answer until it is let."""

    def __init__(self) -> None:
        self.let = threading.Event()
        self.text = ""

    def write(self, text: str) -> None:
        self.let.wait(10)
        self.text += text

    def flush(self) -> None:
        pass


def test_a_stuck_disk_holds_nobody_up_and_what_is_dropped_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
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
    stream.let.set()
    handler.close()
    assert sum(dropped) + stream.text.count("\n") == 500
    assert sum(dropped) >= 300


def test_a_stream_that_fails_is_no_error_and_is_counted() -> None:
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
