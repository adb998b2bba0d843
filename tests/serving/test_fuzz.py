"""Hundreds of mutated requests, and schemathesis with all checks, against a service that runs in a process of its own."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.serving.fuzz import ENVIRONMENT, example, fuzz, schemathesis, wrong_in
from tests.serving.mutations import DIGITS, WORD, Mutations, Sent
from tests.serving.running import Running, serving

from churn_pipeline.serving.keys import make_key

SERVICE = "churn_pipeline.serving.service:ChurnService"
KEY, LINE = make_key("fuzz")
REQUESTS, EXAMPLES = 600, 15


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, bundle_folder: Path) -> Iterator[Running]:
    environment = {**ENVIRONMENT, "CHURN_SERVING_KEYS": LINE, "CHURN_SERVING_BUNDLE": str(bundle_folder)}
    with serving(tmp_path_factory.mktemp("fuzzed"), environment, service=SERVICE) as one:
        yield one


def test_no_mutated_request_is_answered_5xx_or_repeated(running: Running, bundle_folder: Path) -> None:
    workers = running.workers()

    result = fuzz(running, example(bundle_folder), KEY, REQUESTS, seed=1)

    assert result.problems == []
    assert result.slowest[0] < 5, result.slowest
    assert set(result.statuses()) >= {"200", "400", "401", "404", "405", "413", "415", "422"}
    assert result.answers["untouched", "200"] > 0
    assert running.workers() == workers, "a worker was replaced"


def test_schemathesis_finds_nothing(running: Running, tmp_path: Path) -> None:
    done = schemathesis(running, KEY, EXAMPLES, seed=1, folder=tmp_path)

    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    assert "/predict" in httpx.get(f"{running.url}/openapi.json").json()["paths"]


def test_the_same_seed_gives_the_same_requests() -> None:
    drawn = [[Mutations({"a": 1}, "key", seed).draw().wire() for _ in range(50)] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(
    ("status", "body", "problems"),
    [
        ("400 Bad Request", "{}", 0),
        ("500 Internal Server Error", "{}", 1),
        ("422 Unprocessable Content", f'{{"error": "not {WORD}"}}', 1),
        ("422 Unprocessable Content", f'{{"error": "not {DIGITS}.0"}}', 1),
        ("400 Bad Request", "Traceback (most recent call last)", 1),
    ],
)
def test_problems_in_an_answer_are_found(status: str, body: str, problems: int) -> None:
    assert len(wrong_in(Sent(), f"HTTP/1.1 {status}\r\n\r\n{body}".encode())) == problems
