import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from churn_pipeline.serving.background import Background

PRODUCERS, ITEMS = 4, 3_000


class Recorder:
    """Work that records each item, the writing thread, and whether two threads ever wrote at once."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []
        self.two_at_once = False
        self._alone = threading.Lock()

    def write(self, batch: list[tuple[int, int]]) -> None:
        if not self._alone.acquire(blocking=False):
            self.two_at_once = True
            return
        self.seen += batch
        self._alone.release()


@pytest.fixture
def frequent_switches() -> Iterator[None]:
    """Let threads take turns every few instructions, so that races show."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def run_all(*functions: Callable[[], object]) -> None:
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def test_everything_arrives_in_order_from_one_thread() -> None:
    seen: list[tuple[int, int]] = []
    background = Background[int](lambda batch: seen.extend((item, threading.get_ident()) for item in batch), 1_000, "x")
    for item in range(100):
        assert background.put(item)
        if item == 50:
            time.sleep(0.12)
    assert background.close()
    assert [item for item, _ in seen] == list(range(100))
    assert len({ident for _, ident in seen} - {threading.get_ident()}) == 1


@pytest.mark.usefixtures("frequent_switches")
def test_each_item_is_written_once_and_in_order_while_others_put_and_close() -> None:
    recorder = Recorder()
    background = Background(recorder.write, PRODUCERS * ITEMS, "x")
    producing = threading.Event()
    producing.set()

    def produce(producer: int) -> None:
        for item in range(ITEMS):
            assert background.put((producer, item))

    def close_repeatedly() -> None:
        while producing.is_set():
            closed.append(background.close())

    closed: list[bool] = []
    closers = [threading.Thread(target=close_repeatedly) for _ in range(2)]
    for closer in closers:
        closer.start()
    run_all(*(partial(produce, number) for number in range(PRODUCERS)))
    producing.clear()
    for closer in closers:
        closer.join(10)
    assert background.close()
    assert all(closed)
    assert not recorder.two_at_once
    for producer in range(PRODUCERS):
        assert [item for one, item in recorder.seen if one == producer] == list(range(ITEMS))
    assert background.waiting == 0


def test_an_item_put_during_a_close_does_not_end_the_writing() -> None:
    recorder = Recorder()
    background = Background(recorder.write, 100, "x")
    for item in range(3):
        background.put((0, item))
    closing = threading.Thread(target=background.close)
    closing.start()
    while closing.is_alive():
        background.put((0, len(recorder.seen)))
    background.put((1, 0))
    assert background.close()
    assert recorder.seen[-1] == (1, 0)


@pytest.mark.usefixtures("frequent_switches")
def test_first_items_of_several_threads_start_one_writer() -> None:
    for _ in range(50):
        before = threading.active_count()
        recorder = Recorder()
        background = Background(recorder.write, 100, "writer-of-this-test")
        run_all(*(partial(background.put, (number, 0)) for number in range(8)))
        writers = [thread for thread in threading.enumerate() if thread.name == "writer-of-this-test"]
        assert len(writers) <= 1
        assert background.close()
        assert len(recorder.seen) == 8
        assert threading.active_count() == before


def test_no_second_writer_starts_while_the_first_is_stuck() -> None:
    recorder, started, release = Recorder(), threading.Event(), threading.Event()

    def work(batch: list[tuple[int, int]]) -> None:
        started.set()
        release.wait(10)
        recorder.write(batch)

    background = Background(work, 10, "stuck-writer")
    background.put((0, 0))
    assert started.wait(5)
    assert not background.close(seconds=0.05)
    background.put((0, 1))
    assert [thread.name for thread in threading.enumerate()].count("stuck-writer") == 1
    assert background.waiting == 2
    release.set()
    assert background.close()
    assert recorder.seen == [(0, 0), (0, 1)]


def test_no_thread_is_started_before_the_first_item() -> None:
    before = threading.active_count()
    background = Background[int](lambda _: None, 10, "x")
    assert threading.active_count() == before
    background.close()
    background.put(1)
    assert threading.active_count() == before + 1
    background.close()
    assert threading.active_count() == before


def test_if_no_thread_can_start_the_next_item_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    seen: list[int] = []
    background = Background[int](seen.extend, 10, "x")
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", fails)
        assert background.put(1)
        assert not background.close()
    assert background.put(2)
    assert background.close()
    assert seen == [1, 2]


def test_upkeep_runs_without_items_and_the_end_comes_after_the_last_item() -> None:
    calls: list[str] = []
    kept_up = threading.Event()

    def upkeep() -> None:
        calls.append("upkeep")
        kept_up.set()

    background = Background[str](calls.extend, 10, "x", upkeep=upkeep, at_end=lambda: calls.append("end"))
    background.start()
    assert kept_up.wait(5)
    background.put("item")
    assert background.close()
    assert [call for call in calls if call != "upkeep"] == ["item", "end"]
    assert calls[-1] == "end"


def test_items_are_rejected_while_the_queue_is_full() -> None:
    release = threading.Event()
    done: list[int] = []

    def work(batch: list[int]) -> None:
        release.wait(10)
        done.extend(batch)

    background = Background[int](work, 10, "x")
    taken = [background.put(item) for item in range(50)]
    assert taken.count(True) <= 20
    assert not taken[-1]
    release.set()
    background.close()
    assert len(done) == taken.count(True)
    assert background.put(1)
    background.close()
    assert done[-1] == 1


def test_closing_gives_up_on_work_that_does_not_end() -> None:
    release = threading.Event()
    background = Background[int](lambda _: (release.wait(10), None)[1], 10, "x")
    background.put(1)
    started = time.perf_counter()
    assert not background.close(seconds=0.1)
    assert time.perf_counter() - started < 2
    release.set()
