"""Processes of the service under ``bentoml serve``: their number, their replacement, their end and their metrics."""

import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest
from tests.serving.running import Running, serving

from churn_pipeline.serving.draining import LAST_READ_SECONDS, MARGIN_SECONDS
from churn_pipeline.serving.keys import make_key
from churn_pipeline.serving.processes import worker_count
from churn_pipeline.serving.settings import Settings, SettingsError

SERVICE = "churn_pipeline.serving.service:ChurnService"
KEY, LINE = make_key("crm")
BEARER = {"Authorization": f"Bearer {KEY}"}
SETTINGS = {"CHURN_SERVING_KEYS": LINE, "CHURN_SERVING_REQUEST_SECONDS": "1", "CHURN_SERVING_DRAIN_SECONDS": "0.2"}
SHUTDOWN_SECONDS = 0.2 + LAST_READ_SECONDS + 1 + MARGIN_SECONDS
UNREAD_REQUESTS = 2_000


def seconds_to_stop(running: Running) -> float:
    """Send SIGTERM, and return the seconds until the service has ended with code 0."""
    begin, workers = time.monotonic(), running.workers()
    running.process.send_signal(signal.SIGTERM)
    try:
        assert running.process.wait(timeout=50) == 0
    except subprocess.TimeoutExpired:
        for process in (running.process, *workers):
            process.kill()
        raise
    return time.monotonic() - begin


@pytest.fixture
def settings(bundle_folder: Path) -> dict[str, str]:
    return {**SETTINGS, "CHURN_SERVING_BUNDLE": str(bundle_folder)}


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether the condition becomes true within `seconds`."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def wait_for_workers(running: Running, number: int) -> list[psutil.Process]:
    """Wait until `number` workers answer, because new connections may wait for one that is still starting."""
    assert wait_for(lambda: running.printed().count("initialized") >= number, 40)
    workers = running.workers()
    assert len(workers) == number
    return workers


def send_unread(running: Running) -> socket.socket:
    """Pipeline requests over one connection, and read none of the answers."""
    connection = socket.create_connection(("127.0.0.1", running.port))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.setblocking(False)
    requests = memoryview(b"GET /docs HTTP/1.1\r\nHost: x\r\n\r\n" * UNREAD_REQUESTS)
    until = time.monotonic() + 3
    while requests and time.monotonic() < until:
        try:
            requests = requests[connection.send(requests) :]
        except BlockingIOError:  # the service reads no more until an answer is read
            time.sleep(0.05)
    return connection


def test_a_killed_worker_is_replaced_in_a_container(settings: dict[str, str], tmp_path: Path) -> None:
    settings |= {"CHURN_SERVING_WORKERS": " 2", "BENTOML_CONTAINERIZED": "true"}
    with serving(tmp_path, settings, service=SERVICE) as running:
        first, second = wait_for_workers(running, 2)
        first.kill()
        assert wait_for(lambda: len({one.pid for one in running.workers()} - {first.pid}) == 2, 40)
        assert second.is_running(), "the other worker must keep answering"
        assert httpx.get(f"{running.url}/readyz").status_code == 200


@pytest.mark.parametrize(
    "value", ["", "1", "2", " 4", "4 ", "0x2", "2.0", "2.5", "0", "-1", "256", "257", "many", "\u0662"]
)
def test_bentoml_gets_the_number_of_workers_that_the_settings_have(value: str) -> None:
    environment = {"CHURN_SERVING_AUTHENTICATION": "off", "CHURN_SERVING_WORKERS": value}
    try:
        expected = Settings.from_environment(environment).workers
    except SettingsError:
        expected = 1
    assert worker_count(environment) == expected


def test_unread_answers_do_not_block_the_shutdown(settings: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "predictions"
    with serving(tmp_path, settings | {"CHURN_SERVING_PREDICTION_LOG": str(log)}, service=SERVICE) as running:
        document = httpx.get(f"{running.url}/openapi.json").json()
        content = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
        with send_unread(running):
            time.sleep(1.5)  # an answer reaches the request time limit while its client reads nothing
            with send_unread(running):
                scored = httpx.post(f"{running.url}/predict", json=content["example"], headers=BEARER)
                assert seconds_to_stop(running) < SHUTDOWN_SECONDS + 10
    ident = scored.raise_for_status().json()["request_id"]
    assert f'"request_id":"{ident}"' in running.printed(), "the logs lack a request"
    logged = "".join(file.read_text() for file in log.rglob("*") if file.is_file())
    assert ident in logged, "the prediction log lacks a request"


def test_two_services_with_one_bentoml_home_keep_their_own_metrics(settings: dict[str, str], tmp_path: Path) -> None:
    def served(running: Running) -> float:
        text = httpx.get(f"{running.url}/metrics").text
        return sum(float(value) for value in re.findall(r'churn_request_seconds_count{.*"/model".*} (\S+)', text))

    settings["BENTOML_HOME"] = str(tmp_path / "home")
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    with serving(tmp_path / "first", settings, service=SERVICE) as first:
        for _ in range(3):
            httpx.get(f"{first.url}/model", headers=BEARER)
        assert served(first) == 3
        with serving(tmp_path / "second", settings, service=SERVICE) as second:
            httpx.get(f"{second.url}/model", headers=BEARER)
            assert (served(first), served(second)) == (3, 1)
        httpx.get(f"{first.url}/model", headers=BEARER)
        assert served(first) == 4
