"""Time of a request by part, inside the process: ``python -m …parts BUNDLE BODIES RESULT``, with the service's settings.

The same requests go to the predictor alone, with the guard, and with BentoML and the guard, as in production. The time of a
layer is the difference. The parts of the application are called one by one.
"""

import asyncio
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import bentoml
import numpy as np
from pydantic_core import to_json
from starlette.types import ASGIApp, Message

from churn_pipeline.serving import logs
from churn_pipeline.serving.app import Application
from churn_pipeline.serving.bundle import load_bundle
from churn_pipeline.serving.guards import add_guard, make_guard
from churn_pipeline.serving.metrics import Metrics
from churn_pipeline.serving.prediction_log import LoggedModel, PredictionLog
from churn_pipeline.serving.requests import RequestParser
from churn_pipeline.serving.scoring import Scorer
from churn_pipeline.serving.settings import Settings

TIMES = 4000
WARM = 500


def microseconds(function: Callable[[Any], object], arguments: Sequence[Any]) -> float:
    """Median time of many calls, each with the next argument."""
    spent = []
    for turn in range(WARM + TIMES):
        argument = arguments[turn % len(arguments)]
        begin = time.perf_counter()
        function(argument)
        spent.append(time.perf_counter() - begin)
    return float(np.median(spent[WARM:])) * 1e6


async def request_microseconds(app: ASGIApp, bodies: Sequence[bytes], key: str) -> float:
    """Median time of a request to an application."""
    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json"), (b"authorization", key.encode())]
    spent = []
    for turn in range(WARM + TIMES):
        body = bodies[turn % len(bodies)]
        waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        statuses: list[int] = []

        async def receive(waiting: list[Message] = waiting) -> Message:
            return waiting.pop()

        async def send(message: Message, statuses: list[int] = statuses) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": "/predict",
            "raw_path": b"/predict",
            "root_path": "",
            "query_string": b"",
            "headers": [*headers, (b"content-length", str(len(body)).encode())],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 3000),
            "state": {"request_id": "0" * 32, "key_name": None},
        }
        await asyncio.sleep(0)  # as under a server, where the event loop reads the network between requests
        begin = time.perf_counter()
        await app(scope, receive, send)
        spent.append(time.perf_counter() - begin)
        assert statuses == [200], statuses
    return float(np.median(spent[WARM:])) * 1e6


def layers(application: Application, settings: Settings, metrics: Metrics, bodies: Sequence[bytes]) -> dict[str, float]:
    """Microseconds of the application alone, with the guard, and with BentoML and the guard."""
    key = f"Bearer {sys.stdin.readline().strip()}"

    @bentoml.service(logging={"access": {"enabled": False}})
    @bentoml.asgi_app(application.starlette(), path="/")
    class Plain:
        pass

    apps = {
        "with guard": make_guard(application.starlette(), settings, metrics, predictor=application),
        "served": add_guard(Plain.to_asgi(is_main=True), settings, metrics, predictor=application),
    }
    alone = microseconds(lambda body: application.predict(body, "0" * 32), bodies)
    return {"alone": alone, **{name: asyncio.run(request_microseconds(app, bodies, key)) for name, app in apps.items()}}


def parts(application: Application, settings: Settings, folder: Path, bodies: Sequence[bytes]) -> dict[str, float]:
    """Microseconds of each part of the application, and of the two log lines per request."""
    bundle, metrics = load_bundle(folder), Metrics()
    scorer = Scorer(bundle)
    parser = RequestParser(bundle.contract, bundle.numeric, bundle.categorical, settings.max_rows)
    log, model = PredictionLog(settings, metrics), LoggedModel.of(bundle.manifest, bundle.contract)
    customers = [parser.read(body)["customers"] for body in bodies]
    inputs = [parser.inputs(rows) for rows in customers]
    probabilities = scorer.probabilities(*inputs[0])
    contact = probabilities >= bundle.manifest.threshold
    answer = json.loads(application.predict(bodies[0], "0" * 32)[1])
    line = dict.fromkeys(("request_id", "key", "method", "path", "status", "rows", "milliseconds", "outcome"), "0" * 8)
    times = {
        "reading and validating the body": microseconds(parser.read, bodies),
        "arrays for the model": microseconds(parser.inputs, customers),
        "the model": microseconds(lambda given: scorer.probabilities(*given), inputs),
        "metrics of the prediction": microseconds(lambda _: metrics.predicted(probabilities, contact, "1"), [None]),
        "the prediction log": microseconds(
            lambda rows: log.write("0" * 32, model, rows, probabilities, contact), customers
        ),
        "the answer as JSON": microseconds(to_json, [answer]),
        "two log lines": 2 * microseconds(lambda _: logs.log(logs.REQUESTS, 20, "request", line), [None]),
    }
    log.close()
    return times


def main(folder: Path, bodies: Sequence[bytes], result: Path) -> None:
    settings, metrics = Settings.from_environment(), Metrics()
    handler = logs.configure(settings.log_level, metrics.lines_dropped)
    application = Application(load_bundle(folder), settings, metrics)
    application.warm_up()
    times = {**layers(application, settings, metrics, bodies), **parts(application, settings, folder, bodies)}
    handler.close()
    result.write_text(json.dumps(times))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]).read_bytes().splitlines(), Path(sys.argv[3]))
