"""uvicorn's undocumented interfaces that the service uses, and the limits of connections, on a real uvicorn server."""

import asyncio
import inspect
import re
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from churn_pipeline.serving.uvicorn_internals import (
    LIMITED,
    MAX_HEAD_BYTES,
    MAX_PIPELINED,
    limit_connections,
    limit_shutdown,
    stop_listening,
    url_of,
    uvicorn_server,
)

SECONDS = 0.4
GET = b"GET /ok HTTP/1.1\r\nHost: x\r\n\r\n"
LARGE = b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n"
LARGE_BYTES = 20_000_000  # more than the buffers of both kernels
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "httptools": uvloop.new_event_loop,
    "h11": asyncio.new_event_loop,
}


@dataclass
class Service:
    """An application on a uvicorn server, and what happened in it."""

    server: uvicorn.Server = field(init=False)
    seen: int = 0
    sent: int = 0
    found: uvicorn.Server | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        self.seen += 1
        self.found = self.found or uvicorn_server()
        if scope["path"] == "/slow":
            await asyncio.sleep(2 * SECONDS)
        message = {"more_body": scope["path"] == "/read"}
        while message.get("more_body"):
            message = await receive()
        body = b"x" * LARGE_BYTES if scope["path"] == "/large" else b"ok"
        length = (b"content-length", b"%d" % len(body))
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": body})
        self.sent += 1

    @property
    def connections(self) -> int:
        return len(self.server.server_state.connections)


