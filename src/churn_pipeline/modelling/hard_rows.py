"""Rows on which an ONNX model is most likely to differ from its original, generated for one fitted model.

Equal predictions on real customers show little. Float32 errors appear at the split values of trees, and customers seldom
have exactly such a value. These rows do, and they cover everything else in which two implementations may differ: knots,
range limits, extremes, missing values, rare and unseen levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import StandardScaler

from churn_pipeline.modelling.ensemble import BlendedModel
from churn_pipeline.modelling.onnx_trees import trees_of
from churn_pipeline.modelling.preprocessing import QuantileSplines, round_to_float32

Floats = npt.NDArray[np.float64]

FLOAT32_MAX = float(np.finfo(np.float32).max)
EXTREMES = (
    *(sign * size for size in (0.0, 1e-45, 1e-30, 1.0, 1e30, FLOAT32_MAX, 1e300) for sign in (1.0, -1.0)),
    np.nan,
)
ODD_LEVELS = (
    "",
    " ",
    "never seen",
    " padded ",
    "two  blanks",
    "Ünïcödé ✓ 漢字 🙂",
    "0",
    "nan",
    "None",
    "0:0",
    "x" * 10_000,
)


def hard_rows(
    X: pd.DataFrame,
    model: Pipeline | BlendedModel,
    numeric: Sequence[str],
    categorical: Sequence[str],
    rng: np.random.Generator,
    limit: int = 20_000,
) -> pd.DataFrame:
    """Generate rows for the equivalence check of an ONNX model.

    Half of the rows change one column of a customer, which isolates an error. The other half change about every second
    column, which covers combinations. All extremes and odd levels are included if `limit` allows it, and a sample of the
    values around split values and knots.

    Parameters
    ----------
    X : DataFrame of shape (n_rows, n_columns)
        Customers to start from; not changed.
    model : Pipeline or BlendedModel
        A fitted candidate, or a blend of candidates.
    numeric, categorical : Sequence of str
        The model's columns.
    rng : Generator
        Source of randomness.
    limit : int, default=20000
        Number of rows.

    Returns
    -------
    DataFrame of shape (limit, len(numeric) + len(categorical))
        Float64 and str columns. The index is the position in `X` of the customer that the row was made from.
    """
    cuts = cut_points(model, numeric)
    edges: dict[str, list[Any]] = {}
    near_cuts: dict[str, list[Any]] = {column: [] for column in (*numeric, *categorical)}
    for column in numeric:
        edges[column] = _edge_values(X[column].to_numpy(dtype=np.float64), rng)
        near_cuts[column] = _around(cuts[column])
    for column in categorical:
        edges[column] = list(dict.fromkeys([*ODD_LEVELS, *X[column].unique()]))
    origin = rng.integers(len(X), size=limit)
    rows = X.iloc[origin]
    changed = {column: rows[column].to_numpy(dtype=object, copy=True) for column in edges}
    half = limit // 2
    for row, (column, value) in enumerate(_single_changes(edges, near_cuts, half, rng)):
        changed[column][row] = value
    for column, values in changed.items():
        pool = np.array([*edges[column], *near_cuts[column]], dtype=object)
        chosen = half + np.flatnonzero(rng.random(limit - half) < 0.5)
        values[chosen] = rng.choice(pool, size=len(chosen))
    return pd.DataFrame(changed, index=origin).astype(dict.fromkeys(numeric, np.float64))


def cut_points(model: Pipeline | BlendedModel, numeric: Sequence[str]) -> dict[str, Floats]:
    """Find the input values at which a fitted model's prediction may jump or bend.

    Parameters
    ----------
    model : Pipeline or BlendedModel
        A fitted candidate, or a blend of candidates.
    numeric : Sequence of str
        The model's numeric columns.

    Returns
    -------
    dict of str to ndarray of float64
        For each column, the sorted split values of trees and knots of splines, of all members of a blend; empty if there
        are none.
    """
    if isinstance(model, BlendedModel):
        found = [cut_points(member, numeric) for _, member in model.members]
        return {column: np.unique(np.concatenate([cuts[column] for cuts in found])) for column in numeric}
    cuts: dict[str, list[Floats]] = {column: [] for column in numeric}
    preprocessing = model.named_steps["preprocessing"]
    branch = preprocessing.named_transformers_["numeric"] if numeric else None
    steps = _value_steps(branch)
    columns = [list(names) for name, _, names in preprocessing.transformers_ if name == "numeric"]
    splines = [step for step in steps if isinstance(step, QuantileSplines)]
    for step in splines:
        for column, knots in zip(columns[0], step.knots_.T, strict=True):
            cuts[column].append(knots)
    # Feature i is numeric column i, unless it became splines: values come before indicators and categories.
    trees = trees_of(model.named_steps["classifier"]) if columns and not splines else []
    for position, column in enumerate(columns[0] if trees else []):
        splits = np.concatenate([tree.threshold[(tree.left >= 0) & (tree.feature == position)] for tree in trees])
        for step in steps:
            if isinstance(step, StandardScaler):
                splits = splits * step.scale_[position] + step.mean_[position]
        cuts[column].append(splits)
    return {column: np.unique(np.concatenate([*found, np.empty(0)])) for column, found in cuts.items()}


def _value_steps(step: Any) -> list[Any]:
    """List the steps that transform numeric values, without the indicators of missing values."""
    if isinstance(step, Pipeline):
        return [inner for _, nested in step.steps for inner in _value_steps(nested)]
    if isinstance(step, FeatureUnion):
        return _value_steps(dict(step.transformer_list)["values"])
    return [] if step is None else [step]


def _edge_values(observed: Floats, rng: np.random.Generator) -> list[float]:
    """Return extremes, the limits of the observed range, and rounded values such as whole months and cents."""
    known = observed[np.isfinite(observed)]
    if not len(known):
        return list(EXTREMES)
    low, high = float(known.min()), float(known.max())
    ends = [low, high, np.nextafter(low, -np.inf), np.nextafter(high, np.inf), float(np.median(known))]
    drawn = rng.uniform(low, high, size=100)
    return [*EXTREMES, *ends, *np.unique(np.round(drawn)), *np.unique(np.round(drawn, 2))]


def _around(cuts: Floats) -> list[float]:
    """Return each cut point, its float32 value with both float32 neighbours, and the middle between it and the next."""
    rounded = round_to_float32(cuts).astype(np.float32)
    with np.errstate(over="ignore"):  # the neighbour of the largest float32 is infinite, and is rounded back later
        neighbours = [np.nextafter(rounded, np.float32(side)).astype(np.float64) for side in (-np.inf, np.inf)]
    middles = cuts[:-1] + np.diff(cuts) / 2
    return [*np.unique(np.concatenate([cuts, rounded.astype(np.float64), *neighbours, middles]))]


def _single_changes(
    edges: dict[str, list[Any]], near_cuts: dict[str, list[Any]], size: int, rng: np.random.Generator
) -> list[tuple[str, Any]]:
    """Choose one column and value per row: all edge values if they fit, then a sample of values near cut points."""
    first = [(column, value) for column, values in edges.items() for value in values]
    then = [(column, value) for column, values in near_cuts.items() for value in values]
    if len(first) > size:
        return [first[index] for index in rng.choice(len(first), size=size, replace=False)]
    left = min(size - len(first), len(then))
    return [*first, *(then[index] for index in rng.choice(len(then), size=left, replace=False))]
