"""A BentoML service with the guards and nothing to guard: what the tests of a running server ask."""

import asyncio
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
    """A service whose whole ASGI application, BentoML's own routes and middleware included, stands behind the guards."""

    def to_asgi(self, is_main: bool = True) -> Any:
        return add_guard(super().to_asgi(is_main), Settings.from_environment(), Metrics())


async def predict(request: Request) -> JSONResponse:
    """Answers after the seconds that it is asked for, or fails as it is asked to."""
    asked = await request.json()
    await asyncio.sleep(asked.get("seconds", 0))
    if "fail" in asked:
        raise ValueError(asked["fail"])
    request.state.rows = asked.get("rows", 1)
    return JSONResponse({"asked": len(asked), "key": request.state.key_name})


async def page(request: Request) -> JSONResponse:
    """Answers."""
    return JSONResponse({"path": Path(request.url.path).name})


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
    """Nothing but the guards."""

    @bentoml.on_deployment
    @staticmethod
    def check() -> None:
        """Refuse, before any worker is started, settings that no worker could run with."""
        try:
            Settings.from_environment()
        except SettingsError as error:
            raise SystemExit(str(error)) from None
