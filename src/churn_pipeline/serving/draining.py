"""Graceful shutdown of a worker: it answers every request it accepted, and clients have time to connect elsewhere."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import uvicorn

from churn_pipeline.serving.uvicorn_internals import limit_shutdown, shut_down, stop_listening, url_of

LAST_READ_SECONDS = 0.2
MARGIN_SECONDS = 2  # above the request time limit, for sending the last answers


def drain_on_sigterm(
    server: uvicorn.Server, seconds: float, request_seconds: float, on_start: Callable[[], None]
) -> None:
    """Install a SIGTERM handler that shuts the worker down in four steps.

    uvicorn's own handler closes idle connections at once, although a request may already be on its way, and waits without limit
    for clients that do not read their answers.

    1. For `seconds`, the worker serves as before. `on_start` makes it fail its readiness check and close each connection
       after its answer.
    2. It accepts no new connections, and reads from the open ones for another 0.2 s.
    3. uvicorn finishes the requests in progress. After `request_seconds` and 2 s, it drops the connections that are still open.
       The option ``--timeout-graceful-shutdown`` of ``bentoml serve`` sets another limit.
    4. The rest of the logs and of the prediction log is written. Then uvicorn ends the process by the signal, so a thread that
       is still running does not delay it.

    Parameters
    ----------
    server
        The server of this worker.
    seconds
        Duration of the first step.
    request_seconds
        Time limit of a request.
    on_start
        Called once, when the shutdown starts.
    """
    limit_shutdown(server, request_seconds + MARGIN_SECONDS)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        stop_listening(server)
        loop.call_later(LAST_READ_SECONDS, shut_down, server)

    def start() -> None:
        on_start()
        loop.call_later(seconds, stop)

    def handle(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # a second SIGTERM must not start over
        loop.call_soon_threadsafe(start)

    signal.signal(signal.SIGTERM, handle)


async def write_address(server: uvicorn.Server, file: Path) -> None:
    """Write the URL at which this worker listens to a file, once it listens. Every worker writes the same."""
    while (url := url_of(server)) is None:
        await asyncio.sleep(0.02)
    unfinished = file.with_name(f"{file.name}.{os.getpid()}")
    unfinished.write_text(f"{url}\n", encoding="ascii")
    unfinished.replace(file)
