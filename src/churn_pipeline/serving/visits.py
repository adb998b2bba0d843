"""A request on its way through the guards: where it wants to go, how it may be refused, and what is told of it."""

import ipaddress
import json
import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from starlette.types import Message, Scope, Send

from churn_pipeline.serving.metrics import OTHER

Kind = Literal["probe", "metrics", "page", "model", "work"]
IDS = random.Random()  # noqa: S311 - an id is no secret, and asking the system for each takes longer than a prediction
SANE_ID = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


@dataclass(frozen=True)
class Place:
    """A path: what it is, the name it is logged and counted under, and what may be done there."""

    kind: Kind
    name: str
    methods: tuple[str, ...] = ("GET", "HEAD")


def _place(kind: Kind, name: str, *methods: str) -> tuple[str, Place]:
    return name, Place(kind, name, methods or ("GET", "HEAD"))


# Every path there is. Which kinds need a key is in `Guard._access`.
PATHS: Mapping[str, Place] = dict(
    [
        _place("work", "/predict", "POST"),
        _place("work", "/explain", "POST"),
        _place("model", "/model"),
        _place("probe", "/health"),
        _place("probe", "/healthz"),
        _place("probe", "/livez"),
        _place("probe", "/readyz"),
        _place("metrics", "/metrics"),
        _place("page", "/"),
        _place("page", "/docs"),
        _place("page", "/openapi.json"),
        _place("page", "/docs.json"),
        _place("page", "/schema.json"),  # what BentoML's own client asks for first
    ]
)


class Refused(Exception):  # noqa: N818 - an answer, not an error
    """A request that is answered here. ``reason`` is for logs and metrics, ``message`` for the caller."""

    def __init__(self, status: int, reason: str, message: str, **headers: str) -> None:
        self.status = status
        self.reason = reason
        self.message = message
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        super().__init__(message)


class Gone(Exception):  # noqa: N818 - nobody's error
    """The caller hung up before the request was complete."""


class Visit:
    """One request on its way, and what is told of it afterwards: no text of the caller's but a sane id."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.scope = scope
        self.started = time.perf_counter()
        self.place: Place | None = None
        self.key_name: str | None = None
        self.reason: str | None = None
        self.status = 0
        self.at = "limits"
        self.headers: list[tuple[bytes, bytes]] = []
        self._send = send
        self._found: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            self._found.setdefault(name, []).append(value)
        asked = self.header(b"x-request-id") or b""
        self.id = asked.decode() if SANE_ID.fullmatch(asked) else f"{IDS.getrandbits(128):032x}"
        self.headers += [(b"x-request-id", self.id.encode()), (b"x-content-type-options", b"nosniff")]
        state = scope.setdefault("state", {})
        state["request_id"] = self.id
        state["key_name"] = None

    def header(self, name: bytes) -> bytes | None:
        """A header that is there once; None where it is missing or ambiguous."""
        values = self._found.get(name, ())
        return values[0] if len(values) == 1 else None

    def has(self, name: bytes) -> bool:
        """Whether a header is there at all."""
        return name in self._found

    @property
    def address(self) -> str:
        """Where the caller is; behind a proxy, the proxy, unless uvicorn is told to trust it (FORWARDED_ALLOW_IPS)."""
        client = self.scope.get("client")
        return client[0] if client else "unknown"

    @property
    def network(self) -> str:
        """Whom the address stands for: an IPv6 caller has 2**64 of them."""
        try:
            address = ipaddress.ip_address(self.address)
        except ValueError:  # no client, or what a proxy says of it
            return self.address
        return str(ipaddress.ip_network((address, 64), strict=False)) if address.version == 6 else self.address

    @property
    def method(self) -> str:
        """The method as it is logged: one of HTTP's, or ``other``."""
        method: str = self.scope["method"]
        return method if method in METHODS else OTHER

    @property
    def path(self) -> str:
        """The path as it is logged and counted: one of `PATHS`, or ``other``."""
        return self.place.name if self.place else OTHER

    async def send(self, message: Message) -> None:
        """Pass a part of the answer on, with the headers that every answer has."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": [*message.get("headers", ()), *self.headers]}
        await self._send(message)

    async def refuse(self, refusal: Refused) -> None:
        """Answer with a refusal; where an answer has begun there is nothing to be said."""
        self.reason = refusal.reason
        if self.status:
            return
        body = json.dumps({"error": refusal.message, "request_id": self.id}).encode()
        headers = [(name.lower().encode(), value.encode()) for name, value in refusal.headers.items()]
        headers += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await self.send({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})
