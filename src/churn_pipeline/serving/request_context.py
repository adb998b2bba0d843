"""The routes of the service, and the state of one request while the guard handles it."""

import ipaddress
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from starlette.types import Message, Scope, Send

from churn_pipeline.serving.metrics import OTHER
from churn_pipeline.serving.refusal_codes import Kind
from churn_pipeline.serving.refusals import Refusal
from churn_pipeline.serving.request_ids import RequestId
from churn_pipeline.serving.tracing import parent_of, trace_id_of

TRACE_HEADERS = (b"traceparent", b"tracestate")
READ_HEADERS = frozenset(
    (b"authorization", b"content-encoding", b"content-length", b"content-type", b"x-request-id", *TRACE_HEADERS)
)
JSON = (b"content-type", b"application/json")
NO_SNIFFING = (b"x-content-type-options", b"nosniff")
NO_CALLER = "-"  # all callers without a key name take turns as one
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


@dataclass(frozen=True)
class Route:
    """A path of the service: its kind, the name used in logs and metrics, and its methods."""

    kind: Kind
    name: str
    methods: tuple[str, ...] = ("GET", "HEAD")


def _route(kind: Kind, name: str, *methods: str) -> tuple[str, Route]:
    return name, Route(kind, name, methods or ("GET", "HEAD"))


# `churn_pipeline.serving.routing` decides which kinds need a key.
ROUTES: Mapping[str, Route] = dict(
    [
        _route("scoring", "/predict", "POST"),
        _route("scoring", "/explain", "POST"),
        _route("model", "/model"),
        _route("probe", "/health"),
        _route("probe", "/healthz"),
        _route("probe", "/livez"),
        _route("probe", "/readyz"),
        _route("metrics", "/metrics"),
        _route("page", "/"),
        _route("page", "/docs"),
        _route("page", "/openapi.json"),
        _route("page", "/docs.json"),
        _route("page", "/schema.json"),  # BentoML's own client requests it first
    ]
)


class ClientDisconnected(Exception):  # noqa: N818 - not a fault of the program
    """The client closed the connection before its request was complete."""


class RequestContext:
    """One request and what the guard logs about it. Of the caller's text, it logs only a well-formed request id."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.scope = scope
        self.started = time.perf_counter()
        self.route: Route | None = None
        self.key_name: str | None = None
        self.caller = NO_CALLER
        self.outcome: str | None = None
        self.status = 0
        self.stage = "limits"
        self.body_bytes = 0
        self.rows: int | None = None
        self._send = send
        self._received: dict[bytes, bytes | None] = {}
        for name, value in scope["headers"]:
            if name in READ_HEADERS:
                self._received[name] = None if name in self._received else value
        self.id = RequestId.make(self._received.get(b"x-request-id"))
        self.headers: list[tuple[bytes, bytes]] = [(b"x-request-id", self.id.encode()), NO_SNIFFING]
        self.parent = parent_of(*map(self.header, TRACE_HEADERS))
        self.trace_id = trace_id_of(self.parent)
        state = scope.setdefault("state", {})
        state["request_id"] = self.id
        state["key_name"] = None

    def header(self, name: bytes) -> bytes | None:
        """Value of a header in `READ_HEADERS`; None if it is missing or repeated."""
        return self._received.get(name)

    def has(self, name: bytes) -> bool:
        """Whether the request has a header in `READ_HEADERS`."""
        return name in self._received

    def seconds_left(self, limit: float) -> float:
        """Seconds until a time limit that began with the request."""
        return self.started + limit - time.perf_counter()

    @property
    def address(self) -> str:
        """The client's address; behind a trusted proxy, the one that the proxy reports. IPv4 in IPv6 is IPv4."""
        client = self.scope.get("client")
        if not client:
            return "unknown"
        address: str = client[0]
        if ":" in address and (found := _ip(address)) and found.version == 6 and found.ipv4_mapped:
            return str(found.ipv4_mapped)
        return address

    @property
    def network(self) -> str:
        """The network that invalid attempts are counted for: one IPv6 client has 2**64 addresses."""
        address = self.address
        found = _ip(address) if ":" in address else None
        return str(ipaddress.ip_network((found, 64), strict=False)) if found and found.version == 6 else address

    @property
    def method(self) -> str:
        """The method as it is logged: a standard HTTP method, or ``other``."""
        method: str = self.scope["method"]
        return method if method in METHODS else OTHER

    @property
    def path(self) -> str:
        """The path as it is logged and counted: a name in `ROUTES`, or ``other``."""
        return self.route.name if self.route else OTHER

    async def send(self, message: Message) -> None:
        """Pass a part of the answer on, and add the headers that every answer has."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": [*message.get("headers", ()), *self.headers]}
        await self._send(message)

    async def answer(self, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        """Send a whole JSON answer."""
        self.status = status
        length = (b"content-length", b"%d" % len(body))
        head = [JSON, length, *headers, *self.headers]
        await self._send({"type": "http.response.start", "status": status, "headers": head})
        await self._send({"type": "http.response.body", "body": body})

    async def refuse(self, refusal: Refusal) -> None:
        """Answer with a refusal, unless an answer has already started."""
        self.outcome = refusal.code
        if not self.status:
            await self.answer(refusal.status, refusal.content(self.id), refusal.headers)


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An address, or None for any other text, such as a proxy's."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
