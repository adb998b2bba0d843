"""Work outside the request: a thread that processes queued items in batches."""

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")

POLL_SECONDS = 0.05


def _nothing() -> None:
    pass


class Background(Generic[Item]):
    """Queues items for a thread. Queueing never blocks: if the queue is full, the item is rejected.

    The thread polls twenty times a second. Waking it for each item, as `logging.handlers.QueueListener` does, would make it
    compete with the thread that answers requests. It starts with the first item, so a process that only starts others has no
    such thread. Any thread may call any method at any time: each item is processed once, in the order of its producer, and
    never two threads process at once.

    Parameters
    ----------
    work
        Called in the thread with the queued items, oldest first. It must not raise.
    max_items
        Maximum length of the queue.
    name
        The thread's name.
    upkeep
        Called in the thread at each poll, also when nothing is queued. It must not raise.
    at_end
        Called in the thread when it ends, after the last item. It must not raise.
    """

    def __init__(
        self,
        work: Callable[[list[Item]], None],
        max_items: int,
        name: str,
        *,
        upkeep: Callable[[], None] = _nothing,
        at_end: Callable[[], None] = _nothing,
    ) -> None:
        self._work = work
        self._max_items = max_items
        self._name = name
        self._upkeep = upkeep
        self._at_end = at_end
        self._items: deque[Item] = deque()
        self._in_work = 0
        self._lock = threading.Lock()  # guards the next two
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def waiting(self) -> int:
        """Number of items that are queued or in work."""
        return len(self._items) + self._in_work

    def put(self, item: Item) -> bool:
        """Queue an item; False if the queue is full."""
        if len(self._items) >= self._max_items:
            return False
        self._items.append(item)
        # Read only after the item is queued: a thread that ends unsets this first and then looks at the queue once more.
        if self._thread is None:
            self.start()
        return True

    def start(self) -> bool:
        """Start the thread unless it runs; False if the system refuses a thread. Then the next item tries again."""
        with self._lock:
            if self._thread is not None:
                return True
            stop = threading.Event()
            thread = threading.Thread(target=self._run, args=(stop,), name=self._name, daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return False
            self._stop, self._thread = stop, thread
            return True

    def close(self, seconds: float = 5.0) -> bool:
        """Process all queued items and end the thread; False if that is impossible or takes longer than `seconds`.

        A later item starts a new thread, but not before this one has ended.
        """
        if self._items and not self.start():
            return False
        with self._lock:
            thread, stop = self._thread, self._stop
        if thread is None:
            return True
        stop.set()
        thread.join(seconds)
        return not thread.is_alive()

    def _run(self, stop: threading.Event) -> None:
        while True:
            stopping = stop.wait(POLL_SECONDS)
            self._drain()
            self._upkeep()
            if stopping and self._has_ended():
                return

    def _has_ended(self) -> bool:
        """Give up writing; False if items arrived meanwhile, which this thread must process as well."""
        with self._lock:
            writer, self._thread = self._thread, None
            if self._items:
                self._thread = writer
                return False
            self._at_end()
            return True

    def _drain(self) -> None:
        batch = [self._items.popleft() for _ in range(len(self._items))]
        if batch:
            self._in_work = len(batch)
            self._work(batch)
            self._in_work = 0
