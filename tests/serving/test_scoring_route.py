"""Scoring inside the guard: the predictor answers directly, fairly over keys, and abandoned work counts nothing."""

import asyncio
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as options
from hypothesis import strategies as st
from tests.serving.test_app import rows_of
from tests.serving.test_guards import BEARER, JSON, OTHER_KEY, Answer, RecordingApp, Service, settings

from churn_pipeline.serving.app import Application
from churn_pipeline.serving.bundle import Bundle
from churn_pipeline.serving.capacity import Abandoned, always
from churn_pipeline.serving.guards import make_guard
from churn_pipeline.serving.requests import Problem, RequestError
from churn_pipeline.serving.scoring_route import MAX_INLINE_BYTES, TURNS_ON_LOOP, is_small

OTHER = {"authorization": f"Bearer {OTHER_KEY}", **JSON}
INVALID = (
    b"",
    b"{",
    b"[]",
    b"null",
    b'{"customers": []}',
    b'{"customers": [{}]}',
    b'{"customers": 1, "more": 2}',
    b"{}" * 20_000,
)
INVALID += (b'{"customers": [%s]}' % b",".join([b"{}"] * 200), b'{"customers": [%s]}' % b",".join([b"{}"] * 20_000))
LARGE = [b" " * (MAX_INLINE_BYTES + 1)]


class FakePredictor:
    """Answers after `wait` has returned, and records what it committed."""

    def __init__(self, wait: Callable[[bytes], object] = len) -> None:
        self._wait = wait
        self.committed: list[str] = []
        self.threads: list[str] = []
        self.active = self.max_active = 0
        self._lock = threading.Lock()

    def predict(self, body: bytes, request_id: str, commit: Callable[[], bool] = always) -> tuple[int, bytes]:
        with self._lock:
            self.active += 1
            self.max_active = max(self.active, self.max_active)
        self.threads.append(threading.current_thread().name)
        try:
            self._wait(body)
        finally:
            with self._lock:
                self.active -= 1
        if not commit():
            raise Abandoned
        self.committed.append(request_id)
        return 1, b"{}"

    explain = predict


def service_of(predictor: Any, **given: str) -> Service:
    service = Service(RecordingApp(), **given)
    service.guard = make_guard(service.app, settings(**given), service.metrics, predictor=predictor)
    return service


def test_the_predictor_answers_and_the_application_is_not_reached() -> None:
    predictor = FakePredictor()
    service = service_of(predictor)
    answer = service.request()
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, b"{}", "application/json")
    assert (answer.headers["content-length"], len(answer.headers["x-request-id"])) == ("2", 32)
    assert predictor.committed == [answer.headers["x-request-id"]]
    assert not service.app.reached


def test_small_requests_run_on_the_event_loop_and_others_in_threads() -> None:
    predictor = FakePredictor()
    service = service_of(predictor)
    service.request()
    service.request(body=LARGE)
    service.request("/explain")
    names = [name.rpartition("_")[0] for name in predictor.threads]
    assert (predictor.threads[0], names[1:]) == (threading.current_thread().name, ["predict", "explain"])


@pytest.mark.parametrize("body", [b"{}," * 100, b"1," * 3_000, b'"a":1,' * 3_000, b" " * 40_000])
def test_a_request_that_may_take_long_to_refuse_is_not_small(body: bytes) -> None:
    assert not is_small(body)


def test_an_invalid_request_is_refused_and_counted() -> None:
    def refuse(_: bytes) -> None:
        raise RequestError("invalid_customer", "The request violates the contract.", [Problem(0, "months", "a number")])

    service = service_of(FakePredictor(refuse))
    answer = service.request()
    assert (answer.status, answer.code) == (422, "invalid_customer")
    assert json.loads(answer.body)["problems"] == [{"row": 0, "field": "months", "rule": "a number"}]
    assert service.metric("churn_refusals_total", field="other", rule="a number") == 1


@pytest.mark.parametrize("body", [(b"{}",), LARGE])
def test_an_error_of_the_predictor_gets_500(body: list[bytes]) -> None:
    def fail(_: bytes) -> None:
        raise TimeoutError

    service = service_of(FakePredictor(fail))
    assert service.request(body=body).code == "internal_error"
    assert service.request(body=body).code == "internal_error"


