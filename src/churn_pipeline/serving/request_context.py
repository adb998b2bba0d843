"""The routes of the service, and the state of one request while the guard handles it."""

import ipaddress
import json
import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.types import Message, Scope, Send

from churn_pipeline.serving.metrics import OTHER
from churn_pipeline.serving.refusals import CODES, Kind

RANDOM = random.Random()  # noqa: S311 - ids are not secret, and os.urandom takes longer than a prediction
REQUEST_ID = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


@dataclass(frozen=True)
class Route:
    """A path of the service: its kind, the name used in logs and metrics, and its methods."""

    kind: Kind
    name: str
    methods: tuple[str, ...] = ("GET", "HEAD")


def _route(kind: Kind, name: str, *methods: str) -> tuple[str, Route]:
    return name, Route(kind, name, methods or ("GET", "HEAD"))


# `Guard._access` decides which kinds need a key.
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


# The code of each reason that is not a code with spaces.
OTHER_CODES = {
    "method": "method_not_allowed",
    "rate limit": "rate_limited",
    "too many invalid keys": "address_rate_limited",
    "content encoding": "unsupported_encoding",
    "media type": "unsupported_media_type",
    "body size": "body_too_large",
    "shed": "busy",
    "slow limits": "busy",
    "slow queue": "busy",
    "slow work": "too_slow",
    "error": "internal_error",
}


class Refusal(Exception):  # noqa: N818 - an HTTP answer, not a fault of the program
    """The guard answers the request itself. ``reason`` goes to logs and metrics, ``message`` to the caller."""

    def __init__(self, status: int, reason: str, message: str, **headers: str) -> None:
        self.status = status
        self.reason = reason
        self.code = OTHER_CODES.get(reason) or reason.replace(" ", "_")
        assert CODES[self.code].status == status, f"{self.code} has another status than {status}"
        self.message = message
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        super().__init__(message)


class ClientDisconnected(Exception):  # noqa: N818 - not a fault of the program
    """The client closed the connection before its request was complete."""


class RequestContext:
    """One request and what the guard logs about it. Of the caller's text, it logs only a well-formed request id."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.scope = scope
        self.started = time.perf_counter()
        self.route: Route | None = None
        self.key_name: str | None = None
        self.reason: str | None = None
        self.status = 0
        self.stage = "limits"
        self.headers: list[tuple[bytes, bytes]] = []
        self._send = send
        self._received: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            self._received.setdefault(name, []).append(value)
        given = self.header(b"x-request-id") or b""
        self.id = given.decode() if REQUEST_ID.fullmatch(given) else f"{RANDOM.getrandbits(128):032x}"
        self.headers += [(b"x-request-id", self.id.encode()), (b"x-content-type-options", b"nosniff")]
        state = scope.setdefault("state", {})
        state["request_id"] = self.id
        state["key_name"] = None

    def header(self, name: bytes) -> bytes | None:
        """Value of a request header; None if it is missing or repeated."""
        values = self._received.get(name, ())
        return values[0] if len(values) == 1 else None

    def has(self, name: bytes) -> bool:
        """Whether the request has a header of this name."""
        return name in self._received

    @property
    def address(self) -> str:
        """The client's address; behind a proxy, the proxy's, unless uvicorn trusts it (FORWARDED_ALLOW_IPS)."""
        client = self.scope.get("client")
        return client[0] if client else "unknown"

    @property
    def network(self) -> str:
        """The network that failed keys are counted for: one IPv6 client has 2**64 addresses."""
        try:
            address = ipaddress.ip_address(self.address)
        except ValueError:  # no client, or text from a proxy
            return self.address
        return str(ipaddress.ip_network((address, 64), strict=False)) if address.version == 6 else self.address

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

    async def refuse(self, refusal: Refusal) -> None:
        """Answer with a refusal, unless an answer has already started."""
        self.reason = refusal.reason
        if self.status:
            return
        body = json.dumps({"code": refusal.code, "error": refusal.message, "request_id": self.id}).encode()
        headers = [(name.lower().encode(), value.encode()) for name, value in refusal.headers.items()]
        headers += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await self.send({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})
