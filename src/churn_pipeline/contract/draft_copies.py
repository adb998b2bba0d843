"""Finds columns that repeat or determine the target of a drafted table: they are known only after the churn."""

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from churn_pipeline.contract import draft_names as names
from churn_pipeline.contract.draft_target import GuessedTarget
from churn_pipeline.contract.guesses import DraftedColumn

# A pattern must be less likely than 1 in 2^20 by chance, so that small tables keep their features.
BITS = 20
MIN_FILLED_SHARE = 0.3


def copies_of_target(columns: dict[str, DraftedColumn], target: GuessedTarget) -> Iterator[tuple[str, str]]:
    """Every column that repeats, determines or describes the target, with the reason."""
    cells = columns[target.column].cells
    known = cells.notna().to_numpy()
    churned = (cells[known] == target.positive).to_numpy(dtype=bool)
    for name, drafted in columns.items():
        if name == target.column:
            continue
        reason = _reason(name, drafted.cells[known], churned)
        if reason:
            yield name, reason


def _reason(name: str, cells: pd.Series, churned: np.ndarray) -> str | None:
    text = names.words(name)
    codes = pd.factorize(cells, use_na_sentinel=False)[0]
    levels = int(codes.max()) + 1
    among_churned = np.bincount(codes[churned], minlength=levels)
    among_stayed = np.bincount(codes[~churned], minlength=levels)
    is_about_churn = bool(names.CHURN.search(text) or names.LEAVE.search(text))
    is_likely_copy = is_about_churn and levels == 2
    is_beyond_chance = _bits(len(churned), int(churned.sum())) - levels > BITS
    if levels > 1 and not (among_churned * among_stayed).any() and (is_likely_copy or is_beyond_chance):
        return _pure_reason(cells, churned, levels)
    if _is_filled_for_churned(among_churned, among_stayed):
        return _filled_reason(cells, churned)
    if _is_separated(cells, churned):
        return "a threshold on it separates churned from other customers: it determines the target"
    if is_about_churn and names.ABOUT_A_CHURN.search(text):
        return "its name suggests that it describes the churn itself"
    return None


def _pure_reason(cells: pd.Series, churned: np.ndarray, levels: int) -> str:
    if levels == 2 and cells.notna().all():
        return "repeats the target in another encoding"
    if cells[~churned].isna().all():
        return "filled in only for customers who churned"
    return "determines the target: each of its values occurs only for churned or only for other customers"


def _filled_reason(cells: pd.Series, churned: np.ndarray) -> str:
    if cells[~churned].isna().all():
        return "filled in only for customers who churned"
    return "has the same value for all customers who did not churn, and other values only for churned ones"


def _is_filled_for_churned(among_churned: np.ndarray, among_stayed: np.ndarray) -> bool:
    """Whether all stayers have one value, and enough churners have others."""
    if np.count_nonzero(among_stayed) != 1 or len(among_churned) < 2:
        return False
    n, k = int(among_churned.sum() + among_stayed.sum()), int(among_churned.sum())
    filled = k - int(among_churned[among_stayed > 0].sum())
    # Probability that `filled` rows drawn at random are all churned: C(k, filled) / C(n, filled)
    by_chance = _bits(n, filled) - _bits(k, filled)
    return filled >= MIN_FILLED_SHARE * k and by_chance > BITS


def _is_separated(cells: pd.Series, churned: np.ndarray) -> bool:
    """Whether one threshold on a complete numeric column separates the classes."""
    if cells.dtype.kind not in "iuf" or cells.isna().any() or churned.all() or not churned.any():
        return False
    numbers = cells.to_numpy(dtype=np.float64)
    low, high = numbers[churned], numbers[~churned]
    is_apart = low.max() < high.min() or high.max() < low.min()
    return bool(is_apart) and _bits(len(churned), int(churned.sum())) - math.log2(2 * len(churned)) > BITS


def _bits(n: int, k: int) -> float:
    """The logarithm of the binomial coefficient, to base 2."""
    return (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(2)
