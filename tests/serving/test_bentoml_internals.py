"""BentoML's undocumented interfaces that the service uses, each in the way that it uses it."""

import asyncio
import importlib
import inspect
from typing import Any

import bentoml
from bentoml import Service
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response

from churn_pipeline.serving import bentoml_internals
from churn_pipeline.serving.bentoml_internals import DescribedType, UnparsedRequest, WrappedService, tracer_provider

DOCUMENT = {
    "components": {
        "schemas": {
            "Rows": {
                "type": "object",
                "properties": {"rows": {"type": "array", "items": {"$ref": "#/components/schemas/Row"}}},
            },
            "Row": {"type": "object", "properties": {"months": {"type": "integer"}}},
        }
    }
}


class Wrapper:
    """Middleware that answers every request with what it wraps."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif scope["path"] == "/outermost":
            inside = type(self.app).__name__
            await JSONResponse({"inside": inside, "path": scope["path"]})(scope, receive, send)
        else:
            await self.app(scope, receive, send)


class Wrapped(WrappedService):
    """A service with `Wrapper` around it."""

    prepared = 0

    def prepare(self) -> Any:
        self.prepared += 1

        def wrap(app: Starlette) -> Starlette:
            app.add_middleware(Wrapper)
            return app

        return wrap

    def document(self) -> dict[str, Any]:
        return DOCUMENT


class Rows(UnparsedRequest):
    """Rows."""

    component = "Rows"

    @staticmethod
    def document() -> dict[str, Any]:
        return DOCUMENT


class Answer(DescribedType):
    """One row."""

    component = "Row"

    @staticmethod
    def document() -> dict[str, Any]:
        return DOCUMENT


# BentoML reads some settings once in a process: these must not disturb the tests of ChurnService.
@bentoml.service(service_class=Wrapped, name="internals", metrics={"enabled": False}, tracing={"excluded_urls": ".*"})
class Internals:
    """A service that repeats the body."""

    @bentoml.api(input_spec=Rows, output_spec=Answer)  # type: ignore[untyped-decorator]
    async def repeat(self, request: UnparsedRequest, /) -> Response:
        return Response(request.body, status_code=418, headers={"x-id": request.state.request_id})


SERVICE: Any = Internals


def ask(path: str, method: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send a request to the service without a network."""

    async def story() -> tuple[int, dict[str, str], bytes]:
        app = SERVICE.to_asgi()
        scope = {
            "type": "http", "http_version": "1.1", "method": method, "path": path, "query_string": b"", "root_path": "",
            "scheme": "http", "server": ("a", 1), "client": ("b", 2), "headers": [], "state": {"request_id": "one"},
        }  # fmt: skip
        messages = [{"type": "http.request", "body": body, "more_body": False}]
        answered: list[Any] = []

        async def receive() -> Any:
            return messages.pop() if messages else await asyncio.get_running_loop().create_future()

        async def send(message: Any) -> None:
            answered.append(message)

        async with app.router.lifespan_context(app):
            await app(scope, receive, send)
        headers = {name.decode(): value.decode() for name, value in answered[0]["headers"]}
        return answered[0]["status"], headers, b"".join(message.get("body", b"") for message in answered[1:])

    return asyncio.run(story())


def test_bentoml_makes_the_given_class_of_service() -> None:
    assert isinstance(SERVICE, Wrapped), f"bentoml.service made {type(SERVICE)}: the service would have no guard"


def test_bentomls_worker_calls_to_asgi() -> None:
    service = importlib.import_module("_bentoml_impl.worker.service")
    source = inspect.getsource(service)
    assert "service.to_asgi(" in source, f"the worker makes its application otherwise, in {service.__file__}"
    assert list(inspect.signature(Service.to_asgi).parameters) == ["self", "is_main"]


def test_the_wrapper_is_outside_all_middleware_of_bentoml() -> None:
    app = SERVICE.to_asgi()
    found = [getattr(one.cls, "__name__", str(one.cls)) for one in app.user_middleware]
    assert found[0] == "Wrapper", f"BentoML's application begins with {found}"


def test_an_api_gets_the_unparsed_body_and_its_answer_passes_through() -> None:
    status, headers, body = ask("/repeat", "POST", b"not JSON")
    assert (status, headers["x-id"], body) == (418, "one", b"not JSON")


def test_bentomls_schema_and_openapi_document_are_ours() -> None:
    [route] = SERVICE.schema()["routes"]
    assert route["input"]["properties"]["rows"]["items"] == {
        "type": ["object"],
        "properties": {"months": {"type": "integer"}},
    }
    assert route["output"] == DOCUMENT["components"]["schemas"]["Row"]
    assert SERVICE.openapi_spec == DOCUMENT
    assert DOCUMENT["components"]["schemas"]["Row"]["type"] == "object", "the document itself must not change"


def test_bentomls_settings_decide_whether_there_is_a_tracer() -> None:
    container: Any = vars(bentoml_internals)["BentoMLContainer"]
    SERVICE.inject_config()
    assert tracer_provider() is None
    container.tracing.exporter_type.set("in_memory")
    try:
        provider = tracer_provider()
        assert hasattr(provider, "get_tracer"), f"BentoML's container has {provider} as tracer provider"
        assert hasattr(provider, "force_flush")
    finally:
        container.tracing.exporter_type.set(None)
