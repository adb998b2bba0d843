"""The BentoML service: it loads the bundle and serves it behind the guard.

``bentoml serve churn_pipeline.serving.service:ChurnService`` serves from the source; set ``CHURN_SERVING_BUNDLE`` to the folder
of a bundle. In a Bento, that folder is next to the package.
"""

import os
from pathlib import Path

import bentoml
from bentoml import Service
from starlette.applications import Starlette

from churn_pipeline.serving.bundle import FOLDER, BundleError, load_bundle
from churn_pipeline.serving.guards import add_guard
from churn_pipeline.serving.metrics import Metrics
from churn_pipeline.serving.pages import STATIC
from churn_pipeline.serving.rollout import Rollout, check_bundles, make_run_folder
from churn_pipeline.serving.settings import PREFIX, Settings, SettingsError

BENTO_BUNDLE = Path(__file__).parents[2] / FOLDER
# BentoML needs the number at definition; invalid values are refused later, when the settings are read.
WORKERS = os.environ.get(f"{PREFIX}WORKERS", "")


def bundle_folder(settings: Settings) -> Path:
    """Folder of the bundle named in the settings, or else of the one in the Bento."""
    return settings.bundle or BENTO_BUNDLE


class GuardedService(Service):  # type: ignore[misc]
    """A service whose guard wraps the whole ASGI application, including BentoML's own routes and middleware."""

    def to_asgi(self, is_main: bool = True) -> Starlette:
        """Build the application of one worker; it warms up before it accepts connections."""
        settings, metrics = Settings.from_environment(), Metrics()
        rollout = Rollout(settings, metrics, load_bundle, bundle_folder(settings))
        self.mount_asgi_app(rollout.starlette(), path="/")
        return add_guard(super().to_asgi(is_main), settings, metrics, STATIC)


@bentoml.service(
    service_class=GuardedService,
    name="churn",
    workers=int(WORKERS) if WORKERS.isdigit() else 1,
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
            settings = Settings.from_environment()
            check_bundles(settings, load_bundle, bundle_folder(settings))
        except (SettingsError, BundleError) as error:
            raise SystemExit(str(error)) from None
        make_run_folder()
