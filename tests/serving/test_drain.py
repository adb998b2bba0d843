"""What becomes of requests when the service is told to end, and when a worker is killed, under load."""

import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
from tests.serving.running import Running, serving

CLIENTS = 6
ENVIRONMENT = {"CHURN_SERVING_AUTHENTICATION": "off", "BARE_WORKERS": "2", "CHURN_SERVING_DRAIN_SECONDS": "0.5"}


@dataclass
class Load:
    """What callers saw, by their requests' ids: a status, or the kind of failure."""

    seen: dict[str, int | str] = field(default_factory=dict)
    begun: dict[str, float] = field(default_factory=dict)

    def count(self, wanted: Callable[[int | str], bool]) -> int:
        return sum(wanted(seen) for seen in self.seen.values())


@contextmanager
def load(running: Running, seconds: float) -> Iterator[Load]:
    """Callers who ask again as soon as they are answered, over connections that they keep, until the end of the block."""
    told, stop = Load(), threading.Event()

    def call(name: int) -> None:
        number = 0
        with httpx.Client(base_url=running.url, timeout=10) as client:
            while not stop.is_set():
                number += 1
                ident = f"{name}-{number}"
                told.begun[ident] = time.monotonic()
                try:
                    answer = client.post("/predict", json={"seconds": seconds}, headers={"X-Request-ID": ident})
                    told.seen[ident] = answer.status_code
                except httpx.ConnectError:
                    told.seen[ident] = "refused"
                    stop.wait(0.05)
                except httpx.TransportError:
                    told.seen[ident] = "failed"

    threads = [threading.Thread(target=call, args=(name,)) for name in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield told
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def answered(running: Running) -> dict[str, int]:
    """The requests that a worker took, by its own log, and how it answered."""
    lines = [json.loads(line) for line in running.printed().splitlines() if line.startswith("{")]
    return {line["request_id"]: line["status"] for line in lines if line["event"] == "request"}


def test_told_to_end_under_load_it_finishes_every_request_it_took(tmp_path: Path) -> None:
    with serving(tmp_path, ENVIRONMENT) as running:
        with load(running, 0.1) as told:
            time.sleep(0.7)
            running.process.send_signal(signal.SIGTERM)
            time.sleep(0.25)
            ready = httpx.get(f"{running.url}/readyz")
            assert running.process.wait(timeout=20) == 0
        log = answered(running)
    assert ready.status_code == 503
    assert ready.headers["connection"] == "close"
    taken = {ident: status for ident, status in log.items() if ident in told.begun}
    assert len(taken) > 2 * CLIENTS
    assert set(taken.values()) == {200}
    lost = [ident for ident in taken if told.seen[ident] != 200]
    assert lost == [], "a request that a worker took was not answered"
    # A connection that no worker took any more fails; each caller meets that once, and is refused from then on.
    assert told.count(lambda seen: seen == "failed") <= CLIENTS
    assert set(told.seen.values()) <= {200, "failed", "refused"}


def test_told_to_end_it_waits_for_what_is_in_work_however_long_that_takes(tmp_path: Path) -> None:
    with serving(tmp_path, {**ENVIRONMENT, "BARE_WORKERS": "1"}) as running:
        statuses: list[int] = []
        thread = threading.Thread(
            target=lambda: statuses.append(
                httpx.post(f"{running.url}/predict", json={"seconds": 3}, timeout=10).status_code
            )
        )
        thread.start()
        time.sleep(0.5)
        assert running.stop() == 0
        thread.join()
        assert statuses == [200]


def test_a_killed_worker_takes_only_what_it_had_in_work_with_it(tmp_path: Path) -> None:
    with serving(tmp_path, ENVIRONMENT) as running:
        workers = _both(running)
        with load(running, 0.05) as told:
            time.sleep(0.7)
            killed = time.monotonic()
            workers[0].kill()
            time.sleep(1.0)
        statuses = Counter(told.seen.values())
        assert statuses["failed"] <= CLIENTS
        assert set(statuses) <= {200, "failed"}
        after = [told.seen[ident] for ident, begun in told.begun.items() if begun > killed + 0.3]
        assert len(after) > CLIENTS
        assert set(after) == {200}, "the other worker goes on"


def _both(running: Running) -> list[psutil.Process]:
    """Both workers, once either has answered: what no worker has taken yet waits for one that is starting."""
    until = time.monotonic() + 30
    while running.printed().count("initialized") < 2 and time.monotonic() < until:
        time.sleep(0.1)
    workers = running.workers()
    assert len(workers) == 2
    return workers
