"""Who works next: fair turns over callers, and threads that keep their turn until their work has ended.

The turns are start-time fair queueing (Goyal, Vin and Cheng, 1996): the more work a caller has received, the later its next
turn is due. A single caller may use all turns. With several, a caller waits at most for the work in progress and for one turn
of each other caller. If too many requests wait, the newest one of the caller with the most waiting requests is refused.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TypeVar

Result = TypeVar("Result")


MAX_TRACKED = 10_000  # callers whose next turn is remembered


class QueueFullError(Exception):
    """Too many requests of this caller wait."""


class Abandoned(Exception):  # noqa: N818 - not a fault of the program
    """The caller got another answer in the meantime: this one is neither counted nor logged."""


def always() -> bool:
    """The commitment of a request that cannot be abandoned."""
    return True


class FairTurns:
    """Turns of one event loop.

    Parameters
    ----------
    slots
        Maximum number of turns at once.
    max_waiting
        Maximum number of requests that wait for a turn.
    """

    def __init__(self, slots: int, max_waiting: int) -> None:
        self.free = slots
        self._slots, self._max_waiting = slots, max_waiting
        self._waiting: dict[str, deque[tuple[asyncio.Future[None], int]]] = {}
        self._n_waiting = 0
        # Virtual time: that of the last turn given, and that at which each caller's next turn is due.
        self._now = 0
        self._due: dict[str, int] = {}

    def enter_now(self, caller: str, cost: int = 1) -> bool:
        """Take a turn if one is free."""
        if not self.free:
            return False
        self._give(caller, cost)
        return True

    async def enter(self, caller: str, cost: int = 1, seconds: float | None = None) -> None:
        """Wait for a turn.

        Parameters
        ----------
        caller
            The caller.
        cost
            Amount of work.
        seconds
            Maximum time to wait; by default, without limit.

        Raises
        ------
        QueueFullError
            If too many requests wait, and this caller has the most of them.
        TimeoutError
            If the turn did not come in time.
        """
        if self.enter_now(caller, cost):
            return
        if self._n_waiting >= self._max_waiting:
            self._refuse_newest(caller)
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        self._waiting.setdefault(caller, deque()).append((turn, cost))
        self._n_waiting += 1
        # Much cheaper than `asyncio.timeout`, and most requests of a busy service wait.
        timer = None if seconds is None else loop.call_later(seconds, self._expire, caller, (turn, cost))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._remove(caller, (turn, cost))
            elif turn.exception() is None:  # the turn was given in the same moment
                self.leave()
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def leave(self) -> None:
        """Return a turn; the caller whose turn is due first gets it."""
        self.free += 1
        while self._waiting:
            caller = min(self._waiting, key=lambda name: self._due.get(name, 0))
            turn, cost = self._waiting[caller][0]
            self._remove(caller, (turn, cost))
            if not turn.done():  # a request that was cancelled in the same moment
                self._give(caller, cost)
                turn.set_result(None)
                return
        if self.free == self._slots:
            self._due.clear()
            self._now = 0

    def _give(self, caller: str, cost: int) -> None:
        self.free -= 1
        self._now = max(self._now, self._due.get(caller, 0))
        if len(self._due) >= MAX_TRACKED:
            self._due = {name: due for name, due in self._due.items() if due > self._now}
        self._due[caller] = self._now + cost

    def _refuse_newest(self, caller: str) -> None:
        """Make room for a caller, or raise QueueFullError."""
        longest = max(self._waiting, key=lambda name: len(self._waiting[name]), default=caller)
        if len(self._waiting.get(longest, ())) <= len(self._waiting.get(caller, ())) + 1:
            raise QueueFullError
        turn, cost = self._waiting[longest][-1]
        self._remove(longest, (turn, cost))
        if not turn.done():
            turn.set_exception(QueueFullError())

    def _expire(self, caller: str, entry: tuple[asyncio.Future[None], int]) -> None:
        self._remove(caller, entry)
        if not entry[0].done():
            entry[0].set_exception(TimeoutError())

    def _remove(self, caller: str, entry: tuple[asyncio.Future[None], int]) -> None:
        queue = self._waiting.get(caller, deque())
        if entry in queue:
            queue.remove(entry)
            self._n_waiting -= 1
            if not queue:
                del self._waiting[caller]


class Commitment:
    """Decides once whether a request's result is used or abandoned; both sides may ask at the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_open = True
        self._committed = False

    def commit(self) -> bool:
        """Whether the result will be used; after True it can no longer be abandoned."""
        with self._lock:
            self._committed = self._committed or self._is_open
            self._is_open = False
            return self._committed

    def abandon(self) -> bool:
        """Whether the result is abandoned; False if it has been committed."""
        with self._lock:
            self._is_open = False
            return not self._committed


class Threads:
    """Threads whose work takes fair turns. A turn ends when its thread has, not when nobody waits for the result any more.

    Parameters
    ----------
    number
        Number of threads.
    max_waiting
        Maximum number of requests that wait for a thread.
    name
        Name of the threads.
    """

    def __init__(self, number: int, max_waiting: int, name: str) -> None:
        self.turns = FairTurns(number, max_waiting)
        self._executor = ThreadPoolExecutor(number, name)

    def start(self, work: Callable[[], Result]) -> asyncio.Future[Result]:
        """Start work for which the caller has taken a turn."""
        loop = asyncio.get_running_loop()
        running: Future[Result] = self._executor.submit(work)
        running.add_done_callback(partial(self._leave, loop))
        result = asyncio.wrap_future(running)
        result.add_done_callback(_retrieve)
        return result

    def _leave(self, loop: asyncio.AbstractEventLoop, _: "Future[Result]") -> None:
        with suppress(RuntimeError):  # the loop is closed: the process ends
            loop.call_soon_threadsafe(self.turns.leave)


def _retrieve(result: "asyncio.Future[Result]") -> None:
    """Read an abandoned result, or asyncio logs that its exception was never retrieved."""
    if not result.cancelled():
        result.exception()
