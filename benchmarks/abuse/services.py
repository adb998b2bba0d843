"""How the attacked service is started, and what its callers send to it."""

import json
import sys
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.serving_peers.bento import STORE, last_bento
from benchmarks.serving_peers.processes import Service
from churn_pipeline.serving.keys import make_key

SOURCE = ("churn_pipeline.serving.service:ChurnService", "--working-dir", "src")


@dataclass(frozen=True)
class Attacked:
    """The service before it starts, and the keys that it knows.

    Attributes
    ----------
    service
        How to start it, with its default settings.
    quiet_key, victim_key, attacker_key
        Keys of the victim before and during an attack, and of the attacker. Each has a name of its own.
    """

    service: Service
    quiet_key: str
    victim_key: str
    attacker_key: str

    def with_settings(self, environment: Mapping[str, str]) -> Service:
        """The service with further settings."""
        return replace(self.service, environment={**self.service.environment, **environment})


def attacked(folder: Path, bundle: Path | None) -> Attacked:
    """The latest Bento, or the source code with a bundle. Prediction log and temporary files go to a folder."""
    keys, lines = zip(*map(make_key, ("quiet", "victim", "attacker")), strict=True)
    environment = {
        "BENTOML_DO_NOT_TRACK": "True",
        "CHURN_SERVING_KEYS": ",".join(lines),
        "CHURN_SERVING_PREDICTION_LOG": str(folder / "predictions"),
        "CHURN_SERVING_PREDICTION_LOG_ID_KEY": keys[0],
    }
    if bundle is None:
        what, environment["BENTOML_HOME"] = (str(last_bento()),), str(STORE)
    else:
        what, environment["BENTOML_HOME"] = SOURCE, str(folder / "bentoml")
        environment["CHURN_SERVING_BUNDLE"] = str(bundle.resolve())
    command = (sys.executable, "-m", "bentoml", "serve", *what, "--host", "127.0.0.1", "--port", "{port}")
    return Attacked(Service(command, environment, "/readyz"), *keys)


def example_customer(port: int) -> dict[str, Any]:
    """A valid customer: the example in the service's OpenAPI document."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/openapi.json", timeout=30) as answer:
        operation = json.load(answer)["paths"]["/predict"]["post"]
    customer: dict[str, Any] = operation["requestBody"]["content"]["application/json"]["example"]["customers"][0]
    return customer
