"""A floor: a FastAPI endpoint that takes nothing and says nothing."""

from fastapi import FastAPI

app = FastAPI()


@app.post("/predict")
async def predict() -> dict[str, list[float]]:
    return {}
