"""Conversion of this project's own classifiers, networks and kernel models, to ONNX in float64."""

from __future__ import annotations

import numpy as np

from churn_pipeline.modelling.kernels import NystroemClassifier
from churn_pipeline.modelling.networks import BaseNetwork
from churn_pipeline.modelling.onnx_graph import Graph


def convert_network(graph: Graph, classifier: BaseNetwork, features: str) -> str:
    """Convert a network: one product of matrices per layer for all members at once, then the mean of their probabilities.

    Parameters
    ----------
    graph : Graph
        The graph to add to.
    classifier : BaseNetwork
        Fitted.
    features : str
        Name of the input: float64 of shape (n_rows, n_features).

    Returns
    -------
    str
        Name of the probability of class 1: float64 of shape (n_rows, 1).
    """
    value = graph.node("Unsqueeze", features, graph.constant([0], np.int64))  # (1, rows, features)
    layers = list(zip(classifier.weights_, classifier.biases_, strict=True))
    for position, (weight, bias) in enumerate(layers):
        value = graph.node("MatMul", value, graph.constant(weight))
        value = graph.node("Add", value, graph.constant(bias))
        value = graph.node("Sigmoid" if position == len(layers) - 1 else "Relu", value)
    return graph.node("ReduceMean", value, graph.constant([0], np.int64), keepdims=0)


def convert_nystroem(graph: Graph, classifier: NystroemClassifier, features: str) -> str:
    """Convert a weighted sum of similarities to landmarks.

    The squared distance is ``|x|² + |l|² - 2 x·l``, as in scikit-learn. Features are limited z-scores, splines or indicators,
    so the difference loses few digits; where rounding makes it negative, it is 0.

    Parameters
    ----------
    graph : Graph
        The graph to add to.
    classifier : NystroemClassifier
        Fitted.
    features : str
        Name of the input: float64 of shape (n_rows, n_features).

    Returns
    -------
    str
        Name of the probability of class 1: float64 of shape (n_rows, 1).
    """
    landmarks = classifier.landmarks_
    product = graph.node("MatMul", features, graph.constant(-2.0 * landmarks.T))
    squares = graph.node("ReduceSum", graph.node("Mul", features, features), graph.constant([1], np.int64), keepdims=1)
    distance = graph.node("Add", graph.node("Add", product, squares), graph.constant((landmarks**2).sum(axis=1)[None]))
    distance = graph.node("Max", distance, graph.constant(0.0))
    similarity = graph.node("Exp", graph.node("Mul", distance, graph.constant(-classifier.gamma_)))
    total = graph.node("MatMul", similarity, graph.constant(classifier.weights_[:, np.newaxis]))
    return graph.node("Sigmoid", graph.node("Add", total, graph.constant(classifier.intercept_)))
