"""The peer that a good engineer would write: FastAPI, pydantic and onnxruntime, without guards.

It serves the bundle's ``model.onnx`` in `PEER_ONNX` with the session options of our service: ``uvicorn …fastapi_onnx:app``.
"""

import json
import os
from operator import attrgetter

import numpy as np
import onnxruntime
from fastapi import FastAPI

from benchmarks.serving_peers.customers import Answer, Request

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
session = onnxruntime.InferenceSession(os.environ["PEER_ONNX"], options, providers=["CPUExecutionProvider"])
columns = session.get_modelmeta().custom_metadata_map
numbers, levels = (attrgetter(*json.loads(columns[kind])) for kind in ("numeric", "categorical"))

app = FastAPI()


@app.post("/predict")
async def predict(request: Request) -> Answer:  # async, because a thread costs more than the model
    inputs = {
        "numeric": np.array([numbers(customer) for customer in request.customers], dtype=np.float32),
        "categorical": np.array([levels(customer) for customer in request.customers], dtype=object),
    }
    return Answer(churn_probability=session.run(["churn_probability"], inputs)[0].tolist())
