"""What the service records about each finished request: a log line, a metric, and a span if a collector is set."""

import logging
import time

from churn_pipeline.serving import logs
from churn_pipeline.serving.metrics import Metrics
from churn_pipeline.serving.request_context import RequestContext
from churn_pipeline.serving.settings import Settings
from churn_pipeline.serving.tracing import TRACED, Tracing


class RequestLog:
    """The record of the requests of one worker.

    Parameters
    ----------
    settings
        The service's settings.
    metrics
        The service's metrics.
    tracing
        Makes the spans.
    """

    def __init__(self, settings: Settings, metrics: Metrics, tracing: Tracing) -> None:
        self._settings = settings
        self._metrics = metrics
        self._tracing = tracing

    def finished(self, context: RequestContext) -> None:
        """Log and count a finished request."""
        seconds = time.perf_counter() - context.started
        self._metrics.answered(context.path, context.status, seconds)
        probe = context.route is not None and context.route.kind in ("probe", "metrics")
        facts = {
            **context.id.facts,
            "key": context.key_name,
            "method": context.method,
            "path": context.path,
            "status": context.status,
            "rows": context.rows,
            "milliseconds": round(seconds * 1000, 3),
            "outcome": context.outcome or ("answered" if context.status < 400 else "refused"),
        }
        if trace_id := self._trace(context, seconds) or context.trace_id:
            facts["trace_id"] = trace_id
        logs.log(logs.REQUESTS, logging.DEBUG if probe and context.status < 400 else logging.INFO, "request", facts)

    async def close(self) -> None:
        """Send the waiting spans."""
        await self._tracing.close()

    def _trace(self, context: RequestContext, seconds: float) -> str | None:
        """Make the span of a request whose route is traced and whose caller was admitted; return its trace id."""
        route = context.route
        admitted = context.key_name is not None or self._settings.authentication == "off"
        if route is None or route.kind not in TRACED or not admitted:
            return None
        facts = {
            "http.request.method": context.method,
            "http.route": route.name,
            "http.response.status_code": context.status,
            "churn.request_id": context.id,
            "churn.key": context.key_name,
            "churn.rows": context.rows,
        }
        return self._tracing.record(f"{context.method} {route.name}", context.status, seconds, context.parent, facts)
