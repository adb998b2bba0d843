"""Rows that are hard to get right, made for one fitted model.

An ONNX model that equals its original on customers proves little: customers seldom stand on a split value of a
tree, and float32 goes wrong nowhere else. These rows stand there, and on everything else where two implementations
might part: knots, edges, extremes, missing values, rare and unseen levels.
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
from churn_pipeline.modelling.onnx_classifiers import trees_of
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
    """Generate rows to prove an ONNX model equal on.

    Half of the rows change one column of a customer, so that a fault shows alone; the other half change about every
    second column, so that all paths are taken. Extremes and odd levels are all there, if the limit lets them; of the
    values around split values and knots there is a sample.

    Parameters
    ----------
    X : DataFrame of shape (n_rows, n_columns)
        Customers to start from; not changed.
    model : Pipeline or BlendedModel
        What `build_candidate` builds, fitted, or a blend of them.
    numeric, categorical : Sequence of str
        The model's columns.
    rng : Generator
        Decides all that is left to chance.
    limit : int, default=20000
        How many rows to make.

    Returns
    -------
    DataFrame of shape (limit, len(numeric) + len(categorical))
        Float64 and str columns. Its index tells the position in `X` of the customer that a row was made from.
    """
    cuts = cut_points(model, numeric)
    edges: dict[str, list[Any]] = {}
    sharp: dict[str, list[Any]] = {column: [] for column in (*numeric, *categorical)}
    for column in numeric:
        edges[column] = _edge_values(X[column].to_numpy(dtype=np.float64), rng)
        sharp[column] = _around(cuts[column])
    for column in categorical:
        edges[column] = list(dict.fromkeys([*ODD_LEVELS, *X[column].unique()]))
    origin = rng.integers(len(X), size=limit)
    rows = X.iloc[origin]
    changed = {column: rows[column].to_numpy(dtype=object, copy=True) for column in edges}
    half = limit // 2
    for row, (column, value) in enumerate(_single_changes(edges, sharp, half, rng)):
        changed[column][row] = value
    for column, values in changed.items():
        pool = np.array([*edges[column], *sharp[column]], dtype=object)
        chosen = half + np.flatnonzero(rng.random(limit - half) < 0.5)
        values[chosen] = rng.choice(pool, size=len(chosen))
    return pd.DataFrame(changed, index=origin).astype(dict.fromkeys(numeric, np.float64))


def cut_points(model: Pipeline | BlendedModel, numeric: Sequence[str]) -> dict[str, Floats]:
    """Find where a fitted model's answer may jump or bend, in the units of its input.

    Parameters
    ----------
    model : Pipeline or BlendedModel
        What `build_candidate` builds, fitted, or a blend of them.
    numeric : Sequence of str
        The model's numeric columns.

    Returns
    -------
    dict of str to ndarray of float64
        For every column the sorted split values of the trees and the knots of the splines; empty, if there are none.
        Those of a blend are those of all its members.
    """
    if isinstance(model, BlendedModel):
        found = [cut_points(member, numeric) for _, member in model.members]
        return {column: np.unique(np.concatenate([cuts[column] for cuts in found])) for column in numeric}
    cuts: dict[str, list[Floats]] = {column: [] for column in numeric}
    preprocessing = model.named_steps["preprocessing"]
    branch = preprocessing.named_transformers_["numeric"] if numeric else None
    steps = _value_steps(branch)
    columns = [list(held) for name, _, held in preprocessing.transformers_ if name == "numeric"]
    splines = [step for step in steps if isinstance(step, QuantileSplines)]
    for step in splines:
        for column, knots in zip(columns[0], step.knots_.T, strict=True):
            cuts[column].append(knots)
    # The numeric branch comes first, its values before its indicators: feature i is column i, unless it became splines.
    trees = trees_of(model.named_steps["classifier"]) if columns and not splines else []
    for position, column in enumerate(columns[0] if trees else []):
        splits = np.concatenate([tree.threshold[(tree.left >= 0) & (tree.feature == position)] for tree in trees])
        for step in steps:
            if isinstance(step, StandardScaler):
                splits = splits * step.scale_[position] + step.mean_[position]
        cuts[column].append(splits)
    return {column: np.unique(np.concatenate([*found, np.empty(0)])) for column, found in cuts.items()}


def _value_steps(step: Any) -> list[Any]:
    """The steps a number goes through on its way to the classifier; indicators of missing values are left aside."""
    if isinstance(step, Pipeline):
        return [inner for _, nested in step.steps for inner in _value_steps(nested)]
    if isinstance(step, FeatureUnion):
        return _value_steps(dict(step.transformer_list)["values"])
    return [] if step is None else [step]


def _edge_values(seen: Floats, rng: np.random.Generator) -> list[float]:
    """Extremes, the ends of what was seen, and values as people write them: whole months and cents."""
    known = seen[np.isfinite(seen)]
    if not len(known):
        return list(EXTREMES)
    low, high = float(known.min()), float(known.max())
    ends = [low, high, np.nextafter(low, -np.inf), np.nextafter(high, np.inf), float(np.median(known))]
    drawn = rng.uniform(low, high, size=100)
    return [*EXTREMES, *ends, *np.unique(np.round(drawn)), *np.unique(np.round(drawn, 2))]


def _around(cuts: Floats) -> list[float]:
    """Every cut, what float32 makes of it and its two neighbours there, and the middle between it and the next."""
    rounded = round_to_float32(cuts).astype(np.float32)
    with np.errstate(over="ignore"):  # the neighbour of the largest float32 is infinite, and rounds back
        neighbours = [np.nextafter(rounded, np.float32(side)).astype(np.float64) for side in (-np.inf, np.inf)]
    middles = cuts[:-1] + np.diff(cuts) / 2
    return [*np.unique(np.concatenate([cuts, rounded.astype(np.float64), *neighbours, middles]))]


def _single_changes(
    edges: dict[str, list[Any]], sharp: dict[str, list[Any]], size: int, rng: np.random.Generator
) -> list[tuple[str, Any]]:
    """Choose which column takes which value: all edges, if they fit, then a sample of what is around the cuts."""
    first = [(column, value) for column, values in edges.items() for value in values]
    then = [(column, value) for column, values in sharp.items() for value in values]
    if len(first) > size:
        return [first[index] for index in rng.choice(len(first), size=size, replace=False)]
    left = min(size - len(first), len(then))
    return [*first, *(then[index] for index in rng.choice(len(then), size=left, replace=False))]
