"""The guard alone, around an application that records what it receives."""

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
from prometheus_client import generate_latest
from tests.serving.log_lines import Lines, configured

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
    def code(self) -> str:
        return str(json.loads(self.body)["code"])


@dataclass
class RecordingApp:
    """The application inside the guard: records requests and bodies, and answers after some seconds."""

    seconds: float = 0.0
    reached: list[Message] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    max_concurrent: int = 0
    active: int = 0
    raises: Exception | None = None
    begins: bool = False
    cleanup_seconds: float = 0.0

    async def __call__(self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Any) -> None:
        self.reached.append(scope)
        self.active += 1
        self.max_concurrent = max(self.active, self.max_concurrent)
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
            self.active -= 1
            await asyncio.sleep(self.cleanup_seconds)


def settings(**given: str) -> Settings:
    keys = {"keys": f"{LINE},{OTHER_LINE}", **given}
    return Settings.from_environment({f"CHURN_SERVING_{name.upper()}": value for name, value in keys.items()})


class Service:
    """The guard around a recording application, with methods to send requests."""

    def __init__(self, app: RecordingApp | None = None, **given: str) -> None:
        self.app = app or RecordingApp()
        self.metrics = Metrics()
        self.guard = make_guard(self.app, settings(**given), self.metrics)

    async def send(
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

        async def collect(message: Message) -> None:
            if message["type"] == "http.response.start":
                assert not answer.status, "an answer starts once"
                answer.status = message["status"]
                answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            else:
                answer.body += message.get("body", b"")

        await self.guard(scope, receive, collect)
        return answer

    def request(self, *args: Any, **kwargs: Any) -> Answer:
        return asyncio.run(self.send(*args, **kwargs))

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture
def lines() -> Iterator[Lines]:
    """Reads the lines logged so far."""
    with configured() as read:
        yield read


# --- ids -------------------------------------------------------------------------------------------------------------


def test_a_valid_request_id_of_the_caller_is_in_the_answer_beside_one_of_our_own() -> None:
    service = Service()
    headers = {**BEARER, **JSON, "x-request-id": "run-7.4_b"}
    answers = [service.request(headers=headers) for _ in range(2)]
    assert {answer.headers["x-request-id"] for answer in answers} == {"run-7.4_b"}
    ids = [scope["state"]["request_id"] for scope in service.app.reached]
    assert ids == ["run-7.4_b"] * 2
    assert ids[0].own != ids[1].own
    refused = service.request(headers={"x-request-id": "run-7.4_b"})
    assert json.loads(refused.body)["request_id"] == "run-7.4_b"
    assert service.app.reached[0]["state"]["key_name"] == "crm"


@pytest.mark.parametrize("given_id", ["", " ", "a b", "x" * 65, "a\n", "<script>", "ä", "-", "42,50"])
def test_an_invalid_request_id_is_replaced(given_id: str) -> None:
    answer = Service().request(headers={**BEARER, **JSON, "x-request-id": given_id})
    assert len(answer.headers["x-request-id"]) == 32
    assert given_id == "" or given_id not in answer.headers["x-request-id"]


def test_refusals_have_unique_request_ids() -> None:
    service = Service()
    answers = [service.request(path="/nothing") for _ in range(50)]
    assert all(json.loads(answer.body)["request_id"] == answer.headers["x-request-id"] for answer in answers)
    assert len({answer.headers["x-request-id"] for answer in answers}) == 50


# --- paths -----------------------------------------------------------------------------------------------------------

OPEN = sorted(path for path, place in ROUTES.items() if place.kind in ("probe", "metrics", "page"))
KEYED = sorted(set(ROUTES) - set(OPEN))


def test_three_paths_need_a_key() -> None:
    assert KEYED == ["/explain", "/model", "/predict"]


@pytest.mark.parametrize("path", OPEN)
def test_open_paths_need_no_key(path: str) -> None:
    assert Service().request(path, "GET", headers={}).status == 200


@pytest.mark.parametrize("path", [path for path in OPEN if ROUTES[path].kind != "probe"])
def test_pages_and_metrics_follow_their_settings(path: str) -> None:
    service = Service(pages="key", metrics="key")
    assert service.request(path, "GET", headers={}).status == 401
    assert service.request(path, "GET", headers=BEARER).status == 200
    off = Service(pages="off", metrics="off")
    assert off.request(path, "GET", headers=BEARER).status == 404


@pytest.mark.parametrize("path", KEYED)
def test_the_other_paths_need_a_key_unless_authentication_is_off(path: str) -> None:
    method = ROUTES[path].methods[0]
    assert Service().request(path, method, headers=JSON).status == 401
    assert Service(keys="", authentication="off").request(path, method, headers=JSON).status == 200


@given(st.text(max_size=30), st.sampled_from(["GET", "HEAD", "POST", "PUT", "OPTIONS", "TRACE", "predict"]))
def test_unknown_paths_and_methods_do_not_reach_the_application(path: str, method: str) -> None:
    service = Service()
    answer = service.request(path, method, headers={})
    known = ROUTES.get(path)
    if known is None:
        assert answer.status == 404
    if known is None or method not in known.methods or known.kind in ("scoring", "model"):
        assert not service.app.reached


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
    service = Service()
    assert service.request(path).status == 404
    assert not service.app.reached


def test_405_lists_the_allowed_methods() -> None:
    answer = Service().request("/predict", "GET")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


def test_a_websocket_is_closed() -> None:
    sent: list[Message] = []
    service = Service()

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(service.guard({"type": "websocket", "path": "/predict", "headers": []}, receive, send))
    assert [message["type"] for message in sent] == ["websocket.close"]
    assert not service.app.reached


def test_only_existing_static_files_are_served(tmp_path: Path) -> None:
    (tmp_path / "page.css").write_text("")
    service = Service()
    service.guard = make_guard(service.app, settings(), service.metrics, tmp_path)
    assert service.request("/static/page.css", "GET", headers={}).status == 200
    assert service.request("/static/../keys", "GET", headers={}).status == 404
    assert service.metric("churn_request_seconds_count", path="/static", status="200") == 1


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
def test_without_a_valid_key_the_answer_is_401(headers: Any, reason: str) -> None:
    service = Service()
    answer = service.request(headers=[*(headers.items() if isinstance(headers, dict) else headers), *JSON.items()])
    assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert not service.app.reached
    assert service.metric("churn_authentication_failures_total", reason=reason) == 1


def test_the_scheme_is_read_in_any_case() -> None:
    assert Service().request(headers={"authorization": f"bearer  {KEY} ", **JSON}).status == 200


def test_a_revoked_key_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{LINE}\n{OTHER_LINE}\n")
    service = Service(keys="", keys_file=str(file))
    assert isinstance(service.guard, Guard)
    service.guard.authentication.keys.clock = iter(range(1_000_000, 2_000_000, 10)).__next__
    assert service.request().status == 200
    file.write_text(f"{OTHER_LINE}\n")
    assert service.request().status == 401


def test_nothing_of_the_body_is_read_before_the_key_is_checked() -> None:
    service = Service()
    assert service.request(headers=JSON, body=()).status == 401


# --- rates -----------------------------------------------------------------------------------------------------------


def test_a_key_over_its_rate_limit_is_refused_and_another_is_not() -> None:
    async def story(service: Service) -> list[Answer]:
        answers = [await service.send() for _ in range(4)]
        return [*answers, await service.send(headers={"authorization": f"Bearer {OTHER_KEY}", **JSON})]

    service = Service(rate_limit="3/minute")
    answers = asyncio.run(story(service))
    assert [answer.status for answer in answers] == [200, 200, 200, 429, 200]
    assert 1 <= int(answers[3].headers["retry-after"]) <= 60
    assert answers[0].headers["ratelimit-policy"] == '"per-worker";q=3;w=60'
    assert service.metric("churn_rate_limited_total", limit="key") == 1


@pytest.mark.parametrize("address", ["unknown", "unix:", "2001:db8::1%eth0", "a proxy's word: x"])
def test_an_address_may_be_any_text(address: str) -> None:
    assert Service().request(headers=JSON, address=address).status == 401


def test_a_valid_key_is_never_refused_because_of_others_at_its_address() -> None:
    async def story(service: Service) -> tuple[list[int], list[int]]:
        invalid = [(await service.send(headers=JSON)).status for _ in range(100)]
        return invalid, [(await service.send()).status for _ in range(3)]

    service = Service(failure_limit="3/minute")
    assert asyncio.run(story(service)) == ([401] * 3 + [429] * 97, [200] * 3)
    assert service.metric("churn_rate_limited_total", limit="address") == 97


def test_an_ipv4_address_in_ipv6_is_that_address() -> None:
    async def story(service: Service) -> list[int]:
        addresses = ("192.0.2.7", "::ffff:192.0.2.7", "::FFFF:c000:207", "::ffff:192.0.2.8")
        return [(await service.send(headers=JSON, address=address)).status for address in addresses]

    assert asyncio.run(story(Service(failure_limit="2/minute"))) == [401, 401, 429, 401]


def test_ipv6_addresses_of_one_network_count_together() -> None:
    async def story(service: Service) -> list[int]:
        inside = [(await service.send(headers=JSON, address=f"2001:db8::{n}")).status for n in range(1, 4)]
        return [*inside, (await service.send(headers=JSON, address="2001:db8:0:1::1")).status]

    assert asyncio.run(story(Service(failure_limit="2/minute"))) == [401, 401, 429, 401]


# --- bodies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    ["application/json", "Application/JSON", "application/json; charset=utf-8", 'application/json;charset="UTF-8"'],
)
def test_json_is_accepted(kind: str) -> None:
    assert Service().request(headers={**BEARER, "content-type": kind}).status == 200


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
def test_other_media_types_get_415(headers: dict[str, str]) -> None:
    service = Service()
    assert service.request(headers={**BEARER, **headers}, body=()).status == 415
    assert not service.app.reached


