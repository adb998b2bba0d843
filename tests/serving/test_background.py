import threading
import time

from churn_pipeline.serving.background import Background


def test_everything_arrives_in_order_from_one_thread() -> None:
    seen: list[tuple[int, int]] = []
    background = Background[int](lambda batch: seen.extend((item, threading.get_ident()) for item in batch), 1_000, "x")
    for item in range(100):
        assert background.put(item)
        if item == 50:
            time.sleep(0.12)
    background.close()
    assert [item for item, _ in seen] == list(range(100))
    assert len({ident for _, ident in seen} - {threading.get_ident()}) == 1


def test_no_thread_is_started_before_the_first_item() -> None:
    before = threading.active_count()
    background = Background[int](lambda _: None, 10, "x")
    assert threading.active_count() == before
    background.close()
    background.put(1)
    assert threading.active_count() == before + 1
    background.close()
    assert threading.active_count() == before


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
