"""Changes of the served bundles while the service runs, without a lost request.

A thread in each worker watches the folder of bundles. It loads newly selected bundles, checks them on their own samples and
warms them up. Then all workers of the service switch, or none does (`churn_pipeline.serving.agreement`). A switch assigns one
reference: a request uses the bundles that were served when it began. The bundles served before stay in memory, so switching
back needs no loading.
"""

import logging
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send

from churn_pipeline.serving.agreement import READY, Agreement, Outcome, Round, State
from churn_pipeline.serving.app import Application, Json
from churn_pipeline.serving.bundle import Bundle, BundleError
from churn_pipeline.serving.bundle_folder import BundleFolder, BundleId, Selection
from churn_pipeline.serving.capacity import always
from churn_pipeline.serving.metrics import Metrics
from churn_pipeline.serving.prediction_log import PredictionLog
from churn_pipeline.serving.processes import workers_folder
from churn_pipeline.serving.sample import check_sample
from churn_pipeline.serving.scoring_route import Answer, Commit
from churn_pipeline.serving.served import Served, Shadow, check_same_requests
from churn_pipeline.serving.settings import Settings

logger = logging.getLogger(__name__)

Load = Callable[[Path], Bundle]

POLL_SECONDS, OPEN_ROUND_POLL_SECONDS = 0.25, 0.05
LOADING_TURN_SECONDS = 0.0005


