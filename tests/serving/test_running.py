"""The guard under ``bentoml serve``: no request bypasses it, and no text of a caller is logged."""

import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.serving.running import Running, serving

from churn_pipeline.serving.keys import make_key

KEY, LINE = make_key("crm")
REVOKED, REVOKED_LINE = make_key("revoked")
BEARER = {"Authorization": f"Bearer {KEY}"}
MARK = "MARKED7391"


@pytest.fixture(scope="module")
def keys_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("secrets") / "keys"
    file.write_text(f"{LINE}\n{REVOKED_LINE}\n")
    return file


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, keys_file: Path) -> Iterator[Running]:
    environment = {
        "CHURN_SERVING_KEYS_FILE": str(keys_file),
        "CHURN_SERVING_FAILURE_LIMIT": "10000/minute",
        "CHURN_SERVING_REQUEST_SECONDS": "1.5",
        "CHURN_SERVING_MAX_BODY_BYTES": "100000",
        "CHURN_SERVING_LOG_LEVEL": "debug",
    }
    with serving(tmp_path_factory.mktemp("served"), environment) as one:
        yield one


def ask_raw(running: Running, *parts: bytes, pause: float = 0.0) -> bytes:
    """Send bytes, and read until the server closes the connection or pauses."""
    with socket.create_connection(("127.0.0.1", running.port), timeout=5) as connection:
        for part in parts:
            connection.sendall(part)
            time.sleep(pause)
        connection.settimeout(0.7)
        answer = b""
        try:
            while part := connection.recv(65_536):
                answer += part
        except TimeoutError:
            pass
        return answer


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def logged(running: Running) -> list[dict[str, object]]:
    time.sleep(0.2)
    return [json.loads(line) for line in running.printed().splitlines() if line.startswith("{")]


def test_a_valid_key_is_accepted(running: Running) -> None:
    answer = httpx.post(f"{running.url}/predict", json={}, headers={**BEARER, "X-Request-ID": "one"})
    assert (answer.status_code, answer.json()["key"]) == (200, "crm")
    assert answer.headers["x-request-id"] == "one"


def test_a_valid_key_is_accepted_in_a_raw_request(running: Running) -> None:
    """Without this, the refusals of the other tests could have another cause."""
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\n"
    answer = ask_raw(running, f"{head}Content-Length: 2\r\n\r\n{{}}".encode())
    assert status_of(answer) == 200
    assert b'"fields"' in answer


