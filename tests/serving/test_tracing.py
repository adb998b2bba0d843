"""Traces: the caller's trace id in the logs, and spans at a collector."""

import asyncio
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from tests.serving.log_lines import Lines, configured
from tests.serving.running import serving
from tests.serving.test_guards import BEARER, JSON, RecordingApp, Service, settings

from churn_pipeline.serving.guards import make_guard
from churn_pipeline.serving.keys import make_key
from churn_pipeline.serving.settings import Settings, SettingsError
from churn_pipeline.serving.tracing import Tracing, bentoml_options, check_exporter, parent_of, trace_id_of

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
SERVICE = "churn_pipeline.serving.service:ChurnService"
COLLECTOR = "OTEL_EXPORTER_OTLP_ENDPOINT"


class Collector:
    """An OpenTelemetry collector: it takes spans as protobuf over HTTP."""

    def __init__(self) -> None:
        received: Queue[Any] = Queue()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                export = ExportTraceServiceRequest()
                export.ParseFromString(self.rfile.read(int(self.headers["content-length"])))
                for resource in export.resource_spans:
                    for scope in resource.scope_spans:
                        for span in scope.spans:
                            received.put((self.path, resource.resource, span))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        self.received = received
        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def span(self) -> tuple[str, Any, Any]:
        """Path, resource and content of the next span."""
        found: tuple[str, Any, Any] = self.received.get(timeout=60)
        return found


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    thread = Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def lines() -> Iterator[Lines]:
    with configured() as read:
        yield read


def attributes(span: Any) -> dict[str, Any]:
    """Attributes of a received span."""
    return {one.key: one.value.string_value or one.value.int_value for one in span.attributes}


def ids(lines: Lines) -> list[tuple[str, Any]]:
    """Event and trace id of each request and audit line."""
    return [(line["event"], line.get("trace_id")) for line in lines() if line["event"] in ("request", "access")]


def test_the_callers_trace_id_is_in_request_and_audit_lines(lines: Lines) -> None:
    Service().request(headers={**BEARER, **JSON, **TRACEPARENT})
    assert ids(lines) == [("access", TRACE), ("request", TRACE)]


def test_a_refused_callers_trace_id_is_in_both_lines_too(lines: Lines) -> None:
    assert Service().request(headers={**JSON, **TRACEPARENT}).status == 401
    assert ids(lines) == [("access", TRACE), ("request", TRACE)]


@pytest.mark.parametrize(
    "header", ["", "x", f"00-{'0' * 32}-{PARENT}-01", f"ff-{TRACE}-{PARENT}-01", f"00-{TRACE[:-1]}-{PARENT}-01", "\xff"]
)
def test_a_malformed_traceparent_is_not_logged(lines: Lines, header: str) -> None:
    Service().request(headers={**BEARER, **JSON, "traceparent": header})
    assert ids(lines) == [("access", None), ("request", None)]


@given(st.binary(max_size=80))
def test_any_bytes_give_a_trace_id_or_none(header: bytes) -> None:
    found = trace_id_of(parent_of(header, header))
    assert found is None or (len(found) == 32 and found.encode() in header.lower())


def traced(url: str) -> tuple[Tracing, Any]:
    """Tracing to a collector, and a guard that uses it."""
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{url}/v1/traces")))
    tracing = Tracing(provider)
    service = Service()
    service.guard = make_guard(RecordingApp(), settings(), service.metrics, tracing=tracing)
    return tracing, service


def test_a_request_is_a_span_of_the_callers_trace(collector: Collector, lines: Lines) -> None:
    tracing, service = traced(collector.url)
    answer = service.request(headers={**BEARER, **JSON, **TRACEPARENT, "user-agent": "marked"})
    asyncio.run(tracing.close())
    path, _, span = collector.span()
    assert path == "/v1/traces"
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert (span.name, span.kind) == ("POST /predict", span.SPAN_KIND_SERVER)
    assert attributes(span) == {
        "http.request.method": "POST",
        "http.route": "/predict",
        "http.response.status_code": 200,
        "churn.request_id": answer.headers["x-request-id"],
        "churn.key": "crm",
    }
    assert 0 < span.end_time_unix_nano - span.start_time_unix_nano < 60e9
    assert ids(lines)[-1] == ("request", TRACE)


def test_a_request_without_a_trace_starts_one_and_its_id_is_logged(collector: Collector, lines: Lines) -> None:
    tracing, service = traced(collector.url)
    service.request()
    asyncio.run(tracing.close())
    span = collector.span()[2]
    assert span.parent_span_id == b""
    assert ids(lines) == [("access", None), ("request", span.trace_id.hex())]


