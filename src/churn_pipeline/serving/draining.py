"""Graceful shutdown of a worker: it answers every request it accepted, and clients have time to connect elsewhere."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import uvicorn

LAST_READ_SECONDS = 0.2
MARGIN_SECONDS = 2  # above the request time limit, for sending the last answers
ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # no socket is bound here


def uvicorn_server() -> uvicorn.Server | None:
    """Return the uvicorn server that runs this process; None outside a worker."""
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return server if isinstance(server, uvicorn.Server) else None


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
    grace = server.config.timeout_graceful_shutdown or request_seconds + MARGIN_SECONDS
    server.config.timeout_graceful_shutdown = grace  # type: ignore[assignment]  # a number of seconds for asyncio.wait_for
    loop = asyncio.get_running_loop()

    def stop_listening() -> None:
        for listener in server.servers:
            listener.close()
        loop.call_later(LAST_READ_SECONDS, server.handle_exit, signal.SIGTERM, None)

    def start() -> None:
        on_start()
        loop.call_later(seconds, stop_listening)

    def handle(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # a second SIGTERM must not start over
        loop.call_soon_threadsafe(start)

    signal.signal(signal.SIGTERM, handle)


async def write_address(server: uvicorn.Server, file: Path) -> None:
    """Write the URL at which this worker listens to a file, once it listens. Every worker writes the same."""
    while not server.started:
        await asyncio.sleep(0.02)
    host, port = server.servers[0].sockets[0].getsockname()[:2]
    host = ANY_ADDRESS.get(host, host)
    scheme = "https" if server.config.is_ssl else "http"
    unfinished = file.with_name(f"{file.name}.{os.getpid()}")
    unfinished.write_text(f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}\n", encoding="ascii")
    unfinished.replace(file)
