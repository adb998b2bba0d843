"""Rate limits in a real Redis that two running services share."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import redis
from tests.serving.running import Running, free_port, serving

from churn_pipeline.serving.keys import make_key

SERVER = shutil.which("redis-server")
KEY, LINE = make_key("crm")
BEARER = {"Authorization": f"Bearer {KEY}"}
PASSWORD = "hunter2hunter2"
LIMIT = 5

# In CI the server must be there: without it, these tests fail instead of being skipped.
pytestmark = pytest.mark.skipif(SERVER is None and "CI" not in os.environ, reason="redis-server is not installed")


class Server:
    """A Redis server on a port of its own, which can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.address = f"async+redis://:{PASSWORD}@127.0.0.1:{self.port}/0"
        self.client = redis.Redis(port=self.port, password=PASSWORD)
        self._folder = folder
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        assert SERVER is not None, "install redis-server"
        command = [SERVER, "--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--requirepass", PASSWORD]
        with (self._folder / "redis.txt").open("ab") as output:
            process = subprocess.Popen([*command, "--dir", str(self._folder)], stdout=output)
        until(self._answers)
        return process

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def start(self) -> None:
        self.process = self._start()


@dataclass
class Two:
    """Two services and the store that they share."""

    store: Server
    services: tuple[Running, Running]

    def ask(self, service: int) -> httpx.Response:
        return httpx.post(f"{self.services[service].url}/predict", json={}, headers=BEARER)

    def status(self, service: int) -> int:
        return self.ask(service).status_code

    def count_again(self) -> None:
        """Wait until both services count in the store, and forget what they counted."""
        for service in range(2):
            self.store.client.flushall()
            until(lambda service=service: self.status(service) and self.store.client.dbsize())  # type: ignore[misc]
        self.store.client.flushall()

    def failures(self, service: int) -> float:
        shown = httpx.get(f"{self.services[service].url}/metrics").text
        lines = [line for line in shown.splitlines() if line.startswith("churn_rate_limit_store_failures_total")]
        return sum(float(line.split()[-1]) for line in lines)


def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "the condition never held"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    store = Server(tmp_path_factory.mktemp("redis"))
    secret = tmp_path_factory.mktemp("secrets") / "store"
    secret.write_text(store.address + "\n")
    environment = {
        "CHURN_SERVING_KEYS": LINE,
        "CHURN_SERVING_RATE_LIMIT": f"{LIMIT}/hour",
        "CHURN_SERVING_RATE_LIMIT_STORE_FILE": str(secret),
    }
    try:
        with (
            serving(tmp_path_factory.mktemp("first"), environment) as first,
            serving(tmp_path_factory.mktemp("second"), environment) as second,
        ):
            yield Two(store, (first, second))
    finally:
        store.kill()


@pytest.fixture
def two(both: Two) -> Two:
    both.count_again()
    return both


def test_two_services_share_one_limit(two: Two) -> None:
    answers = [two.ask(number % 2) for number in range(LIMIT + 2)]
    assert [answer.status_code for answer in answers] == [200] * LIMIT + [429] * 2
    assert answers[0].headers["ratelimit-policy"] == f'"shared";q={LIMIT};w=3600'
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 3600


def test_a_store_that_hangs_admits_uncounted_and_soon(two: Two) -> None:
    assert [two.status(0) for _ in range(LIMIT + 1)] == [200] * LIMIT + [429]
    before = two.failures(0)
    two.store.process.send_signal(signal.SIGSTOP)
    try:
        started = time.monotonic()
        assert [two.status(0) for _ in range(3)] == [200] * 3
        assert time.monotonic() - started < 3
    finally:
        two.store.process.send_signal(signal.SIGCONT)
    assert two.failures(0) == before + 3
    until(lambda: two.status(0) == 429)


def test_a_store_that_is_gone_admits_uncounted_until_it_is_back(two: Two) -> None:
    assert two.status(1) == 200
    two.store.kill()
    started = time.monotonic()
    assert [two.status(1) for _ in range(LIMIT + 3)] == [200] * (LIMIT + 3)
    assert time.monotonic() - started < 3
    two.store.start()
    until(lambda: two.status(1) == 429)
    assert two.status(0) == 429


def test_the_password_of_the_store_is_in_no_log(two: Two) -> None:
    two.store.kill()
    assert two.status(0) == two.status(1) == 200
    two.store.start()
    for service in two.services:
        assert "The rate limit store failed" in service.printed()
        assert PASSWORD not in service.printed()
