"""An empty BentoML service: the lower bound of the start-up time."""

import bentoml


@bentoml.service(workers=1)
class Empty:
    @bentoml.api
    async def predict(self) -> None: ...
