"""BentoML's APIs and the guard's fast path give a request the same answer, byte for byte."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.serving.mutations import Mutations, Sent

from churn_pipeline.serving.app import Application
from churn_pipeline.serving.bundle import Bundle
from churn_pipeline.serving.guards import make_guard
from churn_pipeline.serving.keys import make_key
from churn_pipeline.serving.metrics import Metrics
from churn_pipeline.serving.openapi import example_customer
from churn_pipeline.serving.pages import STATIC
from churn_pipeline.serving.service import served
from churn_pipeline.serving.settings import Settings

KEY, LINE = make_key("crm")
ENVIRONMENT = {
    "CHURN_SERVING_KEYS": LINE,
    "CHURN_SERVING_MAX_ROWS": "200",
    "CHURN_SERVING_MAX_EXPLAINED_ROWS": "5",
    "CHURN_SERVING_RATE_LIMIT": "1000000/second",
    "CHURN_SERVING_FAILURE_LIMIT": "1000000/second",
    "CHURN_SERVING_REQUEST_SECONDS": "60",
}
Message = dict[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Any], Awaitable[None]]


@dataclass
class BothPaths:
    """The service without its fast path, and a guard with the fast path."""

    loop: asyncio.AbstractEventLoop
    bentoml: App
    fast: App

    def answers(self, sent: Sent) -> tuple[Any, Any]:
        """Status, headers and body of both answers."""
        bentoml, fast = (self.loop.run_until_complete(ask(app, sent)) for app in (self.bentoml, self.fast))
        return bentoml, fast


@pytest.fixture(scope="module")
def both(bundle_folder: Path, bundle: Bundle) -> Iterator[BothPaths]:
    environment = {**ENVIRONMENT, "CHURN_SERVING_BUNDLE": str(bundle_folder)}
    loop = asyncio.new_event_loop()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setattr(served(), "fast_path", False)
        bentoml = served().to_asgi()
        serving = Settings.from_environment()
        lifespan: AbstractAsyncContextManager[None] = bentoml.router.lifespan_context(bentoml)
        application = Application(bundle, serving, Metrics())
        loop.run_until_complete(lifespan.__aenter__())
        yield BothPaths(loop, bentoml, make_guard(application.starlette(), serving, Metrics(), STATIC, application))
        loop.run_until_complete(lifespan.__aexit__(None, None, None))
    loop.close()


async def ask(app: App, sent: Sent) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Send a request without a network; the two halves of a chunked body arrive separately."""
    headers = [("content-type", sent.media_type), ("x-request-id", "same"), *sent.headers]
    if sent.key is not None:
        headers.append(("authorization", sent.key))
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": sent.method,
        "path": sent.target.partition("?")[0],
        "query_string": sent.target.partition("?")[2].encode(),
        "root_path": "",
        "scheme": "http",
        "server": ("127.0.0.1", 3000),
        "client": ("192.0.2.1", 50_000),
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers],
    }
    middle = len(sent.body) // 2 if sent.chunks else len(sent.body)
    parts = [sent.body[:middle], *([sent.body[middle:]] if sent.chunks else [])]
    answered: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)} if parts else await forever()

    async def send(message: Message) -> None:
        answered.append(message)

    await app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in answered[1:])
    given = dict(answered[0]["headers"])
    assert len(given) == len(answered[0]["headers"])
    given.pop(b"server", None)  # BentoML adds its name to its APIs' answers
    request_id = given.pop(b"x-request-id")  # a new one if the caller's is malformed
    return answered[0]["status"], sorted(given.items()), body.replace(request_id, b"an id")


async def forever() -> Message:
    """Wait for a caller who does not hang up."""
    return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]


KINDS = sorted(Mutations({"months": 1}, KEY, 0).kinds)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_both_paths_give_the_same_answer(both: BothPaths, bundle: Bundle, kind: str, seed: int) -> None:
    sent = Mutations(example_customer(bundle), KEY, seed).draw(kind)
    bentoml, fast = both.answers(sent)
    assert bentoml == fast
    assert bentoml[0] < 500


@pytest.mark.parametrize("path", ["/predict", "/explain"])
@pytest.mark.parametrize(("field", "status"), [(None, 200), ("months", 422), ("more", 422), ("rows", 413)])
def test_both_paths_accept_and_refuse_the_same(
    both: BothPaths, bundle: Bundle, path: str, field: str | None, status: int
) -> None:
    customer = example_customer(bundle)
    customers = [customer] * 201 if field == "rows" else [customer, customer]
    if field not in (None, "rows"):
        customers[1] = {**customer, field: "not valid"}
    sent = Sent(target=path, key=f"Bearer {KEY}", body=json.dumps({"customers": customers}).encode())
    bentoml, fast = both.answers(sent)
    assert bentoml == fast
    assert bentoml[0] == status
    assert ("problems" in json.loads(bentoml[2])) == (status == 422)
