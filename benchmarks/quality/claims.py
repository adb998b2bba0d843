"""What the scores allow to claim: paired differences over outer folds with t-intervals, and mean ranks."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import t

LOWER, LEVEL, HIGHER, TOO_FEW = "lower", "level", "higher", "too few folds"
MIN_FOLDS = 3
LIBRARIES = ("logistic", "untuned_boosting", "catboost", "lightgbm_bagged", "xgboost")


def t_interval(differences: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """Mean of paired differences and its t-interval with n - 1 degrees of freedom; without two differences, NaN limits."""
    values = np.asarray(differences, dtype=float)
    mean = float(values.mean()) if len(values) else np.nan
    if len(values) < 2:
        return mean, np.nan, np.nan
    half = float(t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return mean, mean - half, mean + half


def claim(ours: pd.Series, other: pd.Series) -> tuple[str, tuple[float, float, float], int]:
    """Compare log losses by fold, over the folds that both have.

    Returns
    -------
    word : str
        Whether our log loss is ``lower`` or ``higher``; ``level`` if the interval includes zero.
    interval : tuple of float
        Mean of the other's log loss minus ours, and the limits of its 95 % interval.
    folds : int
        Number of common folds.
    """
    differences = (other - ours).dropna()
    interval = t_interval(differences.tolist())
    if len(differences) < MIN_FOLDS:
        return TOO_FEW, interval, len(differences)
    _, low, high = interval
    word = LOWER if low > 0 else HIGHER if high < 0 else LEVEL
    return word, interval, len(differences)


def best_library(wide: pd.DataFrame) -> str | None:
    """The single library model with the lowest mean log loss over the folds of ours.

    Only models that have every fold of ours compete. It is chosen on the same outer folds, which favours it over ours.
    """
    if "ours" not in wide:
        return None
    rows = wide[wide["ours"].notna()]
    complete = [name for name in LIBRARIES if name in wide and rows[name].notna().all()]
    return str(rows[complete].mean().idxmin()) if complete else None


def mean_ranks(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Rank contenders by mean log loss on each table, and average the ranks.

    Parameters
    ----------
    tables : dict of str to DataFrame
        Log loss by table; one row per fold, one column per contender.

    Returns
    -------
    DataFrame
        One row per contender, best first: ``mean_rank`` and the rank on each table. A contender without a table is left
        out, and each table counts the folds that all ranked contenders have; without any, the ranks are empty.
    """
    if not tables:
        return pd.DataFrame(columns=["mean_rank"])
    names = [name for name in next(iter(tables.values())) if all(name in wide for wide in tables.values())]
    common = {table: wide[names].dropna() for table, wide in tables.items()}
    if not names or any(wide.empty for wide in common.values()):
        return pd.DataFrame(columns=["mean_rank"])
    ranks = pd.DataFrame({table: wide.mean().rank() for table, wide in common.items()})
    ranks.insert(0, "mean_rank", ranks.mean(axis=1))
    return ranks.sort_values("mean_rank", kind="stable")
