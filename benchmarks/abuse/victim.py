"""The victim: a well-behaved caller that sends requests at a constant rate and waits for each answer."""

import asyncio
import gc
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from benchmarks.abuse.wire import LOST, NO_ANSWER, REFUSED, Connection

CONNECTIONS = 48
ANSWER_SECONDS = (
    20.0  # the patience of the victim, twice the service's time limit; a request without an answer counts as this long
)


@dataclass
class Outcome:
    """Outcomes of requests by status, and the seconds from the due time of each request to its answer."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)

    def milliseconds(self, percentile: float) -> float:
        """A percentile of the time to an answer; infinity if there is no answer."""
        return float(np.percentile(self.seconds, percentile)) * 1000 if self.seconds else float("inf")


class _Pool:
    """Connections that are kept open between requests. The last one used is the next one, so that few of them are in use."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[Connection] = []

    async def ask(self, content: bytes) -> str:
        """Status of the answer, or `REFUSED` or `LOST`."""
        try:
            connection = self._take() or await Connection.open(self._port)
            try:
                status = await connection.ask(content)
            except BaseException:
                connection.close()
                raise
        except ConnectionRefusedError:
            return REFUSED
        except (ConnectionError, asyncio.IncompleteReadError):
            return LOST
        self._idle.append(connection)
        return status

    def _take(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
            connection.close()
        return None

    def close(self) -> None:
        for connection in self._idle:
            connection.close()


async def constant_rate(port: int, content: bytes, rate: float, seconds: float) -> Outcome:
    """Send one request again and again, independently of the answers.

    Parameters
    ----------
    port
        Port of the service on loopback.
    content
        The bytes of the request.
    rate
        Requests per second.
    seconds
        Duration. The function returns when every request has an answer or none is expected any more.
    """
    outcome, pool, turns = Outcome(), _Pool(port), asyncio.Semaphore(CONNECTIONS)
    clock = asyncio.get_running_loop().time
    begin = clock()

    async def one(due: float) -> None:
        status = NO_ANSWER
        with suppress(TimeoutError):
            async with asyncio.timeout_at(due + ANSWER_SECONDS), turns:
                status = await pool.ask(content)
        outcome.statuses[status] += 1
        if status not in (REFUSED, LOST):
            outcome.seconds.append(clock() - due)

    gc.disable()
    try:
        async with asyncio.TaskGroup() as group:
            for number in range(int(rate * seconds)):
                due = begin + number / rate
                await asyncio.sleep(max(0.0, due - clock()))
                group.create_task(one(due))
    finally:
        gc.enable()
        pool.close()
    return outcome
