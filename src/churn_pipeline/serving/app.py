"""All that one bundle needs: predictions, explanations and pages. The guard calls `predict` and `explain` directly."""

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from anyio.to_thread import run_sync
from msgspec import Meta
from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.datastructures import State
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
from churn_pipeline.serving.prediction_log import LoggedModel, PredictionLog
from churn_pipeline.serving.refusals import invalid
from churn_pipeline.serving.requests import RequestError, RequestParser
from churn_pipeline.serving.scoring import Probabilities, Scorer
from churn_pipeline.serving.scoring_route import Answer, Commit
from churn_pipeline.serving.settings import Settings

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
Json = dict[str, Any]
DECISIONS = {True: "contact", False: "no_contact"}


class Scored(NamedTuple):
    """Customers with their churn probabilities, the decisions to contact them, and their predictions as JSON."""

    customers: Sequence[Json]
    probabilities: Probabilities
    contact: npt.NDArray[np.bool_]
    predictions: list[Json]


class Application:
    """All endpoints for one bundle. Its methods `predict` and `explain` are those of a `Predictor`.

    Parameters
    ----------
    bundle
        The served bundle.
    settings
        The service's settings.
    metrics
        The service's metrics.
    log
        The prediction log; by default, one for this bundle alone.
    more_health
        Further facts for ``/health``.
    """

    def __init__(
        self,
        bundle: Bundle,
        settings: Settings,
        metrics: Metrics,
        log: PredictionLog | None = None,
        more_health: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        self.bundle, self._metrics, self._more_health = bundle, metrics, more_health
        contract, columns = bundle.contract, (bundle.numeric, bundle.categorical)
        self._id_column = contract.roles.id
        self._decision, self._value_column = bundle.decision, bundle.decision.column
        self._scorer = Scorer(bundle)
        self._explainer = Explainer(self._scorer.probabilities, *columns, bundle.training_profile)
        self._predictions = RequestParser(contract, *columns, settings.max_rows)
        self._explanations = RequestParser(contract, *columns, settings.max_explained_rows, top=Top)
        self._log = log or PredictionLog(settings, metrics)
        self._logged_model = LoggedModel.of(bundle.manifest, contract)
        schemas = self._predictions.schema, self._explanations.schema
        self.document = document(bundle, *schemas)
        self._loaded_at = time.monotonic()

    def warm_up(self) -> None:
        """Run the model once for several sizes, so that the first request does not wait for it."""
        self._scorer.warm_up()
        self._loaded_at = time.monotonic()

    def announce(self) -> None:
        """Show this model as the served one in the metrics."""
        self._metrics.model_loaded(self.bundle.manifest, fields=self.bundle.contract.columns)

    def starlette(self) -> Starlette:
        """Build the Starlette application."""
        pages = {
            "/": landing_page(self.bundle, self.document),
            "/docs": docs_page(self.bundle, self.document),
        }
        routes: list[BaseRoute] = [
            Route("/predict", self._predict, methods=["POST"]),
            Route("/explain", self._explain, methods=["POST"]),
            Route("/model", _constant(to_json(self._model_info()), "application/json")),
            Route("/health", self._health),
            # BentoML's own document, which it serves as /docs.json, does not know our answers.
            *(
                Route(path, _constant(to_json(self.document), "application/json"))
                for path in ("/openapi.json", "/docs.json")
            ),
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
        self._log.close()

    async def _predict(self, request: Request) -> Response:
        return await respond(self.predict, await request.body(), request.state)

    async def _explain(self, request: Request) -> Response:
        return await respond(self.explain, await request.body(), request.state)

    def predict(self, body: bytes, request_id: str, commit: Commit = always) -> Answer:
        """Score the customers of a request.

        Parameters
        ----------
        body
            The request as JSON.
        request_id
            Id of the request.
        commit
            Called when the answer is complete. If it is False, nothing is counted and logged.

        Returns
        -------
        rows : int
            Number of customers.
        content : bytes
            The answer as JSON.

        Raises
        ------
        RequestError
            If the request is invalid.
        Abandoned
            If `commit` returned False.
        """
        scored = self.score(self.customers(body))
        content = to_json({**self.head(request_id), "predictions": scored.predictions})
        return self._finish(request_id, scored, content, commit)

    def explain(self, body: bytes, request_id: str, commit: Commit = always) -> Answer:
        """Score and explain the customers of a request; see `predict`."""
        scored = self.score_and_explain(*self.customers_to_explain(body))
        content = to_json({**self.head(request_id), **self.base(), "predictions": scored.predictions})
        return self._finish(request_id, scored, content, commit)

    def _finish(self, request_id: str, scored: Scored, content: bytes, commit: Commit) -> Answer:
        """Count and log the customers of an answer, unless it is abandoned."""
        if not commit():
            raise Abandoned
        self._metrics.request_scored(len(scored.customers))
        self.record(request_id, scored)
        return len(scored.customers), content

    def customers(self, body: bytes) -> list[Json]:
        """Decode and validate the body of a request to ``/predict``, or raise RequestError."""
        customers: list[Json] = self._predictions.read(body)["customers"]
        return customers

    def customers_to_explain(self, body: bytes) -> tuple[list[Json], int]:
        """Decode and validate the body of a request to ``/explain``; also return the number of reasons per customer."""
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
        self._log.write(request_id, self._logged_model, customers, probabilities, contact, role)

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


async def respond(answer: Callable[[bytes, str], tuple[int, bytes]], body: bytes, state: State) -> Response:
    """Answer a request that the guard does not answer itself. The guard counts it and writes its refusal."""
    try:
        state.rows, content = await run_sync(answer, body, state.request_id)
    except RequestError as error:
        state.request_error = error
        refusal = invalid(error)
        return Response(refusal.content(state.request_id), refusal.status, media_type="application/json")
    return Response(content, media_type="application/json")


async def _constant_response(
    content: bytes, media_type: str, headers: Mapping[str, str] | None, _: Request
) -> Response:
    return Response(content, media_type=media_type, headers=headers)


def _constant(content: bytes, media_type: str, headers: Mapping[str, str] | None = None) -> Any:
    """An endpoint whose answer never changes."""
    return partial(_constant_response, content, media_type, headers)
