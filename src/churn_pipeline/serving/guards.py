"""The guard between the network and the service: one ASGI class that wraps the whole application.

It handles each request in these steps:

1. Request id: one is made. Every answer has it, or else the caller's ``X-Request-ID`` if that is well-formed.
2. Route: the path must match one of `ROUTES` exactly, and the method must be one of the route's. The guard refuses any other
   path, including BentoML's own routes, so no path bypasses the next steps.
3. API key and rate limit, if the route needs a key (`authentication`, `rate_limits`). The body has not been read yet.
4. Body, within limits of size, number, memory and time (`bodies`).
5. Turn: the request waits until it is due (`scoring_route`, `capacity`). Slow senders have no turn, so they delay nobody.
6. Work: the guard calls the predictor and sends its answer. BentoML's application serves all other routes.

Every refusal has the body ``{"code": …, "error": …, "request_id": …}``, with a code of `refusal_codes`. If origins are set,
Starlette's CORS middleware runs before all steps, because a browser sends its preflight request without a key.

BentoML's own timeout and concurrency limit (``traffic``) are not used. The timeout covers only the time until the first byte of
the answer; the service sets it so high that it never comes first. The concurrency limit answers 429, which blames the caller,
and has no queue.
`uvicorn_internals` limits what comes before the guard: size and time of request heads, pipelining, and unread answers.

Limits count per worker unless a shared store is set. The header ``RateLimit-Policy`` says which of the two applies.
"""

import asyncio
import gc
import logging
from pathlib import Path

import limits
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from churn_pipeline.serving import logs
from churn_pipeline.serving.authentication import Authentication
from churn_pipeline.serving.bodies import Bodies
from churn_pipeline.serving.draining import drain_on_sigterm, write_address
from churn_pipeline.serving.metrics import Metrics
from churn_pipeline.serving.proxies import trust_proxies
from churn_pipeline.serving.refusals import Refusal, invalid
from churn_pipeline.serving.request_context import ClientDisconnected, RequestContext
from churn_pipeline.serving.request_log import RequestLog
from churn_pipeline.serving.requests import RequestError
from churn_pipeline.serving.routing import Routing
from churn_pipeline.serving.scoring_route import Predictor, ScoringRoute
from churn_pipeline.serving.settings import Settings
from churn_pipeline.serving.tracing import Tracing
from churn_pipeline.serving.uvicorn_internals import limit_connections, uvicorn_server

logger = logging.getLogger(__name__)