@dataclass
class Client:
    """One raw connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, content: bytes) -> None:
        self.writer.write(content)
        await self.writer.drain()

    async def rest(self) -> bytes:
        """All bytes until the service closes the connection."""
        received = b""
        try:
            while part := await asyncio.wait_for(self.reader.read(65_536), 10):
                received += part
        except ConnectionError:
            pass
        return received

    async def send_without_end(self, part: bytes) -> int:
        """Send until the service closes the connection, and return the number of bytes sent."""
        sent = 0
        try:
            while sent < 50_000_000 and not self.reader.at_eof():
                await self.send(part)
                sent += len(part)
        except ConnectionError:
            pass
        return sent


@dataclass
class Story:
    """A limited service, and what its clients need."""

    service: Service
    port: int

    async def connect(self) -> Client:
        # A small buffer, so that few bytes are read ahead of a client that reads nothing
        return Client(*await asyncio.open_connection("127.0.0.1", self.port, limit=1024))

    async def seconds_until(self, condition: Callable[[], bool]) -> float:
        begin = time.monotonic()
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.01)
        return time.monotonic() - begin


@asynccontextmanager
async def served(http: str, seconds: float = SECONDS, **options: Any) -> AsyncIterator[Story]:
    service = Service()
    config = uvicorn.Config(service, "127.0.0.1", 0, http=http, lifespan="off", log_config=None, **options)  # type: ignore[arg-type]
    server = service.server = uvicorn.Server(config)
    config.load()
    limit_connections(server, seconds)
    limit_shutdown(server, 1)
    task = asyncio.create_task(server.serve())
    while (url := url_of(server)) is None:
        await asyncio.sleep(0.01)
    try:
        yield Story(service, int(url.rpartition(":")[2]))
    finally:
        server.should_exit = True
        await task


def run(http: str, tell: Callable[[Story], Awaitable[None]], **options: Any) -> None:
    async def story() -> None:
        async with served(http, **options) as one:
            await tell(one)

    with asyncio.Runner(loop_factory=LOOPS[http]) as runner:
        runner.run(story())


both = pytest.mark.parametrize("http", LOOPS)


@both
@pytest.mark.parametrize(
    ("start", "part"),
    [
        (b"GET /", b"a" * 4096),
        (b"GET /ok HTTP/1.1\r\nX-Long: ", b"a" * 4096),
        (b"GET /ok HTTP/1.1\r\n", b"a" * 4096),
        (b"GET /ok HTTP/1.1\r\n", b"X-Long: " + b"a" * 4096 + b"\r\n"),
    ],
)
def test_a_head_without_end_is_cut_off(http: str, start: bytes, part: bytes) -> None:
    async def tell(story: Story) -> None:
        client = await story.connect()
        await client.send(start)
        assert await client.send_without_end(part) < 20_000_000
        assert story.service.seen == 0
        await story.seconds_until(lambda: story.service.connections == 0)

    run(http, tell)


@both
def test_a_large_head_is_refused_and_a_smaller_one_is_not(http: str) -> None:
    async def answer(story: Story, *sizes: int) -> bytes:
        client = await story.connect()
        fields = b"".join(b"X-%d: %s\r\n" % (number, b"a" * size) for number, size in enumerate(sizes))
        await client.send(b"GET /ok HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + fields + b"\r\n")
        return await client.rest()

    async def tell(story: Story) -> None:
        assert b" 200 OK" in await answer(story, MAX_HEAD_BYTES - 1000)
        assert b" 200 OK" in await answer(story, *[10] * 500)
        # h11 accepts a larger head if it arrives in one piece
        if http == "httptools":
            assert b" 431 " in await answer(story, MAX_HEAD_BYTES + 1000)
            assert b" 431 " in await answer(story, *[10] * 2000)

    run(http, tell)


@both
def test_the_limit_of_heads_does_not_apply_to_bodies(http: str) -> None:
    body = b"x" * 10 * MAX_HEAD_BYTES
    head = b"POST /read HTTP/1.1\r\nHost: x\r\n"
    chunk = b"".join(b"%x\r\n%s\r\n" % (1000, body[:1000]) for _ in range(200)) + b"0\r\n\r\n"

    async def tell(story: Story) -> None:
        for content in (
            head + b"Content-Length: %d\r\n\r\n" % len(body) + body,
            head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk,
        ):
            client = await story.connect()
            for _ in range(2):
                await client.send(content)
                assert await client.reader.readexactly(12) == b"HTTP/1.1 200"
                await client.reader.readuntil(b"\r\nok")

    run(http, tell)


def test_trailers_without_end_are_cut_off() -> None:
    async def tell(story: Story) -> None:
        client = await story.connect()
        await client.send(b"POST /read HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n")
        assert await client.send_without_end(b"X-Long: " + b"a" * 4096 + b"\r\n") < 20_000_000
        await story.seconds_until(lambda: story.service.connections == 0)

    run("httptools", tell)


@both
def test_a_head_must_arrive_in_time(http: str) -> None:
    async def tell(story: Story) -> None:
        for start in (b"", b"G", GET[:-2], GET + b"G", b"POST /ok HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"):
            client = await story.connect()
            await client.send(start)
            if start:
                await asyncio.sleep(0.1)
                await client.send(b"\r" if start[-1:] == b"\n" else b"E")  # a further byte does not extend the limit
            begin = time.monotonic()
            await client.rest()
            assert SECONDS - 0.2 < time.monotonic() - begin < SECONDS + 2, start

    run(http, tell)


@both
def test_a_connection_in_use_is_not_closed(http: str) -> None:
    async def tell(story: Story) -> None:
        client = await story.connect()
        for path in (b"/ok", b"/slow", b"/ok"):
            await client.send(GET.replace(b"/ok", path))
            await client.reader.readuntil(b"\r\nok")
            await asyncio.sleep(1.5 * SECONDS)

    run(http, tell)


@both
def test_as_many_pipelined_requests_as_the_limit_are_answered(http: str) -> None:
    async def tell(story: Story) -> None:
        client = await story.connect()
        await client.send(GET * MAX_PIPELINED)
        for _ in range(MAX_PIPELINED):
            await client.reader.readuntil(b"\r\nok")

    run(http, tell)


def test_more_pipelined_requests_close_the_connection() -> None:
    async def tell(story: Story) -> None:
        client = await story.connect()
        await client.send(GET * 2000)
        await client.rest()
        assert story.service.seen <= MAX_PIPELINED + 1
        await story.seconds_until(lambda: story.service.connections == 0)

    run("httptools", tell)


@both
@pytest.mark.parametrize(
    "requests",
    [LARGE, LARGE * 3, LARGE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")],
    ids=["1", "3", "close"],
)
def test_an_unread_answer_ends_its_connection(http: str, requests: bytes) -> None:
    async def tell(story: Story) -> None:
        client = await story.connect()
        await client.send(requests)
        await story.seconds_until(lambda: story.service.connections == 1)
        assert await story.seconds_until(lambda: story.service.connections == 0) < SECONDS + 2
        await story.seconds_until(lambda: not story.service.server.server_state.tasks)
        assert len(await client.rest()) < LARGE_BYTES

    run(http, tell)


@both
def test_an_answer_that_is_read_is_complete(http: str) -> None:
    async def tell(story: Story) -> None:
        client = await story.connect()
        await client.send(LARGE * 2)
        for _ in range(2):
            await client.reader.readuntil(b"\r\n\r\n")
            await client.reader.readexactly(LARGE_BYTES)

    run(http, tell, seconds=20)  # the test reads slowly on a busy machine


@both
def test_an_idle_client_that_read_nothing_is_dropped(http: str) -> None:
    async def tell(story: Story) -> None:
        client = await story.connect()
        await client.send(LARGE)
        assert await story.seconds_until(lambda: story.service.sent == 1) < 1
        await story.seconds_until(lambda: story.service.connections == 0)

    run(http, tell, timeout_keep_alive=0)


def test_uvicorns_connections_have_the_parts_that_are_limited() -> None:
    for base, limited in LIMITED.items():
        assert isinstance(base, type)
        names = [name for one in limited.__mro__[: limited.__mro__.index(base)] for name in vars(one)]
        extended = {name for name in names if not name.startswith("_")} - {"cycle", "loop", "transport", "is_answered"}
        missing = {name for name in extended if not hasattr(base, name)} if base is HttpToolsProtocol else set()
        assert not missing, f"uvicorn's {base.__name__} lacks {missing}"
        source = inspect.getsource(base)
        for part in ("self.cycle", "self.transport", "self.loop"):
            assert part in source, f"uvicorn's {base.__name__} does not use {part}"


def test_the_default_connections_of_uvicorn_can_be_limited() -> None:
    config = uvicorn.Config(Service(), log_config=None)
    config.load()
    server = uvicorn.Server(config)
    found = config.http_protocol_class
    assert found is HttpToolsProtocol, f"uvicorn's connections are {found}"
    limit_connections(server, 1)
    with pytest.raises(TypeError, match="no limits for them are known"):
        limit_connections(server, 1)


def test_the_server_is_found_behind_its_signal_handler() -> None:
    handler = signal.getsignal(signal.SIGTERM)

    async def tell(story: Story) -> None:
        client = await story.connect()
        await client.send(GET)
        await client.reader.readuntil(b"\r\nok")
        found, handler = story.service.found, signal.getsignal(signal.SIGTERM)
        assert found is story.service.server, f"the handler of SIGTERM is {handler}, of {type(handler)}"

    assert uvicorn_server() is None
    run("httptools", tell)
    assert signal.getsignal(signal.SIGTERM) == handler


def test_a_server_has_a_url_until_it_stops_listening() -> None:
    async def tell(story: Story) -> None:
        server = story.service.server
        url = url_of(server)
        assert url is not None
        assert re.fullmatch(rf"http://127\.0\.0\.1:{story.port}", url)
        stop_listening(server)
        with pytest.raises(ConnectionError):
            await story.connect()

    run("httptools", tell)


@pytest.mark.parametrize(("option", "expected"), [(None, 3.5), (7, 7)])
def test_the_option_of_the_command_decides_the_time_to_shut_down(option: int | None, expected: float) -> None:
    server = uvicorn.Server(uvicorn.Config(Service(), timeout_graceful_shutdown=option, log_config=None))
    limit_shutdown(server, 3.5)
    assert server.config.timeout_graceful_shutdown == expected
