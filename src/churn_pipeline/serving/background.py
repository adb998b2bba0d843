"""Work outside the request: a thread that processes queued items in batches."""

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")

POLL_SECONDS = 0.05


class Background(Generic[Item]):
    """Queues items for a thread. Queueing never blocks: if the queue is full, the item is rejected.

    The thread polls twenty times a second. Waking it for each item would make it compete with the thread that answers
    requests. It starts with the first item, so a process that only starts others has no such thread.

    Parameters
    ----------
    work
        Called in the thread with the queued items, oldest first. It must not raise.
    max_items
        Maximum length of the queue.
    name
        The thread's name.
    """

    def __init__(self, work: Callable[[list[Item]], None], max_items: int, name: str) -> None:
        self._work = work
        self._max_items = max_items
        self._name = name
        self._items: deque[Item] = deque()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def put(self, item: Item) -> bool:
        """Queue an item; False if the queue is full."""
        if len(self._items) >= self._max_items:
            return False
        self._items.append(item)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, args=(self._stop,), name=self._name, daemon=True)
            self._thread.start()
        return True

    def close(self, seconds: float = 5.0) -> bool:
        """Process all queued items and end the thread; False if that takes longer than `seconds`.

        A later item starts a new thread.
        """
        thread, self._thread = self._thread, None
        if thread is None:
            return True
        self._stop.set()
        thread.join(seconds)
        self._stop = threading.Event()
        return not thread.is_alive()

    def _run(self, stop: threading.Event) -> None:
        while not stop.wait(POLL_SECONDS):
            self._drain()
        self._drain()

    def _drain(self) -> None:
        batch = [self._items.popleft() for _ in range(len(self._items))]
        if batch:
            self._work(batch)
