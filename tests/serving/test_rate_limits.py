"""Rate limits: the sliding window, its bounds, and a store that fails or hangs."""

import asyncio
import time
from collections import deque
from collections.abc import Coroutine
from typing import Any

import limits
import pytest
from hypothesis import given
from hypothesis import settings as options
from hypothesis import strategies as st
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from limits.errors import StorageError
from tests.serving.log_lines import Lines
from tests.serving.test_guards import JSON, Service, lines

from churn_pipeline.serving import rate_limits
from churn_pipeline.serving.rate_limits import LocalLimit

__all__ = ["lines"]
SHARED = {"rate_limit_store": "async+memory://shared"}


class Clock:
    """A clock that tests set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def result_of(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Result of a coroutine that does not wait; an event loop for each would take too long."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("the coroutine waits")


def hit(limit: LocalLimit, caller: str = "a") -> bool:
    return bool(result_of(limit.hit(caller)))


def test_no_double_burst_fits_around_the_edge_of_a_window() -> None:
    clock = Clock()
    limit = LocalLimit(limits.parse("100/minute"), clock)
    clock.now = 59.9
    assert sum(hit(limit) for _ in range(200)) == 100
    clock.now = 60.1
    assert sum(hit(limit) for _ in range(200)) <= 1
    clock.now = 90.0
    assert 45 <= sum(hit(limit) for _ in range(200)) <= 50
    clock.now = 1_000.0
    assert sum(hit(limit) for _ in range(200)) == 100


@options(deadline=None)
@given(st.lists(st.floats(0.0, 20.0), min_size=1, max_size=150), st.integers(1, 10))
def test_no_span_of_a_window_has_more_than_one_and_a_half_times_the_limit(gaps: list[float], amount: int) -> None:
    clock = Clock()
    limit = LocalLimit(limits.parse(f"{amount}/minute"), clock)
    recent: deque[float] = deque()
    for gap in gaps:
        clock.now += gap
        if hit(limit):
            recent.append(clock.now)
        while recent and recent[0] <= clock.now - 60:
            recent.popleft()
        assert len(recent) <= 1.5 * amount + 1


@options(deadline=None)
@given(st.lists(st.floats(0.0, 30.0), min_size=1, max_size=60), st.integers(1, 5))
def test_a_refused_caller_is_admitted_after_the_seconds_that_it_is_told(gaps: list[float], amount: int) -> None:
    clock = Clock()
    limit = LocalLimit(limits.parse(f"{amount}/minute"), clock)
    for gap in gaps:
        clock.now += gap
        if not hit(limit):
            seconds = result_of(limit.retry_seconds("a"))
            assert 1 <= seconds <= 61
            clock.now += seconds + 0.001
            assert hit(limit)


def test_callers_count_separately_and_those_beyond_the_tracked_number_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "MAX_TRACKED", 3)
    limit = LocalLimit(limits.parse("2/minute"), Clock())
    assert [hit(limit, caller) for caller in "aabbcc"] == [True] * 6
    assert [hit(limit, caller) for caller in "defg"] == [True, True, False, False]
    assert not hit(limit, "a")
    assert len(limit._current) == 4


def test_a_refusal_is_fast_with_thirty_thousand_addresses() -> None:
    async def story() -> float:
        limit = LocalLimit(limits.parse("1/minute"))
        for address in range(30_000):
            await limit.hit(str(address))
        begin = time.perf_counter()
        for address in range(1_000):
            assert not await limit.hit(str(address))
            await asyncio.sleep(0)  # work that the limit leaves to the event loop counts too
        return (time.perf_counter() - begin) / 1_000

    assert asyncio.run(story()) < 0.001  # 2 microseconds; the scan of all addresses took 1 to 10 ms


# --- a shared store ---------------------------------------------------------------------------------------------------


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store of this process counts as a shared one."""
    monkeypatch.setattr("churn_pipeline.serving.settings.Settings.rate_limit_is_shared", True)


@pytest.mark.usefixtures("shared")
def test_a_shared_store_counts_with_a_sliding_window() -> None:
    async def story(service: Service) -> list[int]:
        return [(await service.send()).status for _ in range(4)]

    service = Service(rate_limit="3/minute", **SHARED)
    assert asyncio.run(story(service)) == [200, 200, 200, 429]
    answer = service.request()
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert answer.headers["ratelimit-policy"] == '"shared";q=3;w=60'


@pytest.mark.usefixtures("shared")
def test_a_failing_store_admits_uncounted_and_is_counted_and_logged_once(
    monkeypatch: pytest.MonkeyPatch, lines: Lines
) -> None:
    async def fails(*_: Any, **__: Any) -> bool:
        raise StorageError(ConnectionError("redis://user:hunter2@host"))

    monkeypatch.setattr(SlidingWindowCounterRateLimiter, "hit", fails)
    monkeypatch.setattr(rate_limits, "PAUSE_SECONDS", 0.0)
    service = Service(**SHARED)
    assert [service.request().status for _ in range(3)] == [200, 200, 200]
    assert service.request(headers=JSON).status == 401
    assert service.metric("churn_rate_limit_store_failures_total") == 4
    errors = [line for line in lines() if line["level"] == "error"]
    assert len(errors) == 1
    assert "hunter2" not in str(errors)


@pytest.mark.usefixtures("shared")
def test_a_hanging_store_admits_after_its_time_limit_and_is_not_asked_for_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    async def hangs(*_: Any, **__: Any) -> bool:
        asked.append(1)
        await asyncio.sleep(60)
        return True

    async def story(service: Service) -> tuple[list[int], float]:
        begin = time.monotonic()
        return [(await service.send()).status for _ in range(20)], time.monotonic() - begin

    monkeypatch.setattr(SlidingWindowCounterRateLimiter, "hit", hangs)
    service = Service(**SHARED)
    statuses, seconds = asyncio.run(story(service))
    assert statuses == [200] * 20
    assert len(asked) == 1
    assert 0.25 <= seconds < 1
    assert service.metric("churn_rate_limit_store_failures_total") == 20


@pytest.mark.usefixtures("shared")
def test_retry_after_is_the_whole_window_if_the_store_fails_after_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(*_: Any, **__: Any) -> bool:
        return False

    async def fails(*_: Any, **__: Any) -> bool:
        raise StorageError(ConnectionError())

    monkeypatch.setattr(SlidingWindowCounterRateLimiter, "hit", full)
    monkeypatch.setattr(SlidingWindowCounterRateLimiter, "get_window_stats", fails)
    answer = Service(rate_limit="5/hour", **SHARED).request()
    assert (answer.status, answer.headers["retry-after"], answer.code) == (429, "3600", "rate_limited")