def test_bentomls_own_routes_pass_the_guard(running: Running) -> None:
    for path in ("/livez", "/readyz", "/healthz", "/metrics", "/docs.json", "/schema.json", "/health", "/", "/docs"):
        answer = httpx.get(running.url + path)
        assert answer.status_code == 200
        assert answer.headers["x-request-id"], path
    for path in ("/static_content/index.css", "/static_content/", "/assets/", "/predict/submit", "/favicon.ico"):
        answer = httpx.get(running.url + path)
        assert (answer.status_code, set(answer.json())) == (404, {"code", "error", "request_id"})


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"])
@pytest.mark.parametrize(
    "target",
    [
        "/predict",
        "/model",
        "/explain",
        "//predict",
        "/predict/",
        "/%70redict",
        "/predict%2f",
        "/%2fpredict",
        "/./predict",
        "/x/../predict",
        "/livez/../predict",
        "/livez/..%2fpredict",
        "/predict?/livez",
        "/predict;/livez",
        "/predict%00",
        "/predict#/livez",
        "http://127.0.0.1/predict",
        "/static_content/../predict",
        "\\predict",
        "*",
    ],
)
def test_no_spelling_and_no_method_bypasses_the_key(running: Running, method: str, target: str) -> None:
    body = b'{"seconds": 0}'
    head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
    answer = ask_raw(running, f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    assert answer == b"" or status_of(answer) in (400, 401, 404, 405)
    assert b'"fields"' not in answer


@pytest.mark.parametrize(
    "headers",
    [
        "X-Original-URL: /livez",
        "X-Rewrite-URL: /livez",
        "X-HTTP-Method-Override: GET",
        "X-Forwarded-Prefix: /livez",
        "Authorization: Basic <key>",
        "authorization : Bearer <key>",
        "Cookie: key=<key>",
        "X-API-Key: <key>",
        "Authorization: Bearer <key>\r\nAuthorization: Bearer x",
    ],
)
def test_no_other_header_is_accepted_as_a_key(running: Running, headers: str) -> None:
    head = f"POST /predict?key={KEY} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
    answer = ask_raw(running, f"{head}{headers.replace('<key>', KEY)}\r\nContent-Length: 2\r\n\r\n{{}}".encode())
    assert status_of(answer) in (400, 401)


def test_a_websocket_gets_nothing(running: Running) -> None:
    for path in ("/predict", "/livez", "/other"):
        answer = ask_raw(
            running,
            f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode(),
        )
        assert status_of(answer) != 101
        assert b'"fields"' not in answer


def test_a_pipelined_request_passes_the_guard_like_the_first(running: Running) -> None:
    first = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    second = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    answer = ask_raw(running, (first + second).encode())
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200", b"401"]


def test_connections_are_limited_before_the_guard(running: Running) -> None:
    assert status_of(ask_raw(running, b"GET /" + b"a" * 100_000)) == 431
    assert status_of(ask_raw(running, b"GET /livez HTTP/1.1\r\nX-Long: " + b"a" * 20_000 + b"\r\n\r\n")) == 431
    with socket.create_connection(("127.0.0.1", running.port), timeout=5) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\n")
        assert connection.recv(1) == b"", "the head did not arrive within the request time limit"


def test_garbage_collections_skip_what_was_loaded_at_the_start(running: Running) -> None:
    assert httpx.get(f"{running.url}/docs").json()["frozen"] > 50_000


def test_each_request_of_a_connection_needs_a_key(running: Running) -> None:
    with httpx.Client(base_url=running.url) as client:
        assert client.post("/predict", json={}, headers=BEARER).status_code == 200
        assert client.post("/predict", json={}).status_code == 401


def test_a_revoked_key_stops_working_without_a_restart(running: Running, keys_file: Path) -> None:
    headers = {"Authorization": f"Bearer {REVOKED}"}
    assert httpx.post(f"{running.url}/predict", json={}, headers=headers).status_code == 200
    keys_file.write_text(f"{LINE}\n")
    time.sleep(1.1)
    assert httpx.post(f"{running.url}/predict", json={}, headers=headers).status_code == 401
    assert httpx.post(f"{running.url}/predict", json={}, headers=BEARER).status_code == 200


def test_a_too_large_body_is_refused_before_and_while_it_is_sent(running: Running) -> None:
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\n"
    waits = ask_raw(running, f"{head}Expect: 100-continue\r\nContent-Length: 200000\r\n\r\n".encode())
    assert status_of(waits) == 413
    chunk = b"2710\r\n" + b" " * 10_000 + b"\r\n"
    assert status_of(ask_raw(running, f"{head}Transfer-Encoding: chunked\r\n\r\n".encode(), *[chunk] * 11)) == 413
    unknown = head.replace(KEY, "guess")
    assert status_of(ask_raw(running, f"{unknown}Expect: 100-continue\r\nContent-Length: 200\r\n\r\n".encode())) == 401


def test_a_body_sent_byte_by_byte_is_cut_off(running: Running) -> None:
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\n"
    started = time.perf_counter()
    answer = ask_raw(running, f"{head}Content-Length: 100\r\n\r\n".encode(), *[b" "] * 8, pause=0.2)
    assert status_of(answer) == 408
    assert b"connection: close" in answer
    assert time.perf_counter() - started < 4


def test_slow_scoring_gets_504(running: Running) -> None:
    answer = httpx.post(f"{running.url}/predict", json={"seconds": 4}, headers=BEARER)
    assert answer.status_code == 504
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_our_metrics_and_bentomls_are_shown_with_buckets_below_a_millisecond(running: Running) -> None:
    httpx.post(f"{running.url}/predict", json={}, headers=BEARER)
    shown = httpx.get(f"{running.url}/metrics").text
    for name in ("churn_request_seconds", "bentoml_service_request_duration_seconds"):
        bounds = re.findall(rf'{name}_bucket{{[^}}]*"/predict"[^}}]*le="([0-9.e-]+)"', shown) or re.findall(
            rf'{name}_bucket{{[^}}]*le="([0-9.e-]+)"[^}}]*"/predict"', shown
        )
        assert sum(float(bound) < 0.001 for bound in bounds) >= 1, name
    assert re.search(r'churn_authentication_failures_total\{reason="missing"\} [1-9]', shown)


def test_no_text_of_a_caller_is_in_a_log_or_a_metric(running: Running) -> None:
    good = {**BEARER, "Content-Type": "application/json", "X-Note": MARK, "Cookie": f"a={MARK}", "User-Agent": MARK}
    with httpx.Client(base_url=running.url) as client:
        send = client.request
        statuses = [
            send("POST", f"/predict?name={MARK}", headers=good, json={"name": MARK}).status_code,
            send("POST", "/predict", headers=good, json={"fail": MARK}).status_code,
            send("POST", "/predict", headers=good, content=f'{{"name": "{MARK}"'.encode()).status_code,
            send("POST", "/predict", headers={**good, "Content-Type": f"text/{MARK}"}, content=b"").status_code,
            send("POST", "/predict", headers={**good, "Authorization": f"Bearer {MARK}"}, json={}).status_code,
            send("POST", "/predict", headers={**good, "X-Request-ID": f"{MARK} {MARK}"}, json={}).status_code,
            send("GET", f"/{MARK}?{MARK}", headers=good).status_code,
            send("GET", f"/?name={MARK}", headers=good).status_code,
            send("POST", f"/docs.json?{MARK}", headers=good).status_code,
            send("POST", "/predict", headers=good, json={"name": MARK, "seconds": 4}).status_code,
        ]
    assert statuses == [200, 500, 500, 415, 401, 200, 404, 200, 405, 504]
    ask_raw(running, f"{MARK} /{MARK} HTTP/1.1\r\nHost: {MARK}\r\n\r\n".encode())
    ask_raw(running, f"GET /{MARK} HTTP/9.9\r\n{MARK}\r\n\r\n".encode())
    ask_raw(
        running, f"GET /{MARK}?{MARK} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n".encode()
    )
    ask_raw(running, f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {MARK}\r\n\r\n".encode())
    lines = logged(running)
    assert MARK not in running.printed()
    assert KEY not in running.printed()
    assert [line["exception"] for line in lines if line.get("event") == "A request failed"] == [
        "ValueError",
        "JSONDecodeError",
    ]
    assert MARK not in httpx.get(f"{running.url}/metrics").text


def test_every_line_is_json_except_those_of_the_command(running: Running) -> None:
    httpx.post(f"{running.url}/predict", json={}, headers={**BEARER, "X-Request-ID": "one"})
    httpx.post(f"{running.url}/predict", json={})
    lines = logged(running)
    others = [line for line in running.printed().splitlines() if not line.startswith("{")]
    assert all("[INFO] [cli]" in line for line in others), others
    requests = {line.get("caller_request_id"): line for line in lines if line["event"] == "request"}
    access = {line.get("caller_request_id"): line for line in lines if line["event"] == "access"}
    assert requests["one"]["outcome"] == "answered"
    assert requests["one"]["rows"] == 1
    assert access["one"]["outcome"] == "granted"
    assert access["one"]["address"] == "127.0.0.1"
    assert access["one"]["request_id"] == requests["one"]["request_id"] != "one"
    assert {line["status"] for line in requests.values()} >= {200, 401}


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "no API key is set"),
        ({"CHURN_SERVING_AUTHENTICATION": "no"}, "CHURN_SERVING_AUTHENTICATION: "),
        ({"CHURN_SERVICE_AUTHENTICATION": "off"}, "use CHURN_SERVING_AUTHENTICATION"),
    ],
)
def test_it_does_not_start_with_invalid_settings(tmp_path: Path, environment: dict[str, str], message: str) -> None:
    with pytest.raises(AssertionError) as caught, serving(tmp_path, environment) as running:
        pytest.fail(f"it answers at {running.url}")
    printed = str(caught.value).split("\n", 1)[1].strip()
    assert message in printed
    assert "\n" not in printed
