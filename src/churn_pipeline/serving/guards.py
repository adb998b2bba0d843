"""The guard between the network and the service: one ASGI class that wraps the whole application.

It handles each request in these steps:

1. Request id: a well-formed ``X-Request-ID`` of the caller is kept, otherwise one is made. Every answer has it.
2. Time limit: covers the body, the wait and the work. It answers 408, 503 or 504.
3. Route: the path must match one of `ROUTES` exactly, and the method must be one of the route's: 404 or 405. The guard refuses
   any other path, including BentoML's own routes, so no path bypasses the next steps.
4. API key, if the route needs one: 401. Then the key's rate limit: 429. The body has not been read yet.
5. Capacity: if concurrency and queue are full, 503 at once.
6. Body: 415 if its media type or encoding is not accepted; 413 if it is too large, according to Content-Length or to the bytes
   received.
7. Concurrency: at most ``concurrency`` requests are processed at once; the others wait in the queue.

A request takes no concurrency slot while its body arrives, so slow senders do not block others. Every refusal has the body
``{"error": …, "request_id": …}``. If origins are set, Starlette's CORS middleware runs before all steps, because a browser
sends its preflight request without a key.

BentoML's own timeout and concurrency limit (``traffic``) are not used. The timeout covers only the time until the first byte of
the answer, and needs an extra task per request. The concurrency limit answers 429, which blames the caller, and has no queue.
uvicorn has no time limit for the request head, so the proxy in front of the service must set one.

Limits count per worker unless a shared store is set. The header ``RateLimit-Policy`` says which of the two applies.
"""

import asyncio
import logging
import math
import re
import time
from pathlib import Path

import limits
from limits.aio.storage import Storage
from limits.aio.strategies import FixedWindowRateLimiter
from limits.errors import StorageError
from limits.storage import storage_from_string
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from churn_pipeline.serving import logs
from churn_pipeline.serving.draining import drain_on_sigterm, uvicorn_server, write_address
from churn_pipeline.serving.keys import KeyRing
from churn_pipeline.serving.metrics import Metrics
from churn_pipeline.serving.request_context import ROUTES, ClientDisconnected, Kind, Refusal, RequestContext, Route
from churn_pipeline.serving.settings import Access, Settings

logger = logging.getLogger(__name__)

STATIC = "/static/"
JSON_TYPE = re.compile(rb"application/json\s*(;\s*charset\s*=\s*\"?utf-?8\"?\s*)?", re.IGNORECASE)
RETRY_SECONDS = 1  # Retry-After of a busy service
MAX_KNOWN_CALLERS = 10_000
REPLACED_MIDDLEWARE = ("TimeoutMiddleware", "OpenTelemetryMiddleware")
CLIENT_CLOSED_REQUEST = 499  # logged if the client hung up; nothing is sent
STORE_ERROR_LOG_SECONDS = 60


class _RateLimiter:
    """Fixed-window rate limit of the library `limits`; a window starts with its first request."""

    def __init__(self, limit: str, store: str, name: str) -> None:
        self.item = limits.parse(limit)
        storage = storage_from_string(store, wrap_exceptions=True)
        assert isinstance(storage, Storage), "Settings accept asynchronous stores only"
        self._limiter = FixedWindowRateLimiter(storage)
        self._name = name

    async def hit(self, identifier: str) -> bool:
        """Count a request; False if it exceeds the limit."""
        return await self._limiter.hit(self.item, self._name, identifier)

    async def allows(self, identifier: str) -> bool:
        """Whether one more request would stay within the limit; counts nothing."""
        return await self._limiter.test(self.item, self._name, identifier)

    async def retry_seconds(self, identifier: str) -> str:
        """Whole seconds until the window ends, at least one."""
        try:
            window = await self._limiter.get_window_stats(self.item, self._name, identifier)
        except StorageError:  # it worked a moment ago: return the length of the window
            return str(self.item.get_expiry())
        return str(max(1, math.ceil(window.reset_time - time.time())))


