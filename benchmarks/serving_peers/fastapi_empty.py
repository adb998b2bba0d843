"""A lower bound: a FastAPI endpoint without input or output."""

from fastapi import FastAPI

app = FastAPI()


@app.post("/predict")
async def predict() -> dict[str, list[float]]:
    return {}
