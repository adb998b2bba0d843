"""The BentoML service: it loads the bundle, stands behind the guards, and answers.

``bentoml serve churn_pipeline.serving.service:ChurnService`` with ``CHURN_SERVING_BUNDLE`` naming the folder of a bundle
serves from the source; in a Bento the folder lies beside the package.
"""

import os
from pathlib import Path

import bentoml
from bentoml import Service
from starlette.applications import Starlette

from churn_pipeline.serving.app import Application
from churn_pipeline.serving.bundle import FOLDER, Bundle, BundleError, load_bundle
from churn_pipeline.serving.guards import surround
from churn_pipeline.serving.metrics import Metrics
from churn_pipeline.serving.pages import STATIC
from churn_pipeline.serving.settings import PREFIX, Settings, SettingsError

IN_THE_BENTO = Path(__file__).parents[2] / FOLDER
# BentoML wants the number where the service is defined, before settings are read and refused in a line of their own.
WORKERS = os.environ.get(f"{PREFIX}WORKERS", "")


def given_bundle(settings: Settings) -> Bundle:
    """The bundle that the settings name, else the Bento's own."""
    return load_bundle(settings.bundle or IN_THE_BENTO)


class GuardedService(Service):  # type: ignore[misc]
    """A service whose whole ASGI application, BentoML's own routes and middleware included, stands behind the guards."""

    def to_asgi(self, is_main: bool = True) -> Starlette:
        """The application of one worker; the bundle is read here, and warmed up before the first connection."""
        settings, metrics = Settings.from_environment(), Metrics()
        application = Application(given_bundle(settings), settings, metrics)
        self.mount_asgi_app(application.starlette(), path="/")
        return surround(super().to_asgi(is_main), settings, metrics, STATIC)


@bentoml.service(
    service_class=GuardedService,
    name="churn",
    workers=int(WORKERS) if WORKERS.isdigit() else 1,
    logging={"access": {"enabled": False}},
    metrics={"duration": {"min": 0.0005, "max": 2.0, "factor": 2.0}},
)
class ChurnService:
    """Churn probabilities, decisions and reasons. The paths are those of `churn_pipeline.serving.app`."""

    @bentoml.on_deployment  # type: ignore[untyped-decorator]
    @staticmethod
    def check() -> None:
        """Refuse to start, in one line and before any worker does, with what no worker could serve."""
        try:
            given_bundle(Settings.from_environment())
        except (SettingsError, BundleError) as error:
            raise SystemExit(str(error)) from None
