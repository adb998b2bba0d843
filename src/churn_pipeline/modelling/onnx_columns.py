"""Conversion of each preprocessing step to ONNX. All steps compute in float64, in the same order as scikit-learn."""

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
from churn_pipeline.modelling.onnx_splines import convert_splines
from churn_pipeline.modelling.preprocessing import (
    NUMBER_LIMIT,
    Z_SCORE_LIMIT,
    QuantileSplines,
    RandomPairs,
    limit_scores,
    round_to_float32,
)
from churn_pipeline.modelling.target_encoding import CustomerTargetEncoder


@dataclass(frozen=True)
class Table:
    """The graph's inputs: the name of each tensor, and its columns in order."""

    numeric: str
    numeric_columns: tuple[str, ...]
    categorical: str
    categorical_columns: tuple[str, ...]

    def select(self, graph: Graph, columns: Sequence[str]) -> str:
        """Select columns of one type, in the given order.

        Parameters
        ----------
        graph : Graph
            The graph to add to.
        columns : Sequence of str
            Column names.

        Returns
        -------
        str
            Name of a tensor of shape (n_rows, len(columns)).

        Raises
        ------
        OnnxConversionError
            If the columns are neither all numeric nor all categorical.
        """
        for name, available in (
            (self.numeric, self.numeric_columns),
            (self.categorical, self.categorical_columns),
        ):
            if set(columns) <= set(available):
                if tuple(columns) == available:
                    return name
                positions = graph.constant([available.index(column) for column in columns], np.int64)
                return graph.node("Gather", name, positions, axis=1)
        raise OnnxConversionError(
            f"The model was fitted on the columns {list(columns)}, but the given columns are {list(self.numeric_columns)} "
            f"(numeric) and {list(self.categorical_columns)} (categorical): convert it with the columns it was fitted on."
        )


def convert_columns(graph: Graph, transformer: ColumnTransformer, table: Table) -> str:
    """Convert a fitted ColumnTransformer.

    Parameters
    ----------
    graph : Graph
        The graph to add to.
    transformer : ColumnTransformer
        Fitted, with columns given by name.
    table : Table
        The graph's inputs.

    Returns
    -------
    str
        Name of the output: float64 of shape (n_rows, n_features).

    Raises
    ------
    OnnxConversionError
        If a step has no conversion.
    """
    parts = []
    for name, step, columns in transformer.transformers_:
        if (isinstance(step, str) and step == "drop") or not len(columns):
            continue
        parts.append(convert_step(graph, step, table.select(graph, list(columns)), f"preprocessing.{name}"))
    return _concatenate(graph, parts)


def convert_step(graph: Graph, step: Any, value: str, where: str) -> str:
    """Convert one fitted step.

    Parameters
    ----------
    graph : Graph
        The graph to add to.
    step : estimator
        The fitted step.
    value : str
        Name of the input, of shape (n_rows, n_columns).
    where : str
        Path of the step, for error messages.

    Returns
    -------
    str
        Name of the output: float64 of shape (n_rows, n_features).

    Raises
    ------
    OnnxConversionError
        If the step has no conversion.
    """
    if isinstance(step, Pipeline):
        for name, inner in step.steps:
            value = convert_step(graph, inner, value, f"{where}.{name}")
        return value
    if isinstance(step, FeatureUnion):
        return _concatenate(
            graph,
            [
                convert_step(graph, inner, value, f"{where}.{name}")
                for name, inner in step.transformer_list
                if _has_output(inner)
            ],
        )
    convert = _CONVERTERS.get(type(step))
    if convert is None:
        known = ", ".join(sorted(kind.__name__ for kind in _CONVERTERS))
        raise OnnxConversionError(
            f"Step {where} ({type(step).__name__}) has no conversion to ONNX. Steps with a conversion: {known}. "
            "Use one of these, or add a conversion to onnx_columns.py."
        )
    return convert(graph, step, value, where)