READINESS = ("/readyz", "/health")
CLIENT_CLOSED_REQUEST = 499  # logged if the client hung up; nothing is sent


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
    predictor
        Answers scoring requests; None sends them to the application.
    tracing
        Makes the spans; by default, none.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        metrics: Metrics,
        static: tuple[str, ...] = (),
        predictor: Predictor | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self._app = app
        self._settings = settings
        self._metrics = metrics
        self._routing = Routing(settings, static)
        self._request_log = RequestLog(settings, metrics, tracing or Tracing(None))
        self.authentication = Authentication(settings, metrics)
        self.bodies = Bodies(settings)
        self._scoring = ScoringRoute(predictor, settings, metrics)
        self._is_fast = predictor is not None
        limit, scope = limits.parse(settings.rate_limit), "shared" if settings.rate_limit_is_shared else "per-worker"
        self._policy = (b"ratelimit-policy", f'"{scope}";q={limit.amount};w={limit.get_expiry()}'.encode())
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
                await self._request_log.close()
                handler.close()
            await send(message)

        await self._app(scope, receive, forward)

    def _prepare_server(self) -> None:
        """Limit connections, prepare graceful shutdown, and write the address file; outside a worker, do nothing."""
        settings, server = self._settings, uvicorn_server()
        if server is not None:
            limit_connections(server, settings.request_seconds)
            drain_on_sigterm(server, settings.drain_seconds, settings.request_seconds, self.start_draining)
            # A full collection stops the worker: for about 100 ms with all that was loaded, for 20 ms without.
            gc.collect()
            gc.freeze()
            if settings.address_file is not None:
                self._address = asyncio.create_task(write_address(server, settings.address_file))

    def start_draining(self) -> None:
        """Fail the readiness checks, and close each connection after its answer."""
        self._draining = True

    async def _handle(self, context: RequestContext, receive: Receive) -> None:
        try:
            await self._serve(context, receive)
        except Refusal as refusal:
            if refusal.code in ("slow_body", "too_slow"):
                self._metrics.timed_out(context.stage)
            await context.refuse(refusal)
        except RequestError as error:
            self._metrics.refused(error.problems)
            await context.refuse(invalid(error))
        except ClientDisconnected:
            context.status, context.outcome = CLIENT_CLOSED_REQUEST, "client_disconnected"
        except Exception as error:
            logger.error("A request failed", exc_info=error, extra={"facts": context.id.facts})
            message = "The service failed. Its log has the error under this request id."
            await context.refuse(Refusal("internal_error", message))
        finally:
            self.bodies.release(context)
            self._request_log.finished(context)

    async def _serve(self, context: RequestContext, receive: Receive) -> None:
        route, access = self._routing.match(context)
        if self._draining:
            context.headers.append((b"connection", b"close"))
            if route.name in READINESS:
                raise Refusal("draining", "The service is shutting down.")
        if access == "key":
            context.headers.append(self._policy)
            await self.authentication.admit(context)
        else:
            context.caller = context.network
        if route.kind != "scoring":
            if route.kind == "metrics":
                self._metrics.refresh()
            await self._forward(context, receive)
            return
        context.stage = "body"
        body = await self.bodies.read(context, receive)
        if self._is_fast:
            context.rows, content = await self._scoring.answer(context, body)
            await context.answer(200, content)
        else:
            await self._forward_scoring(context, receive, body)

    async def _forward(self, context: RequestContext, receive: Receive) -> None:
        """Let the application inside answer, within the time limit."""
        context.stage = "work"
        deadline = asyncio.timeout(context.seconds_left(self._settings.request_seconds))
        try:
            async with deadline:
                await self._app(context.scope, receive, context.send)
        except TimeoutError:
            if not deadline.expired():
                raise
            message = f"The request took longer than {self._settings.request_seconds:g} seconds."
            raise Refusal("too_slow", message) from None

    async def _forward_scoring(self, context: RequestContext, receive: Receive, body: bytes) -> None:
        """Let the application inside answer a scoring request, and write the refusal of an invalid one."""
        state = context.scope["state"]
        unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return unread.pop() if unread else await receive()

        async def send(message: Message) -> None:
            if "request_error" not in state:
                await context.send(message)

        async with self._scoring.turn(context, body):
            await self._app(context.scope, replay, send)
        if error := state.get("request_error"):
            raise error
        context.rows = state.get("rows")


def make_guard(
    app: ASGIApp,
    settings: Settings,
    metrics: Metrics,
    static: Path | None = None,
    predictor: Predictor | None = None,
    tracing: Tracing | None = None,
) -> ASGIApp:
    """Wrap an application in a guard and, if origins are set, in CORS middleware.

    The guard puts ``request_id`` and ``key_name`` into ``scope["state"]``. If the application answers a scoring request, it
    puts ``rows`` or ``request_error`` there.

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
    predictor
        Answers scoring requests; None sends them to the application, for tests.
    tracing
        Makes the spans; by default, none.
    """
    names = tuple(sorted(file.name for file in static.iterdir())) if static else ()
    guard = Guard(app, settings, metrics, names, predictor, tracing)
    if not settings.cors_origins:
        return guard
    return CORSMiddleware(
        guard,
        allow_origins=settings.cors_origins,
        allow_methods=("GET", "POST"),
        allow_headers=("Authorization", "Content-Type", "X-Request-ID"),
        expose_headers=("X-Request-ID", "Retry-After", "RateLimit-Policy"),
    )


def add_guard(
    app: Starlette,
    settings: Settings,
    metrics: Metrics,
    static: Path | None = None,
    predictor: Predictor | None = None,
    tracing: Tracing | None = None,
) -> Starlette:
    """Add the guard to BentoML's application as outermost middleware.

    A guard around the mounted application alone would leave BentoML's own routes open. BentoML's metrics use the raw path as a
    label, so they would also grow with every path that a caller invents.

    Parameters
    ----------
    app
        The return value of ``to_asgi`` of BentoML's own class.
    settings, metrics, static, predictor, tracing
        See `make_guard`.
    """
    trust_proxies(settings.trusted_proxies)
    app.add_middleware(
        make_guard, settings=settings, metrics=metrics, static=static, predictor=predictor, tracing=tracing
    )
    return app
