"""The BentoML service: it loads the bundle and serves it behind the guard.

``bentoml serve churn_pipeline.serving.service:ChurnService`` serves from the source; set ``CHURN_SERVING_BUNDLE`` to the folder
of a bundle. In a Bento, that folder is next to the package.
"""

from pathlib import Path

import bentoml
from bentoml import Service
from starlette.applications import Starlette

from churn_pipeline.serving.app import Application
from churn_pipeline.serving.bundle import FOLDER, Bundle, BundleError, load_bundle
from churn_pipeline.serving.guards import add_guard
from churn_pipeline.serving.metrics import Metrics
from churn_pipeline.serving.pages import STATIC
from churn_pipeline.serving.processes import prepare_parent, use_metrics_folder, worker_count
from churn_pipeline.serving.settings import Settings, SettingsError

BENTO_BUNDLE = Path(__file__).parents[2] / FOLDER


def read_bundle(settings: Settings) -> Bundle:
    """Load the bundle named in the settings, or else the one in the Bento."""
    return load_bundle(settings.bundle or BENTO_BUNDLE, settings.signature_key)


class GuardedService(Service):  # type: ignore[misc]
    """A service whose guard wraps the whole ASGI application, including BentoML's own routes and middleware."""

    def to_asgi(self, is_main: bool = True) -> Starlette:
        """Build the application of one worker; it warms up before it accepts connections."""
        use_metrics_folder()
        settings, metrics = Settings.from_environment(), Metrics()
        application = Application(read_bundle(settings), settings, metrics)
        self.mount_asgi_app(application.starlette(), path="/")
        return add_guard(super().to_asgi(is_main), settings, metrics, STATIC, application)


@bentoml.service(
    service_class=GuardedService,
    name="churn",
    workers=worker_count(),
    logging={"access": {"enabled": False}},
    metrics={"duration": {"min": 0.0005, "max": 2.0, "factor": 2.0}},
)
class ChurnService:
    """Churn probabilities, decisions and reasons; see `churn_pipeline.serving.app` for the endpoints."""

    @bentoml.on_deployment  # type: ignore[untyped-decorator]
    @staticmethod
    def check() -> None:
        """Stop before any worker starts, with a one-line message, if settings or bundle are invalid."""
        try:
            read_bundle(Settings.from_environment())
        except (SettingsError, BundleError) as error:
            raise SystemExit(str(error)) from None
        prepare_parent()