def test_a_failed_request_is_a_span_with_an_error(collector: Collector) -> None:
    tracing, service = traced(collector.url)
    service.guard = make_guard(RecordingApp(raises=ValueError("marked")), settings(), service.metrics, tracing=tracing)
    assert service.request().status == 500
    asyncio.run(tracing.close())
    span = collector.span()[2]
    assert span.status.code == span.status.STATUS_CODE_ERROR
    assert b"marked" not in span.SerializeToString()


def test_requests_without_a_key_pages_and_probes_are_no_spans(collector: Collector) -> None:
    tracing, service = traced(collector.url)
    for path, method in (("/predict", "POST"), ("/model", "GET"), ("/livez", "GET"), ("/docs", "GET"), ("/x", "GET")):
        service.request(path, method, headers={**JSON, **TRACEPARENT})
    service.request("/model", "GET")
    asyncio.run(tracing.close())
    assert collector.span()[2].name == "GET /model"
    assert collector.received.empty()


def test_a_collector_that_is_away_does_not_disturb_a_request(lines: Lines) -> None:
    tracing, service = traced("http://127.0.0.1:9")
    assert service.request().status == 200
    asyncio.run(asyncio.wait_for(tracing.close(), 60))


def test_the_running_service_sends_its_spans_before_it_ends(
    collector: Collector, bundle_folder: Path, tmp_path: Path
) -> None:
    key, line = make_key("crm")
    environment = {
        COLLECTOR: collector.url,
        "CHURN_SERVING_BUNDLE": str(bundle_folder),
        "CHURN_SERVING_KEYS": line,
        "CHURN_SERVING_TRACE_SHARE": "0",  # the caller's trace is followed all the same
    }
    with serving(tmp_path, environment, service=SERVICE) as running:
        headers = {"Authorization": f"Bearer {key}", **TRACEPARENT}
        for path in ("/livez", "/schema.json"):
            httpx.get(f"{running.url}{path}", headers=headers).raise_for_status()
        httpx.get(f"{running.url}/model", headers={"Authorization": f"Bearer {key}"}).raise_for_status()
        assert httpx.post(f"{running.url}/predict", headers=headers, json={"customers": []}).status_code == 422
    path, resource, span = collector.span()
    assert (path, span.name, span.trace_id.hex()) == ("/v1/traces", "POST /predict", TRACE)
    assert {one.key: one.value.string_value for one in resource.attributes}["service.name"] == "churn"
    assert collector.received.empty()


def test_a_collector_without_an_exporter_stops_the_start_with_one_line(bundle_folder: Path, tmp_path: Path) -> None:
    environment = {
        COLLECTOR: "http://127.0.0.1:9",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "CHURN_SERVING_BUNDLE": str(bundle_folder),
        "CHURN_SERVING_AUTHENTICATION": "off",
    }
    with pytest.raises(AssertionError) as caught, serving(tmp_path, environment, service=SERVICE) as running:
        pytest.fail(f"it answers at {running.url}")
    printed = str(caught.value).split("\n", 1)[1].strip()
    assert printed.startswith("Invalid settings: OTEL_EXPORTER_OTLP_PROTOCOL")
    assert "\n" not in printed


def test_bentoml_exports_spans_only_if_a_collector_is_set() -> None:
    assert bentoml_options({}) == {"excluded_urls": ".*", "sample_rate": 0.0}
    options = bentoml_options({COLLECTOR: "http://collector:4318", "CHURN_SERVING_TRACE_SHARE": "0.25"})
    assert options["exporter_type"] == "otlp"
    assert options["sample_rate"] == 0.25
    # An invalid share is reported by the settings, not by an exception while BentoML imports the service.
    assert (
        bentoml_options({COLLECTOR: "http://collector:4318", "CHURN_SERVING_TRACE_SHARE": "half"})["sample_rate"] == 0
    )
    with pytest.raises(SettingsError, match="CHURN_SERVING_TRACE_SHARE"):
        Settings.from_environment({"CHURN_SERVING_TRACE_SHARE": "half"})


def test_another_protocol_or_a_missing_exporter_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    check_exporter({})
    check_exporter({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    check_exporter({COLLECTOR: "http://collector:4318", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"})
    with pytest.raises(SettingsError, match="OTEL_EXPORTER_OTLP_PROTOCOL: traces are sent as http/protobuf only"):
        check_exporter({COLLECTOR: "http://collector:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(SettingsError, match="opentelemetry-exporter-otlp-proto-http is not installed"):
        check_exporter({COLLECTOR: "http://collector:4318"})
