"""What one worker serves at one time: the first bundle, and the second one for its share of the customers or in the shadow."""

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from pydantic_core import to_json

from churn_pipeline.contract.table import Contract
from churn_pipeline.serving.app import Application, Json, Scored
from churn_pipeline.serving.background import Background
from churn_pipeline.serving.bundle import BundleError
from churn_pipeline.serving.capacity import Abandoned, always
from churn_pipeline.serving.column_rules import column_rules
from churn_pipeline.serving.metrics import Metrics, Role
from churn_pipeline.serving.scoring_route import Answer, Commit
from churn_pipeline.serving.settings import Settings
from churn_pipeline.serving.split import in_share

logger = logging.getLogger(__name__)

Score = Callable[[Application, Sequence[Json]], Scored]
CHAMPION: Role = "champion"
CHALLENGER: Role = "challenger"

WAITING_ROWS = 20_000
# Scoring holds the interpreter between runs of the model; requests get their turn after each part.
PART_ROWS = 100
CLOSE_SECONDS, ERROR_LOG_SECONDS = 2.0, 60.0


class _Copy(NamedTuple):
    application: Application
    request_id: str
    customers: Sequence[Json]


class _Part(NamedTuple):
    """The customers of a request that one bundle answers for, and their rows in the request."""

    application: Application
    role: Role
    rows: list[int]
    scored: Scored


class Shadow:
    """Scores customers with the second bundle after their answers, in a thread.

    It neither delays nor fails an answer. Up to 20,000 customers wait; those of further requests are dropped and counted.

    Parameters
    ----------
    metrics
        Metrics that count the customers.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        # Rows queued, changed under the lock because several threads answer requests, and rows processed by the thread.
        self._queued = self._done = 0
        self._lock = threading.Lock()
        self._error_logged = -math.inf
        self._background: Background[_Copy] = Background(self._score, WAITING_ROWS, "shadow")

    def put(self, application: Application, request_id: str, customers: Sequence[Json]) -> None:
        """Queue answered customers for an application; do not change them afterwards."""
        rows = len(customers)
        with self._lock:
            waiting = self._queued - self._done
            queued = not (waiting and waiting + rows > WAITING_ROWS) and self._background.put(
                _Copy(application, request_id, customers)
            )
            if queued:
                self._queued += rows
        if not queued:
            self._metrics.shadowed("dropped", rows)

    def close(self) -> None:
        """Score the customers that wait. If that takes too long, count those that are lost."""
        if not self._background.close(CLOSE_SECONDS):
            self._metrics.shadowed("lost", self._queued - self._done)

    def _score(self, copies: list[_Copy]) -> None:
        for application, request_id, customers in copies:
            for first in range(0, len(customers), PART_ROWS):
                part = customers[first : first + PART_ROWS]
                try:
                    application.record(request_id, application.score(part), "shadow")
                    self._metrics.shadowed("scored", len(part))
                except Exception as error:  # any error: the answer has been given
                    self._metrics.shadowed("failed", len(part))
                    self._log_error(error)
                time.sleep(0)
            self._done += len(customers)

    def _log_error(self, error: Exception) -> None:
        if time.monotonic() - self._error_logged >= ERROR_LOG_SECONDS:
            self._error_logged = time.monotonic()
            logger.error("The second bundle failed in the shadow", exc_info=error)


class Served:
    """Answers the scoring requests of one selection of bundles.

    Without a second bundle, the answers are those of the first `Application`. With one, each prediction also has the
    ``model_version`` that made it, and explanations have their own base probability.

    Parameters
    ----------
    champion, challenger
        The applications of the first and the second bundle.
    settings
        The service's settings: share and shadow.
    metrics
        The service's metrics.
    shadow
        Scores customers after their answers.

    Raises
    ------
    BundleError
        If the two bundles do not accept the same requests.
    """

    def __init__(
        self,
        champion: Application,
        challenger: Application | None,
        settings: Settings,
        metrics: Metrics,
        shadow: Shadow,
    ) -> None:
        self.champion, self.challenger = champion, challenger
        self._share = settings.split_share if challenger is not None else 0.0
        self._shadow = shadow if settings.shadow == "on" and challenger is not None else None
        self._metrics = metrics
        self._id_column = champion.bundle.contract.roles.id
        self._is_simple = not self._share and self._shadow is None
        if challenger is not None:
            check_same_requests(champion.bundle.contract, challenger.bundle.contract)
        self.asgi = champion.starlette()

    def predict(self, body: bytes, request_id: str, commit: Commit = always) -> Answer:
        """Score the customers of a request; see `Predictor`."""
        if self._is_simple:
            return self.champion.predict(body, request_id, commit)
        customers = self.champion.customers(body)
        parts = self._divide(customers, Application.score)
        return self._finish(self.champion.head(request_id), request_id, parts, commit)

    def explain(self, body: bytes, request_id: str, commit: Commit = always) -> Answer:
        """Score and explain the customers of a request; see `Predictor`."""
        if self._is_simple:
            return self.champion.explain(body, request_id, commit)
        customers, top = self.champion.customers_to_explain(body)

        def explained(application: Application, part: Sequence[Json]) -> Scored:
            scored = application.score_and_explain(part, top)
            if self._share:
                for prediction in scored.predictions:
                    prediction.update(application.base())
            return scored

        head = {**self.champion.head(request_id), **self.champion.base()}
        return self._finish(head, request_id, self._divide(customers, explained), commit)

    def _divide(self, customers: Sequence[Json], score: Score) -> list[_Part]:
        """Let each bundle score its customers."""
        second = [row for row, each in enumerate(customers) if in_share(each, self._id_column, self._share)]
        first = sorted(set(range(len(customers))) - set(second))
        parts = []
        for application, rows, role in ((self.champion, first, CHAMPION), (self.challenger, second, CHALLENGER)):
            if application is not None and rows:
                scored = score(application, [customers[row] for row in rows])
                if self._share:
                    for prediction in scored.predictions:
                        prediction["model_version"] = application.bundle.manifest.model_version
                parts.append(_Part(application, role, rows, scored))
        return parts

    def _finish(self, head: Json, request_id: str, parts: list[_Part], commit: Commit) -> Answer:
        """Put the predictions into the order of the customers, then count and log them."""
        predictions = dict(pair for part in parts for pair in zip(part.rows, part.scored.predictions, strict=True))
        content = to_json({**head, "predictions": [predictions[row] for row in range(len(predictions))]})
        if not commit():
            raise Abandoned
        self._metrics.request_scored(len(predictions))
        for application, role, _, scored in parts:
            application.record(request_id, scored, role)
            if role == CHAMPION and self._shadow is not None and self.challenger is not None:
                self._shadow.put(self.challenger, request_id, scored.customers)
        return len(predictions), content


def check_same_requests(first: Contract, second: Contract) -> None:
    """Compare the request columns of two bundles, and the role of the id, which decides the split.

    Raises
    ------
    BundleError
        If they differ.
    """
    ours, theirs = _request_columns(first), _request_columns(second)
    differing = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    if differing:
        raise BundleError(f"the second bundle accepts other requests than the first ({', '.join(differing)} differ)")


def _request_columns(contract: Contract) -> dict[str, Any]:
    return {
        name: (rule.column.dtype, rule.column.checks, rule.may_be_missing, name == contract.roles.id)
        for name, rule in column_rules(contract).items()
    }
