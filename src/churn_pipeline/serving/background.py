"""Work that no answer waits for: a thread that takes what it is given in batches."""

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")

SECONDS = 0.05


class Background(Generic[Item]):
    """Hands items over to a thread. Handing over never waits: where too many are waiting, the item is refused.

    The thread looks for items twenty times a second and is not woken for each: a thread that is woken competes with
    the one that answers requests. It starts with the first item, so that a process which only starts others has none.

    Parameters
    ----------
    work
        Called in the thread with what has come since, in its order. It must not raise.
    most
        How many items may wait.
    name
        The thread's name.
    """

    def __init__(self, work: Callable[[list[Item]], None], most: int, name: str) -> None:
        self._work = work
        self._most = most
        self._name = name
        self._items: deque[Item] = deque()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def put(self, item: Item) -> bool:
        """Hand an item over; False where it was refused."""
        if len(self._items) >= self._most:
            return False
        self._items.append(item)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, args=(self._stop,), name=self._name, daemon=True)
            self._thread.start()
        return True

    def close(self, seconds: float = 5.0) -> bool:
        """Let the thread finish what was handed over, and end it; False where it has not in so many seconds.

        An item that comes later starts a new thread.
        """
        thread, self._thread = self._thread, None
        if thread is None:
            return True
        self._stop.set()
        thread.join(seconds)
        self._stop = threading.Event()
        return not thread.is_alive()

    def _run(self, stop: threading.Event) -> None:
        while not stop.wait(SECONDS):
            self._drain()
        self._drain()

    def _drain(self) -> None:
        batch = [self._items.popleft() for _ in range(len(self._items))]
        if batch:
            self._work(batch)
