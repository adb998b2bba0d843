"""The HTTP endpoints of the service, as a Starlette application. The guard wraps it."""

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any, NamedTuple, NotRequired, Protocol

import numpy as np
import numpy.typing as npt
from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from pydantic import Field, WithJsonSchema
from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from churn_pipeline.serving.bundle import Bundle
from churn_pipeline.serving.capacity import Abandoned, always
from churn_pipeline.serving.explanation import Explainer
from churn_pipeline.serving.metrics import Metrics, Role
from churn_pipeline.serving.openapi import document
from churn_pipeline.serving.pages import HEADERS, STATIC, docs_page, landing_page
from churn_pipeline.serving.prediction_log import PredictionLog
from churn_pipeline.serving.requests import Problem, RequestError, RequestParser
from churn_pipeline.serving.scoring import Probabilities, Scorer
from churn_pipeline.serving.settings import Settings

# Requests up to this size (about fifty customers) run on the event loop, which they block only briefly.
MAX_INLINE_BYTES = 32_768
# At most two large requests run at once, in threads. More would not finish sooner: they compete for the interpreter, and each
# holds its customers in memory.
MAX_LARGE_REQUESTS = 2
DEFAULT_TOP = 5
# A float, because JSON does not distinguish 5.0 from 5.
Top = Annotated[
    float,
    Field(ge=1, le=1_000_000, multiple_of=1),
    WithJsonSchema(
        {"type": "integer", "minimum": 1, "maximum": 1_000_000, "description": "Number of reasons per customer."}
    ),
]
Json = dict[str, Any]
Commit = Callable[[], bool]
DECISIONS = {True: "contact", False: "no_contact"}


class Answers(Protocol):
    """Answers scoring requests: one `Application`, or several that share the customers.

    Both methods return the number of customers and the answer as JSON. They call ``commit`` when the answer is complete; if it
    is False, they count and log nothing and raise `churn_pipeline.serving.capacity.Abandoned`.
    """

    def predict(self, body: bytes, request_id: str, commit: Commit = always) -> tuple[int, bytes]:
        """Score the customers of a request."""

    def explain(self, body: bytes, request_id: str, commit: Commit = always) -> tuple[int, bytes]:
        """Score and explain the customers of a request."""


class Scored(NamedTuple):
    """Customers with their churn probabilities, the decisions to contact them, and their predictions as JSON."""

    customers: Sequence[Json]
    probabilities: Probabilities
    contact: npt.NDArray[np.bool_]
    predictions: list[Json]


