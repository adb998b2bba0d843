"""Classifiers that skl2onnx, scikit-learn's converter, writes to ONNX."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from churn_pipeline.modelling.onnx_graph import ML_DOMAIN, ML_OPSET, OPSET, Graph, OnnxConversionError

CONVERTER_ML_OPSET = 3
# Operators that version 5 of ai.onnx.ml no longer has, and that skl2onnx still writes.
WITHDRAWN = {"TreeEnsembleClassifier", "TreeEnsembleRegressor"}


def convert_by_skl2onnx(graph: Graph, classifier: Any, features: str) -> str:
    """Let skl2onnx convert a classifier, in float64 if it can, else in float32.

    Parameters
    ----------
    graph : Graph
        The graph to add to.
    classifier : estimator
        A fitted classifier of the classes 0 and 1.
    features : str
        Name of the input: float64 of shape (n_rows, n_features).

    Returns
    -------
    str
        Name of the probability of class 1: float64 of shape (n_rows, 1).

    Raises
    ------
    OnnxConversionError
        If skl2onnx cannot convert the classifier.
    """
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

    problem: Exception | None = None
    for tensor, kind in ((DoubleTensorType, TensorProto.DOUBLE), (FloatTensorType, TensorProto.FLOAT)):
        try:
            converted = to_onnx(
                classifier,
                initial_types=[("features", tensor([None, classifier.n_features_in_]))],
                options={id(classifier): {"zipmap": False}},
                target_opset={"": OPSET, ML_DOMAIN: CONVERTER_ML_OPSET},
            )
            _check_loads(converted)
        except Exception as error:  # skl2onnx raises exceptions of many types
            problem = error
            continue
        return _embed(graph, converted, graph.cast(features, kind))
    raise OnnxConversionError(
        f"Step classifier ({type(classifier).__name__}) cannot be converted to ONNX: {problem}. Choose another class, or "
        "add a conversion to onnx_classifiers.py."
    ) from problem


def check_operators(graph: Graph) -> None:
    """Check that our trees and skl2onnx's trees are not in one graph: no version of ai.onnx.ml has both operators.

    Parameters
    ----------
    graph : Graph
        The complete graph.

    Raises
    ------
    OnnxConversionError
        If both are in the graph, which only a blend can cause.
    """
    operators = {node.op_type for node in graph.nodes}
    if "TreeEnsemble" in operators and operators & WITHDRAWN:
        raise OnnxConversionError(
            "This blend cannot be converted to ONNX: it combines trees that this project converts with trees that skl2onnx "
            "converts. Remove one of these candidates, disable blends (choice.blends: false), or add a "
            "conversion to onnx_classifiers.py."
        )


def _check_loads(model: onnx.ModelProto) -> None:
    from onnxruntime import InferenceSession

    InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def _embed(graph: Graph, model: onnx.ModelProto, features: str) -> str:
    """Copy the nodes of a converted classifier into the graph, under names of the graph."""
    names = {model.graph.input[0].name: features, "": ""}
    for constant in model.graph.initializer:
        names[constant.name] = graph.adopt(constant)
    for node in model.graph.node:
        name = f"{node.op_type}_{len(graph.nodes)}"
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        names.update({output: f"{name}_{index}" for index, output in enumerate(node.output) if output})
        copied.name = name
        copied.input[:] = [names[value] for value in node.input]
        copied.output[:] = [names[value] for value in node.output]
        graph.nodes.append(copied)
    # A model has one version per domain. Withdrawn operators need the lower version of ai.onnx.ml; all others mean the
    # same in both. The version of the default domain stays OPSET, even if skl2onnx states a lower one.
    if any(node.op_type in WITHDRAWN for node in model.graph.node):
        graph.opsets[ML_DOMAIN] = CONVERTER_ML_OPSET
    elif any(node.domain == ML_DOMAIN for node in model.graph.node):
        graph.opsets.setdefault(ML_DOMAIN, ML_OPSET)
    probabilities = graph.cast(names[model.graph.output[1].name], TensorProto.DOUBLE)
    return graph.node("Gather", probabilities, graph.constant([1], np.int64), axis=1)
