"""Logs as JSON lines, without customer data.

Each line on standard output is one JSON object with ``time``, ``level``, ``logger`` and ``event``. There are three kinds:

- ``request``, one for each request: key, path, rows, duration and outcome;
- ``access``, one for each access that was granted or refused because of a key: the audit trail, at any log level;
- everything else that this program, BentoML and uvicorn log.

Messages of other libraries may contain customer data. Of their warnings and errors, a line has only the message template, the
exception's type and its location. The same holds for exceptions logged by our own code.

A line is formatted where it is logged and written by a thread, so a slow disk delays no answer. If 10,000 lines wait, further
lines are dropped and counted. A killed process loses the lines of its last twentieth of a second.
"""

import logging
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from functools import lru_cache
from types import TracebackType
from typing import Any, TextIO

from churn_pipeline.serving.background import Background
from churn_pipeline.serving.json_lines import json_line

OURS = "churn_pipeline"
REQUESTS = logging.getLogger(f"{OURS}.serving.requests")
AUDIT = logging.getLogger(f"{OURS}.serving.audit")
WAITING_LINES = 10_000
CLOSE_SECONDS = 5.0
FOREIGN = ("bentoml", "uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi", "circus")


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record as JSON."""
        line = _head(record.created, record.levelname, record.name, _event(record))
        if facts := getattr(record, "facts", None):
            line.update(facts)
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = record.exc_info[0].__name__
            line["place"] = _location(record.exc_info[2])
        return json_line(line).decode()


def _head(seconds: float, level: str, name: str, event: str) -> dict[str, Any]:
    moment = f"{_utc_second(int(seconds))}.{int(seconds % 1 * 1000):03d}Z"
    return {"time": moment, "level": level.lower(), "logger": name, "event": event}


@lru_cache(maxsize=1)
def _utc_second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def _event(record: logging.LogRecord) -> str:
    if record.name.partition(".")[0] == OURS or record.levelno < logging.WARNING:
        return record.getMessage()
    return str(record.msg).partition("\n")[0]


def _log_warning(_message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object) -> None:
    """Log a Python warning as its category and location, without its message."""
    facts = {"warning": category.__name__, "place": f"{filename}:{lineno}"}
    log(logging.getLogger("py.warnings"), logging.WARNING, "A warning", facts)


def _location(trace: TracebackType | None) -> str | None:
    """Code location at which an exception was raised."""
    frames = traceback.extract_tb(trace)
    return f"{frames[-1].filename}:{frames[-1].lineno} {frames[-1].name}" if frames else None


def log(logger: logging.Logger, level: int, event: str, facts: dict[str, Any]) -> None:
    """Log an event with facts. It skips the search for the calling line, which costs more than the rest.

    If our handler is the only one, as in a worker, no record is made either: each request logs two events.
    """
    if not logger.isEnabledFor(level):
        return
    handlers = logging.root.handlers
    if len(handlers) == 1 and isinstance(handlers[0], BackgroundHandler):
        line = _head(time.time(), logging.getLevelName(level), logger.name, event)
        handlers[0].put(json_line({**line, **facts}).decode())
        return
    record = logger.makeRecord(logger.name, level, "", 0, event, (), None)
    record.facts = facts
    logger.handle(record)


class BackgroundHandler(logging.Handler):
    """Formats a record where it is logged; a thread writes it.

    Parameters
    ----------
    stream
        Destination of the lines.
    on_dropped
        Called with the number of lines that are not written because the queue is full or the stream failed.
    """

    def __init__(self, stream: TextIO, on_dropped: Callable[[int], None]) -> None:
        super().__init__()
        self._stream = stream
        self._on_dropped = on_dropped
        self._lines: Background[str] = Background(self._write, WAITING_LINES, "logs")

    def emit(self, record: logging.LogRecord) -> None:
        """Format a record and queue its line."""
        try:
            line = self.format(record)
        except (TypeError, ValueError):  # the arguments do not fit the message, or are not JSON
            self._on_dropped(1)
            return
        self.put(line)

    def put(self, line: str) -> None:
        """Queue a line."""
        if not self._lines.put(line):
            self._on_dropped(1)

    def _write(self, lines: list[str]) -> None:
        try:
            self._stream.write("\n".join(lines) + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # full disk, closed pipe or closed stream
            self._on_dropped(len(lines))

    def close(self) -> None:
        """Write all queued lines and end the thread; a later record starts it again. Count the lines that wait too long."""
        if not self._lines.close(CLOSE_SECONDS):
            self._on_dropped(self._lines.waiting)
        super().close()


def configure(level: str, on_dropped: Callable[[int], None], stream: TextIO | None = None) -> BackgroundHandler:
    """Send all logs of this process through one handler, including BentoML's and uvicorn's.

    uvicorn's access lines contain the query string, so they are disabled; `REQUESTS` replaces them. Disable BentoML's as
    well: ``logging={"access": {"enabled": False}}``.

    Parameters
    ----------
    level
        Lowest level of our own lines except the audit trail, by name. Other libraries log from ``warning`` on, BentoML from
        ``info`` on.
    on_dropped
        Called with the number of lines that are not written.
    stream
        Destination of the lines; defaults to standard output.

    Returns
    -------
    BackgroundHandler
        Close it before the process ends.
    """
    handler = BackgroundHandler(stream or sys.stdout, on_dropped)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in FOREIGN:
        foreign = logging.getLogger(name)
        foreign.handlers.clear()
        foreign.propagate = True
        foreign.setLevel(logging.NOTSET)
    access = logging.getLogger("uvicorn.access")
    access.propagate = False  # without a handler, uvicorn does not format the line
    access.disabled = True
    threshold = getattr(logging, level.upper())
    logging.getLogger("bentoml").setLevel(max(threshold, logging.INFO))
    logging.getLogger(OURS).setLevel(threshold)
    AUDIT.setLevel(logging.INFO)  # the audit trail does not depend on the level
    warnings.showwarning = _log_warning  # type: ignore[assignment]  # called by position
    # No line shows these, and collecting them costs time for each record.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    return handler
