"""What the service answers, as a Starlette application; the guards stand around it."""

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any, NotRequired

import numpy as np
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
from churn_pipeline.serving.explanation import Explainer
from churn_pipeline.serving.metrics import Metrics
from churn_pipeline.serving.openapi import document
from churn_pipeline.serving.pages import HEADERS, STATIC, docs_page, landing_page
from churn_pipeline.serving.prediction_log import PredictionLog
from churn_pipeline.serving.requests import Problem, RequestError, Requests
from churn_pipeline.serving.scoring import Probabilities, Scorer
from churn_pipeline.serving.settings import Settings

# A body up to this size, some fifty customers, is answered where it is; the loop is not kept from others for long.
AT_ONCE_BYTES = 32_768
# So many larger ones are worked on at a time. More would be no sooner done: they would keep the interpreter from the loop, and
# each holds its customers in memory.
LARGE_AT_A_TIME = 2
TOP = 5
# JSON has one kind of number: 5.0 is a whole one.
Top = Annotated[
    float,
    Field(ge=1, le=1_000_000, multiple_of=1),
    WithJsonSchema(
        {"type": "integer", "minimum": 1, "maximum": 1_000_000, "description": "Reasons for each customer."}
    ),
]
DECISIONS = {True: "contact", False: "leave"}