class Application:
    """All endpoints for one bundle.

    Parameters
    ----------
    bundle
        The served bundle.
    settings
        The service's settings.
    metrics
        The service's metrics.
    more_health
        Further facts for ``/health``.
    """

    def __init__(
        self,
        bundle: Bundle,
        settings: Settings,
        metrics: Metrics,
        more_health: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        self.bundle, self._metrics, self._more_health = bundle, metrics, more_health
        contract, columns = bundle.contract, (bundle.numeric, bundle.categorical)
        self._id_column = contract.roles.id
        self._decision, self._value_column = bundle.decision, bundle.decision.column
        self._scorer = Scorer(bundle)
        self._explainer = Explainer(self._scorer.probabilities, *columns, bundle.training_profile)
        self._predictions = RequestParser(contract, *columns, settings.max_rows)
        self._explanations = RequestParser(contract, *columns, settings.max_explained_rows, top=NotRequired[Top])
        self._log = PredictionLog(settings, bundle.manifest, contract, metrics)
        schemas = self._predictions.schema, self._explanations.schema
        self._document = document(bundle, *schemas)
        self._large_requests = CapacityLimiter(MAX_LARGE_REQUESTS)
        self._loaded_at = time.monotonic()

    def warm_up(self) -> None:
        """Run the model once for several sizes, so that the first request does not wait for it."""
        self._scorer.warm_up()
        self._loaded_at = time.monotonic()

    def announce(self) -> None:
        """Show this model as the served one in the metrics."""
        self._metrics.model_loaded(self.bundle.manifest, fields=self.bundle.contract.columns)

    def close(self) -> None:
        """Write the rest of the prediction log."""
        self._log.close()

    def starlette(self, answers: Answers | None = None) -> Starlette:
        """Build the Starlette application.

        Parameters
        ----------
        answers
            Answers the scoring requests; by default, this application.
        """
        answers = answers or self
        pages = {
            "/": landing_page(self.bundle, self._document),
            "/docs": docs_page(self.bundle, self._document),
        }
        routes: list[BaseRoute] = [
            Route("/predict", partial(self._predict, answers), methods=["POST"]),
            Route("/explain", partial(self._explain, answers), methods=["POST"]),
            Route("/model", _constant(to_json(self._model_info()), "application/json")),
            Route("/health", self._health),
            Route("/openapi.json", _constant(to_json(self._document), "application/json")),
            *(
                Route(path, _constant(page.encode(), "text/html; charset=utf-8", HEADERS))
                for path, page in pages.items()
            ),
            Mount("/static", StaticFiles(directory=STATIC)),
        ]
        return Starlette(routes=routes, lifespan=self._lifespan)

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """Warm up before the first request, and write the rest of the prediction log at shutdown."""
        self.warm_up()
        self.announce()
        yield
        self.close()

    async def _predict(self, answers: Answers, request: Request) -> Response:
        return await self._answer(request, answers.predict)

    async def _explain(self, answers: Answers, request: Request) -> Response:
        # Each customer takes a thousand rows of scoring, so no request is small.
        return await self._answer(request, answers.explain, max_inline_bytes=0)

    async def _answer(
        self,
        request: Request,
        answer: Callable[[bytes, str], tuple[int, bytes]],
        max_inline_bytes: int = MAX_INLINE_BYTES,
    ) -> Response:
        body, request_id = await request.body(), request.state.request_id
        try:
            if len(body) <= max_inline_bytes:
                rows, content = answer(body, request_id)
            else:
                rows, content = await run_sync(answer, body, request_id, limiter=self._large_requests)
        except RequestError as error:
            self._metrics.refused(error.problems)
            return Response(_refusal(error, request_id), error.status, media_type="application/json")
        request.state.rows = rows
        return Response(content, media_type="application/json")

    def predict(self, body: bytes, request_id: str, commit: Commit = always) -> tuple[int, bytes]:
        """Score the customers of a request; see `Answers`."""
        scored = self.score(self.customers(body))
        content = to_json({**self.head(request_id), "predictions": scored.predictions})
        return self._finish(request_id, scored, content, commit)

    def explain(self, body: bytes, request_id: str, commit: Commit = always) -> tuple[int, bytes]:
        """Score and explain the customers of a request; see `Answers`."""
        scored = self.score_and_explain(*self.customers_to_explain(body))
        content = to_json({**self.head(request_id), **self.base(), "predictions": scored.predictions})
        return self._finish(request_id, scored, content, commit)

    def _finish(self, request_id: str, scored: Scored, content: bytes, commit: Commit) -> tuple[int, bytes]:
        if not commit():
            raise Abandoned
        self._metrics.request_scored(len(scored.customers))
        self.record(request_id, scored)
        return len(scored.customers), content

    def customers(self, body: bytes) -> list[Json]:
        """Parse and validate the body of a request to ``/predict``, or raise RequestError."""
        customers: list[Json] = self._predictions.read(body)["customers"]
        return customers

    def customers_to_explain(self, body: bytes) -> tuple[list[Json], int]:
        """Parse and validate the body of a request to ``/explain``; also return the number of reasons per customer."""
        request = self._explanations.read(body)
        return request["customers"], int(request.get("top", DEFAULT_TOP))

    def score(self, customers: Sequence[Json]) -> Scored:
        """Score parsed customers."""
        parser = self._predictions
        probabilities = self._scorer.probabilities(*parser.inputs(customers))
        amounts = None if self._value_column is None else parser.numbers(customers, self._value_column)
        contact = probabilities >= self._decision.thresholds(amounts)
        predictions = [
            {"churn_probability": probability, "decision": DECISIONS[contacted], "threshold_basis": basis}
            for probability, contacted, basis in zip(
                probabilities.tolist(), contact.tolist(), self._decision.bases(amounts), strict=False
            )
        ]
        if self._id_column is not None:
            predictions = [
                {"id": customer[self._id_column], **given} if customer.get(self._id_column) is not None else given
                for customer, given in zip(customers, predictions, strict=True)
            ]
        return Scored(customers, probabilities, contact, predictions)

    def score_and_explain(self, customers: Sequence[Json], top: int) -> Scored:
        """Score parsed customers; their predictions have the `top` largest effects."""
        scored = self.score(customers)
        _, effects = self._explainer.explain(*self._explanations.inputs(customers))
        names = [*self.bundle.numeric, *self.bundle.categorical]
        for prediction, row in zip(scored.predictions, effects, strict=True):
            largest = np.argsort(-np.abs(row), kind="stable")[:top]
            prediction["reasons"] = [{"feature": names[index], "effect": float(row[index])} for index in largest]
        return scored

    def record(self, request_id: str, scored: Scored, role: Role = "champion") -> None:
        """Count and log scored customers."""
        customers, probabilities, contact, _ = scored
        self._metrics.predicted(probabilities, contact, self.bundle.manifest.model_version, role)
        self._log.write(request_id, customers, probabilities, contact, role)

    def base(self) -> Json:
        """The base probability of the explanations, with its standard error."""
        return {
            "base_probability": self._explainer.base,
            "base_probability_standard_error": self._explainer.base_standard_error,
        }

    def head(self, request_id: str) -> Json:
        """The part of an answer that does not depend on the customers."""
        manifest = self.bundle.manifest
        return {"request_id": request_id, "model_version": manifest.model_version, "threshold": manifest.threshold}

    def _model_info(self) -> dict[str, Any]:
        """Content of ``/model``: the manifest and the contract, without file digests and costs."""
        manifest = self.bundle.manifest.model_dump(mode="json", exclude={"files"})
        contract = self.bundle.contract.model_dump(mode="json", exclude_defaults=True, exclude={"costs"})
        return {**manifest, "contract": contract}

    async def _health(self, _: Request) -> Response:
        manifest = self.bundle.manifest
        facts = {
            "status": "ready",
            "model": manifest.model_name,
            "model_version": manifest.model_version,
            "seconds_since_load": round(time.monotonic() - self._loaded_at, 1),
            **self._more_health(),
        }
        return Response(to_json(facts), media_type="application/json")


def _refusal(error: RequestError, request_id: str) -> bytes:
    refusal: dict[str, Any] = {"error": str(error), "request_id": request_id}
    if error.problems:
        refusal["problems"] = [_problem_json(problem) for problem in error.problems]
        refusal["problem_count"] = error.count
    return to_json(refusal)


def _problem_json(problem: Problem) -> dict[str, Any]:
    return {"row": problem.row, "field": problem.field, "rule": problem.rule}


async def _constant_response(
    content: bytes, media_type: str, headers: Mapping[str, str] | None, _: Request
) -> Response:
    return Response(content, media_type=media_type, headers=headers)


def _constant(content: bytes, media_type: str, headers: Mapping[str, str] | None = None) -> Any:
    """An endpoint whose answer never changes."""
    return partial(_constant_response, content, media_type, headers)