def test_a_body_in_parts_is_joined() -> None:
    service = Service()
    assert service.request(body=(b'{"a"', b": 1", b"}")).status == 200
    assert service.app.bodies == [b'{"a": 1}']


def test_a_too_large_body_is_refused_by_its_length_and_while_it_arrives() -> None:
    service = Service(max_body_bytes="100")
    assert service.request(headers={**BEARER, **JSON, "content-length": "101"}, body=()).status == 413
    assert service.request(headers={**BEARER, **JSON, "content-length": "9" * 5_000}, body=()).status == 413
    assert service.request(body=[b"x" * 60] * 1_000).status == 413
    assert service.request(headers={**BEARER, **JSON, "content-length": "1"}, body=[b"x" * 101]).status == 413
    assert not service.app.reached
    assert service.request(body=[b"x" * 100]).status == 200


def test_a_disconnected_client_is_not_an_error(lines: Lines) -> None:
    service = Service()
    answer = service.request(body=(b"{",), hangs_up=True)
    assert answer.status == 0
    assert not service.app.reached
    assert [line["status"] for line in lines() if line["event"] == "request"] == [499]


# --- time limit and capacity ------------------------------------------------------------------------------------------


def test_a_slow_body_gets_408_and_the_connection_is_closed() -> None:
    service = Service(request_seconds="0.1")
    answer = service.request(body=[b"x"] * 1_000, pause=0.02)
    assert (answer.status, answer.headers["connection"]) == (408, "close")
    assert service.metric("churn_timeouts_total", at="body") == 1


