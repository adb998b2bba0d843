"""How each preprocessing step is written in ONNX. All of it calculates in double, in scikit-learn's own order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto
from sklearn.compose import ColumnTransformer
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from churn_pipeline.modelling.onnx_graph import ML_DOMAIN, Graph, OnnxConversionError
from churn_pipeline.modelling.preprocessing import (
    NUMBER_LIMIT,
    SCORE_LIMIT,
    QuantileSplines,
    RandomPairs,
    limit_scores,
    round_to_float32,
)


@dataclass(frozen=True)
class Table:
    """The graph's inputs: the name of each tensor, and which columns it holds in which order."""

    numeric: str
    numeric_columns: tuple[str, ...]
    categorical: str
    categorical_columns: tuple[str, ...]

    def select(self, graph: Graph, columns: Sequence[str]) -> str:
        """Take columns of one kind, in the order asked for.

        Parameters
        ----------
        graph : Graph
            Where to add the selection.
        columns : Sequence of str
            Column names.

        Returns
        -------
        str
            The name of a tensor of shape (n_rows, len(columns)).

        Raises
        ------
        OnnxConversionError
            If the columns are not all numeric, or all categorical.
        """
        for name, held in (
            (self.numeric, self.numeric_columns),
            (self.categorical, self.categorical_columns),
        ):
            if set(columns) <= set(held):
                if tuple(columns) == held:
                    return name
                positions = graph.constant([held.index(column) for column in columns], np.int64)
                return graph.node("Gather", name, positions, axis=1)
        raise OnnxConversionError(
            f"The model was fitted on columns {list(columns)}, which are not all among the numeric "
            f"{list(self.numeric_columns)} or all among the categorical {list(self.categorical_columns)}: "
            "compile it with the columns it was fitted on."
        )


def convert_columns(graph: Graph, transformer: ColumnTransformer, table: Table) -> str:
    """Write a fitted ColumnTransformer.

    Parameters
    ----------
    graph : Graph
        Where to add it.
    transformer : ColumnTransformer
        Fitted, with its columns given by name.
    table : Table
        The graph's inputs.

    Returns
    -------
    str
        The name of its output: double, of shape (n_rows, n_features).

    Raises
    ------
    OnnxConversionError
        If a step has no counterpart here.
    """
    parts = []
    for name, step, columns in transformer.transformers_:
        if (isinstance(step, str) and step == "drop") or not len(columns):
            continue
        parts.append(convert_step(graph, step, table.select(graph, list(columns)), f"preprocessing.{name}"))
    return _side_by_side(graph, parts)


def convert_step(graph: Graph, step: Any, value: str, where: str) -> str:
    """Write one fitted step.

    Parameters
    ----------
    graph : Graph
        Where to add it.
    step : estimator
        The fitted step.
    value : str
        Its input, of shape (n_rows, n_columns).
    where : str
        The path to the step, for messages.

    Returns
    -------
    str
        The name of its output: double, of shape (n_rows, n_features).

    Raises
    ------
    OnnxConversionError
        If the step has no counterpart here.
    """
    if isinstance(step, Pipeline):
        for name, inner in step.steps:
            value = convert_step(graph, inner, value, f"{where}.{name}")
        return value
    if isinstance(step, FeatureUnion):
        return _side_by_side(
            graph,
            [
                convert_step(graph, inner, value, f"{where}.{name}")
                for name, inner in step.transformer_list
                if _width(inner)
            ],
        )
    lower = _CONVERTERS.get(type(step))
    if lower is None:
        known = ", ".join(sorted(kind.__name__ for kind in _CONVERTERS))
        raise OnnxConversionError(
            f"Step {where} ({type(step).__name__}) has no ONNX counterpart. Known are: {known}. "
            "Use one of these, or add a conversion to onnx_columns.py."
        )
    return lower(graph, step, value, where)


