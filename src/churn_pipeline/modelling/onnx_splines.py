"""Conversion of B-splines to ONNX."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from churn_pipeline.modelling.onnx_graph import Graph
from churn_pipeline.modelling.preprocessing import QuantileSplines


def convert_splines(graph: Graph, step: QuantileSplines, value: str, where: str) -> str:
    """Evaluate B-splines by the Cox-de Boor recursion, for all columns and basis functions at once.

    As in scipy, a value belongs to the last interval whose left knot is not greater than the value, and the right edge
    belongs to the last interval. Knots never coincide (`spread_knots`), so no distance is 0.

    Parameters
    ----------
    graph : Graph
        The graph to add to.
    step : QuantileSplines
        The fitted step.
    value : str
        Name of the input: float64 of shape (n_rows, n_columns).
    where : str
        Not used: this conversion has no errors to report.

    Returns
    -------
    str
        Name of the basis functions: float64 of shape (n_rows, n_columns * (n_knots + degree - 1)).

    References
    ----------
    C. de Boor, A Practical Guide to Splines, Springer 1978, chapter X.
    """
    degree = step.degree
    knots = np.stack([spline.t for spline in step.splines().bsplines_])  # (columns, knots)
    n_knots = knots.shape[1]
    # Max and Min instead of Clip, because bounds differ between columns.
    value = graph.node("Max", value, graph.constant(knots[np.newaxis, :, degree]))
    value = graph.node("Min", value, graph.constant(knots[np.newaxis, :, n_knots - degree - 1]))
    value = graph.node("Unsqueeze", value, graph.constant([2], np.int64))  # (rows, columns, 1)
    # Degree 0: 1 in the interval that contains the value. Left of the first inner knot every step is 1, right of the last 0.
    edges = knots.copy()
    edges[:, : degree + 1] = -np.inf
    edges[:, n_knots - degree - 1 :] = np.inf
    steps = graph.cast(graph.node("GreaterOrEqual", value, graph.constant(edges[np.newaxis])), TensorProto.DOUBLE)
    basis = graph.node("Sub", _slice(graph, steps, 0, n_knots - 1), _slice(graph, steps, 1, n_knots))
    for order in range(1, degree + 1):
        n_basis = n_knots - 1 - order
        distance = (knots[:, order:] - knots[:, :-order])[np.newaxis]
        left = graph.node("Sub", value, graph.constant(knots[np.newaxis, :, :n_basis]))
        left = graph.node("Div", left, graph.constant(distance[..., :n_basis]))
        right = graph.node("Sub", graph.constant(knots[np.newaxis, :, order + 1 :]), value)
        right = graph.node("Div", right, graph.constant(distance[..., 1:]))
        basis = graph.node(
            "Add",
            graph.node("Mul", left, _slice(graph, basis, 0, n_basis)),
            graph.node("Mul", right, _slice(graph, basis, 1, n_basis + 1)),
        )
    width = knots.shape[0] * (n_knots - 1 - degree)
    return graph.node("Reshape", basis, graph.constant([-1, width], np.int64))


def _slice(graph: Graph, value: str, start: int, stop: int) -> str:
    """Select [start, stop) of the last of three axes."""
    bounds = (graph.constant([start], np.int64), graph.constant([stop], np.int64), graph.constant([2], np.int64))
    return graph.node("Slice", value, *bounds)
