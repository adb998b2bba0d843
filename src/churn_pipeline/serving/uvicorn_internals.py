"""What this service uses of uvicorn beyond its documentation. A test for each says what it found if uvicorn changes.

- The server behind the signal handler of a worker, because BentoML's worker keeps it to itself: `uvicorn_server`.
- ``timeout_graceful_shutdown`` and ``http_protocol_class`` of its configuration, which BentoML's worker does not let a service
  choose: `limit_shutdown` and `limit_connections`.
- ``servers``, ``started`` and ``handle_exit`` of the server: `stop_listening`, `url_of` and `shut_down`.
- The classes of its connections: `LimitedHttpTools` and `LimitedH11`.
"""

import asyncio
import signal
from functools import partial
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

MAX_HEAD_BYTES = 16_384  # h11 has the same limit
MAX_PIPELINED = 16
ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # no socket is bound here
TOO_LARGE = (
    STATUS_LINE[431] + b"content-type: text/plain; charset=utf-8\r\ncontent-length: 30\r\nconnection: close\r\n\r\n"
    b"The request head is too large."
)


class TimeLimits:
    """Time limits of a connection, for uvicorn's classes of connections, which have none for request heads and for sending.

    The connection is dropped if a request head takes longer than `seconds`, counted from the connection or, after an answer,
    from the next byte. It is also dropped if the client leaves an answer unread for as long. Otherwise the next answer of the
    connection would wait without limit, even uvicorn's own answer to a failure.

    Parameters
    ----------
    seconds
        The time limit.
    arguments
        The arguments of uvicorn's class.
    """

    cycle: Any
    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport

    def __init__(self, *, seconds: float, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._seconds = seconds
        self._head: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    @property
    def is_answered(self) -> bool:
        """Whether every request whose head was received has its answer."""
        return self.cycle is None or bool(self.cycle.response_complete)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the time limit of the first head."""
        super().connection_made(transport)  # type: ignore[misc]
        self._watch_head()

    def connection_lost(self, error: Exception | None) -> None:
        """End the time limits."""
        for timer in (self._head, self._unread):
            if timer is not None:
                timer.cancel()
        super().connection_lost(error)  # type: ignore[misc]

    def data_received(self, data: bytes) -> None:
        """Begin or end the time limit of a head."""
        super().data_received(data)  # type: ignore[misc]
        self._watch_head()

    def pause_writing(self) -> None:
        """Begin the time limit of an unread answer."""
        super().pause_writing()  # type: ignore[misc]
        self._watch_unread()

    def resume_writing(self) -> None:
        """End the time limit of an unread answer."""
        if self._unread is not None and not self.transport.is_closing():
            self._unread.cancel()
            self._unread = None
        super().resume_writing()  # type: ignore[misc]

    def on_response_complete(self) -> None:
        """Limit the time for sending the last answer of a connection."""
        super().on_response_complete()  # type: ignore[misc]
        if self.transport.is_closing():
            self._watch_unread()

    def timeout_keep_alive_handler(self) -> None:
        """Limit the time that an idle client may leave its last answer unread."""
        super().timeout_keep_alive_handler()  # type: ignore[misc]
        self._watch_unread()

    def _watch_head(self) -> None:
        if not self.is_answered:
            if self._head is not None:
                self._head.cancel()
                self._head = None
        elif self._head is None:
            self._head = self.loop.call_later(self._seconds, self.transport.abort)

    def _watch_unread(self) -> None:
        if self._unread is None and self.transport.get_write_buffer_size():
            self._unread = self.loop.call_later(self._seconds, self.transport.abort)


class LimitedHttpTools(TimeLimits, HttpToolsProtocol):
    """A connection with time limits, limited request heads and limited pipelining.

    A head above `MAX_HEAD_BYTES` gets 431. A connection with more than `MAX_PIPELINED` waiting requests is dropped, because
    uvicorn would parse all that it has read before it answers any other connection.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._unused = 0  # bytes since the parser last completed a head or a part of a body

    def data_received(self, data: bytes) -> None:
        """Parse what arrived, and refuse a head that is too large before it is complete."""
        self._unused += len(data)
        super().data_received(data)
        if self._unused > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse_head()

    def on_headers_complete(self) -> None:
        """Start the request unless a limit is exceeded."""
        if self._unused > MAX_HEAD_BYTES and _head_bytes(self.url, self.headers) > MAX_HEAD_BYTES:
            self._refuse_head()
            raise ValueError("the request head is too large")
        if len(self.pipeline) >= MAX_PIPELINED:
            self.transport.abort()
            raise ValueError("too many pipelined requests")
        self._unused = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self._unused = 0
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        """Answer an invalid request, unless it has its answer."""
        if not self.transport.is_closing():
            super().send_400_response(msg)

    def _refuse_head(self) -> None:
        """Answer 431 unless another answer must be sent first, and close the connection."""
        self.logger.warning("Closed a connection: its request head has more than %d bytes", MAX_HEAD_BYTES)
        if not self.is_answered:
            self.transport.abort()
            return
        self.transport.write(TOO_LARGE)
        self.transport.close()
        self._watch_unread()


class LimitedH11(TimeLimits, H11Protocol):
    """A connection with time limits. h11 limits heads, and parses a request after the answer to the one before it."""


LIMITED: dict[object, type[TimeLimits]] = {HttpToolsProtocol: LimitedHttpTools, H11Protocol: LimitedH11}


def _head_bytes(url: bytes, headers: list[tuple[bytes, bytes]]) -> int:
    return len(url) + sum(len(name) + len(value) + 4 for name, value in headers)


def uvicorn_server() -> uvicorn.Server | None:
    """The uvicorn server that runs this process; None outside a worker."""
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return server if isinstance(server, uvicorn.Server) else None


def limit_connections(server: uvicorn.Server, seconds: float) -> None:
    """Limit the connections that a server will accept.

    Parameters
    ----------
    server
        A server that accepts no connections yet.
    seconds
        Time limit of a request head, and of an unread answer.

    Raises
    ------
    TypeError
        If uvicorn uses a class of connections that has no limits here.
    """
    found = server.config.http_protocol_class
    if found not in LIMITED:
        raise TypeError(f"uvicorn's connections are {found}, and no limits for them are known. Install httptools.")
    server.config.http_protocol_class = partial(LIMITED[found], seconds=seconds)  # type: ignore[assignment]


def limit_shutdown(server: uvicorn.Server, seconds: float) -> None:
    """Drop the connections that are open `seconds` after the shutdown began, unless an option of the command says when."""
    if not server.config.timeout_graceful_shutdown:
        server.config.timeout_graceful_shutdown = seconds  # type: ignore[assignment]  # for asyncio.wait_for


def stop_listening(server: uvicorn.Server) -> None:
    """Accept no further connections."""
    for listener in server.servers:
        listener.close()


def shut_down(server: uvicorn.Server) -> None:
    """Finish the requests in progress, and end the process by SIGTERM."""
    server.handle_exit(signal.SIGTERM, None)


def url_of(server: uvicorn.Server) -> str | None:
    """URL at which a server listens; None before it does."""
    if not server.started:
        return None
    host, port = server.servers[0].sockets[0].getsockname()[:2]
    host = ANY_ADDRESS.get(host, host)
    scheme = "https" if server.config.is_ssl else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
