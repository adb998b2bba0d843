"""An empty BentoML service: how soon it is ready is how soon any can be."""

import bentoml


@bentoml.service(workers=1)
class Empty:
    @bentoml.api
    async def predict(self) -> None: ...
