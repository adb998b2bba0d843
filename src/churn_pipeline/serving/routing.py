"""Which requests have a route, and which routes need a key."""

from churn_pipeline.serving.refusal_codes import Kind
from churn_pipeline.serving.refusals import Refusal
from churn_pipeline.serving.request_context import ROUTES, RequestContext, Route
from churn_pipeline.serving.setting_types import Access
from churn_pipeline.serving.settings import Settings

STATIC = "/static/"


class Routing:
    """The routes of the service under its settings.

    Parameters
    ----------
    settings
        The service's settings.
    static
        Names of the files under ``/static/``.
    """

    def __init__(self, settings: Settings, static: tuple[str, ...] = ()) -> None:
        page = Route("page", STATIC.rstrip("/"))
        routes = {**ROUTES, **{STATIC + name: page for name in static}}
        accesses = {path: access_of(route.kind, settings) for path, route in routes.items()}
        self._routes = {path: (route, accesses[path]) for path, route in routes.items() if accesses[path] != "off"}

    def match(self, context: RequestContext) -> tuple[Route, Access]:
        """Find the route of a request, and whether it is open or needs a key.

        Raises
        ------
        Refusal
            404 if there is none; 405 if it does not accept the method.
        """
        found = self._routes.get(context.scope["path"])
        if found is None:
            raise Refusal("unknown_path", "This path does not exist.")
        context.route = route = found[0]
        if context.scope["method"] not in route.methods:
            allowed = ", ".join(route.methods)
            message = f"This path does not accept the method. Use {allowed}."
            raise Refusal("method_not_allowed", message, Allow=allowed)
        return found


def access_of(kind: Kind, settings: Settings) -> Access:
    """Whether routes of a kind are open, need a key, or are off."""
    configured: Access = {"metrics": settings.metrics, "page": settings.pages}.get(kind, "key")
    if configured == "off":
        return "off"
    return "open" if kind == "probe" or settings.authentication == "off" else configured
