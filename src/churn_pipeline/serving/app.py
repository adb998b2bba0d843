"""The HTTP endpoints of the service, as a Starlette application. The guard wraps it."""

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any

import numpy as np
from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from msgspec import Meta
from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from churn_pipeline.serving.bundle import Bundle
from churn_pipeline.serving.explanation import Explainer
from churn_pipeline.serving.metrics import Metrics
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
TOP_SCHEMA = {"type": "integer", "minimum": 1, "maximum": 1_000_000}
Top = Annotated[
    float,
    Meta(
        ge=1,
        le=1_000_000,
        multiple_of=1,
        description="Number of reasons per customer.",
        extra_json_schema=TOP_SCHEMA,
    ),
]
DECISIONS = {True: "contact", False: "no_contact"}


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
    """

    def __init__(self, bundle: Bundle, settings: Settings, metrics: Metrics) -> None:
        self._bundle, self._metrics = bundle, metrics
        contract, columns = bundle.contract, (bundle.numeric, bundle.categorical)
        self._id_column = contract.roles.id
        self._decision, self._value_column = bundle.decision, bundle.decision.column
        self._scorer = Scorer(bundle)
        self._explainer = Explainer(self._scorer.probabilities, *columns, bundle.training_profile)
        self._predictions = RequestParser(contract, *columns, settings.max_rows)
        self._explanations = RequestParser(contract, *columns, settings.max_explained_rows, top=Top)
        self._log = PredictionLog(settings, bundle.manifest, contract, metrics)
        schemas = self._predictions.schema, self._explanations.schema
        self._document = document(bundle, *schemas)
        self._large_requests = CapacityLimiter(MAX_LARGE_REQUESTS)
        self._loaded_at = time.monotonic()

    def warm_up(self) -> None:
        """Run the model once for several sizes, so that the first request does not wait for it."""
        self._scorer.warm_up()
        self._metrics.model_loaded(self._bundle.manifest, fields=self._bundle.contract.columns)
        self._loaded_at = time.monotonic()

    def starlette(self) -> Starlette:
        """Build the Starlette application."""
        pages = {
            "/": landing_page(self._bundle, self._document),
            "/docs": docs_page(self._bundle, self._document),
        }
        routes: list[BaseRoute] = [
            Route("/predict", self._predict, methods=["POST"]),
            Route("/explain", self._explain, methods=["POST"]),
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
        yield
        self._log.close()

    async def _predict(self, request: Request) -> Response:
        return await self._answer(request, self.predict)

    async def _explain(self, request: Request) -> Response:
        # Each customer takes a thousand rows of scoring, so no request is small.
        return await self._answer(request, self.explain, max_inline_bytes=0)

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

    def predict(self, body: bytes, request_id: str) -> tuple[int, bytes]:
        """Score the customers of a request; return their number and the answer as JSON."""
        customers = self._predictions.read(body)["customers"]
        probabilities, predictions = self._score(customers, request_id, self._predictions)
        return len(probabilities), to_json({**self._head(request_id), "predictions": predictions})

    def explain(self, body: bytes, request_id: str) -> tuple[int, bytes]:
        """Score and explain the customers of a request; return their number and the answer as JSON."""
        request = self._explanations.read(body)
        customers = request["customers"]
        probabilities, predictions = self._score(customers, request_id, self._explanations)
        base, effects = self._explainer.explain(*self._explanations.inputs(customers))
        names = [*self._bundle.numeric, *self._bundle.categorical]
        for prediction, row in zip(predictions, effects, strict=True):
            largest = np.argsort(-np.abs(row), kind="stable")[: int(request.get("top", DEFAULT_TOP))]
            prediction["reasons"] = [{"feature": names[index], "effect": float(row[index])} for index in largest]
        error = self._explainer.base_standard_error
        head = {**self._head(request_id), "base_probability": base, "base_probability_standard_error": error}
        answer = {**head, "predictions": predictions}
        return len(probabilities), to_json(answer)

    def _score(
        self, customers: Sequence[dict[str, Any]], request_id: str, parser: RequestParser
    ) -> tuple[Probabilities, list[dict[str, Any]]]:
        """Score, count and log customers; return their probabilities and predictions."""
        probabilities = self._scorer.probabilities(*parser.inputs(customers))
        amounts = None if self._value_column is None else parser.numbers(customers, self._value_column)
        contact = probabilities >= self._decision.thresholds(amounts)
        self._metrics.predicted(probabilities, contact)
        self._log.write(request_id, customers, probabilities, contact)
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
        return probabilities, predictions

    def _head(self, request_id: str) -> dict[str, Any]:
        manifest = self._bundle.manifest
        return {
            "request_id": request_id,
            "model_version": manifest.model_version,
            "threshold": manifest.threshold,
        }

    def _model_info(self) -> dict[str, Any]:
        """Content of ``/model``: the manifest and the contract, without file digests and costs."""
        manifest = self._bundle.manifest.model_dump(mode="json", exclude={"files"})
        contract = self._bundle.contract.model_dump(mode="json", exclude_defaults=True, exclude={"costs"})
        return {**manifest, "contract": contract}

    async def _health(self, _: Request) -> Response:
        manifest = self._bundle.manifest
        facts = {
            "status": "ready",
            "model": manifest.model_name,
            "model_version": manifest.model_version,
            "seconds_since_load": round(time.monotonic() - self._loaded_at, 1),
        }
        return Response(to_json(facts), media_type="application/json")


def _refusal(error: RequestError, request_id: str) -> bytes:
    refusal: dict[str, Any] = {"code": error.code, "error": str(error), "request_id": request_id}
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
