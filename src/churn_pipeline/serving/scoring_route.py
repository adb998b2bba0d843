"""Scoring inside the guard: which requests run on the event loop, which in a thread, and whose turn it is.

Small requests run on the event loop, a few between two reads of the network, and fairly over callers. Large ones and
explanations run in threads of their own, so neither waits for the other.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import NoReturn, Protocol

from churn_pipeline.serving.capacity import Commitment, FairTurns, QueueFullError, Threads, always
from churn_pipeline.serving.metrics import Metrics
from churn_pipeline.serving.refusals import Refusal, busy
from churn_pipeline.serving.request_context import RequestContext
from churn_pipeline.serving.settings import Settings

# A request within these limits (about fifty customers) blocks the event loop only briefly.
MAX_INLINE_BYTES = 32_768
MAX_INLINE_OBJECTS = 64
MAX_INLINE_COMMAS = 2_000
# Small requests that may run before the network is read again: 1 to 2 ms of work. One at a time, most would wait for a turn.
TURNS_ON_LOOP = 8
BYTES_PER_TURN = 65_536  # about a hundred customers

Answer = tuple[int, bytes]
Commit = Callable[[], bool]
Work = Callable[[bytes, str, Commit], Answer]


class Predictor(Protocol):
    """What answers scoring requests. Both methods return the number of customers and the answer as JSON.

    They call ``commit`` when the answer is complete. If it is False, they count and log nothing and raise
    `churn_pipeline.serving.capacity.Abandoned`.
    """

    def predict(self, body: bytes, request_id: str, commit: Commit = always) -> Answer:
        """Score the customers of a request."""

    def explain(self, body: bytes, request_id: str, commit: Commit = always) -> Answer:
        """Score and explain the customers of a request."""


class ScoringRoute:
    """The turns and threads of one worker.

    Parameters
    ----------
    predictor
        What answers; None if the application inside the guard does, for tests.
    settings
        The service's settings.
    metrics
        The service's metrics.
    """

    def __init__(self, predictor: Predictor | None, settings: Settings, metrics: Metrics) -> None:
        self._predictor = predictor
        self._seconds = settings.request_seconds
        self._metrics = metrics
        self._inline = FairTurns(TURNS_ON_LOOP, settings.queue)
        self._threads = {
            path: Threads(settings.concurrency, settings.queue, path.strip("/")) for path in ("/predict", "/explain")
        }

    async def answer(self, context: RequestContext, body: bytes) -> Answer:
        """Number of customers and answer of a request.

        Raises
        ------
        Refusal
            503 if too many requests wait or the turn came too late; 504 if scoring takes too long.
        RequestError
            If the request is invalid.
        """
        assert self._predictor is not None
        if context.path == "/explain":
            return await self._in_thread(context, self._predictor.explain, body)
        if is_small(body):
            return await self._on_loop(context, self._predictor.predict, body)
        return await self._in_thread(context, self._predictor.predict, body)

    async def _on_loop(self, context: RequestContext, work: Work, body: bytes) -> Answer:
        if not self._inline.enter_now(context.caller):
            try:
                await self._wait(self._inline, context, 1, context.seconds_left(self._seconds))
            except TimeoutError:
                self._raise_too_slow(context)
        # A turn is returned after the network has been read, so that the turns are fair over all callers.
        asyncio.get_running_loop().call_soon(self._inline.leave)
        context.stage = "work"
        return work(body, context.id, always)

    async def _in_thread(self, context: RequestContext, work: Work, body: bytes) -> Answer:
        threads, commitment = self._threads[context.path], Commitment()
        try:
            async with self._deadline(context):
                await self._wait(threads.turns, context, cost_of(context, body))
                result = threads.start(partial(work, body, context.id, commitment.commit))
                return await asyncio.shield(result)
        except (Refusal, asyncio.CancelledError):
            if commitment.abandon():
                raise
            return await result

    @asynccontextmanager
    async def turn(self, context: RequestContext, body: bytes) -> AsyncIterator[None]:
        """A turn for a request that the application inside the guard answers."""
        turns = self._threads[context.path].turns
        async with self._deadline(context):
            await self._wait(turns, context, cost_of(context, body))
            try:
                yield
            finally:
                turns.leave()

    async def _wait(self, turns: FairTurns, context: RequestContext, cost: int, seconds: float | None = None) -> None:
        context.stage = "queue"
        try:
            await turns.enter(context.caller, cost, seconds)
        except QueueFullError:
            self._metrics.shed()
            raise busy() from None
        context.stage = "work"

    @asynccontextmanager
    async def _deadline(self, context: RequestContext) -> AsyncIterator[None]:
        deadline = asyncio.timeout(context.seconds_left(self._seconds))
        try:
            async with deadline:
                yield
        except TimeoutError:
            if deadline.expired():
                self._raise_too_slow(context)
            raise

    def _raise_too_slow(self, context: RequestContext) -> NoReturn:
        if context.stage == "queue":
            self._metrics.timed_out("queue")
            raise busy() from None
        raise Refusal("too_slow", f"The request took longer than {self._seconds:g} seconds.") from None


def is_small(body: bytes) -> bool:
    """Whether a prediction is small enough for the event loop, even if every part of it is invalid."""
    return (
        len(body) <= MAX_INLINE_BYTES
        and body.count(b"{") <= MAX_INLINE_OBJECTS
        and body.count(b",") <= MAX_INLINE_COMMAS
    )


def cost_of(context: RequestContext, body: bytes) -> int:
    """Cost of a request in turns: an explanation's work grows with its customers, a prediction's with its bytes."""
    return max(1, body.count(b"{") - 1) if context.path == "/explain" else 1 + len(body) // BYTES_PER_TURN
