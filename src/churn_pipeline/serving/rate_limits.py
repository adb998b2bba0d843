"""Rate limits with a sliding window, in this process or in a shared store.

Both count as a sliding window counter does: the hits of the current window, plus those of the previous window multiplied by the
share of it that the last W seconds still cover. No double burst fits around the edge of a window. A refused request is not
counted.

A shared store has a quarter of a second to answer. If it fails or is slower, requests are admitted uncounted for a second, then
the store is asked again: rate limits protect capacity, keys protect access.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from typing import Protocol

import limits
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from limits.errors import StorageError
from pydantic import SecretStr

from churn_pipeline.serving.rate_limit_store import STORE_SECONDS, open_store
from churn_pipeline.serving.settings import Settings

logger = logging.getLogger(__name__)

MAX_TRACKED = 20_000  # callers per window; further callers share one count
PAUSE_SECONDS = 1.0
ERROR_LOG_SECONDS = 60.0
OTHERS = ""


class RateLimit(Protocol):
    """A maximum rate per caller."""

    async def hit(self, caller: str) -> bool:
        """Count a request of a caller; False, and nothing is counted, if it exceeds the limit."""

    async def retry_seconds(self, caller: str) -> int:
        """Whole seconds until a refused caller may try again, at least one."""


class LocalLimit:
    """A rate limit of this process. Time and memory are bounded: two dicts are exchanged when a window ends.

    Parameters
    ----------
    limit
        Number of requests and length of the window.
    clock
        Monotonic clock, in seconds.
    """

    def __init__(self, limit: limits.RateLimitItem, clock: Callable[[], float] = time.monotonic) -> None:
        self._amount, self._seconds, self._clock = limit.amount, limit.get_expiry(), clock
        self._window = -1
        self._current: dict[str, int] = {}
        self._previous: dict[str, int] = {}

    async def hit(self, caller: str) -> bool:
        """Count a request; see `RateLimit`."""
        elapsed = self._advance()
        caller = self._tracked(caller)
        count = self._current.get(caller, 0)
        if count + self._previous.get(caller, 0) * (1 - elapsed) >= self._amount:
            return False
        self._current[caller] = count + 1
        return True

    async def retry_seconds(self, caller: str) -> int:
        """Seconds until a request is within the limit; see `RateLimit`."""
        elapsed = self._advance()
        caller = self._tracked(caller)
        free, previous = self._amount - self._current.get(caller, 0), self._previous.get(caller, 0)
        until = 1.0 if free <= 0 or not previous else 1 - free / previous
        return max(1, math.ceil((until - elapsed) * self._seconds))

    def _tracked(self, caller: str) -> str:
        return caller if caller in self._current or len(self._current) < MAX_TRACKED else OTHERS

    def _advance(self) -> float:
        """Start a new window if one has ended; return the elapsed share of the current one."""
        now = self._clock() / self._seconds
        window = math.floor(now)
        if window != self._window:
            self._previous = self._current if window == self._window + 1 else {}
            self._current = {}
            self._window = window
        return now - window


class SharedStore:
    """A store of the library `limits` that several workers share, and its failures.

    Parameters
    ----------
    address
        Address of the store, such as ``async+redis://host:6379``, with its password.
    on_failure
        Called for each request that the store did not count.
    """

    def __init__(self, address: SecretStr, on_failure: Callable[[], None]) -> None:
        self.limiter = SlidingWindowCounterRateLimiter(open_store(address))
        self._on_failure = on_failure
        self._error_logged = self._failed = -math.inf

    async def hit(self, limit: limits.RateLimitItem, name: str, caller: str) -> bool:
        """Count a request, or admit it uncounted if the store fails or is slow."""
        if time.monotonic() - self._failed < PAUSE_SECONDS:
            self._on_failure()
            return True
        try:
            async with asyncio.timeout(STORE_SECONDS):
                return await self.limiter.hit(limit, name, caller)
        except (StorageError, TimeoutError) as error:
            self._failed = time.monotonic()
            self._on_failure()
            self._log(error)
            return True

    async def reset_time(self, limit: limits.RateLimitItem, name: str, caller: str) -> float:
        """Unix time at which a refused caller may try again; after the whole window if the store fails."""
        try:
            async with asyncio.timeout(STORE_SECONDS):
                return (await self.limiter.get_window_stats(limit, name, caller)).reset_time
        except (StorageError, TimeoutError):
            return time.time() + limit.get_expiry()

    def _log(self, error: StorageError | TimeoutError) -> None:
        if time.monotonic() - self._error_logged >= ERROR_LOG_SECONDS:
            self._error_logged = time.monotonic()
            cause = error.storage_error if isinstance(error, StorageError) else error
            logger.error("The rate limit store failed or was slow: requests are allowed uncounted", exc_info=cause)


class SharedLimit:
    """A rate limit in a shared store.

    Parameters
    ----------
    limit
        Number of requests and length of the window.
    store
        The store.
    name
        Name of the limit in the store.
    """

    def __init__(self, limit: limits.RateLimitItem, store: SharedStore, name: str) -> None:
        self._limit, self._store, self._name = limit, store, name

    async def hit(self, caller: str) -> bool:
        """Count a request; see `RateLimit`."""
        return await self._store.hit(self._limit, self._name, caller)

    async def retry_seconds(self, caller: str) -> int:
        """Seconds until a request is within the limit; see `RateLimit`."""
        reset = await self._store.reset_time(self._limit, self._name, caller)
        return max(1, math.ceil(reset - time.time()))


def rate_limits(settings: Settings, on_failure: Callable[[], None]) -> tuple[RateLimit, RateLimit]:
    """The limit per key name, and the limit of invalid attempts per address.

    Parameters
    ----------
    settings
        The service's settings.
    on_failure
        Called for each request that a shared store did not count.
    """
    per_key, per_address = limits.parse(settings.rate_limit), limits.parse(settings.failure_limit)
    if not settings.rate_limit_is_shared:
        return LocalLimit(per_key), LocalLimit(per_address)
    store = SharedStore(settings.rate_limit_store, on_failure)
    return SharedLimit(per_key, store, "key"), SharedLimit(per_address, store, "address")
