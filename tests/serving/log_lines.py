"""The log lines of a test, formatted as in the service."""

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from churn_pipeline.serving import logs

Lines = Callable[[], list[dict[str, Any]]]
FLAGS = ("logThreads", "logProcesses", "logMultiprocessing")


@contextmanager
def configured(level: str = "debug") -> Iterator[Lines]:
    """Configure logging as the service does, and restore everything afterwards.

    The returned function reads all lines so far.
    """
    loggers = [logging.getLogger(name) for name in (None, logs.OURS, logs.AUDIT.name, *logs.FOREIGN)]
    before = [(one, one.handlers[:], one.level, one.propagate, one.disabled) for one in loggers]
    flags = {flag: getattr(logging, flag) for flag in FLAGS}
    showwarning = warnings.showwarning
    stream = io.StringIO()
    handler = logs.configure(level, lambda _: None, stream)

    def read() -> list[dict[str, Any]]:
        handler.close()
        return [json.loads(line) for line in stream.getvalue().splitlines()]

    try:
        yield read
    finally:
        handler.close()
        warnings.showwarning = showwarning
        for one, handlers, least, propagate, disabled in before:
            one.handlers[:], one.propagate, one.disabled = handlers, propagate, disabled
            one.setLevel(least)
        for flag, value in flags.items():
            setattr(logging, flag, value)
