"""A scikit-learn model served the usual BentoML way: pickle in the model store, endpoint with type hints."""

import bentoml
import pandas as pd

from benchmarks.serving_peers.customers import Customer

NAME = "peer"


@bentoml.service(workers=1)
class Peer:
    def __init__(self) -> None:
        self.model = bentoml.sklearn.load_model(f"{NAME}:latest")

    @bentoml.api
    def predict(self, customers: list[Customer]) -> dict[str, list[float]]:
        rows = pd.DataFrame([customer.model_dump() for customer in customers])
        return {"churn_probability": self.model.predict_proba(rows)[:, 1].tolist()}
