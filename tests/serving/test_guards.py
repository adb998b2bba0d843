"""The guards by themselves, around an application that tells what reached it."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from limits.errors import StorageError
from prometheus_client import generate_latest
from tests.serving.log_lines import Lines, configured

from churn_pipeline.serving import guards
from churn_pipeline.serving.guards import Guard, make_guard
from churn_pipeline.serving.keys import make_key
from churn_pipeline.serving.metrics import Metrics
from churn_pipeline.serving.request_context import ROUTES
from churn_pipeline.serving.settings import Settings

KEY, LINE = make_key("crm")
OTHER_KEY, OTHER_LINE = make_key("web")
BEARER = {"authorization": f"Bearer {KEY}"}
JSON = {"content-type": "application/json"}
Message = dict[str, Any]


@dataclass
class Answer:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def error(self) -> str:
        return str(json.loads(self.body)["error"])


@dataclass
class Inside:
    """The application: keeps what reached it, and answers when it is let."""

    seconds: float = 0.0
    reached: list[Message] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    most_at_once: int = 0
    now: int = 0
    raises: Exception | None = None
    begins: bool = False

    async def __call__(self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Any) -> None:
        self.reached.append(scope)
        self.now += 1
        self.most_at_once = max(self.now, self.most_at_once)
        try:
            if scope["method"] == "POST":
                self.bodies.append((await receive())["body"])
            if self.begins:
                await send({"type": "http.response.start", "status": 200, "headers": []})
            await asyncio.sleep(self.seconds)
            if self.raises is not None:
                raise self.raises
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
            await send({"type": "http.response.body", "body": b"ok"})
        finally:
            self.now -= 1


def settings(**given: str) -> Settings:
    keys = {"keys": f"{LINE},{OTHER_LINE}", **given}
    return Settings.from_environment({f"CHURN_SERVING_{name.upper()}": value for name, value in keys.items()})


class World:
    """Guards, what is inside, and the means to ask."""

    def __init__(self, app: Inside | None = None, **given: str) -> None:
        self.inside = app or Inside()
        self.metrics = Metrics()
        self.guard = make_guard(self.inside, settings(**given), self.metrics)

    async def ask(
        self,
        path: str = "/predict",
        method: str = "POST",
        headers: dict[str, str] | Sequence[tuple[str, str]] | None = None,
        body: Sequence[bytes] = (b"{}",),
        pause: float = 0.0,
        address: str = "192.0.2.1",
        hangs_up: bool = False,
    ) -> Answer:
        given = {**BEARER, **JSON} if headers is None else headers
        pairs = given.items() if isinstance(given, dict) else given
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": b"",
            "client": (address, 50_000),
            "headers": [(name.encode(), value.encode()) for name, value in pairs],
        }
        answer = Answer()
        rest = list(body)

        async def receive() -> Message:
            await asyncio.sleep(pause)
            if not rest and hangs_up:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": rest.pop(0), "more_body": bool(rest) or hangs_up}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                assert not answer.status, "an answer starts once"
                answer.status = message["status"]
                answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            else:
                answer.body += message.get("body", b"")

        await self.guard(scope, receive, send)
        return answer

    def asked(self, *args: Any, **kwargs: Any) -> Answer:
        return asyncio.run(self.ask(*args, **kwargs))

    def figure(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture
def lines() -> Iterator[Lines]:
    """What was logged until it is called."""
    with configured() as read:
        yield read


# --- ids -------------------------------------------------------------------------------------------------------------


def test_a_sane_id_of_the_caller_is_kept_and_echoed() -> None:
    world = World()
    answer = world.asked(headers={**BEARER, **JSON, "x-request-id": "run-7.4_b"})
    assert answer.headers["x-request-id"] == "run-7.4_b"
    assert world.inside.reached[0]["state"]["request_id"] == "run-7.4_b"
    assert world.inside.reached[0]["state"]["key_name"] == "crm"


@pytest.mark.parametrize("asked", ["", " ", "a b", "x" * 65, "a\n", "<script>", "ä", "-", "42,50"])
def test_an_id_that_is_not_sane_is_replaced(asked: str) -> None:
    answer = World().asked(headers={**BEARER, **JSON, "x-request-id": asked})
    assert len(answer.headers["x-request-id"]) == 32
    assert asked == "" or asked not in answer.headers["x-request-id"]


def test_refusals_have_an_id_too_and_no_two_are_the_same() -> None:
    world = World()
    answers = [world.asked(path="/nothing") for _ in range(50)]
    assert all(json.loads(answer.body)["request_id"] == answer.headers["x-request-id"] for answer in answers)
    assert len({answer.headers["x-request-id"] for answer in answers}) == 50


# --- paths -----------------------------------------------------------------------------------------------------------

OPEN = sorted(path for path, place in ROUTES.items() if place.kind in ("probe", "metrics", "page"))
KEYED = sorted(set(ROUTES) - set(OPEN))


def test_the_table_of_paths() -> None:
    assert KEYED == ["/explain", "/model", "/predict"]


@pytest.mark.parametrize("path", OPEN)
def test_open_paths_need_no_key(path: str) -> None:
    assert World().asked(path, "GET", headers={}).status == 200


@pytest.mark.parametrize("path", [path for path in OPEN if ROUTES[path].kind != "probe"])
def test_pages_and_metrics_need_one_when_they_are_set_to(path: str) -> None:
    world = World(pages="key", metrics="key")
    assert world.asked(path, "GET", headers={}).status == 401
    assert world.asked(path, "GET", headers=BEARER).status == 200
    off = World(pages="off", metrics="off")
    assert off.asked(path, "GET", headers=BEARER).status == 404


@pytest.mark.parametrize("path", KEYED)
def test_the_others_need_one_always_unless_authentication_is_off(path: str) -> None:
    method = ROUTES[path].methods[0]
    assert World().asked(path, method, headers=JSON).status == 401
    assert World(keys="", authentication="off").asked(path, method, headers=JSON).status == 200


@given(st.text(max_size=30), st.sampled_from(["GET", "HEAD", "POST", "PUT", "OPTIONS", "TRACE", "predict"]))
def test_what_is_not_in_the_table_reaches_nothing(path: str, method: str) -> None:
    world = World()
    answer = world.asked(path, method, headers={})
    known = ROUTES.get(path)
    if known is None:
        assert answer.status == 404
    if known is None or method not in known.methods or known.kind in ("scoring", "model"):
        assert not world.inside.reached


@pytest.mark.parametrize(
    "path",
    [
        "//predict",
        "/predict/",
        "/predict//",
        "/./predict",
        "/x/../predict",
        "/PREDICT",
        "/predict%2F",
        "/predict;a",
        "",
    ],
)
def test_another_spelling_of_a_path_is_another_path(path: str) -> None:
    world = World()
    assert world.asked(path).status == 404
    assert not world.inside.reached


def test_another_method_is_told_the_right_ones() -> None:
    answer = World().asked("/predict", "GET")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


def test_a_websocket_is_closed() -> None:
    sent: list[Message] = []
    world = World()

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(world.guard({"type": "websocket", "path": "/predict", "headers": []}, receive, send))
    assert [message["type"] for message in sent] == ["websocket.close"]
    assert not world.inside.reached


def test_only_the_files_that_are_there_are_static(tmp_path: Path) -> None:
    (tmp_path / "page.css").write_text("")
    world = World()
    world.guard = make_guard(world.inside, settings(), world.metrics, tmp_path)
    assert world.asked("/static/page.css", "GET", headers={}).status == 200
    assert world.asked("/static/../keys", "GET", headers={}).status == 404
    assert world.figure("churn_request_seconds_count", path="/static", status="200") == 1


# --- keys ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "missing"),
        ({"authorization": ""}, "malformed"),
        ({"authorization": "Bearer"}, "malformed"),
        ({"authorization": "Bearer "}, "malformed"),
        ({"authorization": f"Basic {KEY}"}, "malformed"),
        ({"authorization": KEY}, "malformed"),
        ([("authorization", f"Bearer {KEY}"), ("authorization", f"Bearer {KEY}")], "malformed"),
        ({"authorization": f"Bearer {KEY}x"}, "unknown"),
        ({"authorization": f"Bearer {KEY[:-1]}"}, "unknown"),
        ({"authorization": f"Bearer {LINE.partition(':')[2]}"}, "unknown"),
        ({"authorization": "Bearer \udcff".encode("utf-8", "surrogateescape").decode("latin-1")}, "unknown"),
    ],
)
def test_without_a_valid_key_401(headers: Any, reason: str) -> None:
    world = World()
    answer = world.asked(headers=[*(headers.items() if isinstance(headers, dict) else headers), *JSON.items()])
    assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert not world.inside.reached
    assert world.figure("churn_authentication_failures_total", reason=reason) == 1


def test_the_scheme_is_read_in_any_case() -> None:
    assert World().asked(headers={"authorization": f"bearer  {KEY} ", **JSON}).status == 200


def test_a_revoked_key_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{LINE}\n{OTHER_LINE}\n")
    world = World(keys="", keys_file=str(file))
    assert isinstance(world.guard, Guard)
    world.guard.keys.clock = iter(range(1_000_000, 2_000_000, 10)).__next__
    assert world.asked().status == 200
    file.write_text(f"{OTHER_LINE}\n")
    assert world.asked().status == 401


def test_nothing_of_the_body_is_read_before_the_key_is_checked() -> None:
    world = World()
    assert world.asked(headers=JSON, body=()).status == 401


# --- rates -----------------------------------------------------------------------------------------------------------


def test_beyond_its_rate_a_key_is_refused_and_another_is_not() -> None:
    async def story(world: World) -> list[Answer]:
        answers = [await world.ask() for _ in range(4)]
        return [*answers, await world.ask(headers={"authorization": f"Bearer {OTHER_KEY}", **JSON})]

    world = World(rate_limit="3/minute")
    answers = asyncio.run(story(world))
    assert [answer.status for answer in answers] == [200, 200, 200, 429, 200]
    assert 1 <= int(answers[3].headers["retry-after"]) <= 60
    assert answers[0].headers["ratelimit-policy"] == '"per-worker";q=3;w=60'
    assert world.figure("churn_rate_limited_total", limit="key") == 1


def test_a_store_that_fails_after_it_said_no_leaves_the_whole_window_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    from limits.aio.strategies import FixedWindowRateLimiter

    async def full(*_: Any, **__: Any) -> bool:
        return False

    async def fails(*_: Any, **__: Any) -> bool:
        raise StorageError(ConnectionError())

    monkeypatch.setattr(FixedWindowRateLimiter, "hit", full)
    monkeypatch.setattr(FixedWindowRateLimiter, "get_window_stats", fails)
    answer = World(rate_limit="5/hour").asked()
    assert (answer.status, answer.headers["retry-after"]) == (429, "3600")


def test_an_address_that_tries_keys_is_shut_out_even_with_a_right_one() -> None:
    async def story(world: World) -> list[int]:
        wrong = {"authorization": "Bearer guess", **JSON}
        tried = [(await world.ask(headers=wrong)).status for _ in range(4)]
        found = (await world.ask()).status
        elsewhere = (await world.ask(address="192.0.2.2")).status
        return [*tried, found, elsewhere]

    world = World(failure_limit="3/minute")
    assert asyncio.run(story(world)) == [401, 401, 401, 429, 429, 200]
    assert world.figure("churn_rate_limited_total", limit="address") == 2


def test_a_caller_who_was_let_in_is_not_shut_out_by_another_at_its_address() -> None:
    async def story(world: World) -> list[int]:
        first = (await world.ask()).status
        for _ in range(5):
            await world.ask(headers=JSON)
        return [first, (await world.ask()).status, (await world.ask(headers=JSON)).status]

    assert asyncio.run(story(World(failure_limit="3/minute"))) == [200, 200, 429]


def test_callers_beyond_what_is_kept_are_let_in_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> set[int]:
        return {(await world.ask(address=f"192.0.2.{number}")).status for number in range(10)}

    monkeypatch.setattr(guards, "MAX_KNOWN_CALLERS", 3)
    world = World()
    assert asyncio.run(story(world)) == {200}
    assert isinstance(world.guard, Guard)
    assert len(world.guard.known_callers) <= 3


@pytest.mark.parametrize("address", ["unknown", "unix:", "2001:db8::1%eth0", "a proxy's word: x"])
def test_an_address_of_any_form_is_taken(address: str) -> None:
    assert World().asked(headers=JSON, address=address).status == 401


def test_an_ipv6_caller_is_the_network_it_is_in() -> None:
    async def story(world: World) -> list[int]:
        inside = [(await world.ask(headers=JSON, address=f"2001:db8::{n}")).status for n in range(1, 4)]
        return [*inside, (await world.ask(headers=JSON, address="2001:db8:0:1::1")).status]

    assert asyncio.run(story(World(failure_limit="2/minute"))) == [401, 401, 429, 401]


def test_when_the_store_of_the_limits_fails_callers_are_let_through_and_it_is_counted(
    monkeypatch: pytest.MonkeyPatch, lines: Lines
) -> None:
    from limits.aio.strategies import FixedWindowRateLimiter

    async def fails(*_: Any, **__: Any) -> bool:
        raise StorageError(ConnectionError("redis://user:hunter2@host"))

    monkeypatch.setattr(FixedWindowRateLimiter, "hit", fails)
    monkeypatch.setattr(FixedWindowRateLimiter, "test", fails)
    world = World()
    assert [world.asked().status for _ in range(3)] == [200, 200, 200]
    assert world.asked(headers=JSON).status == 401
    assert world.figure("churn_rate_limit_store_failures_total") == 5
    told = [line for line in lines() if line["level"] == "error"]
    assert len(told) == 1
    assert "hunter2" not in str(told)


# --- bodies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    ["application/json", "Application/JSON", "application/json; charset=utf-8", 'application/json;charset="UTF-8"'],
)
def test_json_is_taken(kind: str) -> None:
    assert World().asked(headers={**BEARER, "content-type": kind}).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "text/csv"},
        {"content-type": "application/vnd.bentoml+pickle"},
        {"content-type": "application/json; charset=latin-1"},
        {"content-type": "application/jsonx"},
        {"content-type": "multipart/form-data; boundary=application/json"},
        {**JSON, "content-encoding": "gzip"},
    ],
)
def test_anything_else_is_415(headers: dict[str, str]) -> None:
    world = World()
    assert world.asked(headers={**BEARER, **headers}, body=()).status == 415
    assert not world.inside.reached


def test_a_body_arrives_whole_whatever_parts_it_came_in() -> None:
    world = World()
    assert world.asked(body=(b'{"a"', b": 1", b"}")).status == 200
    assert world.inside.bodies == [b'{"a": 1}']


def test_a_body_that_is_too_large_is_refused_from_its_length_and_while_it_comes() -> None:
    world = World(max_body_bytes="100")
    assert world.asked(headers={**BEARER, **JSON, "content-length": "101"}, body=()).status == 413
    assert world.asked(headers={**BEARER, **JSON, "content-length": "9" * 5_000}, body=()).status == 413
    assert world.asked(body=[b"x" * 60] * 1_000).status == 413
    assert world.asked(headers={**BEARER, **JSON, "content-length": "1"}, body=[b"x" * 101]).status == 413
    assert not world.inside.reached
    assert world.asked(body=[b"x" * 100]).status == 200


def test_a_caller_who_hangs_up_is_no_error(lines: Lines) -> None:
    world = World()
    answer = world.asked(body=(b"{",), hangs_up=True)
    assert answer.status == 0
    assert not world.inside.reached
    assert [line["status"] for line in lines() if line["event"] == "request"] == [499]


# --- time and room ---------------------------------------------------------------------------------------------------


def test_a_body_that_comes_too_slowly_is_408_and_the_connection_is_closed() -> None:
    world = World(request_seconds="0.1")
    answer = world.asked(body=[b"x"] * 1_000, pause=0.02)
    assert (answer.status, answer.headers["connection"]) == (408, "close")
    assert world.figure("churn_timeouts_total", at="body") == 1


def test_work_that_takes_too_long_is_504() -> None:
    world = World(Inside(seconds=5), request_seconds="0.1")
    assert world.asked().status == 504
    assert world.figure("churn_timeouts_total", at="work") == 1
    assert world.inside.now == 0


def test_a_page_that_takes_too_long_is_504() -> None:
    assert World(Inside(seconds=5), request_seconds="0.1").asked("/docs", "GET", headers={}).status == 504


def test_a_store_of_limits_that_hangs_is_503(monkeypatch: pytest.MonkeyPatch) -> None:
    from limits.aio.strategies import FixedWindowRateLimiter

    async def hangs(*_: Any, **__: Any) -> bool:
        await asyncio.sleep(5)
        return True

    monkeypatch.setattr(FixedWindowRateLimiter, "hit", hangs)
    assert World(request_seconds="0.1").asked().status == 503


def test_what_does_not_fit_is_shed_at_once_and_the_rest_is_served_in_turn() -> None:
    async def story(world: World) -> list[Answer]:
        return await asyncio.gather(*(world.ask() for _ in range(12)))

    world = World(Inside(seconds=0.05), concurrency="2", queue="4")
    answers = asyncio.run(story(world))
    assert sorted(answer.status for answer in answers) == [200] * 6 + [503] * 6
    assert {answer.headers["retry-after"] for answer in answers if answer.status == 503} == {"1"}
    assert world.inside.most_at_once == 2
    assert world.figure("churn_shed_total") == 6
    assert world.asked().status == 200


def test_waiting_too_long_for_a_turn_is_503() -> None:
    async def story(world: World) -> list[int]:
        return sorted(answer.status for answer in await asyncio.gather(*(world.ask() for _ in range(2))))

    assert asyncio.run(story(World(Inside(seconds=5), concurrency="1", request_seconds="0.1"))) == [503, 504]


def test_slow_bodies_keep_no_turn_from_others() -> None:
    async def story(world: World) -> int:
        slow = [asyncio.create_task(world.ask(body=[b"x"] * 100, pause=0.05)) for _ in range(5)]
        await asyncio.sleep(0.02)
        answer = await asyncio.wait_for(world.ask(), 0.5)
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
        return answer.status

    world = World(concurrency="1")
    assert asyncio.run(story(world)) == 200
    assert isinstance(world.guard, Guard)
    assert world.guard.admitted == 0


def test_probes_are_answered_when_there_is_no_room() -> None:
    async def story(world: World) -> int:
        busy = asyncio.create_task(world.ask())
        await asyncio.sleep(0.05)
        answer = await world.ask("/livez", "GET", headers={})
        await busy
        return answer.status

    assert asyncio.run(story(World(Inside(seconds=0.1), concurrency="1", queue="0"))) == 200


# --- errors and logs -------------------------------------------------------------------------------------------------


def test_an_error_inside_is_500_and_its_words_are_nowhere(lines: Lines) -> None:
    world = World(Inside(raises=ValueError("Jane Doe, 42")))
    answer = world.asked()
    assert answer.status == 500
    told = lines()
    assert "Jane" not in str(told) + answer.body.decode()
    [error] = [line for line in told if line["level"] == "error"]
    assert (error["exception"], error["request_id"]) == ("ValueError", answer.headers["x-request-id"])


@pytest.mark.parametrize("inside", [Inside(seconds=5, begins=True), Inside(raises=ValueError(), begins=True)])
def test_what_goes_wrong_in_the_middle_of_an_answer_is_logged_and_nothing_is_sent_after_it(
    inside: Inside, lines: Lines
) -> None:
    answer = World(inside, request_seconds="0.1").asked()
    assert (answer.status, answer.body) == (200, b"")
    assert [line["outcome"] for line in lines() if line["event"] == "request"] in (["slow work"], ["error"])


def test_a_time_out_of_the_application_is_an_error_and_no_slow_request() -> None:
    assert World(Inside(raises=TimeoutError())).asked().status == 500


def test_every_request_and_every_access_has_its_line(lines: Lines) -> None:
    world = World(rate_limit="1/minute")

    async def story() -> None:
        await world.ask(headers={**BEARER, **JSON, "x-request-id": "one"})
        await world.ask(headers={**BEARER, **JSON, "x-request-id": "two"})
        await world.ask(headers={**JSON, "x-request-id": "three"})
        await world.ask("/", "GET", headers={"x-request-id": "four"})

    asyncio.run(story())
    told = lines()
    access = [line for line in told if line["event"] == "access"]
    assert [(line["request_id"], line["outcome"], line["reason"], line["key"]) for line in access] == [
        ("one", "granted", "key", "crm"),
        ("two", "refused", "rate limit", "crm"),
        ("three", "refused", "missing key", None),
    ]
    requests = [line for line in told if line["event"] == "request"]
    assert [(line["request_id"], line["status"], line["key"], line["path"]) for line in requests] == [
        ("one", 200, "crm", "/predict"),
        ("two", 429, "crm", "/predict"),
        ("three", 401, None, "/predict"),
        ("four", 200, None, "/"),
    ]
    assert all(line["milliseconds"] >= 0 and line["method"] in ("GET", "POST") for line in requests)


@given(st.text(min_size=1, max_size=20), st.sampled_from(["GET", "POST", "secret-method"]))
def test_labels_hold_no_text_of_a_caller(path: str, method: str) -> None:
    world = World()
    world.asked(f"/marked-{path}", method, headers={"x-request-id": "marked-id", "authorization": "marked-key"})
    assert b"marked" not in generate_latest(world.metrics.registry)


# --- browsers and life -----------------------------------------------------------------------------------------------


def test_a_browser_may_ask_from_an_origin_that_is_set_and_from_no_other() -> None:
    world = World(cors_origins="https://crm.example")
    asks = {"origin": "https://crm.example", "access-control-request-method": "POST"}
    assert world.asked(method="OPTIONS", headers=asks).headers["access-control-allow-origin"] == "https://crm.example"
    refused = world.asked(headers={"origin": "https://crm.example", **JSON})
    assert (refused.status, refused.headers["access-control-allow-origin"]) == (401, "https://crm.example")
    asks["origin"] = "https://elsewhere.example"
    assert "access-control-allow-origin" not in world.asked(method="OPTIONS", headers=asks).headers
    assert World().asked(method="OPTIONS", headers=asks).status == 405


def test_the_logs_are_ours_while_the_application_lives_and_its_last_line_is_written(
    capsys: pytest.CaptureFixture[str], lines: Lines
) -> None:
    assert lines() == []
    events = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def app(scope: Message, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        logging.getLogger("churn_pipeline.serving.app").info("the last line")
        await send({"type": "lifespan.shutdown.complete"})

    async def receive() -> Message:
        return next(events)

    written_at_the_end = []

    async def send(message: Message) -> None:
        if message["type"] == "lifespan.shutdown.complete":
            written_at_the_end.append("the last line" in capsys.readouterr().out)

    asyncio.run(make_guard(app, settings(), Metrics())({"type": "lifespan"}, receive, send))  # type: ignore[arg-type]
    assert written_at_the_end == [True]


def test_lines_that_a_full_disk_takes_away_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    world = World()

    async def app(scope: Message, receive: Any, send: Any) -> None:
        monkeypatch.setattr("sys.stdout.write", full)
        logging.getLogger("churn_pipeline.serving.app").warning("a line")
        await send({"type": "lifespan.shutdown.complete"})

    async def send(_: Message) -> None:
        monkeypatch.undo()

    with configured():
        asyncio.run(make_guard(app, settings(), world.metrics)({"type": "lifespan"}, None, send))  # type: ignore[arg-type]
    assert world.figure("churn_log_lines_dropped_total") == 1
