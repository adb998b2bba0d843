"""Conversion of boosting by LightGBM, XGBoost and CatBoost to ONNX."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from churn_pipeline.modelling.onnx_graph import Graph
from churn_pipeline.modelling.onnx_lightgbm import ZERO
from churn_pipeline.modelling.onnx_trees import READERS, add_trees
from churn_pipeline.modelling.trees import Boosting


def convert_boosting(graph: Graph, classifier: Any, features: str) -> str:
    """Convert a fitted classifier of one of these libraries.

    Parameters
    ----------
    graph : Graph
        The graph to add to.
    classifier : LGBMClassifier, XGBClassifier or CatBoostClassifier
        Fitted on two classes.
    features : str
        Name of the input: float64 of shape (n_rows, n_features).

    Returns
    -------
    str
        Name of the probability of class 1: float64 of shape (n_rows, 1).

    Raises
    ------
    OnnxConversionError
        If the classifier cannot be converted.
    """
    boosting = READERS[type(classifier).__name__](classifier)
    inputs = _inputs(graph, boosting, features, int(classifier.n_features_in_))
    if boosting.float32_sum:
        return graph.node("Sigmoid", _sum_in_float32(graph, boosting, inputs))
    score = add_trees(graph, boosting.trees, inputs)
    if boosting.factor != 1.0:
        score = graph.node("Mul", score, graph.constant(boosting.factor))
    return graph.node("Sigmoid", graph.node("Add", score, graph.constant(boosting.base)))


def _inputs(graph: Graph, boosting: Boosting, features: str, n_features: int) -> str:
    """Change the features as the library does before it compares them."""
    if boosting.float32:
        features = graph.cast(graph.cast(features, TensorProto.FLOAT), TensorProto.DOUBLE)
    if boosting.zero_is_missing:
        limits = np.full((1, n_features), -1.0)
        limits[0, list(boosting.zero_is_missing)] = ZERO
        is_zero = graph.node("LessOrEqual", graph.node("Abs", features), graph.constant(limits))
        features = graph.node("Where", is_zero, graph.constant(np.nan), features)
    categorical = {int(tree.feature[node]) for tree in boosting.trees for node in tree.categories}
    if categorical:
        # Categories are whole numbers: fractions are cut off.
        chosen = np.isin(np.arange(n_features), list(categorical))[np.newaxis]
        whole = graph.node("Mul", graph.node("Sign", features), graph.node("Floor", graph.node("Abs", features)))
        features = graph.node("Where", graph.constant(chosen, np.bool_), whole, features)
    return features


def _sum_in_float32(graph: Graph, boosting: Boosting, inputs: str) -> str:
    """Add the trees in the library's order. With 1,000 trees, a sum in float64 is off by more than 1e-6.

    CumSum adds one value after the other; a plain sum may use any order.
    """
    n_trees = len(boosting.trees)
    first = np.zeros((1, n_trees), dtype=np.float32)
    first[0, 0] = boosting.base
    leaves = graph.cast(add_trees(graph, boosting.trees, inputs, summed=False), TensorProto.FLOAT)
    sums = graph.node(
        "CumSum", graph.node("Add", graph.constant(first, np.float32), leaves), graph.constant(1, np.int64)
    )
    return graph.cast(graph.node("Gather", sums, graph.constant([n_trees - 1], np.int64), axis=1), TensorProto.DOUBLE)