class Application:
    """The answers to all paths for one bundle.

    Parameters
    ----------
    bundle, settings, metrics
        What is served, how, and where it is counted.
    """

    def __init__(self, bundle: Bundle, settings: Settings, metrics: Metrics) -> None:
        self._bundle, self._metrics = bundle, metrics
        contract, columns = bundle.contract, (bundle.numeric, bundle.categorical)
        self._id_column = contract.roles.id
        self._scorer = Scorer(bundle)
        self._explainer = Explainer(self._scorer.probabilities, *columns, bundle.training_profile)
        self._predictions = Requests(contract, *columns, settings.max_rows)
        self._explanations = Requests(contract, *columns, settings.max_explained_rows, top=NotRequired[Top])
        self._log = PredictionLog(settings, bundle.manifest, contract, metrics)
        schemas = self._predictions.schema, self._explanations.schema
        self._document = document(contract, bundle.manifest, bundle.training_profile, *schemas)
        self._large = CapacityLimiter(LARGE_AT_A_TIME)
        self._warm_since = time.monotonic()

    def warm_up(self) -> None:
        """Do once what the first request would wait for; from then on the service is ready."""
        self._scorer.warm_up()
        self._metrics.loaded(self._bundle.manifest, fields=self._bundle.contract.columns)
        self._warm_since = time.monotonic()

    def starlette(self) -> Starlette:
        """The application."""
        pages = {
            "/": landing_page(self._bundle, self._document),
            "/docs": docs_page(self._bundle, self._document),
        }
        routes: list[BaseRoute] = [
            Route("/predict", self._predict, methods=["POST"]),
            Route("/explain", self._explain, methods=["POST"]),
            Route("/model", _always(to_json(self._model()), "application/json")),
            Route("/health", self._health),
            Route("/openapi.json", _always(to_json(self._document), "application/json")),
            *(Route(path, _always(page.encode(), "text/html; charset=utf-8", HEADERS)) for path, page in pages.items()),
            Mount("/static", StaticFiles(directory=STATIC)),
        ]
        return Starlette(routes=routes, lifespan=self._live)

    @asynccontextmanager
    async def _live(self, _: Starlette) -> AsyncIterator[None]:
        """Nobody is let in before everything is warm, and what is left of the prediction log is written at the end."""
        self.warm_up()
        yield
        self._log.close()

    async def _predict(self, request: Request) -> Response:
        return await self._answer(request, self._predicted)

    async def _explain(self, request: Request) -> Response:
        # Thousands of rows are scored for a customer, whatever the body's size.
        return await self._answer(request, self._explained, at_once_bytes=0)

    async def _answer(
        self, request: Request, answer: Callable[[bytes, str], tuple[int, bytes]], at_once_bytes: int = AT_ONCE_BYTES
    ) -> Response:
        body, request_id = await request.body(), request.state.request_id
        try:
            if len(body) <= at_once_bytes:
                rows, content = answer(body, request_id)
            else:
                rows, content = await run_sync(answer, body, request_id, limiter=self._large)
        except RequestError as error:
            self._metrics.refused(error.problems)
            return Response(_refusal(error, request_id), error.status, media_type="application/json")
        request.state.rows = rows
        return Response(content, media_type="application/json")

    def _predicted(self, body: bytes, request_id: str) -> tuple[int, bytes]:
        """How many customers there were, and the answer."""
        customers = self._predictions.read(body)["customers"]
        probabilities, predictions = self._scored(customers, request_id, self._predictions)
        return len(probabilities), to_json({**self._head(request_id), "predictions": predictions})

    def _explained(self, body: bytes, request_id: str) -> tuple[int, bytes]:
        asked = self._explanations.read(body)
        customers = asked["customers"]
        probabilities, predictions = self._scored(customers, request_id, self._explanations)
        base, effects = self._explainer.explain(*self._explanations.inputs(customers))
        names = [*self._bundle.numeric, *self._bundle.categorical]
        for prediction, own in zip(predictions, effects, strict=True):
            first = np.argsort(-np.abs(own), kind="stable")[: int(asked.get("top", TOP))]
            prediction["reasons"] = [{"feature": names[place], "effect": float(own[place])} for place in first]
        answer = {**self._head(request_id), "base_probability": base, "predictions": predictions}
        return len(probabilities), to_json(answer)

    def _scored(
        self, customers: Sequence[dict[str, Any]], request_id: str, requests: Requests
    ) -> tuple[Probabilities, list[dict[str, Any]]]:
        """Score customers, count and log them, and lay their answers out."""
        probabilities = self._scorer.probabilities(*requests.inputs(customers))
        contact = self._scorer.contact(probabilities)
        self._metrics.predicted(probabilities, contact)
        self._log.write(request_id, customers, probabilities, contact)
        answers = [
            {"churn_probability": probability, "decision": DECISIONS[contacted]}
            for probability, contacted in zip(probabilities.tolist(), contact.tolist(), strict=True)
        ]
        if self._id_column is not None:
            answers = [
                {"id": customer[self._id_column], **answer} if customer.get(self._id_column) is not None else answer
                for customer, answer in zip(customers, answers, strict=True)
            ]
        return probabilities, answers

    def _head(self, request_id: str) -> dict[str, Any]:
        manifest = self._bundle.manifest
        return {
            "request_id": request_id,
            "model_version": manifest.model_version,
            "threshold": manifest.threshold,
        }

    def _model(self) -> dict[str, Any]:
        """What is served, and under which contract."""
        manifest = self._bundle.manifest.model_dump(mode="json", exclude={"files"})
        contract = self._bundle.contract.model_dump(mode="json", exclude_defaults=True, exclude={"costs"})
        return {**manifest, "contract": contract}

    async def _health(self, _: Request) -> Response:
        manifest = self._bundle.manifest
        facts = {
            "status": "ready",
            "model": manifest.model_name,
            "model_version": manifest.model_version,
            "seconds_since_load": round(time.monotonic() - self._warm_since, 1),
        }
        return Response(to_json(facts), media_type="application/json")


def _refusal(error: RequestError, request_id: str) -> bytes:
    refusal: dict[str, Any] = {"error": str(error), "request_id": request_id}
    if error.problems:
        refusal["problems"] = [_shown(problem) for problem in error.problems]
        refusal["problem_count"] = error.count
    return to_json(refusal)


def _shown(problem: Problem) -> dict[str, Any]:
    return {"row": problem.row, "field": problem.field, "rule": problem.rule}


async def _give(content: bytes, media_type: str, headers: Mapping[str, str] | None, _: Request) -> Response:
    return Response(content, media_type=media_type, headers=headers)


def _always(content: bytes, media_type: str, headers: Mapping[str, str] | None = None) -> Any:
    """An endpoint whose answer never changes."""
    return partial(_give, content, media_type, headers)