class Guard:
    """The guard of one worker: an ASGI application that wraps another one.

    Parameters
    ----------
    app
        The application inside the guard, with all its routes.
    settings
        The service's settings.
    metrics
        The service's metrics.
    static
        Names of the files under ``/static/``.
    """

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics, static: tuple[str, ...] = ()) -> None:
        self._app = app
        self._settings = settings
        self._metrics = metrics
        page = Route("page", STATIC.rstrip("/"))
        self._routes = {**ROUTES, **{STATIC + name: page for name in static}}
        self.keys = KeyRing(settings.keys, settings.keys_file)
        self._per_key = _RateLimiter(settings.rate_limit, settings.rate_limit_store, "key")
        self._per_address = _RateLimiter(settings.failure_limit, settings.rate_limit_store, "address")
        scope = "shared" if settings.rate_limit_is_shared else "per-worker"
        policy = f'"{scope}";q={self._per_key.item.amount};w={self._per_key.item.get_expiry()}'
        self._policy = (b"ratelimit-policy", policy.encode())
        self.known_callers: set[tuple[str, str]] = set()
        self.admitted = 0  # requests that are processed or wait
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._store_error_logged = -math.inf
        self._draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of any kind."""
        if scope["type"] == "http":
            await self._handle(RequestContext(scope, send), receive)
        elif scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        else:  # the service has no websockets
            await send({"type": "websocket.close", "code": 1008})

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Configure logging and graceful shutdown at startup, and write the last log lines at shutdown."""
        handler = logs.configure(self._settings.log_level, self._metrics.lines_dropped)

        async def forward(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                self._prepare_server()
            else:
                handler.close()
            await send(message)

        await self._app(scope, receive, forward)

    def _prepare_server(self) -> None:
        """Prepare graceful shutdown, and write the address file; outside a worker, do nothing."""
        settings, server = self._settings, uvicorn_server()
        if server is not None:
            drain_on_sigterm(server, settings.drain_seconds, settings.request_seconds, self._start_draining)
            if settings.address_file is not None:
                self._address = asyncio.create_task(write_address(server, settings.address_file))

    def _start_draining(self) -> None:
        self._draining = True

    async def _handle(self, context: RequestContext, receive: Receive) -> None:
        deadline = asyncio.timeout(self._settings.request_seconds)
        try:
            async with deadline:
                await self._check_and_forward(context, receive)
        except Refusal as refusal:
            await context.refuse(refusal)
        except ClientDisconnected:
            context.status, context.reason = CLIENT_CLOSED_REQUEST, "client disconnected"
        except Exception as error:
            if isinstance(error, TimeoutError) and deadline.expired():
                await context.refuse(self._timed_out(context))
            else:
                logger.error("A request failed", exc_info=error, extra={"facts": {"request_id": context.id}})
                message = "The service failed. Its log has the error under this request id."
                await context.refuse(Refusal(500, "error", message))
        finally:
            self._log_request(context)

    async def _check_and_forward(self, context: RequestContext, receive: Receive) -> None:
        route = self._match_route(context)
        if self._draining:
            context.headers.append((b"connection", b"close"))
            if route.name == "/readyz":
                raise Refusal(503, "draining", "The service is shutting down.")
        if self._access(route.kind) == "key":
            await self._authenticate(context)
        if route.kind != "scoring":
            if route.kind == "metrics":
                self._metrics.refresh()
            context.stage = "work"
            await self._app(context.scope, receive, context.send)
            return
        if self.admitted >= self._settings.concurrency + self._settings.queue:
            self._metrics.shed()
            raise self._busy("shed")
        self.admitted += 1
        try:
            context.stage = "body"
            receive = await self._read_body(context, receive)
            context.stage = "queue"
            async with self._slots:
                context.stage = "work"
                await self._app(context.scope, receive, context.send)
        finally:
            self.admitted -= 1

    def _access(self, kind: Kind) -> Access:
        """Whether routes of a kind are open, need a key, or are off."""
        if kind == "metrics" and self._settings.metrics == "off":
            return "off"
        if kind == "page" and self._settings.pages == "off":
            return "off"
        if kind == "probe" or self._settings.authentication == "off":
            return "open"
        return {"metrics": self._settings.metrics, "page": self._settings.pages}.get(kind, "key")

    def _match_route(self, context: RequestContext) -> Route:
        route = self._routes.get(context.scope["path"])
        if route is None or self._access(route.kind) == "off":
            raise Refusal(404, "unknown path", "This path does not exist.")
        context.route = route
        if context.scope["method"] not in route.methods:
            allowed = ", ".join(route.methods)
            raise Refusal(405, "method", f"This path does not accept the method. Use {allowed}.", Allow=allowed)
        return route

    async def _authenticate(self, context: RequestContext) -> None:
        """Admit a caller with a valid key that is within its rate limit.

        An address that sends too many invalid keys is blocked, so that keys cannot be guessed at speed. Keys that this address
        has already used successfully keep working: one caller's revoked key must not block the others behind the same address.
        """
        scheme, _, key = (context.header(b"authorization") or b"").partition(b" ")
        if scheme.lower() != b"bearer" or not key:
            raise await self._unauthenticated(context, "malformed" if context.has(b"authorization") else "missing")
        name = self.keys.name_of(key.strip())
        if name is None:
            raise await self._unauthenticated(context, "unknown")
        if (context.address, name) not in self.known_callers:
            if not await self._allows(self._per_address, context.network):
                raise await self._blocked_address(context)
            if len(self.known_callers) >= MAX_KNOWN_CALLERS:
                self.known_callers.clear()
            self.known_callers.add((context.address, name))
        context.key_name = context.scope["state"]["key_name"] = name
        context.headers.append(self._policy)
        if not await self._hit(self._per_key, name):
            self._metrics.rate_limited("key")
            self._audit(context, "refused", "rate limit")
            seconds = await self._per_key.retry_seconds(name)
            raise Refusal(429, "rate limit", "Too many requests with this API key.", Retry_After=seconds)
        self._audit(context, "granted", "key")

    async def _unauthenticated(self, context: RequestContext, reason: str) -> Refusal:
        self._metrics.unauthenticated(reason)
        if not await self._hit(self._per_address, context.network):
            return await self._blocked_address(context)
        self._audit(context, "refused", f"{reason} key")
        message = "This path needs a valid API key. Send the header Authorization: Bearer <key>."
        return Refusal(401, f"{reason} key", message, WWW_Authenticate="Bearer")

    async def _blocked_address(self, context: RequestContext) -> Refusal:
        self._metrics.rate_limited("address")
        self._audit(context, "refused", "too many invalid keys")
        seconds = await self._per_address.retry_seconds(context.network)
        message = "Too many requests without a valid API key from this address."
        return Refusal(429, "too many invalid keys", message, Retry_After=seconds)

    async def _hit(self, limiter: _RateLimiter, identifier: str) -> bool:
        """Count a request. If the store fails, allow it: rate limits protect capacity, keys protect access."""
        try:
            return await limiter.hit(identifier)
        except StorageError as error:
            return self._allow_uncounted(error)

    async def _allows(self, limiter: _RateLimiter, identifier: str) -> bool:
        try:
            return await limiter.allows(identifier)
        except StorageError as error:
            return self._allow_uncounted(error)

    def _allow_uncounted(self, error: StorageError) -> bool:
        self._metrics.store_failed()
        if time.monotonic() - self._store_error_logged >= STORE_ERROR_LOG_SECONDS:
            self._store_error_logged = time.monotonic()
            logger.error("The rate limit store failed: requests are allowed uncounted", exc_info=error.storage_error)
        return True

    async def _read_body(self, context: RequestContext, receive: Receive) -> Receive:
        """Check and read the body. Return a ``receive`` that replays it to the application."""
        if context.has(b"content-encoding"):
            raise Refusal(415, "content encoding", "Compressed bodies are not accepted. Send plain JSON.")
        if not JSON_TYPE.fullmatch((context.header(b"content-type") or b"").strip()):
            raise Refusal(415, "media type", "The body must be JSON with the header Content-Type: application/json.")
        limit = self._settings.max_body_bytes
        too_large = Refusal(413, "body size", f"The body is too large: at most {limit:,} bytes are accepted.")
        declared = context.header(b"content-length") or b"0"
        if not declared.isdigit() or len(declared) > 18 or int(declared) > limit:
            raise too_large
        parts, size, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnected
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > limit:
                raise too_large
            more = message.get("more_body", False)
        body: list[Message] = [{"type": "http.request", "body": b"".join(parts), "more_body": False}]

        async def replay() -> Message:
            return body.pop() if body else await receive()

        return replay

    def _timed_out(self, context: RequestContext) -> Refusal:
        self._metrics.timed_out(context.stage)
        if context.stage == "body":  # unread bytes could be taken for the next request, so the connection must close
            return Refusal(408, "slow body", "The request body arrived too slowly.", Connection="close")
        if context.stage in ("limits", "queue"):
            return self._busy(f"slow {context.stage}")
        return Refusal(504, "slow work", f"The request took longer than {self._settings.request_seconds:g} seconds.")

    @staticmethod
    def _busy(reason: str) -> Refusal:
        return Refusal(503, reason, "The service is busy. Try again later.", Retry_After=str(RETRY_SECONDS))

    def _audit(self, context: RequestContext, outcome: str, reason: str) -> None:
        facts = {
            "request_id": context.id,
            "outcome": outcome,
            "reason": reason,
            "key": context.key_name,
            "method": context.method,
            "path": context.path,
        }
        if outcome == "refused":
            facts["address"] = context.address
        logs.log(logs.AUDIT, logging.INFO, "access", facts)

    def _log_request(self, context: RequestContext) -> None:
        """Log and count a finished request."""
        seconds = time.perf_counter() - context.started
        self._metrics.answered(context.path, context.status, seconds)
        probe = context.route is not None and context.route.kind in ("probe", "metrics")
        facts = {
            "request_id": context.id,
            "key": context.key_name,
            "method": context.method,
            "path": context.path,
            "status": context.status,
            "rows": context.scope["state"].get("rows"),
            "milliseconds": round(seconds * 1000, 3),
            "outcome": context.reason or ("answered" if context.status < 400 else "refused"),
        }
        logs.log(logs.REQUESTS, logging.DEBUG if probe and context.status < 400 else logging.INFO, "request", facts)


def make_guard(app: ASGIApp, settings: Settings, metrics: Metrics, static: Path | None = None) -> ASGIApp:
    """Wrap an application in a guard and, if origins are set, in CORS middleware.

    The guard puts ``request_id`` and ``key_name`` into ``scope["state"]``. It logs ``rows`` if the application puts it there.

    Parameters
    ----------
    app
        The application.
    settings
        The service's settings.
    metrics
        The service's metrics.
    static
        Folder of the files under ``/static/``.
    """
    names = tuple(sorted(file.name for file in static.iterdir())) if static else ()
    guard = Guard(app, settings, metrics, names)
    if not settings.cors_origins:
        return guard
    return CORSMiddleware(
        guard,
        allow_origins=settings.cors_origins,
        allow_methods=("GET", "POST"),
        allow_headers=("Authorization", "Content-Type", "X-Request-ID"),
        expose_headers=("X-Request-ID", "Retry-After", "RateLimit-Policy"),
    )


def add_guard(app: Starlette, settings: Settings, metrics: Metrics, static: Path | None = None) -> Starlette:
    """Add the guard to BentoML's application as outermost middleware, and remove the middleware it replaces.

    Call it in ``to_asgi`` of a ``service_class``, an argument of ``bentoml.service``. A guard around the mounted application
    alone would leave BentoML's own routes open. BentoML's metrics use the raw path as a label, so they would also grow with
    every path that a caller invents.

    BentoML's timeout and tracing middleware are removed. BentoML's configuration cannot switch the timeout off. Tracing takes
    longer than the guard even if no one collects the traces; request ids replace it.

    Parameters
    ----------
    app
        The return value of ``to_asgi`` of BentoML's own class.
    settings, metrics, static
        See `make_guard`.
    """
    app.user_middleware = [
        middleware
        for middleware in app.user_middleware
        if getattr(middleware.cls, "__name__", "") not in REPLACED_MIDDLEWARE
    ]
    app.add_middleware(make_guard, settings=settings, metrics=metrics, static=static)
    return app
