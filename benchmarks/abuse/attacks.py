"""The attacks. Each one is a set of endless tasks in a process of its own; see `attacker`."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.abuse.wire import HOST, LOST, Connection, connect_unread, request, wait_until_closed

ELSEWHERE = "127.0.0.2"  # the attacker's address, except where it shares the victim's
FAILURES = (ConnectionError, asyncio.IncompleteReadError)
RETRY_SECONDS = 0.1
LARGE_BYTES = 15_900_000  # just below the default limit of a body
LINE = b"POST /predict HTTP/1.1"
HIGH_LIMIT = {"CHURN_SERVING_RATE_LIMIT": "100000/second"}  # capacity has to protect the victim, not the rate limit
Task = Coroutine[Any, Any, None]


@dataclass(frozen=True)
class Target:
    """The attacked service.

    Attributes
    ----------
    port
        Its port on loopback.
    key
        A valid API key of the attacker.
    customer
        A valid customer.
    answers
        Number of answers by status.
    """

    port: int
    key: str
    customer: Mapping[str, Any]
    answers: Counter[str] = field(default_factory=Counter)

    def body(self, rows: int = 1, size: int = 0) -> bytes:
        """A valid body, padded with spaces to a size."""
        return json.dumps({"customers": [self.customer] * rows}).encode().ljust(size)

    def post(self, path: str = "/predict", rows: int = 1, size: int = 0) -> bytes:
        """A valid request with the attacker's key."""
        return request(path, self.body(rows, size), self.key)


@dataclass(frozen=True)
class Attack:
    """An attack.

    Attributes
    ----------
    title
        What the attacker does.
    tasks
        Its tasks, for a target; none if the attack is only an event.
    environment
        Settings of the attacked service, beside the defaults.
    kills_worker
        Whether one of the service's workers is killed during the measurement.
    """

    title: str
    tasks: Callable[[Target], Sequence[Task]] = lambda _: ()
    environment: Mapping[str, str] = field(default_factory=dict)
    kills_worker: bool = False


async def again(target: Target, once: Callable[[], Task]) -> None:
    """Do something again whenever it ends, also by a closed connection."""
    while True:
        try:
            await once()
        except FAILURES:
            target.answers[LOST] += 1
        await asyncio.sleep(RETRY_SECONDS)


async def send_requests(target: Target, content: bytes, address: str = ELSEWHERE, rate: float = 0) -> None:
    """Send the next request after each answer, or at a rate."""
    connection = await Connection.open(target.port, address)
    clock = asyncio.get_running_loop().time
    due = clock()
    try:
        while connection.is_open:
            target.answers[await connection.ask(content)] += 1
            due += 1 / rate if rate else 0
            await asyncio.sleep(max(0.0, due - clock()) if rate else 0)
    finally:
        connection.close()


