"""Turns: fair over callers, kept until the work has ended, and never lost."""

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import settings as options
from hypothesis import strategies as st

from churn_pipeline.serving.capacity import Commitment, FairTurns, QueueFullError, Threads


async def wait_in_line(turns: FairTurns, order: list[str], caller: str, cost: int = 1) -> None:
    await turns.enter(caller, cost)
    order.append(caller)


async def let_others_run() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def served(turns: FairTurns, waiting: list[tuple[str, int]]) -> str:
    """The order in which requests that wait together get the only turn."""
    order: list[str] = []
    assert turns.enter_now("running")
    tasks = [asyncio.create_task(wait_in_line(turns, order, caller, cost)) for caller, cost in waiting]
    await let_others_run()
    while len(order) < len(waiting):
        turns.leave()
        await let_others_run()
    turns.leave()
    await asyncio.gather(*tasks)
    return "".join(order)


def test_callers_take_turns() -> None:
    waiting = [("a", 1)] * 6 + [("b", 1)] * 2 + [("c", 1)]
    assert asyncio.run(served(FairTurns(1, 100), waiting)) == "abcabaaaa"


def test_a_caller_of_large_requests_gets_fewer_turns() -> None:
    waiting = [("a", 3)] * 3 + [("b", 1)] * 6
    assert asyncio.run(served(FairTurns(1, 100), waiting)) == "abbbabbba"


def test_a_single_caller_may_have_all_turns() -> None:
    turns = FairTurns(2, 0)
    assert turns.enter_now("a")
    assert turns.enter_now("a")
    assert not turns.enter_now("a")


def test_if_too_many_wait_the_newest_of_the_caller_with_the_most_is_refused() -> None:
    async def story() -> tuple[list[str], list[str]]:
        turns, order = FairTurns(1, 3), []
        turns.enter_now("running")
        tasks = {
            name: asyncio.create_task(wait_in_line(turns, order, name[0])) for name in ("a1", "a2", "a3", "a4", "b1")
        }
        await let_others_run()
        for _ in range(3):
            turns.leave()
            await let_others_run()
        found = await asyncio.gather(*tasks.values(), return_exceptions=True)
        return order, [name for name, result in zip(tasks, found, strict=True) if isinstance(result, QueueFullError)]

    assert asyncio.run(story()) == (["a", "b", "a"], ["a3", "a4"])


def test_a_turn_that_comes_too_late_is_not_taken() -> None:
    async def story() -> None:
        turns = FairTurns(1, 100)
        turns.enter_now("running")
        late = asyncio.create_task(turns.enter("a", seconds=0))
        with pytest.raises(TimeoutError):
            await late
        patient = asyncio.create_task(turns.enter("b", seconds=60))
        await let_others_run()
        turns.leave()
        await patient
        assert turns.free == 0
        turns.leave()
        assert turns.free == 1

    asyncio.run(story())


@options(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["enter", "return", "cancel"]), st.sampled_from("abc"), st.integers(1, 5)),
        max_size=60,
    ),
    st.integers(1, 3),
    st.integers(0, 6),
)
def test_no_turn_is_lost_or_given_twice(steps: list[tuple[str, str, int]], slots: int, max_waiting: int) -> None:
    async def story() -> None:
        turns = FairTurns(slots, max_waiting)
        waiting: list[asyncio.Task[None]] = []
        given_turns = 0
        for step, caller, number in steps:
            if step == "enter":
                waiting.append(asyncio.create_task(turns.enter(caller, number)))
            elif step == "return" and given_turns:
                turns.leave()
                given_turns -= 1
            elif waiting:  # cancelled in the same moment in which another step may give it a turn
                waiting[number % len(waiting)].cancel()
            if number % 2:
                await let_others_run()
            done = [task for task in waiting if task.done()]
            given_turns += sum(not task.cancelled() and task.exception() is None for task in done)
            waiting = [task for task in waiting if not task.done()]
            assert given_turns <= slots
        await let_others_run()
        given_turns += sum(task.done() and not task.cancelled() and task.exception() is None for task in waiting)
        waiting = [task for task in waiting if not task.done()]
        assert not waiting or given_turns == slots, "nobody waits while a turn is free"
        for task in waiting:
            task.cancel()
        await let_others_run()
        for _ in range(given_turns):
            turns.leave()
        assert turns.free == slots

    asyncio.run(story())


def test_a_turn_ends_when_its_thread_has_ended() -> None:
    async def story() -> list[int]:
        threads, go_on, free = Threads(1, 0, "test"), threading.Event(), []
        await threads.turns.enter("a")
        task = asyncio.ensure_future(threads.start(go_on.wait))
        await asyncio.sleep(0.01)
        task.cancel()
        await let_others_run()
        free.append(threads.turns.free)
        go_on.set()
        async with asyncio.timeout(5):
            while not threads.turns.free:
                await asyncio.sleep(0.001)
        free.append(threads.turns.free)
        return free

    assert asyncio.run(story()) == [0, 1]


@pytest.mark.parametrize("first", ["commit", "abandon"])
def test_a_result_is_either_used_or_abandoned(first: str) -> None:
    commitment = Commitment()
    if first == "commit":
        assert commitment.commit()
        assert not commitment.abandon()
    else:
        assert commitment.abandon()
        assert not commitment.commit()
