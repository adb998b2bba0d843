"""Conversion of a fitted model to ONNX.

The ONNX model takes two tensors, ``numeric`` (float32, NaN where missing) and ``categorical`` (strings, empty where
missing), and returns ``churn_probability`` as float64. Its predictions must be equivalent to scikit-learn's for any row;
`churn_pipeline.modelling.hard_rows` generates rows to check that on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pandas as pd
from onnx import TensorProto, helper
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from churn_pipeline.modelling.ensemble import SHRINKAGE, BlendedModel
from churn_pipeline.modelling.onnx_classifiers import convert_classifier
from churn_pipeline.modelling.onnx_columns import Table, convert_columns
from churn_pipeline.modelling.onnx_graph import IR_VERSION, Graph, OnnxConversionError
from churn_pipeline.modelling.onnx_skl2onnx import check_operators
from churn_pipeline.modelling.preprocessing import round_to_float32

__all__ = ["OUTPUT", "OnnxConversionError", "convert_model", "model_digest", "model_inputs", "predict_onnx"]

NUMERIC, CATEGORICAL, OUTPUT = "numeric", "categorical", "churn_probability"
ROWS = "rows"


def convert_model(
    model: Pipeline | BlendedModel, numeric: Sequence[str], categorical: Sequence[str]
) -> onnx.ModelProto:
    """Convert a fitted candidate, or a blend of candidates.

    Parameters
    ----------
    model : Pipeline or BlendedModel
        The result of `build_candidate`, fitted on the classes 0 and 1, or of `assemble`.
    numeric, categorical : Sequence of str
        Columns of the two inputs, in the order in which callers send them.

    Returns
    -------
    ModelProto
        Inputs ``numeric``, float32 of shape (rows, len(numeric)), and ``categorical``, strings of shape
        (rows, len(categorical)); an input without columns is left out. Output ``churn_probability``, float64 of shape
        (rows,). The same model gives the same bytes in any process. The metadata contains the column names.

    Raises
    ------
    OnnxConversionError
        If a step cannot be converted. The message names the step and how to fix it.
    """
    graph = Graph()
    table = Table(NUMERIC, tuple(numeric), CATEGORICAL, tuple(categorical))
    convert = _convert_blend if isinstance(model, BlendedModel) else _convert_candidate
    probability = convert(graph, model, table)
    check_operators(graph)
    graph.node("Reshape", probability, graph.constant([-1], np.int64))
    graph.nodes[-1].output[0] = OUTPUT
    converted = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "churn",
            [
                helper.make_tensor_value_info(name, kind, [ROWS, len(columns)])
                for name, kind, columns in (
                    (NUMERIC, TensorProto.FLOAT, numeric),
                    (CATEGORICAL, TensorProto.STRING, categorical),
                )
                if columns
            ],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.DOUBLE, [ROWS])],
            initializer=graph.constants,
        ),
        producer_name="churn_pipeline",
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in sorted(graph.opsets.items())],
    )
    columns = {NUMERIC: list(numeric), CATEGORICAL: list(categorical)}
    helper.set_model_props(converted, {name: json.dumps(names) for name, names in columns.items()})
    _check_loads(converted)
    return converted


def model_digest(model: onnx.ModelProto) -> str:
    """Compute the digest of an ONNX model.

    Parameters
    ----------
    model : ModelProto
        An ONNX model.

    Returns
    -------
    str
        SHA-256 of its bytes, in hexadecimal.
    """
    return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()


def model_inputs(X: pd.DataFrame, numeric: Sequence[str], categorical: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """Convert a table to the inputs of an ONNX model.

    Parameters
    ----------
    X : DataFrame of shape (n_rows, n_columns)
        Customers; numeric columns are float64, categorical ones str.
    numeric, categorical : Sequence of str
        Columns of the two inputs.

    Returns
    -------
    dict of str to ndarray
        ``numeric`` (float32) and ``categorical`` (object); an input without columns is left out.
    """
    inputs: dict[str, npt.NDArray[Any]] = {}
    if numeric:
        inputs[NUMERIC] = round_to_float32(X[list(numeric)]).astype(np.float32)
    if categorical:
        inputs[CATEGORICAL] = X[list(categorical)].to_numpy(dtype=object)
    return inputs


def predict_onnx(model: onnx.ModelProto, X: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Score a table with an ONNX model.

    Parameters
    ----------
    model : ModelProto
        An ONNX model.
    X : DataFrame of shape (n_rows, n_columns)
        Customers, with at least the model's columns.

    Returns
    -------
    ndarray of shape (n_rows,), float64
        Churn probabilities.
    """
    from onnxruntime import InferenceSession

    session = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    columns = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    inputs = model_inputs(X, columns[NUMERIC], columns[CATEGORICAL])
    return np.asarray(session.run([OUTPUT], inputs)[0], dtype=np.float64)


def _convert_candidate(graph: Graph, model: Any, table: Table) -> str:
    preprocessing, classifier = _steps(model)
    return convert_classifier(graph, classifier, convert_columns(graph, preprocessing, table))


def _convert_blend(graph: Graph, model: BlendedModel, table: Table) -> str:
    """Convert the weighted sum of calibrated log-odds, in the order in which `BlendedModel` computes it."""
    one = graph.constant(1.0)
    total: str | None = None
    for (_, member), weight, (a, b, c) in zip(model.members, model.weights, model.calibrations, strict=True):
        probability = _convert_candidate(graph, member, table)
        shrunk = graph.node("Mul", probability, graph.constant(1.0 - 2.0 * SHRINKAGE))
        shrunk = graph.node("Add", graph.constant(SHRINKAGE), shrunk)
        a_log_p = graph.node("Mul", graph.constant(a), graph.node("Log", shrunk))
        b_log_1mp = graph.node("Mul", graph.constant(b), graph.node("Log", graph.node("Sub", one, shrunk)))
        log_odds = graph.node("Add", graph.node("Sub", a_log_p, b_log_1mp), graph.constant(c))
        share = graph.node("Mul", graph.constant(weight), log_odds)
        total = share if total is None else graph.node("Add", total, share)
    if total is None:
        raise OnnxConversionError("The blend has no members: build it with assemble.")
    return graph.node("Sigmoid", total)


def _steps(model: Pipeline) -> tuple[ColumnTransformer, Any]:
    """Return the preprocessing and the classifier of a fitted candidate."""
    if not isinstance(model, Pipeline) or len(model.steps) != 2 or not isinstance(model.steps[0][1], ColumnTransformer):
        raise OnnxConversionError(
            f"This {type(model).__name__} does not consist of a ColumnTransformer and a classifier: build it with "
            "build_candidate."
        )
    try:
        check_is_fitted(model.steps[0][1])
        check_is_fitted(model.steps[1][1])
    except NotFittedError as error:
        raise OnnxConversionError("The model is not fitted: fit it before converting it.") from error
    return model.steps[0][1], model.steps[1][1]


def _check_loads(model: onnx.ModelProto) -> None:
    """Check that onnxruntime loads the model."""
    from onnxruntime import InferenceSession

    try:
        onnx.checker.check_model(model)
        InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no public base class
        raise OnnxConversionError(
            f"The ONNX model does not load: {error}. The conversion of the classifier is the likely cause: choose "
            "another class, or add a conversion to onnx_classifiers.py."
        ) from error
