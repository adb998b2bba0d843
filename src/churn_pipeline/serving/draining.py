"""Graceful shutdown of a worker: it answers every request it accepted, and clients have time to connect elsewhere."""

import asyncio
import signal
from collections.abc import Callable
from types import FrameType

import uvicorn

LAST_READ_SECONDS = 0.2


def drain_on_sigterm(seconds: float, on_start: Callable[[], None]) -> None:
    """Install a SIGTERM handler that shuts the worker down in three steps.

    uvicorn's own handler closes idle connections at once, although a request may already be on its way.

    1. For `seconds`, the worker serves as before. `on_start` makes it fail its readiness check and close each connection
       after its answer.
    2. It accepts no new connections, and reads from the open ones for another 0.2 s.
    3. uvicorn finishes the requests in progress and exits.

    Outside a uvicorn worker this does nothing.

    Parameters
    ----------
    seconds
        Duration of the first step.
    on_start
        Called once, when the shutdown starts.
    """
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    if not isinstance(server, uvicorn.Server):
        return
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
