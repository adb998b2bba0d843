"""The end of a worker: what it took is answered, and whoever sends requests has time to go elsewhere."""

import asyncio
import signal
from collections.abc import Callable
from types import FrameType

import uvicorn

LAST_READ_SECONDS = 0.2


def drain_when_told(seconds: float, began: Callable[[], None]) -> None:
    """End in three steps on SIGTERM, where uvicorn would close idle connections at once, with requests on their way.

    For some seconds all is served as before, but `began` was called: the worker says that it is not ready, and every answer
    closes its connection. Then no connection is taken any more, and those that were have a moment to be read. Then uvicorn
    ends, which finishes what is in work. Outside a worker of uvicorn nothing is done.

    Parameters
    ----------
    seconds
        The first step's.
    began
        Called once, when the end begins.
    """
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    if not isinstance(server, uvicorn.Server):
        return
    loop = asyncio.get_running_loop()

    def stop_listening() -> None:
        for listening in server.servers:
            listening.close()
        loop.call_later(LAST_READ_SECONDS, server.handle_exit, signal.SIGTERM, None)

    def begin() -> None:
        began()
        loop.call_later(seconds, stop_listening)

    def told(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # the end has begun; it does not begin again
        loop.call_soon_threadsafe(begin)

    signal.signal(signal.SIGTERM, told)
