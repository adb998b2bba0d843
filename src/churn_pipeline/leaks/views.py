"""Cuts features into cells: bins, values that stand out, missing cells, single values, last digits and decimals."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from churn_pipeline.leaks.cells import Floats, Integers, Kind, View

BINS = 20
PAIR_BINS = 8
# A value of a number counts as a spike if at least this share of rows has it
SPIKE_SHARE = 0.01
# Single values of a number are tested if they have this many rows on average
EXACT_ROWS = 5


def pair_codes(feature: pd.Series) -> Integers:
    """A coarse cut of one feature, for pairs: at most 12 levels, or 8 bins and the values that stand out."""
    if feature.dtype.kind == "f":
        return bin_numbers(feature.to_numpy(), PAIR_BINS, 0.05)[0]
    levels = feature.astype(str)
    frequent = levels.value_counts().index[:12]
    return np.asarray(pd.factorize(levels.where(levels.isin(frequent), "\0"))[0], dtype=np.int64)


def relation_views(pair: tuple[str, str], first: Floats, second: Floats) -> Iterator[View]:
    """How two numbers relate: their order, their difference and, if none is negative, their ratio."""
    missing = np.isnan(first) | np.isnan(second)
    order = np.where(missing, 3, np.sign(first - second) + 1).astype(np.int64)
    if np.bincount(order).max() < 0.99 * len(order):
        yield View(pair, order, [Kind.PAIR] * 4, str, "order (below, equal or above)")
    yield View(pair, bin_numbers(first - second, BINS, SPIKE_SHARE)[0], [Kind.PAIR], str, "range of the difference")
    if np.nanmin(first, initial=0) >= 0 and np.nanmin(second, initial=0) >= 0:
        total = first + second
        ratio = np.divide(first, total, out=np.full(len(first), np.nan), where=total > 0)
        yield View(pair, bin_numbers(ratio, BINS, SPIKE_SHARE)[0], [Kind.PAIR], str, "range of the ratio")


def usual_view(name: str, codes: Integers, missing: NDArray[np.bool_]) -> Iterator[View]:
    """Views with two cells: missing or filled, and the most frequent value or another one."""
    if missing.any() and not missing.all():
        said = ("the cell is filled", "the cell is missing").__getitem__
        yield View((name,), missing.astype(np.int64), [Kind.LEVEL] * 2, said, "missing or filled cell")
    rows = np.bincount(codes)
    if len(codes) / 2 <= rows.max() < len(codes):
        said = ("the value is not the most frequent one", "the value is the most frequent one").__getitem__
        usual = (codes == rows.argmax()).astype(np.int64)
        yield View((name,), usual, [Kind.LEVEL] * 2, said, "usual or unusual value")


def number_views(name: str, cells: Floats) -> Iterator[View]:
    """Views of a number, NaN for a missing cell."""
    codes, kinds, said = bin_numbers(cells, BINS, SPIKE_SHARE)
    yield View((name,), codes, kinds, said.__getitem__, "range of values")
    present = cells[~np.isnan(cells)]
    if not len(present):
        return
    exact = np.unique(cells, return_inverse=True)[1]
    yield from usual_view(name, exact, np.isnan(cells))
    if exact.max() < len(cells) / EXACT_ROWS:
        yield View((name,), exact, [Kind.ORDERED] * (int(exact.max()) + 1), lambda _: "the cell has one value", "value")
    whole = bool((present == np.floor(present)).all())
    if whole and len(np.unique(present)) > 100:
        digit = np.where(np.isnan(cells), 10, np.nan_to_num(cells) % 10).astype(np.int64)
        yield View((name,), digit, [Kind.LEVEL] * 11, lambda code: f"the last digit is {code}", "last digit")
    elif not whole:
        digits = _decimals(cells)
        yield View(
            (name,), digits, [Kind.LEVEL] * 5, lambda code: f"the value has {code} decimals", "number of decimals"
        )


def bin_numbers(cells: Floats, bins: int, spike: float) -> tuple[Integers, list[Kind], list[str]]:
    """Quantile bins of a number; frequent values and missing cells are cells of their own."""
    missing = np.isnan(cells)
    values, inverse, number = np.unique(cells, return_inverse=True, return_counts=True)
    spikes = (number >= max(spike * len(cells), 2)) & ~np.isnan(values)
    rest = ~missing & ~spikes[inverse]
    edges = np.unique(np.quantile(cells[rest], np.linspace(0, 1, bins + 1)[1:-1])) if rest.any() else np.array([])
    codes = np.searchsorted(edges, cells, side="right")
    # an edge is some customer's value, so ranges are numbered
    said = [f"the value lies in range {number} of {len(edges) + 1}" for number in range(1, len(edges) + 2)]
    kinds = [Kind.ORDERED] * len(said)
    at = np.cumsum(spikes) - 1 + len(said)
    codes = np.where(spikes[inverse], at[inverse], codes)
    said += [f"the value is {value:.6g}" for value in values[spikes]]
    kinds += [Kind.SPIKE] * int(spikes.sum())
    codes[missing] = len(said)
    return codes.astype(np.int64), [*kinds, Kind.LEVEL], [*said, "the cell is missing"]


def _decimals(cells: Floats) -> Integers:
    """Number of decimals, at most 3; 4 for a missing cell."""
    codes = np.full(len(cells), 3)
    for digits in (2, 1, 0):
        scaled = cells * 10**digits
        codes[np.abs(scaled - np.rint(scaled)) < 1e-6] = digits
    codes[np.isnan(cells)] = 4
    return codes.astype(np.int64)
