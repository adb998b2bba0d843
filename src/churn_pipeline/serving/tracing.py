"""Traces: one span for each request to ``/predict``, ``/explain`` and ``/model``.

If a collector is set, the spans are sent to it. BentoML makes the tracer from its public settings: `bentoml_options`. The guard
makes the spans, because it answers most requests without BentoML's middleware. Of the caller's text, a span contains only a
well-formed request id. Requests without a valid API key have no span, because anyone could fill the collector with them.

The trace id of a valid ``traceparent`` header is logged whether or not a collector is set.

References
----------
Trace Context, W3C Recommendation, 2021: https://www.w3.org/TR/trace-context-1/
"""

import asyncio
import importlib.util
import time
from collections.abc import Mapping
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind, Status, StatusCode, format_trace_id, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from churn_pipeline.serving.settings import PREFIX, SettingsError

# The standard variables that name a collector. The exporter reads them itself.
COLLECTORS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL = "http/protobuf"
EXPORTER = "opentelemetry.exporter.otlp.proto.http"
SHARE = f"{PREFIX}TRACE_SHARE"
TRACED = ("scoring", "model")
FLUSH_SECONDS = 2.0
PROPAGATOR = TraceContextTextMapPropagator()


def bentoml_options(environment: Mapping[str, str]) -> dict[str, Any]:
    """The argument ``tracing`` of ``bentoml.service``: an exporter if a collector is set; no spans by BentoML's middleware."""
    options: dict[str, Any] = {"excluded_urls": ".*", "sample_rate": 0.0}
    if any(environment.get(name) for name in COLLECTORS):
        options |= {"exporter_type": "otlp", "otlp": {"protocol": "http"}, "sample_rate": _share(environment)}
    return options


def _share(environment: Mapping[str, str]) -> float:
    try:
        return min(1.0, max(0.0, float(environment.get(SHARE) or 1.0)))
    except ValueError:  # refused later, when the settings are read
        return 0.0


def check_exporter(environment: Mapping[str, str]) -> None:
    """Check that spans can be sent, if a collector is set.

    Raises
    ------
    SettingsError
        If the protocol is not the one that the image has an exporter for, or the exporter is not installed.
    """
    if not any(environment.get(name) for name in COLLECTORS):
        return
    for name in PROTOCOLS:
        if environment.get(name, PROTOCOL) not in ("", PROTOCOL):
            raise SettingsError(f"Invalid settings: {name}: traces are sent as {PROTOCOL} only; remove the variable")
    try:
        found = importlib.util.find_spec(EXPORTER)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise SettingsError(
            "Invalid settings: a collector is set, but the package opentelemetry-exporter-otlp-proto-http is not installed"
        )


def parent_of(traceparent: bytes | None, tracestate: bytes | None = None) -> Context | None:
    """The trace that a request belongs to by its headers; None if ``traceparent`` is missing or malformed."""
    if traceparent is None:
        return None
    carrier = {"traceparent": traceparent.decode("latin-1"), "tracestate": (tracestate or b"").decode("latin-1")}
    parent = PROPAGATOR.extract(carrier)
    return parent if get_current_span(parent).get_span_context().is_valid else None


def trace_id_of(parent: Context | None) -> str | None:
    """The trace id as 32 hexadecimal digits."""
    return None if parent is None else format_trace_id(get_current_span(parent).get_span_context().trace_id)


class Tracing:
    """Makes the spans of a worker.

    Parameters
    ----------
    provider
        BentoML's tracer provider; None if no collector is set.
    """

    def __init__(self, provider: TracerProvider | None) -> None:
        self._provider = provider
        self._tracer = None if provider is None else provider.get_tracer(__name__)

    def record(
        self, name: str, status: int, seconds: float, parent: Context | None, facts: Mapping[str, Any]
    ) -> str | None:
        """Make the span of a request that has just ended.

        Parameters
        ----------
        name
            Method and route.
        status
            Status of the answer.
        seconds
            Duration of the request.
        parent
            The caller's trace, from `parent_of`.
        facts
            Attributes of the span; those that are None are left out.

        Returns
        -------
        str or None
            The trace id; None if no collector is set.
        """
        if self._tracer is None:
            return None
        ended = time.time_ns()
        span = self._tracer.start_span(
            name,
            context=Context() if parent is None else parent,
            kind=SpanKind.SERVER,
            attributes={key: value for key, value in facts.items() if value is not None},
            start_time=ended - int(seconds * 1e9),
        )
        if status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        span.end(ended)
        return format_trace_id(span.get_span_context().trace_id)

    async def close(self) -> None:
        """Send the waiting spans; give up after two seconds."""
        if self._provider is not None:
            await asyncio.to_thread(self._provider.force_flush, int(FLUSH_SECONDS * 1000))