def _side_by_side(graph: Graph, parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else graph.node("Concat", *parts, axis=1)


def _width(step: Any) -> int:
    """How many columns a step gives; an indicator of nothing gives none, and ONNX needs no empty tensors."""
    return len(step.features_) if isinstance(step, MissingIndicator) else 1


def _convert_function(graph: Graph, step: FunctionTransformer, value: str, where: str) -> str:
    if step.func is round_to_float32:
        double = graph.cast(value, TensorProto.DOUBLE)
        # Not Clip: what it makes of NaN is not promised. A comparison with NaN is false, and lets it pass.
        for bound, beyond in ((NUMBER_LIMIT, "Greater"), (-NUMBER_LIMIT, "Less")):
            limit = graph.constant(bound)
            double = graph.node("Where", graph.node(beyond, double, limit), limit, double)
        return double
    if step.func is limit_scores:
        return graph.node("Clip", value, graph.constant(-SCORE_LIMIT), graph.constant(SCORE_LIMIT))
    raise OnnxConversionError(
        f"Step {where} applies the function {getattr(step.func, '__name__', step.func)!r}, which has no ONNX "
        "counterpart. Use a transformer that has one, or add a conversion to onnx_columns.py."
    )


def _convert_imputer(graph: Graph, step: SimpleImputer, value: str, where: str) -> str:
    statistics = np.asarray(step.statistics_, dtype=np.float64)
    if step.add_indicator or not (isinstance(step.missing_values, float) and np.isnan(step.missing_values)):
        raise OnnxConversionError(
            f"Step {where}: only a SimpleImputer of NaN without add_indicator compiles; put a MissingIndicator beside it."
        )
    if np.isnan(statistics).any():
        raise OnnxConversionError(f"Step {where} drops all-missing columns; set keep_empty_features=True.")
    return graph.node("Where", graph.node("IsNaN", value), graph.constant(statistics[np.newaxis]), value)


def _convert_indicator(graph: Graph, step: MissingIndicator, value: str, where: str) -> str:
    missing = graph.node("IsNaN", value)
    if len(step.features_) < step.n_features_in_:
        missing = graph.node("Gather", missing, graph.constant(step.features_, np.int64), axis=1)
    return graph.cast(missing, TensorProto.DOUBLE)


def _convert_scaler(graph: Graph, step: StandardScaler, value: str, where: str) -> str:
    if step.with_mean:
        value = graph.node("Sub", value, graph.constant(step.mean_[np.newaxis]))
    if step.with_std:
        value = graph.node("Div", value, graph.constant(step.scale_[np.newaxis]))
    return value


def _convert_splines(graph: Graph, step: QuantileSplines, value: str, where: str) -> str:
    """Evaluate B-splines by the recursion of Cox and de Boor, for all columns and basis functions at once.

    The interval is found as scipy finds it: the last of the inner ones whose left knot is not to the right of the value,
    so the right edge belongs to the last interval. Knots never coincide (`spread_knots`), so no distance is 0.

    References
    ----------
    C. de Boor, A Practical Guide to Splines, Springer 1978, chapter X.
    """
    degree = step.degree
    knots = np.stack([spline.t for spline in step.splines().bsplines_])  # (columns, knots)
    n_knots = knots.shape[1]
    # Max and Min rather than Clip: bounds differ from column to column.
    value = graph.node("Max", value, graph.constant(knots[np.newaxis, :, degree]))
    value = graph.node("Min", value, graph.constant(knots[np.newaxis, :, n_knots - degree - 1]))
    value = graph.node("Unsqueeze", value, graph.constant([2], np.int64))  # (rows, columns, 1)
    # Degree 0: 1 in the interval the value is in. Before the first inner knot all is 1, after the last all is 0.
    edges = knots.copy()
    edges[:, : degree + 1] = -np.inf
    edges[:, n_knots - degree - 1 :] = np.inf
    reached = graph.cast(graph.node("GreaterOrEqual", value, graph.constant(edges[np.newaxis])), TensorProto.DOUBLE)
    basis = graph.node("Sub", _slice(graph, reached, 0, n_knots - 1), _slice(graph, reached, 1, n_knots))
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
    """Take [start, stop) of the last of three axes."""
    bounds = (graph.constant([start], np.int64), graph.constant([stop], np.int64), graph.constant([2], np.int64))
    return graph.node("Slice", value, *bounds)


def _convert_pairs(graph: Graph, step: RandomPairs, value: str, where: str) -> str:
    if not len(step.pairs_):
        return value
    sides = [
        graph.node(
            "Mul",
            graph.node("Gather", value, graph.constant(step.pairs_[:, side], np.int64), axis=1),
            graph.constant(step.factors_[np.newaxis, :, side]),
        )
        for side in (0, 1)
    ]
    return _side_by_side(graph, [value, graph.node("Add", *sides)])


def _convert_one_hot(graph: Graph, step: OneHotEncoder, value: str, where: str) -> str:
    """Look up every level in one table, then spread the answers over the columns.

    The key is the position of the column and the level, such as ``3:Two year``: one look-up for all columns costs a
    fraction of one for each. Rare and unseen levels need no key, since both go to the column's infrequent level, or
    to none.
    """
    if step.handle_unknown not in ("infrequent_if_exist", "ignore") or step.drop is not None:
        raise OnnxConversionError(f"Step {where}: only handle_unknown='infrequent_if_exist' without drop compiles.")
    keys: list[str] = []
    positions: list[int] = []
    owners: list[int] = []
    otherwise: list[int] = []
    infrequent = getattr(step, "infrequent_categories_", [None] * len(step.categories_))
    for column, (levels, rare) in enumerate(zip(step.categories_, infrequent, strict=True)):
        rare_levels = set() if rare is None else set(rare)
        for level in levels:
            if level not in rare_levels:
                keys.append(f"{column}:{level}")
                positions.append(len(owners))
                owners.append(column)
        otherwise.append(len(owners) if rare_levels else -1)
        if rare_levels:
            owners.append(column)
    prefix = graph.constant([[f"{column}:" for column in range(len(step.categories_))]], str)
    position = graph.node(
        "LabelEncoder",
        graph.node("StringConcat", prefix, value),
        domain=ML_DOMAIN,
        keys_strings=keys or [""],
        values_int64s=positions or [-1],
        default_int64=-1,
    )
    unknown = graph.node("Less", position, graph.constant(0, np.int64))
    position = graph.node("Where", unknown, graph.constant([otherwise], np.int64), position)
    spread = graph.node("Gather", position, graph.constant(owners, np.int64), axis=1)
    found = graph.node("Equal", spread, graph.constant([list(range(len(owners)))], np.int64))
    return graph.cast(found, TensorProto.DOUBLE)


_CONVERTERS: dict[type[Any], Callable[[Graph, Any, str, str], str]] = {
    FunctionTransformer: _convert_function,
    SimpleImputer: _convert_imputer,
    MissingIndicator: _convert_indicator,
    StandardScaler: _convert_scaler,
    QuantileSplines: _convert_splines,
    RandomPairs: _convert_pairs,
    OneHotEncoder: _convert_one_hot,
}