class Rollout:
    """Holds what a worker serves, and is the `Predictor` of its guard.

    Without the setting ``bundles``, it serves one bundle, and nothing changes.

    Parameters
    ----------
    settings, metrics
        The service's settings and metrics.
    load
        Reads and checks the bundle in a folder.
    bundle
        Folder of the bundle if the setting ``bundles`` is not given.
    worker
        Name of this worker; by default, its process id and a random part.

    Raises
    ------
    BundleError
        If a bundle cannot be served.
    """

    def __init__(
        self, settings: Settings, metrics: Metrics, load: Load, bundle: Path, worker: str | None = None
    ) -> None:
        self._settings, self._metrics = settings, metrics
        self._log = PredictionLog(settings, metrics)
        self._shadow = Shadow(metrics)
        self._applications: dict[BundleId, Application] = {}
        self._prepared: tuple[Selection, Served] | None = None
        self._stop = threading.Event()
        self._watcher: threading.Thread | None = None
        self._state: State | None = None
        self._problem = ""
        if settings.bundles is None:
            self._serve(Served(self._application(load(bundle)), None, settings, metrics, self._shadow))
            return
        self._folder = BundleFolder(settings.bundles, load)
        self._agreement = Agreement(workers_folder(), worker)
        self._state = self._agreement.join(self._folder.first_selection)
        self._selection = self._previous = self._state.agreed
        self._serve(self._make(self._selection))

    @property
    def document(self) -> Json:
        """The OpenAPI document of the first bundle."""
        return self._served.champion.document

    def predict(self, body: bytes, request_id: str, commit: Commit = always) -> Answer:
        """Score the customers of a request; see `Predictor`."""
        return self._served.predict(body, request_id, commit)

    def explain(self, body: bytes, request_id: str, commit: Commit = always) -> Answer:
        """Score and explain the customers of a request; see `Predictor`."""
        return self._served.explain(body, request_id, commit)

    def starlette(self) -> Starlette:
        """An application that passes each request to the bundles served at that moment."""
        return _Front(self)

    @property
    def routes(self) -> list[BaseRoute]:
        """The routes of the first bundle's application."""
        return self._served.asgi.routes

    async def forward(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request with the application of the first bundle."""
        await self._served.asgi(scope, receive, send)

    def start(self) -> None:
        """Watch the folder of bundles, if there is one."""
        if self._state is not None:
            self._watcher = threading.Thread(target=self._watch, name="rollout", daemon=True)
            self._watcher.start()

    def close(self) -> None:
        """Stop watching, and write what waits for the prediction log."""
        self._stop.set()
        if self._watcher is not None:
            self._watcher.join(timeout=1)  # it may be loading a bundle
            self._agreement.leave()
        self._shadow.close()  # it still writes to the log
        self._log.close()

    def step(self) -> None:
        """Look at the folder once: propose, vote, settle and switch as needed."""
        selection = self._folder.selection()
        with self._agreement.state() as state:
            if selection is not None:
                state.propose(selection, time.monotonic())
        if state.round is not None:
            state = self._take_part(state.round)
        self._state = state
        if state.agreed.bundles != self._selection.bundles:
            self._switch(state.agreed)
        if state.round is None:
            self._prepared = None
            self._forget(())

    def _take_part(self, seen: Round) -> State:
        """Cast this worker's vote if it is missing, settle the round once all have voted, and return the new state."""
        has_voted = self._agreement.worker in seen.votes
        vote = READY if has_voted else self._prepare(seen.selection)
        with self._agreement.state() as state:
            if not has_voted:
                state.vote(self._agreement.worker, seen.selection, vote)
            before, tried = state.agreed, state.round
            outcome = state.settle(self._agreement.live(), time.monotonic(), self._settings.switch_seconds)
        if outcome is not None and tried is not None:
            self._report(outcome, before, tried.selection, state.reason)
        return state

    def _watch(self) -> None:
        while not self._stop.wait(OPEN_ROUND_POLL_SECONDS if self._state and self._state.round else POLL_SECONDS):
            try:
                self.step()
                self._problem = ""
            except Exception as error:  # the service keeps answering, and the next step may succeed
                if repr(error) != self._problem:
                    self._problem = repr(error)
                    logger.error("The folder of bundles cannot be watched", exc_info=error)

    def _prepare(self, selection: Selection) -> str:
        """Load what a selection needs; return the worker's vote."""
        # Loading competes with requests for the interpreter: shorter turns delay them less.
        usual = sys.getswitchinterval()
        sys.setswitchinterval(LOADING_TURN_SECONDS)
        try:
            self._prepared = selection, self._make(selection)
        except BundleError as error:
            return str(error)
        except Exception as error:
            logger.error("A bundle cannot be loaded", exc_info=error)
            return f"loading failed ({type(error).__name__}); the log has the place"
        finally:
            sys.setswitchinterval(usual)
        return READY

    def _make(self, selection: Selection) -> Served:
        """Load the bundles of a selection that are not in memory."""
        self._forget(selection.bundles)
        for each in selection.bundles:
            if each not in self._applications:
                try:
                    loaded = self._folder.load(each)
                    check_sample(loaded)
                    self._applications[each] = self._application(loaded)
                except BundleError as error:
                    raise BundleError(f"bundle {each.name}: {error}") from None
        champion, *rest = (self._applications[each] for each in selection.bundles)
        return Served(champion, rest[0] if rest else None, self._settings, self._metrics, self._shadow)

    def _application(self, bundle: Bundle) -> Application:
        application = Application(bundle, self._settings, self._metrics, self._log, self._health)
        application.warm_up()
        return application

    def _switch(self, agreed: Selection) -> None:
        prepared, self._prepared = self._prepared, None
        is_prepared = prepared is not None and prepared[0].bundles == agreed.bundles
        served = prepared[1] if prepared is not None and is_prepared else self._make(agreed)
        self._previous, self._selection = self._selection, agreed
        self._serve(served)

    def _serve(self, served: Served) -> None:
        self._served = served
        served.champion.announce()

    def _forget(self, but_not: tuple[BundleId, ...]) -> None:
        """Free the bundles that are neither served, nor were served before, nor are given."""
        kept = {*self._selection.bundles, *self._previous.bundles, *but_not}
        for unused in self._applications.keys() - kept:
            del self._applications[unused]

    def _report(self, outcome: Outcome, before: Selection, tried: Selection, reason: str) -> None:
        """Log and count the end of a round; only the worker that settled it calls this."""
        self._metrics.rollout_ended(outcome)
        if outcome == "switched":
            logger.info("All workers switch from bundle %s to %s", before, tried)
        else:
            logger.error("Bundle %s is refused, and %s stays served: %s", tried, before, reason)

    def _health(self) -> dict[str, Any]:
        """What ``/health`` shows of the bundles: their folders, and how the last change ended."""
        if self._state is None:
            return {}
        agreed, second = self._selection.current.name, self._selection.second
        status = "loading" if self._state.round else "refused" if self._state.refused else "done"
        return {"bundle": agreed, "second_bundle": second.name if second else None, "rollout": status}


class _Front(Starlette):
    """Runs the rollout's thread as long as the server runs, and forwards each request without routing it."""

    def __init__(self, rollout: Rollout) -> None:
        super().__init__(lifespan=self._run)
        self._rollout = rollout

    @property
    def routes(self) -> list[BaseRoute]:
        """The routes of the served bundle: BentoML forwards only requests that match one of them."""
        return self._rollout.routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await super().__call__(scope, receive, send)
        else:
            await self._rollout.forward(scope, receive, send)

    @asynccontextmanager
    async def _run(self, _: Starlette) -> AsyncIterator[None]:
        self._rollout.start()
        yield
        self._rollout.close()


def check_bundles(settings: Settings, load: Load, bundle: Path) -> None:
    """Check that what the settings name can be served, before any worker starts.

    Raises
    ------
    BundleError
        If it cannot; the message is one line.
    """
    if settings.bundles is None:
        loaded = load(bundle)
        if loaded.sample is not None:
            check_sample(loaded)
        return
    folder = BundleFolder(settings.bundles, load)
    bundles = [folder.load(each) for each in folder.first_selection().bundles]
    for each in bundles:
        check_sample(each)
    check_same_requests(bundles[0].contract, bundles[-1].contract)
