"""Logs as JSON lines, with no customer's value in them.

Three kinds of lines go to standard output, one JSON object each, with ``time``, ``level``, ``logger`` and ``event``:

- ``request``, one for every request: who, what, how many rows, how long, and how it ended;
- ``access``, one for every access that was granted or refused where a key is needed: the audit trail;
- everything else that this program, BentoML and uvicorn have to say.

What other programs put into a message may be a customer's: of their warnings and errors only the message's template,
the exception's type and the place it comes from are kept. The same holds for our own errors' exceptions.

A line is made where it is logged, and written by a thread: a slow disk delays no answer. Where 10,000 lines wait, further
ones are dropped and counted. A process that is killed loses what was logged in its last twentieth of a second.
"""

import json
import logging
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Any, TextIO

from churn_pipeline.serving.background import Background

OURS = "churn_pipeline"
REQUESTS = logging.getLogger(f"{OURS}.serving.requests")
AUDIT = logging.getLogger(f"{OURS}.serving.audit")
WAITING_LINES = 10_000
ENCODE = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode
FOREIGN = ("bentoml", "uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi", "circus")


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record as JSON."""
        line: dict[str, Any] = {
            "time": _utc(record.created, record.msecs),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": _event(record),
        }
        if facts := getattr(record, "facts", None):
            line.update(facts)
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = record.exc_info[0].__name__
            line["place"] = _place(record.exc_info[2])
        return ENCODE(line)


def _utc(seconds: float, milliseconds: float) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{int(milliseconds):03d}Z"


def _event(record: logging.LogRecord) -> str:
    if record.name.partition(".")[0] == OURS or record.levelno < logging.WARNING:
        return record.getMessage()
    return str(record.msg).partition("\n")[0]


def _warned(_message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object) -> None:
    """Log a warning of Python's as what it is and where it comes from."""
    facts = {"warning": category.__name__, "place": f"{filename}:{lineno}"}
    log(logging.getLogger("py.warnings"), logging.WARNING, "A warning", facts)


def _place(trace: TracebackType | None) -> str | None:
    """Where an exception was raised, without what was raised."""
    frames = traceback.extract_tb(trace)
    return f"{frames[-1].filename}:{frames[-1].lineno} {frames[-1].name}" if frames else None


def log(logger: logging.Logger, level: int, event: str, facts: dict[str, Any]) -> None:
    """Log an event with facts beside it; without the search for the calling line, which costs more than the rest."""
    if logger.isEnabledFor(level):
        record = logger.makeRecord(logger.name, level, "", 0, event, (), None)
        record.facts = facts
        logger.handle(record)


class BackgroundHandler(logging.Handler):
    """Formats a record where it is logged, and leaves the writing to a thread.

    Parameters
    ----------
    stream
        Where lines go.
    dropped
        Told how many lines are not written, because too many were waiting or the stream failed.
    """

    def __init__(self, stream: TextIO, dropped: Callable[[int], None]) -> None:
        super().__init__()
        self._stream = stream
        self._dropped = dropped
        self._lines: Background[str] = Background(self._write, WAITING_LINES, "logs")

    def emit(self, record: logging.LogRecord) -> None:
        """Hand the record's line over."""
        try:
            line = self.format(record)
        except (TypeError, ValueError):  # a message and its arguments that do not fit, or no JSON
            self._dropped(1)
            return
        if not self._lines.put(line):
            self._dropped(1)

    def _write(self, lines: list[str]) -> None:
        try:
            self._stream.write("\n".join(lines) + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # no space, a closed pipe, a closed stream
            self._dropped(len(lines))

    def flush(self) -> None:
        """Wait until what was logged is written."""
        self._lines.close()

    def close(self) -> None:
        """Write what is left."""
        self._lines.close()
        super().close()


def configure(level: str, dropped: Callable[[int], None], stream: TextIO | None = None) -> BackgroundHandler:
    """Send every log of this process through one handler, BentoML's and uvicorn's included.

    uvicorn's own lines of access hold the query string: they are off, and so should BentoML's be
    (``logging={"access": {"enabled": False}}``), which `REQUESTS` replaces.

    Parameters
    ----------
    level
        The least level of our own lines, by name; others' are kept from ``warning`` on, BentoML's from ``info`` on.
    dropped
        Told how many lines are not written.
    stream
        Where lines go; standard output unless given.

    Returns
    -------
    BackgroundHandler
        To be flushed before the process ends.
    """
    handler = BackgroundHandler(stream or sys.stdout, dropped)
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
    access.propagate = False  # with no handler, uvicorn does not even make the line
    access.disabled = True
    threshold = getattr(logging, level.upper())
    logging.getLogger("bentoml").setLevel(max(threshold, logging.INFO))
    logging.getLogger(OURS).setLevel(threshold)
    warnings.showwarning = _warned  # type: ignore[assignment]  # called by position
    # what no line shows need not be found out for each
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    return handler