def test_slow_scoring_gets_504() -> None:
    service = Service(RecordingApp(seconds=5), request_seconds="0.1")
    assert service.request().status == 504
    assert service.metric("churn_timeouts_total", at="work") == 1
    assert service.app.active == 0


def test_a_slow_page_gets_504() -> None:
    assert Service(RecordingApp(seconds=5), request_seconds="0.1").request("/docs", "GET", headers={}).status == 504


def test_requests_over_capacity_are_shed_at_once_and_the_others_wait() -> None:
    async def story(service: Service) -> list[Answer]:
        return await asyncio.gather(*(service.send() for _ in range(12)))

    service = Service(RecordingApp(seconds=0.05), concurrency="2", queue="4")
    answers = asyncio.run(story(service))
    assert sorted(answer.status for answer in answers) == [200] * 6 + [503] * 6
    assert {answer.headers["retry-after"] for answer in answers if answer.status == 503} == {"1"}
    assert service.app.max_concurrent == 2
    assert service.metric("churn_shed_total") == 6
    assert service.request().status == 200


def test_waiting_too_long_in_the_queue_gets_503() -> None:
    async def story(service: Service) -> list[int]:
        return sorted(answer.status for answer in await asyncio.gather(*(service.send() for _ in range(2))))

    # Both deadlines expire together, so the first request must still hold the slot while it is cancelled.
    app = RecordingApp(seconds=5, cleanup_seconds=0.5)
    assert asyncio.run(story(Service(app, concurrency="1", request_seconds="0.1"))) == [503, 504]