def test_an_abandoned_request_keeps_its_turn_and_counts_nothing() -> None:
    go_on = threading.Event()
    predictor = FakePredictor(lambda _: go_on.wait(10))

    async def story(service: Service) -> tuple[list[str], str]:
        codes = [answer.code for answer in await asyncio.gather(*(service.send(body=LARGE) for _ in range(6)))]
        go_on.set()
        async with asyncio.timeout(5):
            while predictor.active:
                await asyncio.sleep(0.001)
        after = await service.send(body=LARGE)
        return codes, after.headers["x-request-id"]

    codes, after = asyncio.run(story(service_of(predictor, request_seconds="0.1")))
    assert sorted(codes) == ["busy"] * 4 + ["too_slow"] * 2
    assert predictor.max_active == 2
    assert predictor.committed == [after]


def test_a_result_committed_at_the_time_limit_is_sent() -> None:
    class Slow(FakePredictor):
        def predict(self, body: bytes, request_id: str, commit: Callable[[], bool] = always) -> tuple[int, bytes]:
            result = super().predict(body, request_id, commit)
            time.sleep(0.3)
            return result

    assert service_of(Slow(), request_seconds="0.1").request(body=LARGE).status == 200


def test_explanations_and_predictions_do_not_wait_for_each_other() -> None:
    go_on = threading.Event()

    class Stuck(FakePredictor):
        def explain(self, body: bytes, request_id: str, commit: Callable[[], bool] = always) -> tuple[int, bytes]:
            go_on.wait(10)
            return 1, b"{}"

    async def story(service: Service) -> list[int]:
        explanations = [asyncio.create_task(service.send("/explain")) for _ in range(90)]
        await asyncio.sleep(0.05)
        async with asyncio.timeout(5):
            answers = [await service.send(), await service.send(body=LARGE)]
        go_on.set()
        return [answer.status for answer in (*answers, *await asyncio.gather(*explanations))]

    assert set(asyncio.run(story(service_of(Stuck())))) == {200}


@pytest.mark.parametrize("path", ["/predict", "/explain"])
def test_a_key_gets_its_turn_while_another_has_many_requests(path: str) -> None:
    go_on = threading.Event()
    predictor = FakePredictor(lambda _: (go_on.wait(10), time.sleep(0.01)))

    async def story(service: Service) -> int:
        greedy = [asyncio.create_task(service.send(path, body=LARGE)) for _ in range(60)]
        await asyncio.sleep(0.02)
        victim = asyncio.create_task(service.send(path, headers=OTHER, body=LARGE))
        await asyncio.sleep(0.02)
        go_on.set()
        assert (await victim).status == 200
        before = sum(task.done() for task in greedy)
        await asyncio.gather(*greedy)
        return before

    assert asyncio.run(story(service_of(predictor))) <= 6


def test_small_requests_of_a_key_do_not_wait_for_all_of_another() -> None:
    async def story(service: Service) -> list[str]:
        order: list[str] = []

        async def send(headers: dict[str, str], name: str) -> None:
            assert (await service.send(headers=headers)).status == 200
            order.append(name)

        await asyncio.gather(*(send({**BEARER, **JSON}, "a") for _ in range(60)), send(OTHER, "b"))
        return order

    assert asyncio.run(story(service_of(FakePredictor()))).index("b") <= TURNS_ON_LOOP + 2


def test_a_greedy_key_is_refused_for_another_when_the_queue_is_full() -> None:
    async def story(service: Service) -> tuple[list[Answer], Answer]:
        greedy = [asyncio.create_task(service.send()) for _ in range(60)]
        *others, victim = await asyncio.gather(*greedy, service.send(headers=OTHER))
        return others, victim

    service = service_of(FakePredictor(), queue="10")
    greedy, victim = asyncio.run(story(service))
    assert victim.status == 200
    assert {answer.status for answer in greedy} == {200, 503}
    assert service.metric("churn_shed_total") == sum(answer.status == 503 for answer in greedy)


# --- bodies ----------------------------------------------------------------------------------------------------------


