"""The BentoML service: it loads the bundle and serves it behind the guard.

``bentoml serve churn_pipeline.serving.service:ChurnService`` serves from the source; set ``CHURN_SERVING_BUNDLE`` to the folder
of a bundle. In a Bento, that folder is next to the package.
"""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

import bentoml
from bentoml.exceptions import BentoMLException
from starlette.applications import Starlette
from starlette.responses import Response

from churn_pipeline.serving import tracing
from churn_pipeline.serving.app import Application, respond
from churn_pipeline.serving.bentoml_internals import (
    DescribedType,
    Json,
    UnparsedRequest,
    WrappedService,
    tracer_provider,
)
from churn_pipeline.serving.bundle import FOLDER, BundleError, load_bundle
from churn_pipeline.serving.guards import add_guard
from churn_pipeline.serving.metrics import Metrics
from churn_pipeline.serving.pages import STATIC
from churn_pipeline.serving.processes import prepare_parent, use_metrics_folder, worker_count
from churn_pipeline.serving.rollout import Load, Rollout, check_bundles
from churn_pipeline.serving.settings import PREFIX, Settings, SettingsError

BENTO_BUNDLE = Path(__file__).parents[2] / FOLDER
# The guard limits the time of a request. BentoML's own limit, which cannot be switched off, must not come first.
NO_TIMEOUT_SECONDS = 1_000_000


def source_of(settings: Settings) -> tuple[Load, Path]:
    """How bundles are read, and the folder of the bundle named in the settings, or else of the one in the Bento."""
    return partial(load_bundle, signature_key=settings.signature_key), settings.bundle or BENTO_BUNDLE


class GuardedService(WrappedService):
    """A service whose guard wraps the whole ASGI application, including BentoML's own routes and middleware."""

    rollout: Rollout | None = None
    # Only tests switch this off. BentoML's APIs then answer scoring requests, with the same answers.
    fast_path = True

    def prepare(self) -> Callable[[Starlette], Starlette]:
        """Load the bundle and mount its pages; it warms up before it accepts connections."""
        use_metrics_folder()
        settings, metrics = Settings.from_environment(), Metrics()
        rollout = self.rollout = Rollout(settings, metrics, *source_of(settings))
        self.mount_asgi_app(rollout.starlette(), path="/")
        predictor = rollout if self.fast_path else None

        def wrap(app: Starlette) -> Starlette:
            return add_guard(app, settings, metrics, STATIC, predictor, tracing.Tracing(tracer_provider()))

        return wrap

    def document(self) -> Json:
        """The current bundle's OpenAPI document; outside a worker, as in ``bentoml build``, with default settings."""
        if self.rollout is not None:
            return self.rollout.document
        defaults = Settings(authentication="off", bundle=os.environ.get(f"{PREFIX}BUNDLE") or None)
        load, folder = source_of(defaults)
        try:
            return Application(load(folder), defaults, Metrics()).document
        except BundleError as error:
            raise BentoMLException(str(error)) from None


def served() -> GuardedService:
    """The service that BentoML made of `ChurnService`."""
    return cast(GuardedService, ChurnService)


def _rollout() -> Rollout:
    rollout = served().rollout
    assert rollout is not None, "BentoML's worker calls to_asgi first, which loads the bundle"
    return rollout


class _Described(DescribedType):
    @staticmethod
    def document() -> Json:
        return served().document()


class PredictRequest(UnparsedRequest, _Described):
    """Customers."""

    component = "PredictRequest"


class ExplainRequest(UnparsedRequest, _Described):
    """Customers, and the number of reasons for each."""

    component = "ExplainRequest"


class Predictions(_Described):
    """A churn probability and a decision for each customer."""

    component = "Predictions"


class Explanations(_Described):
    """Predictions with reasons."""

    component = "Explanations"


@bentoml.service(
    service_class=GuardedService,
    name="churn",
    workers=worker_count(),
    traffic={"timeout": NO_TIMEOUT_SECONDS},
    logging={"access": {"enabled": False}},
    metrics={"duration": {"min": 0.0005, "max": 2.0, "factor": 2.0}},
    tracing=tracing.bentoml_options(os.environ),
)
class ChurnService:
    """Churn probabilities, decisions and reasons."""

    @bentoml.api(input_spec=PredictRequest, output_spec=Predictions)  # type: ignore[untyped-decorator]
    async def predict(self, request: UnparsedRequest, /) -> Response:
        """Churn probabilities and decisions."""
        return await respond(_rollout().predict, request.body, request.state)

    @bentoml.api(input_spec=ExplainRequest, output_spec=Explanations)  # type: ignore[untyped-decorator]
    async def explain(self, request: UnparsedRequest, /) -> Response:
        """Predictions with the effect of each feature."""
        return await respond(_rollout().explain, request.body, request.state)

    @bentoml.on_deployment  # type: ignore[untyped-decorator]
    @staticmethod
    def check() -> None:
        """Stop before any worker starts, with a one-line message, if settings or bundle are invalid."""
        try:
            settings = Settings.from_environment()
            check_bundles(settings, *source_of(settings))
            tracing.check_exporter(os.environ)
        except (SettingsError, BundleError) as error:
            raise SystemExit(str(error)) from None
        prepare_parent()
