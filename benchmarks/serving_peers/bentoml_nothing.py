"""A lower bound: a BentoML endpoint with the same request model that does nothing."""

import bentoml

from benchmarks.serving_peers.customers import Customer


@bentoml.service(workers=1)
class Nothing:
    @bentoml.api
    async def predict(self, customers: list[Customer]) -> dict[str, list[float]]:
        return {"churn_probability": [0.0] * len(customers)}
