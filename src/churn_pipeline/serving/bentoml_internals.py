"""What this service uses of BentoML beyond its documentation. A test for each says what it found if BentoML changes.

- ``service_class``, an argument of ``bentoml.service``, and ``Service.to_asgi``, which the worker calls: `WrappedService`.
- ``Service.openapi_spec``, which BentoML writes into a Bento: `WrappedService`.
- ``IODescriptor.model_json_schema``, ``from_http_request`` and ``__root_input__``: `DescribedType` and `UnparsedRequest`.
- BentoML's container, for the tracer that the argument ``tracing`` of ``bentoml.service`` configures: `tracer_provider`.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Self

from bentoml import IODescriptor, Service
from bentoml._internal.configuration.containers import BentoMLContainer
from opentelemetry.sdk.trace import TracerProvider
from starlette.applications import Starlette
from starlette.datastructures import State
from starlette.requests import Request

Json = dict[str, Any]


class WrappedService(Service):  # type: ignore[misc]
    """A service that changes its ASGI application as a whole, with BentoML's own routes and middleware.

    ``Service.add_asgi_middleware`` is documented, but adds middleware inside BentoML's own. BentoML's metrics would then count
    requests that the guard refuses, under paths that callers invent.
    """

    def prepare(self) -> Callable[[Starlette], Starlette]:
        """Mount applications, and return the function that wraps BentoML's application. Called once in each worker."""
        raise NotImplementedError

    def document(self) -> Json:
        """The OpenAPI document."""
        raise NotImplementedError

    def to_asgi(self, is_main: bool = True) -> Starlette:
        """Build the application of one worker."""
        wrap = self.prepare()
        return wrap(super().to_asgi(is_main))

    @property
    def openapi_spec(self) -> Json:
        """The OpenAPI document that BentoML writes into a Bento: the one that the service serves."""
        return self.document()


class DescribedType(IODescriptor):  # type: ignore[misc]
    """An input or output of a BentoML API whose JSON Schema is a component of the service's OpenAPI document."""

    component: ClassVar[str]
    document: ClassVar[Callable[[], Json]]

    @classmethod
    def model_json_schema(cls, *_: Any, **__: Any) -> Json:
        """The component without references; BentoML's clients follow none."""
        components = cls.document()["components"]["schemas"]
        schema: Json = _without_references(components[cls.component], components)
        return schema


class UnparsedRequest(DescribedType):
    """A request's body as it was received.

    The application parses it. BentoML would answer invalid requests with another status, and quote and log their values.
    """

    __root_input__ = True  # BentoML passes the request on as the only argument

    body: bytes
    state: Any

    @classmethod
    def model_json_schema(cls, *_: Any, **__: Any) -> Json:
        """The component, with a list of types for rows.

        BentoML's client leaves out what the schema of an object does not name, so a misspelled column would be lost without a
        word. A list of types means the same, but then the client sends rows as they are, and the service refuses the column.
        """
        schema = super().model_json_schema()
        for field in schema["properties"].values():
            if field.get("type") == "array":
                field["items"]["type"] = [field["items"]["type"]]
        return schema

    @classmethod
    async def from_http_request(cls, request: Request, serde: object) -> Self:  # noqa: ARG003 - BentoML passes it
        """Keep the body, and what the guard put into ``scope["state"]``."""
        state: State = request.state
        received: Self = cls.model_construct(body=await request.body(), state=state)
        return received


def _without_references(schema: Any, components: Json) -> Any:
    """A copy of a schema with each reference to a component replaced by the component."""
    if isinstance(schema, list):
        return [_without_references(one, components) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _without_references(components[schema["$ref"].rpartition("/")[2]], components)
    return {name: _without_references(one, components) for name, one in schema.items()}


def tracer_provider() -> TracerProvider | None:
    """The tracer provider that BentoML made from its settings; None if no exporter is set."""
    if BentoMLContainer.tracing.exporter_type.get() is None:
        return None
    provider: TracerProvider = BentoMLContainer.tracer_provider.get()
    return provider
