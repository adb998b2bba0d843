"""Segments: readable levels for each customer, made from a column of names or numbers."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd

from churn_pipeline.evaluation.predictions import Probabilities

MISSING = "missing"


def segment_levels(column: "pd.Series[float] | pd.Series[str]", bins: int = 4) -> "pd.Series[str]":
    """Return the level of each customer as text.

    A numeric column with more than twice as many distinct values as bins is cut at its quantiles. If the column holds
    whole numbers only, the cuts are whole numbers too.

    Parameters
    ----------
    column : Series of shape (n,)
        Levels, or numbers.
    bins
        Number of levels that numbers are cut into; fewer if a value is too frequent to be split.

    Returns
    -------
    Series of str, of shape (n,)
        An ordered categorical with the index and name of the column. Levels without customers keep their category.
    """
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        numbers = pd.Series(pd.to_numeric(column), dtype="float64")
        if numbers.nunique() > 2 * bins:
            return _as_levels(*_cut(numbers, bins), column)
    # Numbers sort as numbers: 2 before 10
    known = column.dropna().drop_duplicates()
    levels = [str(level) for level in known.sort_values(key=None if _sortable(known) else lambda of: of.astype(str))]
    text = column.astype(object).map(str, na_action="ignore")
    return _as_levels(text.to_numpy(dtype=object), levels, column)


def _sortable(known: "pd.Series[float] | pd.Series[str]") -> bool:
    return bool(pd.api.types.is_numeric_dtype(known) or isinstance(known.dtype, pd.CategoricalDtype))


def _cut(numbers: "pd.Series[float]", bins: int) -> tuple[npt.NDArray[np.object_], list[str]]:
    known = numbers.dropna()
    edges = np.quantile(known, np.linspace(0, 1, bins + 1)[1:-1])
    whole = bool((known % 1 == 0).all())
    edges = np.unique(np.ceil(edges) if whole else [float(f"{edge:.3g}") for edge in edges])
    edges = edges[(edges > known.min()) & (edges <= known.max())]
    names = _range_names(edges, whole)
    bin_of_each = np.searchsorted(edges, numbers.fillna(0), side="right")
    text = np.array(names, dtype=object)[bin_of_each]
    text[numbers.isna().to_numpy()] = np.nan
    return text, names


def _range_names(edges: Probabilities, whole: bool) -> list[str]:
    if not edges.size:
        return ["any"]
    step = 1 if whole else 0
    middle = [
        f"{low:,.10g}" if whole and low == high - 1 else f"{low:,.10g} to {'' if whole else '<'}{high - step:,.10g}"
        for low, high in pairwise(edges)
    ]
    return [f"below {edges[0]:,.10g}", *middle, f"{edges[-1]:,.10g} and more"]


def _as_levels(
    text: npt.NDArray[np.object_], levels: list[str], column: "pd.Series[float] | pd.Series[str]"
) -> "pd.Series[str]":
    missing = pd.isna(text)
    categories = [*dict.fromkeys(levels), *([MISSING] if missing.any() else [])]
    values = pd.Categorical(np.where(missing, MISSING, text), categories=categories, ordered=True)
    return pd.Series(values, index=column.index, name=column.name)
