"""A BentoML service with the guard around dummy endpoints, for tests of a running server."""

import asyncio
import gc
import os
from pathlib import Path
from typing import Any

import bentoml
from bentoml import Service
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from churn_pipeline.serving.guards import add_guard
from churn_pipeline.serving.metrics import Metrics
from churn_pipeline.serving.settings import Settings, SettingsError


class GuardedService(Service):
    """A service whose guard wraps the whole ASGI application, including BentoML's own routes and middleware."""

    def to_asgi(self, is_main: bool = True) -> Any:
        return add_guard(super().to_asgi(is_main), Settings.from_environment(), Metrics())


async def predict(request: Request) -> JSONResponse:
    """Sleep for `seconds`, or raise an error with the text `fail`, as the body says."""
    body = await request.json()
    await asyncio.sleep(body.get("seconds", 0))
    if "fail" in body:
        raise ValueError(body["fail"])
    request.state.rows = body.get("rows", 1)
    return JSONResponse({"fields": len(body), "key": request.state.key_name})


async def page(request: Request) -> JSONResponse:
    """Answer with the path, and the number of objects that no garbage collection examines."""
    return JSONResponse({"path": Path(request.url.path).name, "frozen": gc.get_freeze_count()})


app = Starlette(
    routes=[
        Route("/predict", predict, methods=["POST"]),
        *(Route(path, page) for path in ("/model", "/health", "/", "/docs")),
    ]
)


@bentoml.service(
    service_class=GuardedService,
    logging={"access": {"enabled": False}},
    metrics={"duration": {"min": 0.0005, "max": 2.0, "factor": 2.0}},
    workers=int(os.environ.get("BARE_WORKERS", "1")),
)
@bentoml.asgi_app(app, path="/")
class Bare:
    """The guard and dummy endpoints."""

    @bentoml.on_deployment
    @staticmethod
    def check() -> None:
        """Stop before any worker starts if the settings are invalid."""
        try:
            Settings.from_environment()
        except SettingsError as error:
            raise SystemExit(str(error)) from None
