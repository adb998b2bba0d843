"""What a service that runs must answer, whatever model it has: asked over HTTP, as a client does."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from churn_pipeline.serving.bundle import CATEGORICAL, NUMERIC, OUTPUT, Bundle, load_bundle

TOLERANCE = 1e-6
MARK = "a value that nobody may read again"


def check_service(url: str, key: str, folder: Path) -> Iterator[str]:
    """Ask a running service, and hold its answers to the bundle that it should serve.

    Yields
    ------
    str
        What was found to be so.

    Raises
    ------
    AssertionError
        Where it is not so.
    """
    bundle = load_bundle(folder)
    anyone = httpx.Client(base_url=url, timeout=30)
    client = httpx.Client(base_url=url, timeout=30, headers={"Authorization": f"Bearer {key}"})

    told = client.get("/model").raise_for_status().json()
    assert told["model_digest"] == bundle.manifest.model_digest, "/model tells of another model"
    yield f"/model tells version {told['model_version']}, {told['model_digest'][:12]}…"

    example = example_of(anyone.get("/openapi.json").raise_for_status().json())
    answer = client.post("/predict", json=example).raise_for_status().json()
    given = [one["churn_probability"] for one in answer["predictions"]]
    expected = probabilities(bundle, example["customers"])
    assert np.allclose(given, expected, rtol=0, atol=TOLERANCE), f"/predict answers {given}, the model {expected}"
    yield f"/predict answers the OpenAPI document's own example as the model does ({given[0]:.4f})"

    wrong = {"customers": [{**example["customers"][0], "no such column": MARK}]}
    refused = client.post("/predict", json=wrong)
    assert refused.status_code == httpx.codes.UNPROCESSABLE_ENTITY, f"bad input is answered {refused.status_code}"
    assert MARK not in refused.text, "a refusal repeats the value"
    yield "bad input is refused (422), and its value not repeated"

    for headers in ({}, {"Authorization": "Bearer churn_wrong"}):
        answered = anyone.post("/predict", json=example, headers=headers).status_code
        assert answered == httpx.codes.UNAUTHORIZED, f"without a valid key, /predict answers {answered}"
    yield "no key and a wrong key are refused (401)"

    measured = anyone.get("/metrics").raise_for_status().text
    assert "churn_" in measured, "/metrics has nothing of ours"
    yield f"/metrics has {len(measured.splitlines())} lines"


def example_of(document: dict[str, Any]) -> dict[str, Any]:
    """The request that the OpenAPI document shows for ``/predict``."""
    content = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    example: dict[str, Any] = content["example"]
    return example


def probabilities(bundle: Bundle, customers: list[dict[str, Any]]) -> list[float]:
    """The shipped model's own answers, asked without the service."""

    def value(customer: dict[str, Any], name: str) -> Any:
        given = customer.get(name)
        return bundle.contract.columns[name].default if given is None else given

    numbers = [[np.nan if (v := value(c, n)) is None else float(v) for n in bundle.numeric] for c in customers]
    levels = [["" if (v := value(c, n)) is None else str(v) for n in bundle.categorical] for c in customers]
    inputs = {NUMERIC: np.array(numbers, dtype=np.float32), CATEGORICAL: np.array(levels, dtype=object)}
    taken = {name: cells for name, cells in inputs.items() if cells.shape[1]}
    return [float(answer) for answer in bundle.session.run([OUTPUT], taken)[0]]
