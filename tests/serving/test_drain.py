"""Outcome of requests under load when the service gets SIGTERM, and when a worker is killed."""

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
    """What clients received, by request id: a status or the kind of failure."""

    seen: dict[str, int | str] = field(default_factory=dict)
    begun: dict[str, float] = field(default_factory=dict)

    def count(self, wanted: Callable[[int | str], bool]) -> int:
        return sum(wanted(seen) for seen in self.seen.values())


@contextmanager
def load(running: Running, seconds: float) -> Iterator[Load]:
    """Closed-loop clients with persistent connections, until the end of the block."""
    result, stop = Load(), threading.Event()

    def call(name: int) -> None:
        number = 0
        with httpx.Client(base_url=running.url, timeout=10) as client:
            while not stop.is_set():
                number += 1
                ident = f"{name}-{number}"
                result.begun[ident] = time.monotonic()
                try:
                    answer = client.post("/predict", json={"seconds": seconds}, headers={"X-Request-ID": ident})
                    result.seen[ident] = answer.status_code
                except httpx.ConnectError:
                    result.seen[ident] = "refused"
                    stop.wait(0.05)
                except httpx.TransportError:
                    result.seen[ident] = "failed"

    threads = [threading.Thread(target=call, args=(name,)) for name in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield result
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def answered(running: Running) -> dict[str, int]:
    """Status by the caller's request id, from the service's own log."""
    lines = [json.loads(line) for line in running.printed().splitlines() if line.startswith("{")]
    return {line.get("caller_request_id", ""): line["status"] for line in lines if line["event"] == "request"}


def test_after_sigterm_under_load_every_accepted_request_is_answered(tmp_path: Path) -> None:
    with serving(tmp_path, ENVIRONMENT) as running:
        with load(running, 0.1) as result:
            time.sleep(0.7)
            running.process.send_signal(signal.SIGTERM)
            time.sleep(0.25)
            ready = httpx.get(f"{running.url}/readyz")
            assert running.process.wait(timeout=20) == 0
        log = answered(running)
    assert ready.status_code == 503
    assert ready.headers["connection"] == "close"
    taken = {ident: status for ident, status in log.items() if ident in result.begun}
    assert len(taken) > 2 * CLIENTS
    assert set(taken.values()) == {200}
    lost = [ident for ident in taken if result.seen[ident] != 200]
    assert lost == [], "an accepted request was not answered"
    # A connection that no worker accepts any more fails once per client; later ones are refused.
    assert result.count(lambda seen: seen == "failed") <= CLIENTS
    assert set(result.seen.values()) <= {200, "failed", "refused"}


def test_after_sigterm_it_waits_for_long_requests(tmp_path: Path) -> None:
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


def test_a_killed_worker_loses_only_its_own_requests(tmp_path: Path) -> None:
    with serving(tmp_path, ENVIRONMENT) as running:
        workers = _both(running)
        with load(running, 0.05) as result:
            time.sleep(0.7)
            killed = time.monotonic()
            workers[0].kill()
            time.sleep(1.0)
        statuses = Counter(result.seen.values())
        assert statuses["failed"] <= CLIENTS
        assert set(statuses) <= {200, "failed"}
        after = [result.seen[ident] for ident, begun in result.begun.items() if begun > killed + 0.3]
        assert len(after) > CLIENTS
        assert set(after) == {200}, "the other worker must keep answering"


def _both(running: Running) -> list[psutil.Process]:
    """Wait until both workers have started, because new connections would wait for a starting one."""
    until = time.monotonic() + 30
    while running.printed().count("initialized") < 2 and time.monotonic() < until:
        time.sleep(0.1)
    workers = running.workers()
    assert len(workers) == 2
    return workers
