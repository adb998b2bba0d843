"""Smoke test of a running service over HTTP, for any model."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from churn_pipeline.serving.bundle import CATEGORICAL, NUMERIC, OUTPUT, Bundle, load_bundle

TOLERANCE = 1e-6
MARK = "a value that no answer may repeat"


def check_service(url: str, key: str, folder: Path) -> Iterator[str]:
    """Send requests to a running service, and compare its answers with the bundle that it should serve.

    Yields
    ------
    str
        Description of a passed check.

    Raises
    ------
    AssertionError
        If a check fails.
    """
    bundle = load_bundle(folder)
    anonymous = httpx.Client(base_url=url, timeout=30)
    client = httpx.Client(base_url=url, timeout=30, headers={"Authorization": f"Bearer {key}"})

    model = client.get("/model").raise_for_status().json()
    assert model["model_digest"] == bundle.manifest.model_digest, "/model has the digest of another model"
    yield f"/model shows version {model['model_version']}, digest {model['model_digest'][:12]}…"

    example = example_of(anonymous.get("/openapi.json").raise_for_status().json())
    answer = client.post("/predict", json=example).raise_for_status().json()
    served = [one["churn_probability"] for one in answer["predictions"]]
    expected = probabilities(bundle, example["customers"])
    assert np.allclose(served, expected, rtol=0, atol=TOLERANCE), f"/predict answers {served}, the model {expected}"
    yield f"/predict answers the OpenAPI document's example as the model does ({served[0]:.4f})"

    wrong = {"customers": [{**example["customers"][0], "no such column": MARK}]}
    refused = client.post("/predict", json=wrong)
    assert refused.status_code == httpx.codes.UNPROCESSABLE_ENTITY, f"invalid input gets status {refused.status_code}"
    assert MARK not in refused.text, "the error repeats the value"
    yield "invalid input is refused (422), and the error does not repeat the value"

    for headers in ({}, {"Authorization": "Bearer churn_wrong"}):
        answered = anonymous.post("/predict", json=example, headers=headers).status_code
        assert answered == httpx.codes.UNAUTHORIZED, f"without a valid key, /predict gets status {answered}"
    yield "a missing and an invalid key are refused (401)"

    measured = anonymous.get("/metrics").raise_for_status().text
    assert "churn_" in measured, "/metrics has no churn_ metrics"
    yield f"/metrics has {len(measured.splitlines())} lines"


def example_of(document: dict[str, Any]) -> dict[str, Any]:
    """The example request for ``/predict`` in the OpenAPI document."""
    content = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    example: dict[str, Any] = content["example"]
    return example


def probabilities(bundle: Bundle, customers: list[dict[str, Any]]) -> list[float]:
    """Churn probabilities of the bundle's model, computed without the service."""

    def value(customer: dict[str, Any], name: str) -> Any:
        given = customer.get(name)
        return bundle.contract.columns[name].default if given is None else given

    numbers = [[np.nan if (v := value(c, n)) is None else float(v) for n in bundle.numeric] for c in customers]
    levels = [["" if (v := value(c, n)) is None else str(v) for n in bundle.categorical] for c in customers]
    inputs = {NUMERIC: np.array(numbers, dtype=np.float32), CATEGORICAL: np.array(levels, dtype=object)}
    taken = {name: cells for name, cells in inputs.items() if cells.shape[1]}
    return [float(answer) for answer in bundle.session.run([OUTPUT], taken)[0]]
