"""A plain FastAPI service with a joblib file: ``uvicorn …fastapi_sklearn:app``."""

import os

import joblib
import pandas as pd
from fastapi import FastAPI

from benchmarks.serving_peers.customers import Answer, Request

app = FastAPI()
model = joblib.load(os.environ["PEER_MODEL"])


@app.post("/predict")
def predict(request: Request) -> Answer:
    rows = pd.DataFrame([customer.model_dump() for customer in request.customers])
    return Answer(churn_probability=model.predict_proba(rows)[:, 1].tolist())