def test_slow_bodies_of_a_key_are_limited_and_another_key_is_served() -> None:
    async def story(service: Service) -> tuple[list[str], int]:
        slow = [asyncio.create_task(service.send(body=[b"x"] * 1_000, pause=0.01)) for _ in range(96)]
        await asyncio.sleep(0.02)
        async with asyncio.timeout(5):
            victim = await service.send(headers=OTHER)
        return [answer.code for answer in await asyncio.gather(*slow)], victim.status

    codes, victim = asyncio.run(story(service_of(FakePredictor(), unread_bodies="32", body_seconds="0.2")))
    assert victim == 200
    assert (codes.count("slow_body"), codes.count("busy")) == (32, 64)


def test_bodies_in_flight_are_limited_in_bytes_and_a_key_gets_half() -> None:
    async def story(service: Service) -> tuple[list[str], int]:
        slow = [asyncio.create_task(service.send(body=[b"x" * 90, b"x"] * 10, pause=0.05)) for _ in range(10)]
        await asyncio.sleep(0.07)
        async with asyncio.timeout(5):
            victim = await service.send(headers=OTHER, body=[b" " * 90])
        return [answer.code for answer in await asyncio.gather(*slow)], victim.status

    limits = {"max_body_bytes": "100", "max_bytes_in_flight": "1000", "body_seconds": "1"}
    service = service_of(FakePredictor(), **limits)
    codes, victim = asyncio.run(story(service))
    assert victim == 200
    assert codes.count("busy") >= 5
    assert (service.guard.bodies.bytes, service.guard.bodies.held, service.guard.bodies.unread) == (0, {}, {})  # type: ignore[attr-defined]


def test_a_refusal_before_the_end_of_the_body_closes_the_connection() -> None:
    answer = service_of(FakePredictor(), max_body_bytes="100").request(body=[b"x" * 60] * 1_000)
    assert (answer.code, answer.headers["connection"]) == ("body_too_large", "close")


# --- both paths ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def both(bundle: Bundle) -> tuple[Service, Service]:
    """The service with the fast path on and off."""
    fast, slow = Service(rate_limit="1000000/second"), Service(rate_limit="1000000/second")
    for service, is_fast in ((fast, True), (slow, False)):
        application = Application(bundle, settings(), service.metrics)
        predictor = application if is_fast else None
        fast_enough = settings(rate_limit="1000000/second")
        service.guard = make_guard(application.starlette(), fast_enough, service.metrics, predictor=predictor)
    return fast, slow


def test_valid_requests_get_the_same_answer_on_both_paths(both: tuple[Service, Service], bundle: Bundle) -> None:
    headers = {**BEARER, **JSON, "x-request-id": "one"}
    for path, rows in (("/predict", 1), ("/predict", 500), ("/explain", 3)):
        body = [json.dumps({"customers": rows_of(bundle, rows)}).encode()]
        fast, slow = (service.request(path, headers=headers, body=body) for service in both)
        assert fast.status == 200
        assert (fast.status, fast.body, sorted(fast.headers.items())) == (
            slow.status,
            slow.body,
            sorted(slow.headers.items()),
        )


def compare_refusals(both: tuple[Service, Service], path: str, body: bytes) -> None:
    headers = {**BEARER, **JSON, "x-request-id": "one"}
    fast, slow = (service.request(path, headers=headers, body=[body]) for service in both)
    assert fast.status in (400, 413, 422)
    assert (fast.body, sorted(fast.headers.items())) == (slow.body, sorted(slow.headers.items()))


@pytest.mark.parametrize("path", ["/predict", "/explain"])
@pytest.mark.parametrize("number", range(len(INVALID)))
def test_invalid_requests_get_the_same_answer_on_both_paths(
    both: tuple[Service, Service], path: str, number: int
) -> None:
    compare_refusals(both, path, INVALID[number])


@options(deadline=None)
@given(body=st.binary(max_size=50), path=st.sampled_from(["/predict", "/explain"]))
def test_any_bytes_get_the_same_answer_on_both_paths(both: tuple[Service, Service], body: bytes, path: str) -> None:
    compare_refusals(both, path, body)
