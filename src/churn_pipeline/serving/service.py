"""The BentoML service: it loads the bundle and serves it behind the guard.

``bentoml serve churn_pipeline.serving.service:ChurnService`` serves from the source; set ``CHURN_SERVING_BUNDLE`` to the folder
of a bundle. In a Bento, that folder is next to the package.
"""

import os
from collections.abc import Callable
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
from churn_pipeline.serving.bundle import FOLDER, Bundle, BundleError, load_bundle
from churn_pipeline.serving.guards import add_guard
from churn_pipeline.serving.metrics import Metrics
from churn_pipeline.serving.pages import STATIC
from churn_pipeline.serving.processes import prepare_parent, use_metrics_folder, worker_count
from churn_pipeline.serving.settings import PREFIX, Settings, SettingsError

BENTO_BUNDLE = Path(__file__).parents[2] / FOLDER
# The guard limits the time of a request. BentoML's own limit, which cannot be switched off, must not come first.
NO_TIMEOUT_SECONDS = 1_000_000


def read_bundle(settings: Settings) -> Bundle:
    """Load the bundle named in the settings, or else the one in the Bento."""
    return load_bundle(settings.bundle or BENTO_BUNDLE, settings.signature_key)


class GuardedService(WrappedService):
    """A service whose guard wraps the whole ASGI application, including BentoML's own routes and middleware."""

    application: Application | None = None
    # Only tests switch this off. BentoML's APIs then answer scoring requests, with the same answers.
    fast_path = True

    def prepare(self) -> Callable[[Starlette], Starlette]:
        """Load the bundle and mount its pages; it warms up before it accepts connections."""
        use_metrics_folder()
        settings, metrics = Settings.from_environment(), Metrics()
        application = self.application = Application(read_bundle(settings), settings, metrics)
        self.mount_asgi_app(application.starlette(), path="/")
        predictor = application if self.fast_path else None

        def wrap(app: Starlette) -> Starlette:
            return add_guard(app, settings, metrics, STATIC, predictor, tracing.Tracing(tracer_provider()))

        return wrap

    def document(self) -> Json:
        """The OpenAPI document; outside a worker, such as in ``bentoml build``, that of the bundle with default settings."""
        application = self.application
        if application is None:
            defaults = Settings(authentication="off", bundle=os.environ.get(f"{PREFIX}BUNDLE") or None)
            try:
                application = Application(read_bundle(defaults), defaults, Metrics())
            except BundleError as error:
                raise BentoMLException(str(error)) from None
        return application.document


def served() -> GuardedService:
    """The service that BentoML made of `ChurnService`."""
    return cast(GuardedService, ChurnService)


def _application() -> Application:
    application = served().application
    assert application is not None, "BentoML's worker calls to_asgi first, which loads the bundle"
    return application


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
        return await respond(_application().predict, request.body, request.state)

    @bentoml.api(input_spec=ExplainRequest, output_spec=Explanations)  # type: ignore[untyped-decorator]
    async def explain(self, request: UnparsedRequest, /) -> Response:
        """Predictions with the effect of each feature."""
        return await respond(_application().explain, request.body, request.state)

    @bentoml.on_deployment  # type: ignore[untyped-decorator]
    @staticmethod
    def check() -> None:
        """Stop before any worker starts, with a one-line message, if settings or bundle are invalid."""
        try:
            read_bundle(Settings.from_environment())
            tracing.check_exporter(os.environ)
        except (SettingsError, BundleError) as error:
            raise SystemExit(str(error)) from None
        prepare_parent()