def test_slow_bodies_take_no_concurrency_slot() -> None:
    async def story(service: Service) -> int:
        slow = [asyncio.create_task(service.send(body=[b"x"] * 100, pause=0.05)) for _ in range(5)]
        await asyncio.sleep(0.02)
        answer = await asyncio.wait_for(service.send(), 0.5)
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
        return answer.status

    service = Service(concurrency="1")
    assert asyncio.run(story(service)) == 200
    assert isinstance(service.guard, Guard)
    assert not service.guard.bodies.unread
    assert service.guard.bodies.bytes == 0


def test_health_and_readiness_agree_while_the_service_shuts_down() -> None:
    service = Service()
    assert isinstance(service.guard, Guard)
    service.guard.start_draining()
    answers = {path: service.request(path, "GET", headers={}) for path in ("/health", "/readyz", "/livez")}
    assert {path: answer.status for path, answer in answers.items()} == {"/health": 503, "/readyz": 503, "/livez": 200}
    assert answers["/health"].code == answers["/readyz"].code == "draining"
    assert answers["/livez"].headers["connection"] == "close"
    assert service.request().status == 200


def test_probes_are_answered_at_full_capacity() -> None:
    async def story(service: Service) -> int:
        busy = asyncio.create_task(service.send())
        await asyncio.sleep(0.05)
        answer = await service.send("/livez", "GET", headers={})
        await busy
        return answer.status

    assert asyncio.run(story(Service(RecordingApp(seconds=0.1), concurrency="1", queue="0"))) == 200


# --- errors and logs -------------------------------------------------------------------------------------------------


def test_an_application_error_gets_500_and_its_text_is_not_logged(lines: Lines) -> None:
    service = Service(RecordingApp(raises=ValueError("Jane Doe, 42")))
    answer = service.request()
    assert answer.status == 500
    logged = lines()
    assert "Jane" not in str(logged) + answer.body.decode()
    [error] = [line for line in logged if line["level"] == "error"]
    assert (error["exception"], error["request_id"]) == ("ValueError", answer.headers["x-request-id"])


@pytest.mark.parametrize("app", [RecordingApp(seconds=5, begins=True), RecordingApp(raises=ValueError(), begins=True)])
def test_a_failure_in_the_middle_of_an_answer_is_logged_and_nothing_more_is_sent(
    app: RecordingApp, lines: Lines
) -> None:
    answer = Service(app, request_seconds="0.1").request()
    assert (answer.status, answer.body) == (200, b"")
    assert [line["outcome"] for line in lines() if line["event"] == "request"] in (["too_slow"], ["internal_error"])


def test_a_timeout_error_of_the_application_gets_500() -> None:
    assert Service(RecordingApp(raises=TimeoutError())).request().status == 500


async def four_requests(service: Service) -> None:
    await service.send(headers={**BEARER, **JSON, "x-request-id": "one"})
    await service.send(headers={**BEARER, **JSON, "x-request-id": "two"}, address="192.0.2.2")
    await service.send(headers={**JSON, "x-request-id": "three"})
    await service.send("/", "GET", headers={"x-request-id": "four"})


