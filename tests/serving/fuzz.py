"""Send mutated requests to a running service, and test it with schemathesis.

``python -m tests.serving.fuzz BENTO --requests 10000`` serves a Bento and runs both for longer: `make fuzz-serving`.
"""

import argparse
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.serving.mutations import DIGITS, WORD, Mutations, Sent
from tests.serving.running import Running, serving

from churn_pipeline.serving.bundle import FOLDER, load_bundle
from churn_pipeline.serving.example_customer import example_customer
from churn_pipeline.serving.keys import make_key

ANSWER_SECONDS = 20
ENVIRONMENT = {
    "CHURN_SERVING_RATE_LIMIT": "1000000/second",
    "CHURN_SERVING_FAILURE_LIMIT": "1000000/second",
    "CHURN_SERVING_LOG_LEVEL": "debug",
    "CHURN_SERVING_MAX_EXPLAINED_ROWS": "20",
}
STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) ")
TRACES = ("Traceback", 'File "', "pydantic", "starlette", "site-packages", "Error:")


# By default, schemathesis does not accept 413 as a rejection; the service uses it for too many customers.
SCHEMATHESIS = """
[checks]
negative_data_rejection.expected-statuses = [400, 401, 404, 405, 406, 413, 415, 422]
"""


@dataclass
class FuzzResult:
    """Answers by kind and status, problems found, and the slowest request with its seconds."""

    answers: Counter[tuple[str, str]] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")

    def statuses(self) -> Counter[str]:
        """Number of answers by status."""
        counted: Counter[str] = Counter()
        for (_, status), count in self.answers.items():
            counted[status] += count
        return counted


def fuzz(running: Running, customer: dict[str, Any], key: str, requests: int, seed: int) -> FuzzResult:
    """Send mutated requests one by one; check each answer and all logs."""
    mutations, result = Mutations(customer, key, seed), FuzzResult()
    kinds = list(mutations.kinds)
    for number in range(requests):
        sent = mutations.draw(kinds[number] if number < len(kinds) else None)
        begin = time.monotonic()
        answer = exchange(running.port, sent)
        result.slowest = max(result.slowest, (time.monotonic() - begin, f"request {number}, {sent.kind}"))
        status = STATUS.match(answer)
        result.answers[sent.kind, status[1].decode() if status else "none"] += 1
        result.problems += [f"request {number}, {sent.kind}: {problem}" for problem in wrong_in(sent, answer)]
    printed = running.printed()
    result.problems += [f"{text} is in the logs" for text in (WORD, DIGITS, "Traceback") if text in printed]
    return result


def exchange(port: int, sent: Sent) -> bytes:
    """Send a request and read until the server closes, or close the connection early if the mutation says so."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=0.05 if sent.hang_up else ANSWER_SECONDS) as connection:
        with suppress(OSError):  # the service may refuse it before it has read everything; the answer is there then
            connection.sendall(sent.wire())
        with suppress(OSError):
            while part := connection.recv(65_536):
                answer += part
    return answer


def wrong_in(sent: Sent, answer: bytes) -> list[str]:
    """Problems of an answer that no request may cause."""
    status = STATUS.match(answer)
    if status is None:
        # After a reset, TCP may lose the answer if the client is still sending.
        return [] if sent.hang_up or len(sent.wire()) > 60_000 else [f"no answer, but {answer[:80]!r}"]
    body = answer.partition(b"\r\n\r\n")[2].decode("utf-8", "replace")
    found = [f"{text} is in the answer" for text in (WORD, DIGITS) if text in answer.decode("latin-1")]
    found += [f"{text} is in the answer" for text in TRACES if status[1] != b"200" and text in body]
    return found + ([f"status {status[1].decode()}"] if status[1] >= b"500" else [])


def schemathesis(
    running: Running, key: str, examples: int, seed: int, folder: Path
) -> subprocess.CompletedProcess[str]:
    """Run schemathesis with all checks, using the service's own OpenAPI document."""
    settings = folder / "schemathesis.toml"
    settings.write_text(SCHEMATHESIS)
    command = [Path(sys.executable).with_name("st"), "--config-file", settings, "run", f"{running.url}/openapi.json"]
    options = ["--checks", "all", "--max-examples", str(examples), "--seed", str(seed), "--no-color"]
    key_header = ["--header", f"Authorization: Bearer {key}"]
    return subprocess.run([*command, *options, *key_header], cwd=folder, capture_output=True, text=True, check=False)


def example(folder: Path) -> dict[str, Any]:
    """The example customer without its id: answers contain the id, so the search for leaked values would find it."""
    bundle = load_bundle(folder)
    customer = example_customer(bundle)
    return {name: value for name, value in customer.items() if name != bundle.contract.roles.id}


def main(bento: Path, requests: int, examples: int, seed: int) -> Iterator[str]:
    """Serve a Bento and run both tests. Yields report lines; the last one lists the problems and may be empty."""
    key, line = make_key("fuzz")
    bundle = bento / "src" / FOLDER
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder), {**ENVIRONMENT, "CHURN_SERVING_KEYS": line}, service=str(bento)) as running,
    ):
        workers = running.workers()
        result = fuzz(running, example(bundle), key, requests, seed)
        yield f"{requests:,} mutated requests (seed {seed}): {dict(sorted(result.statuses().items()))}"
        yield f"The slowest took {result.slowest[0]:.1f} s: {result.slowest[1]}"
        tested = schemathesis(running, key, examples, seed, Path(folder))
        yield tested.stdout
        found = [*result.problems, *(["schemathesis found something"] if tested.returncode else [])]
        yield "\n".join([*found, *(["a worker was replaced"] if running.workers() != workers else [])])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bento", type=Path)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--examples", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    problems = ""
    for problems in main(**vars(parser.parse_args())):
        print(problems or "No 5xx, no traceback, and no value in any answer or log.", flush=True)  # noqa: T201
    sys.exit(bool(problems))
