"""A fitted pipeline, compiled to ONNX.

The ONNX model takes two tensors, ``numeric`` (float32, NaN where missing) and ``categorical`` (strings, empty
where missing), and answers ``churn_probability`` in double. It is meant to give what scikit-learn gives, to the last
digits, for every row there is: `churn_pipeline.modelling.hard_rows` makes the rows to check that on.
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
from churn_pipeline.modelling.onnx_classifiers import check_operators, convert_classifier
from churn_pipeline.modelling.onnx_columns import Table, convert_columns
from churn_pipeline.modelling.onnx_graph import IR_VERSION, Graph, OnnxConversionError
from churn_pipeline.modelling.preprocessing import round_to_float32

__all__ = ["OUTPUT", "OnnxConversionError", "convert_model", "model_digest", "model_inputs", "predict_onnx"]

NUMERIC, CATEGORICAL, OUTPUT = "numeric", "categorical", "churn_probability"
ROWS = "rows"


def convert_model(
    model: Pipeline | BlendedModel, numeric: Sequence[str], categorical: Sequence[str]
) -> onnx.ModelProto:
    """Compile a fitted candidate, or a blend of them.

    Parameters
    ----------
    model : Pipeline or BlendedModel
        What `build_candidate` builds, fitted on the classes 0 and 1, or what `assemble` makes of several.
    numeric, categorical : Sequence of str
        The columns of either input, in the order the caller will send them.

    Returns
    -------
    ModelProto
        Inputs ``numeric``, float32 of shape (rows, len(numeric)), and ``categorical``, strings of shape
        (rows, len(categorical)); one without columns is left out. Output ``churn_probability``, double of shape (rows,).
        The same model gives the same bytes, in any process. Column names are in its metadata.

    Raises
    ------
    OnnxConversionError
        If something in the model cannot be expressed; it names the step, and what to do.
    """
    graph = Graph()
    table = Table(NUMERIC, tuple(numeric), CATEGORICAL, tuple(categorical))
    lower = _convert_blend if isinstance(model, BlendedModel) else _convert_candidate
    probability = lower(graph, model, table)
    check_operators(graph)
    graph.node("Reshape", probability, graph.constant([-1], np.int64))
    graph.nodes[-1].output[0] = OUTPUT
    compiled = helper.make_model(
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
    helper.set_model_props(compiled, {name: json.dumps(held) for name, held in columns.items()})
    _check(compiled)
    return compiled


def model_digest(model: onnx.ModelProto) -> str:
    """Identify an ONNX model.

    Parameters
    ----------
    model : ModelProto
        An ONNX model.

    Returns
    -------
    str
        The SHA-256 of its bytes, in hexadecimal.
    """
    return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()


def model_inputs(X: pd.DataFrame, numeric: Sequence[str], categorical: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """Lay a table out as an ONNX model reads it.

    Parameters
    ----------
    X : DataFrame of shape (n_rows, n_columns)
        Customers; numbers are float64, categories str.
    numeric, categorical : Sequence of str
        The columns of either input.

    Returns
    -------
    dict of str to ndarray
        ``numeric`` (float32) and ``categorical`` (object), without the one that has no columns.
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
        Customers, with at least the columns the model was compiled for.

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
    preprocessing, classifier = _parts(model)
    return convert_classifier(graph, classifier, convert_columns(graph, preprocessing, table))


def _convert_blend(graph: Graph, model: BlendedModel, table: Table) -> str:
    """Write the weighted sum of calibrated log-odds, in the order in which `BlendedModel` calculates it."""
    one = graph.constant(1.0)
    total: str | None = None
    for (_, member), weight, (a, b, c) in zip(model.members, model.weights, model.calibrations, strict=True):
        probability = _convert_candidate(graph, member, table)
        shrunk = graph.node("Mul", probability, graph.constant(1.0 - 2.0 * SHRINKAGE))
        shrunk = graph.node("Add", graph.constant(SHRINKAGE), shrunk)
        of_churn = graph.node("Mul", graph.constant(a), graph.node("Log", shrunk))
        of_stay = graph.node("Mul", graph.constant(b), graph.node("Log", graph.node("Sub", one, shrunk)))
        odds = graph.node("Add", graph.node("Sub", of_churn, of_stay), graph.constant(c))
        share = graph.node("Mul", graph.constant(weight), odds)
        total = share if total is None else graph.node("Add", total, share)
    if total is None:
        raise OnnxConversionError("The blend has no members.")
    return graph.node("Sigmoid", total)


def _parts(model: Pipeline) -> tuple[ColumnTransformer, Any]:
    """Take a fitted candidate apart."""
    if not isinstance(model, Pipeline) or len(model.steps) != 2 or not isinstance(model.steps[0][1], ColumnTransformer):
        raise OnnxConversionError(
            f"A {type(model).__name__} of another shape than a ColumnTransformer and a classifier does not compile; "
            "build it with build_candidate."
        )
    try:
        check_is_fitted(model.steps[0][1])
        check_is_fitted(model.steps[1][1])
    except NotFittedError as error:
        raise OnnxConversionError("The model is not fitted: fit it, then compile it.") from error
    return model.steps[0][1], model.steps[1][1]


def _check(model: onnx.ModelProto) -> None:
    """Refuse a model that onnxruntime would refuse later."""
    from onnxruntime import InferenceSession

    try:
        onnx.checker.check_model(model)
        InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no public base
        raise OnnxConversionError(
            f"The ONNX model does not load: {error}. The classifier's conversion is the likely cause: choose another "
            "class, or add a conversion to onnx_classifiers.py."
        ) from error
