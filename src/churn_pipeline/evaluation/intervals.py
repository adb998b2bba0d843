"""Confidence intervals without resampling: percentiles, Wilson's interval, t intervals and paired differences."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from churn_pipeline.evaluation.predictions import Probabilities


def percentile_interval(drawn: Probabilities, confidence_level: float) -> tuple[float, float]:
    """The interval that holds the middle `confidence_level` of the values of which r were drawn.

    The limits are order statistics of rank ``(r + 1) * share``. Other definitions of a quantile give intervals that are too
    narrow: with 200 values and a level of 95%, they hold 94%.

    References
    ----------
    Davison & Hinkley (1997), "Bootstrap Methods and their Application", section 5.2.1.
    """
    tails = [(1 - confidence_level) / 2, (1 + confidence_level) / 2]
    lower, upper = np.quantile(drawn, tails, method="weibull")
    return float(lower), float(upper)


def wilson_interval(share: npt.ArrayLike, n: npt.ArrayLike, confidence_level: float) -> tuple[Any, Any]:
    """Wilson's interval of a share.

    Parameters
    ----------
    share : float or array-like of shape (k,)
        Observed shares, in [0, 1].
    n : float or array-like of shape (k,)
        Customers that each share was observed on, above 0.
    confidence_level
        Coverage of the interval.

    Returns
    -------
    lower, upper : float or ndarray of shape (k,)
        The interval always contains `share`.

    References
    ----------
    Wilson (1927), "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22.
    """
    share, n = np.asarray(share, dtype=np.float64), np.asarray(n, dtype=np.float64)
    z2 = float(stats.norm.ppf((1 + confidence_level) / 2)) ** 2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    margin = np.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n**2))) / (1 + z2 / n)
    return np.minimum(share, middle - margin), np.maximum(share, middle + margin)


def effective_rows(hits: npt.NDArray[np.bool_], groups: npt.NDArray[np.generic]) -> float:
    """Number of independent rows that would give the share of hits the same variance as these grouped rows.

    Parameters
    ----------
    hits : ndarray of shape (n,), bool
        The rows that the share counts.
    groups : ndarray of shape (n,)
        Group key of each row.

    Returns
    -------
    float
        At most n. If all rows are hits, or none is, the variance is unknown, and the number of groups is returned.

    References
    ----------
    Korn & Graubard (1998), "Confidence intervals for proportions with small expected number of positive counts estimated
    from survey data", Survey Methodology 24.
    """
    share = hits.mean()
    off = group_sums(hits - share, groups)
    variance = off.size / max(off.size - 1, 1) * float((off**2).sum())
    if not 0 < share < 1 or variance == 0:
        return float(off.size)
    return float(min(hits.size, hits.size**2 * share * (1 - share) / variance))


def group_sums(rows: Probabilities, groups: npt.ArrayLike | None) -> Probabilities:
    """Sums of rows by group, of shape (g, ...); the rows themselves without groups."""
    if groups is None:
        return rows
    return pd.DataFrame(rows).groupby(np.asarray(groups)).sum().to_numpy().reshape(-1, *rows.shape[1:])


def mean_with_error(rows: Probabilities, groups: npt.NDArray[np.generic] | None) -> tuple[float, float]:
    """Mean of rows of shape (n,) and its standard error, in which rows of one group are not independent."""
    mean = float(rows.mean()) + 0.0  # adding 0 turns -0 into 0
    sums = group_sums(rows - mean, groups)
    variance = float((sums**2).sum()) * sums.size / max(sums.size - 1, 1)
    return mean, float(np.sqrt(variance)) / rows.size


def z_margin(standard_error: float, confidence_level: float) -> float:
    """Half the width of a normal interval."""
    return float(stats.norm.ppf((1 + confidence_level) / 2)) * standard_error


def basic_interval(value: float, drawn: Probabilities, confidence_level: float) -> tuple[float, float]:
    """The percentile interval, reflected about the value of the whole.

    It fits a metric that is overstated because something is selected on the same rows. The resamples overstate it once more,
    so their percentiles lie too high.

    References
    ----------
    Davison & Hinkley (1997), "Bootstrap Methods and their Application", section 5.2.
    """
    lower, upper = percentile_interval(drawn, confidence_level)
    return 2 * value - upper, 2 * value - lower


def t_margin(standard_error: float, df: float, confidence_level: float) -> float:
    """Half the width of a t interval with `df` degrees of freedom."""
    return float(stats.t.ppf((1 + confidence_level) / 2, df)) * standard_error


@dataclass(frozen=True)
class PairedDifference:
    """Mean difference between the scores of two models on the same folds or rows.

    Attributes
    ----------
    mean
        Mean of first minus second.
    standard_error
        Standard error of the mean.
    lower, upper
        Its t interval.
    n
        Number of pairs.
    """

    mean: float
    standard_error: float
    lower: float
    upper: float
    n: int


def paired_difference(
    scores_a: npt.ArrayLike, scores_b: npt.ArrayLike, confidence_level: float = 0.95
) -> PairedDifference:
    """Compare two models by their scores on the same folds, or their losses on the same rows.

    A hard fold is hard for both models, so differences vary far less than scores.

    Parameters
    ----------
    scores_a, scores_b : array-like of shape (n,)
        Scores of the two models, in the same order of folds or rows.
    confidence_level
        Coverage of the interval.

    Raises
    ------
    ValueError
        If the shapes differ or are not (n,), there are fewer than two pairs, or a score is not finite.
    """
    a, b = (np.asarray(scores, dtype=np.float64) for scores in (scores_a, scores_b))
    if a.ndim != 1 or a.shape != b.shape or a.size < 2:
        raise ValueError(f"Scores have shapes {a.shape} and {b.shape}; both must be (n,) with n at least 2.")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("A score is NaN or infinite. Leave that fold out for both models.")
    differences: Probabilities = a - b
    mean = float(differences.mean())
    error = float(differences.std(ddof=1) * math.sqrt(1 / a.size))
    margin = t_margin(error, a.size - 1, confidence_level)
    return PairedDifference(mean, error, mean - margin, mean + margin, a.size)
