"""Two worker processes that change their bundle under load, under ``bentoml serve``."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from benchmarks.serving_peers.load import Open, open_loop
from tests.serving.conftest import make_bundle, rewrite_manifest
from tests.serving.running import Running, serving
from tests.serving.test_requests import GOOD
from tests.serving.test_rollout import point

SERVICE = "churn_pipeline.serving.service:ChurnService"
RATE, SECONDS = 100, 6.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("bundles")
    for number in (1, 2, 3):
        make_bundle(made / f"v{number}")
        rewrite_manifest(made / f"v{number}", model_version=str(number))
    altered = make_bundle(made / "altered")
    (altered / "model_card.md").write_text("# Another model card\n")
    point(made, "current", "v1")
    return made


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[Running]:
    environment = {
        "CHURN_SERVING_AUTHENTICATION": "off",
        "CHURN_SERVING_BUNDLES": str(folder),
        "CHURN_SERVING_WORKERS": "2",
    }
    with serving(tmp_path_factory.mktemp("served"), environment, service=SERVICE) as one:
        wait_until(lambda: one.printed().count("initialized") >= 2)
        yield one


def wait_until(holds: Callable[[], bool], seconds: float = 60.0) -> float:
    """Wait until something holds; return the seconds."""
    begin = time.monotonic()
    while not holds():
        assert time.monotonic() - begin < seconds, "it did not happen in time"
        time.sleep(0.02)
    return time.monotonic() - begin


def versions(running: Running, requests: int = 16) -> set[str]:
    """The model versions that answer requests on new connections, which reach both workers."""
    found = set()
    for _ in range(requests):
        try:
            answer = httpx.post(f"{running.url}/predict", json={"customers": [GOOD]}, verify=False)
            found.add(answer.json()["model_version"] if answer.status_code == 200 else str(answer.status_code))
        except httpx.TransportError:
            found.add("no answer")
    return found


def load_of(running: Running, during: Callable[[], None]) -> Open:
    """Requests at a constant rate, while something else happens."""
    target: Any = SimpleNamespace(port=running.port, service=SimpleNamespace(key=None, path="/predict"))
    body = httpx.Request("POST", running.url, json={"customers": [GOOD]}).read()
    results: list[Open] = []
    thread = threading.Thread(target=lambda: results.append(open_loop(target, [body], RATE, SECONDS)))
    thread.start()
    during()
    thread.join()
    return results[0]


def test_both_workers_switch_under_load_and_no_request_is_lost(running: Running, folder: Path) -> None:
    def switch_twice() -> None:
        point(folder, "current", "v2")
        wait_until(lambda: versions(running) == {"2"})
        point(folder, "current", "v1")
        assert wait_until(lambda: versions(running, 4) == {"1"}) < 1.0, "switching back needs no loading"

    result = load_of(running, switch_twice)
    assert result.statuses == {"200": RATE * SECONDS}
    assert versions(running) == {"1"}
    assert running.printed().count("All workers switch from bundle v1 to v2") == 1


def test_no_worker_switches_to_an_altered_bundle(running: Running, folder: Path) -> None:
    point(folder, "current", "altered")
    wait_until(lambda: "Bundle altered is refused" in running.printed())
    assert versions(running) == {"1"}
    assert httpx.get(f"{running.url}/health").json()["bundle"] == "v1"
    assert running.printed().count("model_card.md has changed since packaging") == 1
    assert 'churn_rollouts_total{outcome="refused"} 1.0' in httpx.get(f"{running.url}/metrics").text
    point(folder, "current", "v1")


def test_a_worker_killed_during_a_switch_does_not_stop_it(running: Running, folder: Path) -> None:
    killed, _ = running.workers()
    point(folder, "current", "v3")
    wait_until(lambda: "loading" in httpx.get(f"{running.url}/health").text or versions(running, 1) == {"3"})
    killed.kill()
    # The killed worker may have ended the round, and its last log lines are lost: only the answers show the switch.
    wait_until(lambda: running.printed().count("initialized") >= 3)
    wait_until(lambda: versions(running) == {"3"})
