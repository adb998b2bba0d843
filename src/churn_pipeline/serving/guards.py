"""What stands between the network and the service: one ASGI class, outermost, in this order.

1. The request gets an id: the caller's ``X-Request-ID`` where it is a sane one, else one made here. Every answer has it.
2. A time limit starts. It covers the body, the wait and the work: 408, 503 and 504.
3. The path must be in `PATHS`, spelled exactly so, and the method one of the path's: 404 and 405. Nothing else reaches the
   application, BentoML's own routes included, so there is no path around what follows.
4. A key, where the path needs one: 401. Then the key's rate limit: 429. Nothing of the body has been read until here.
5. Room: where as many requests are in work and waiting as may be, 503 at once.
6. The body: its media type and encoding, 415; its size, from Content-Length and while it comes, 413.
7. A turn: so many requests are in work at once, and the others wait.

A request holds no turn while its body is on the way, so slow senders keep nobody from being served. Every refusal is
``{"error": …, "request_id": …}``. CORS (Starlette's) stands before all of this where origins are set: a browser's preflight
request has no key.

BentoML has a time limit and a concurrency limit of its own (``traffic``). Neither is used: the first ends with the first byte
of the answer and costs a task per request, the second answers 429, which tells a caller to blame himself, and has no
queue. uvicorn has no time limit for a request's head: what stands in front of the service must have one.

Limits count per worker unless a shared store is set; answers say which in ``RateLimit-Policy``.
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
from churn_pipeline.serving.draining import drain_when_told
from churn_pipeline.serving.keys import KeyRing
from churn_pipeline.serving.metrics import Metrics
from churn_pipeline.serving.settings import Access, Settings
from churn_pipeline.serving.visits import PATHS, Gone, Kind, Place, Refused, Visit

logger = logging.getLogger(__name__)

STATIC = "/static/"
JSON_TYPE = re.compile(rb"application/json\s*(;\s*charset\s*=\s*\"?utf-?8\"?\s*)?", re.IGNORECASE)
BUSY_SECONDS = 1  # what a caller is told to wait when there is no room
CALLERS = 10_000
REPLACED = ("TimeoutMiddleware", "OpenTelemetryMiddleware")
GONE = 499  # how a caller that hung up is logged; nothing is sent


class _Limiter:
    """A limit of the library `limits`: so many in a window of time that begins with the first."""

    def __init__(self, limit: str, store: str, name: str) -> None:
        self.item = limits.parse(limit)
        storage = storage_from_string(store, wrap_exceptions=True)
        assert isinstance(storage, Storage), "the settings admit asynchronous stores alone"
        self._limiter = FixedWindowRateLimiter(storage)
        self._name = name

    async def hit(self, who: str) -> bool:
        """Count one more; False where it is beyond the limit."""
        return await self._limiter.hit(self.item, self._name, who)

    async def has_room(self, who: str) -> bool:
        """Whether one more would be within the limit."""
        return await self._limiter.test(self.item, self._name, who)

    async def seconds(self, who: str) -> str:
        """Whole seconds until there is room again, one at least."""
        try:
            window = await self._limiter.get_window_stats(self.item, self._name, who)
        except StorageError:  # which has just answered: the whole window, then
            return str(self.item.get_expiry())
        return str(max(1, math.ceil(window.reset_time - time.time())))


class Guard:
    """The guards of one worker, around an ASGI application.

    Parameters
    ----------
    app
        What is guarded, to its last route.
    settings
        The service's settings.
    metrics
        Where everything is counted.
    static
        Names of the files under ``/static/``.
    """

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics, static: tuple[str, ...] = ()) -> None:
        self._app = app
        self._settings = settings
        self._metrics = metrics
        page = Place("page", STATIC.rstrip("/"))
        self._paths = {**PATHS, **{STATIC + name: page for name in static}}
        self._keys = KeyRing(settings.keys, settings.keys_file)
        self._per_key = _Limiter(settings.rate_limit, settings.rate_limit_store, "key")
        self._per_address = _Limiter(settings.failure_limit, settings.rate_limit_store, "address")
        counted = "shared" if settings.rate_limit_is_shared else "per-worker"
        policy = f'"{counted}";q={self._per_key.item.amount};w={self._per_key.item.get_expiry()}'
        self._policy = (b"ratelimit-policy", policy.encode())
        self._callers: set[tuple[str, str]] = set()
        self._inside = 0
        self._turns = asyncio.Semaphore(settings.concurrency)
        self._complained = -math.inf
        self._draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of any kind."""
        if scope["type"] == "http":
            await self._visit(Visit(scope, send), receive)
        elif scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        else:  # a websocket: there is nothing here that speaks it
            await send({"type": "websocket.close", "code": 1008})

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take logs and the end over while the application lives, and write the last lines before it may end."""
        handler = logs.configure(self._settings.log_level, self._metrics.lines_dropped)

        async def told(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                drain_when_told(self._settings.drain_seconds, self._drain)
            else:
                handler.flush()
            await send(message)

        await self._app(scope, receive, told)

    def _drain(self) -> None:
        self._draining = True

    async def _visit(self, visit: Visit, receive: Receive) -> None:
        deadline = asyncio.timeout(self._settings.request_seconds)
        try:
            async with deadline:
                await self._guard(visit, receive)
        except Refused as refusal:
            await visit.refuse(refusal)
        except Gone:
            visit.status, visit.reason = GONE, "gone"
        except Exception as error:
            if isinstance(error, TimeoutError) and deadline.expired():
                await visit.refuse(self._too_late(visit))
            else:
                logger.error("A request failed", exc_info=error, extra={"facts": {"request_id": visit.id}})
                await visit.refuse(Refused(500, "error", "The service failed; its log has the request id."))
        finally:
            self._tell(visit)

    async def _guard(self, visit: Visit, receive: Receive) -> None:
        place = self._find(visit)
        if self._draining:
            visit.headers.append((b"connection", b"close"))
            if place.name == "/readyz":
                raise Refused(503, "draining", "The service is about to end.")
        if self._access(place.kind) == "key":
            await self._admit(visit)
        if place.kind != "work":
            if place.kind == "metrics":
                self._metrics.asked()
            visit.at = "work"
            await self._app(visit.scope, receive, visit.send)
            return
        if self._inside >= self._settings.concurrency + self._settings.queue:
            self._metrics.shed()
            raise self._busy("shed")
        self._inside += 1
        try:
            visit.at = "body"
            receive = await self._body(visit, receive)
            visit.at = "queue"
            async with self._turns:
                visit.at = "work"
                await self._app(visit.scope, receive, visit.send)
        finally:
            self._inside -= 1

    def _access(self, kind: Kind) -> Access:
        """Whether a kind of path is open, needs a key, or is off."""
        if kind == "metrics" and self._settings.metrics == "off":
            return "off"
        if kind == "page" and self._settings.pages == "off":
            return "off"
        if kind == "probe" or self._settings.authentication == "off":
            return "open"
        return {"metrics": self._settings.metrics, "page": self._settings.pages}.get(kind, "key")

    def _find(self, visit: Visit) -> Place:
        place = self._paths.get(visit.scope["path"])
        if place is None or self._access(place.kind) == "off":
            raise Refused(404, "unknown path", "There is nothing here.")
        visit.place = place
        if visit.scope["method"] not in place.methods:
            allowed = ", ".join(place.methods)
            raise Refused(405, "method", f"This path takes {allowed}.", Allow=allowed)
        return place

    async def _admit(self, visit: Visit) -> None:
        """Let a caller with a valid key in, if the key's rate limit has room.

        An address with too many refused keys is shut out, so that keys cannot be tried at speed. A key that was valid
        from there before goes on working: one caller with a revoked key must not shut out all who share its address.
        """
        scheme, _, key = (visit.header(b"authorization") or b"").partition(b" ")
        if scheme.lower() != b"bearer" or not key:
            raise await self._unauthenticated(visit, "malformed" if visit.has(b"authorization") else "missing")
        name = self._keys.name_of(key.strip())
        if name is None:
            raise await self._unauthenticated(visit, "unknown")
        if (visit.address, name) not in self._callers:
            if not await self._has_room(self._per_address, visit.network):
                raise await self._shut_out(visit)
            if len(self._callers) >= CALLERS:
                self._callers.clear()
            self._callers.add((visit.address, name))
        visit.key_name = visit.scope["state"]["key_name"] = name
        visit.headers.append(self._policy)
        if not await self._counted(self._per_key, name):
            self._metrics.rate_limited("key")
            self._audit(visit, "refused", "rate limit")
            seconds = await self._per_key.seconds(name)
            raise Refused(429, "rate limit", "Too many requests with this key.", Retry_After=seconds)
        self._audit(visit, "granted", "key")

    async def _unauthenticated(self, visit: Visit, reason: str) -> Refused:
        self._metrics.unauthenticated(reason)
        if not await self._counted(self._per_address, visit.network):
            return await self._shut_out(visit)
        self._audit(visit, "refused", f"{reason} key")
        message = "This path needs a valid key: Authorization: Bearer <key>."
        return Refused(401, f"{reason} key", message, WWW_Authenticate="Bearer")

    async def _shut_out(self, visit: Visit) -> Refused:
        self._metrics.rate_limited("address")
        self._audit(visit, "refused", "too many refused keys")
        seconds = await self._per_address.seconds(visit.network)
        message = "Too many requests without a valid key."
        return Refused(429, "too many refused keys", message, Retry_After=seconds)

    async def _counted(self, limiter: _Limiter, who: str) -> bool:
        """Count one more. Where the store fails all are let through: a limit guards the load, the keys guard the rest."""
        try:
            return await limiter.hit(who)
        except StorageError as error:
            return self._store_failed(error)

    async def _has_room(self, limiter: _Limiter, who: str) -> bool:
        try:
            return await limiter.has_room(who)
        except StorageError as error:
            return self._store_failed(error)

    def _store_failed(self, error: StorageError) -> bool:
        self._metrics.store_failed()
        if time.monotonic() - self._complained >= 60:
            self._complained = time.monotonic()
            logger.error("Requests are not counted: the store of the rate limits fails", exc_info=error.storage_error)
        return True

    async def _body(self, visit: Visit, receive: Receive) -> Receive:
        """Read a body of the right type and size, and give what the application will read it from."""
        if visit.has(b"content-encoding"):
            raise Refused(415, "content encoding", "A body comes as it is, not compressed.")
        if not JSON_TYPE.fullmatch((visit.header(b"content-type") or b"").strip()):
            raise Refused(415, "media type", "A body is JSON: Content-Type: application/json.")
        most = self._settings.max_body_bytes
        too_large = Refused(413, "body size", f"A body has {most:,} bytes at most.")
        declared = visit.header(b"content-length") or b"0"
        if not declared.isdigit() or len(declared) > 18 or int(declared) > most:
            raise too_large
        parts, size, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Gone
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > most:
                raise too_large
            more = message.get("more_body", False)
        whole: list[Message] = [{"type": "http.request", "body": b"".join(parts), "more_body": False}]

        async def again() -> Message:
            return whole.pop() if whole else await receive()

        return again

    def _too_late(self, visit: Visit) -> Refused:
        self._metrics.timed_out(visit.at)
        if visit.at == "body":  # the rest of a body that is not there cannot be told from a next request
            return Refused(408, "slow body", "The body took too long to come.", Connection="close")
        if visit.at in ("limits", "queue"):
            return self._busy(f"slow {visit.at}")
        return Refused(504, "slow work", f"No answer within {self._settings.request_seconds:g} seconds.")

    @staticmethod
    def _busy(reason: str) -> Refused:
        return Refused(503, reason, "The service is busy; try again.", Retry_After=str(BUSY_SECONDS))

    def _audit(self, visit: Visit, outcome: str, reason: str) -> None:
        facts = {
            "request_id": visit.id,
            "outcome": outcome,
            "reason": reason,
            "key": visit.key_name,
            "method": visit.method,
            "path": visit.path,
        }
        if outcome == "refused":
            facts["address"] = visit.address
        logs.log(logs.AUDIT, logging.INFO, "access", facts)

    def _tell(self, visit: Visit) -> None:
        """Log and count a request that has ended."""
        seconds = time.perf_counter() - visit.started
        self._metrics.answered(visit.path, visit.status, seconds)
        probe = visit.place is not None and visit.place.kind in ("probe", "metrics")
        facts = {
            "request_id": visit.id,
            "key": visit.key_name,
            "method": visit.method,
            "path": visit.path,
            "status": visit.status,
            "rows": visit.scope["state"].get("rows"),
            "milliseconds": round(seconds * 1000, 3),
            "outcome": visit.reason or ("answered" if visit.status < 400 else "refused"),
        }
        logs.log(logs.REQUESTS, logging.DEBUG if probe and visit.status < 400 else logging.INFO, "request", facts)


def guarded(app: ASGIApp, settings: Settings, metrics: Metrics, static: Path | None = None) -> ASGIApp:
    """Put the guards around an application.

    What is inside finds ``request_id`` and ``key_name`` in ``scope["state"]``, and leaves ``rows`` there for the log.

    Parameters
    ----------
    app
        The application.
    settings
        The service's settings.
    metrics
        The service's metrics.
    static
        The folder of what is served under ``/static/``.
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


def surround(app: Starlette, settings: Settings, metrics: Metrics, static: Path | None = None) -> Starlette:
    """Put the guards around the whole of BentoML's application, and take out what they replace.

    Guards around what is mounted in it alone would leave BentoML's own routes open, and BentoML's own metrics, which have
    the path as it was asked for as a label, would grow with every path that anyone thinks of. This is for the ``to_asgi`` of a
    ``service_class``, which ``bentoml.service`` takes as an argument.

    BentoML's time limit goes, which cannot be switched off by its configuration, and so does its tracing, which takes
    longer than all guards together whether or not anyone collects the traces: requests are told apart by their ids.

    Parameters
    ----------
    app
        What ``to_asgi`` of BentoML's own class gives.
    settings, metrics, static
        As `guarded` takes them.
    """
    app.user_middleware = [one for one in app.user_middleware if getattr(one.cls, "__name__", "") not in REPLACED]
    app.add_middleware(guarded, settings=settings, metrics=metrics, static=static)
    return app