def test_every_request_and_every_access_is_logged(lines: Lines) -> None:
    asyncio.run(four_requests(Service(rate_limit="1/minute")))
    logged = lines()
    access = [line for line in logged if line["event"] == "access"]
    assert [(line["caller_request_id"], line["outcome"], line["reason"], line["key"]) for line in access] == [
        ("one", "granted", "key", "crm"),
        ("two", "refused", "rate_limited", "crm"),
        ("three", "refused", "missing_key", None),
    ]
    assert [line["address"] for line in access] == ["192.0.2.1", "192.0.2.2", "192.0.2.1"]
    requests = [line for line in logged if line["event"] == "request"]
    assert [(line["caller_request_id"], line["status"], line["key"], line["path"]) for line in requests] == [
        ("one", 200, "crm", "/predict"),
        ("two", 429, "crm", "/predict"),
        ("three", 401, None, "/predict"),
        ("four", 200, None, "/"),
    ]
    assert all(line["milliseconds"] >= 0 and line["method"] in ("GET", "POST") for line in requests)
    assert [line["request_id"] for line in access] == [line["request_id"] for line in requests][:3]
    assert len({line["request_id"] for line in requests} - {"one", "two", "three", "four"}) == 4


@pytest.mark.parametrize("level", ["warning", "error"])
def test_the_audit_trail_is_complete_at_any_log_level(level: str) -> None:
    with configured(level) as read:
        asyncio.run(four_requests(Service(rate_limit="1/minute")))
        logged = read()
    assert [(line["event"], line["outcome"]) for line in logged] == [
        ("access", "granted"),
        ("access", "refused"),
        ("access", "refused"),
    ]


@pytest.mark.parametrize("given_id", ["", "a b", "x" * 65, "<script>", "42,50"])
def test_an_invalid_request_id_of_the_caller_is_not_logged(given_id: str, lines: Lines) -> None:
    answer = Service().request(headers={**BEARER, **JSON, "x-request-id": given_id})
    assert {line["request_id"] for line in lines()} == {answer.headers["x-request-id"]}
    assert all("caller_request_id" not in line for line in lines())


@given(st.text(min_size=1, max_size=20), st.sampled_from(["GET", "POST", "secret-method"]))
def test_metric_labels_contain_no_text_of_the_caller(path: str, method: str) -> None:
    service = Service()
    service.request(f"/marked-{path}", method, headers={"x-request-id": "marked-id", "authorization": "marked-key"})
    assert b"marked" not in generate_latest(service.metrics.registry)


# --- browsers and lifespan -----------------------------------------------------------------------------------------------


def test_cors_allows_only_configured_origins() -> None:
    service = Service(cors_origins="https://crm.example")
    preflight = {"origin": "https://crm.example", "access-control-request-method": "POST"}
    assert (
        service.request(method="OPTIONS", headers=preflight).headers["access-control-allow-origin"]
        == "https://crm.example"
    )
    refused = service.request(headers={"origin": "https://crm.example", **JSON})
    assert (refused.status, refused.headers["access-control-allow-origin"]) == (401, "https://crm.example")
    preflight["origin"] = "https://elsewhere.example"
    assert "access-control-allow-origin" not in service.request(method="OPTIONS", headers=preflight).headers
    assert Service().request(method="OPTIONS", headers=preflight).status == 405


def test_the_last_log_line_is_written_before_shutdown(capsys: pytest.CaptureFixture[str], lines: Lines) -> None:
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


def test_log_lines_lost_to_a_full_disk_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    service = Service()

    async def app(scope: Message, receive: Any, send: Any) -> None:
        monkeypatch.setattr("sys.stdout.write", full)
        logging.getLogger("churn_pipeline.serving.app").warning("a line")
        await send({"type": "lifespan.shutdown.complete"})

    async def send(_: Message) -> None:
        monkeypatch.undo()

    with configured():
        asyncio.run(make_guard(app, settings(), service.metrics)({"type": "lifespan"}, None, send))  # type: ignore[arg-type]
    assert service.metric("churn_log_lines_dropped_total") == 1