async def trickle(target: Target, content: bytes, first: int, seconds: float) -> None:
    """Send the first bytes of a request at once, and one byte of the rest after each pause. Ignore answers."""
    connection = await Connection.open(target.port, ELSEWHERE)

    async def read() -> None:
        while connection.is_open:
            target.answers[await connection.answer()] += 1

    async def write() -> None:
        connection.writer.write(content[:first])
        for byte in content[first:]:
            await asyncio.sleep(seconds)
            connection.writer.write(bytes([byte]))
            await connection.writer.drain()

    tasks = [asyncio.create_task(read()), asyncio.create_task(write())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        connection.close()
        await asyncio.gather(*tasks, return_exceptions=True)


async def send_and_hold(target: Target, content: bytes) -> None:
    """Send bytes as fast as the service takes them, read nothing, and keep the connection until the service closes it."""
    loop = asyncio.get_running_loop()
    with await connect_unread(target.port, ELSEWHERE) as one:
        sending = asyncio.ensure_future(loop.sock_sendall(one, content))
        try:
            await wait_until_closed(one)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
    target.answers["closed by the service"] += 1


async def send_without_end(target: Target, start: bytes, part: bytes) -> None:
    """Send the start of a request, and up to a hundred times per second another part that does not end it."""
    connection = await Connection.open(target.port, ELSEWHERE)
    try:
        connection.writer.write(start)
        while connection.is_open:
            connection.writer.write(part)
            await connection.writer.drain()
            await asyncio.sleep(0.01)
    finally:
        connection.close()


async def come_from_anywhere(target: Target, content: bytes, rate: float) -> None:
    """Send each request from a random address, on a new connection."""
    while True:
        address = f"127.{random.randint(1, 254)}.{random.randint(0, 255)}.{random.randint(1, 254)}"
        connection = await Connection.open(target.port, address)
        try:
            target.answers[await connection.ask(content)] += 1
        finally:
            connection.close()
        await asyncio.sleep(1 / rate)


def _times(number: int, once: Callable[[Target], Task]) -> Callable[[Target], Sequence[Task]]:
    """Tasks that repeat an action on this number of connections."""
    return lambda target: [again(target, lambda: once(target)) for _ in range(number)]


def _slow_body(key: bool) -> Callable[[Target], Task]:
    def once(target: Target) -> Task:
        body = target.body(size=10_000)
        content = request("/predict", body, target.key if key else None)
        return trickle(target, content, len(content) - len(body), 0.1)

    return once


def _sent(number: int, content: Callable[[Target], bytes], **more: Any) -> Callable[[Target], Sequence[Task]]:
    """The same request again and again on this number of connections."""

    def tasks(target: Target) -> Sequence[Task]:
        bytes_ = content(target)
        return [again(target, lambda: send_requests(target, bytes_, **more)) for _ in range(number)]

    return tasks


def _held(number: int, content: Callable[[Target], bytes]) -> Callable[[Target], Sequence[Task]]:
    """The same bytes on this number of connections that read nothing."""

    def tasks(target: Target) -> Sequence[Task]:
        bytes_ = content(target)
        return [again(target, lambda: send_and_hold(target, bytes_)) for _ in range(number)]

    return tasks


def _without_key(target: Target) -> bytes:
    return request("/predict", target.body())


def _empty_customers(target: Target) -> bytes:
    return request("/predict", json.dumps({"customers": [{}] * 10_000}, separators=(",", ":")).encode(), target.key)


ATTACKS: Mapping[str, Attack] = {
    "none": Attack("none, for comparison"),
    "slow_bodies": Attack("slow bodies: 96 senders at 10 B/s, with a key", _times(96, _slow_body(key=True))),
    "slow_bodies_no_key": Attack("slow bodies: 96 senders at 10 B/s, without a key", _times(96, _slow_body(key=False))),
    "slow_heads": Attack(
        "slow heads: 500 senders at 1 B/s", _times(500, lambda target: trickle(target, target.post(), 1, 1.0))
    ),
    "endless_heads": Attack(
        "endless heads: 20 senders at 1 MB/s, without a key",
        _times(20, lambda target: send_without_end(target, LINE + b"\r\n", b"X-Long: " + b"a" * 10_000 + b"\r\n")),
    ),
    "endless_paths": Attack(
        "endless paths: 4 senders at 5 MB/s, without a key",
        _times(4, lambda target: send_without_end(target, b"GET /", b"a" * 50_000)),
    ),
    "idle_connections": Attack("500 idle connections", _held(500, lambda _: b"")),
    "pipelining": Attack(
        "pipelining: 2,000 GET /docs on each of 5 connections, answers never read",
        _held(5, lambda _: request("/docs") * 2_000),
    ),
    "more_pipelining": Attack(
        "more pipelining: the same on 50 connections",
        _held(50, lambda _: request("/docs") * 2_000),
    ),
    "unread_answers": Attack(
        "unread answers: 3 × 3,000 customers pipelined on each of 96 connections",
        _held(96, lambda target: target.post(rows=3_000) * 3),
        HIGH_LIMIT,
    ),
    "flood_same_address": Attack(
        "flood without key from the victim's address: 1,000/s", _sent(20, _without_key, address=HOST, rate=50)
    ),
    "flood_many_addresses": Attack(
        "flood without key from random addresses: up to 1,000/s",
        _times(20, lambda target: come_from_anywhere(target, _without_key(target), 50)),
    ),
    "greedy_above_limit": Attack("greedy key above its rate limit: single customers", _sent(64, Target.post)),
    "greedy_single": Attack("greedy key: single customers", _sent(64, Target.post), HIGH_LIMIT),
    "greedy_rows": Attack(
        "greedy key: 10,000 customers per request, 8 at once", _sent(8, lambda t: t.post(rows=10_000)), HIGH_LIMIT
    ),
    "large_bodies": Attack(
        "greedy key: 16 bodies of 16 MB per second", _sent(16, lambda t: t.post(size=LARGE_BYTES), rate=1), HIGH_LIMIT
    ),
    "held_bodies": Attack(
        "96 bodies of 16 MB, each without its last byte", _held(96, lambda t: t.post(size=LARGE_BYTES)[:-1]), HIGH_LIMIT
    ),
    "explanations": Attack("greedy key: 90 explanations at once", _sent(90, lambda t: t.post("/explain")), HIGH_LIMIT),
    "large_explanations": Attack(
        "greedy key: explanations of 100 customers, 8 at once", _sent(8, lambda t: t.post("/explain", 100)), HIGH_LIMIT
    ),
    "empty_customers": Attack("greedy key: `{}` × 10,000, 4 at once", _sent(4, _empty_customers), HIGH_LIMIT),
    "killed_worker": Attack(
        "kill -9 of one of two workers", environment={"CHURN_SERVING_WORKERS": "2"}, kills_worker=True
    ),
}