def _concatenate(graph: Graph, parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else graph.node("Concat", *parts, axis=1)


def _has_output(step: Any) -> bool:
    """Whether a step has output columns: a MissingIndicator without missing values has none, and is left out."""
    return not isinstance(step, MissingIndicator) or len(step.features_) > 0


def _convert_function(graph: Graph, step: FunctionTransformer, value: str, where: str) -> str:
    if step.func is round_to_float32:
        double = graph.cast(value, TensorProto.DOUBLE)
        # Clip does not define its result for NaN. A comparison with NaN is false, so NaN passes unchanged.
        for bound, beyond in ((NUMBER_LIMIT, "Greater"), (-NUMBER_LIMIT, "Less")):
            limit = graph.constant(bound)
            double = graph.node("Where", graph.node(beyond, double, limit), limit, double)
        return double
    if step.func is limit_scores:
        return graph.node("Clip", value, graph.constant(-Z_SCORE_LIMIT), graph.constant(Z_SCORE_LIMIT))
    raise OnnxConversionError(
        f"Step {where} applies the function {getattr(step.func, '__name__', step.func)!r}, which has no conversion to ONNX. "
        "Use a transformer that has one, or add a conversion to onnx_columns.py."
    )


def _convert_imputer(graph: Graph, step: SimpleImputer, value: str, where: str) -> str:
    statistics = np.asarray(step.statistics_, dtype=np.float64)
    if step.add_indicator or not (isinstance(step.missing_values, float) and np.isnan(step.missing_values)):
        raise OnnxConversionError(
            f"Step {where}: a SimpleImputer must replace NaN, and without add_indicator; use a MissingIndicator beside it."
        )
    if np.isnan(statistics).any():
        raise OnnxConversionError(
            f"Step {where} drops columns that are entirely missing: set keep_empty_features=True."
        )
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
    return _concatenate(graph, [value, graph.node("Add", *sides)])


def _convert_one_hot(graph: Graph, step: OneHotEncoder, value: str, where: str) -> str:
    """Look up the levels of all columns in one table, then compare the results with the positions of the output.

    A key consists of the column's position and the level, such as ``3:Two year``, because one look-up for all columns is
    much faster than one per column. Rare and unseen levels need no key: both use the column's infrequent level, or no
    level.
    """
    if step.handle_unknown not in ("infrequent_if_exist", "ignore") or step.drop is not None:
        raise OnnxConversionError(
            f"Step {where}: a OneHotEncoder must have handle_unknown='infrequent_if_exist' and be without drop."
        )
    keys: list[str] = []
    positions: list[int] = []
    owners: list[int] = []
    fallbacks: list[int] = []
    infrequent = getattr(step, "infrequent_categories_", [None] * len(step.categories_))
    for column, (levels, rare) in enumerate(zip(step.categories_, infrequent, strict=True)):
        rare_levels = set() if rare is None else set(rare)
        for level in levels:
            if level not in rare_levels:
                keys.append(f"{column}:{level}")
                positions.append(len(owners))
                owners.append(column)
        fallbacks.append(len(owners) if rare_levels else -1)
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
    position = graph.node("Where", unknown, graph.constant([fallbacks], np.int64), position)
    expanded = graph.node("Gather", position, graph.constant(owners, np.int64), axis=1)
    found = graph.node("Equal", expanded, graph.constant([list(range(len(owners)))], np.int64))
    return graph.cast(found, TensorProto.DOUBLE)


def _convert_target_encoder(graph: Graph, step: CustomerTargetEncoder, value: str, where: str) -> str:
    """Look up the position of each level's churn share, then the share; unseen levels have the position of the mean.

    ``LabelEncoder`` returns float32 shares at most, so the shares are a constant of their own.
    """
    keys = [f"{column}:{level}" for column, levels in enumerate(step.categories_) for level in levels]
    shares = np.concatenate([*step.encodings_, [step.target_mean_]])
    prefix = graph.constant([[f"{column}:" for column in range(len(step.categories_))]], str)
    position = graph.node(
        "LabelEncoder",
        graph.node("StringConcat", prefix, value),
        domain=ML_DOMAIN,
        keys_strings=keys,
        values_int64s=list(range(len(keys))),
        default_int64=len(keys),
    )
    return graph.node("Gather", graph.constant(shares), position, axis=0)


_CONVERTERS: dict[type[Any], Callable[[Graph, Any, str, str], str]] = {
    FunctionTransformer: _convert_function,
    SimpleImputer: _convert_imputer,
    MissingIndicator: _convert_indicator,
    StandardScaler: _convert_scaler,
    QuantileSplines: convert_splines,
    RandomPairs: _convert_pairs,
    OneHotEncoder: _convert_one_hot,
    CustomerTargetEncoder: _convert_target_encoder,
}
