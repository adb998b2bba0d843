"""Miscalibration without bins (CORP): churn probabilities compared with their isotonic recalibration.

The recalibration is the best non-decreasing function of the churn probability. How much it lowers the log loss on the same
rows is the miscalibration. There are no bins to choose, and two evaluations of the same rows always agree.

References
----------
Dimitriadis, Gneiting & Jordan (2021), "Stable reliability diagrams for probabilistic classifiers", PNAS 118(8): the diagram,
its consistency band and the measure.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import isotonic_regression
from scipy.special import xlogy

from churn_pipeline.evaluation.predictions import (
    Labels,
    Probabilities,
    Tally,
    check_predictions,
    descending_ranks,
    tally_cells,
)

DRAWS = 500


def tally_miscalibration(counted: Tally) -> float:
    """Miscalibration of counted predictions."""
    return (_loss(counted, counted.p) - _loss(counted, recalibrate(counted))) / float(counted.customers.sum())


def recalibrate(counted: Tally) -> Probabilities:
    """Churn share at each distinct probability, of shape (k,), by isotonic regression; 0 where there are no customers."""
    drawn = counted.customers > 0
    customers, churned = counted.customers[drawn], counted.churned[drawn]
    shares = np.zeros(counted.p.size)
    shares[drawn] = isotonic_regression(churned / customers, weights=customers, increasing=False).x
    return np.clip(shares, 0, 1)


def miscalibration_by_chance(
    p: npt.ArrayLike,
    groups: npt.ArrayLike | None = None,
    confidence_level: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> float:
    """Miscalibration that a calibrated model with these probabilities exceeds in 5% of samples.

    Miscalibration is never negative, so even a calibrated model has some. An interval around it would not keep its
    confidence level near 0. This limit shows instead what chance alone explains.

    Parameters
    ----------
    p : array-like of shape (n,)
        Churn probabilities.
    groups : array-like of shape (n,), optional
        Group key of each row. Rows of one customer depend on each other to an unknown degree, and the strongest dependence is
        assumed: the limit is rather too high.
    confidence_level
        Share of samples below the limit.
    draws, seed
        Number of samples, and their seed.
    """
    drawn = [tally_miscalibration(counted) for counted in calibrated_tallies(p, groups, draws, seed)]
    return float(np.quantile(drawn, confidence_level))


def consistency_band(
    p: npt.ArrayLike,
    groups: npt.ArrayLike | None = None,
    confidence_level: float = 0.95,
    draws: int = DRAWS,
    points: int = 500,
) -> tuple[Probabilities, Probabilities, Probabilities]:
    """Pointwise limits of the recalibration of a calibrated model, for a reliability diagram.

    Returns
    -------
    at, lower, upper : ndarray of shape (m,)
        At most `points` of the distinct churn probabilities, highest first, and the limits there.
    """
    at = np.unique(np.asarray(p, dtype=np.float64))[::-1]
    shown = np.unique(np.linspace(0, at.size - 1, min(points, at.size)).astype(np.intp))
    drawn = np.array([recalibrate(counted)[shown] for counted in calibrated_tallies(p, groups, draws)])
    lower, upper = np.quantile(drawn, [(1 - confidence_level) / 2, (1 + confidence_level) / 2], axis=0)
    return at[shown], lower, upper


def calibrated_tallies(p: npt.ArrayLike, groups: npt.ArrayLike | None, draws: int, seed: int = 0) -> Iterator[Tally]:
    """Draw labels as if the probabilities `p`, of shape (n,), were true, and count them."""
    probabilities = check_predictions(np.zeros(np.size(p), dtype=np.int64), p)[1]
    distinct, rank = descending_ranks(probabilities)
    codes = np.arange(rank.size) if groups is None else pd.factorize(np.asarray(groups))[0]
    rng = np.random.default_rng(seed)
    for _ in range(draws):
        # One number for each customer is the strongest dependence among a customer's rows
        labels: Labels = (rng.random(codes.max() + 1)[codes] < probabilities).astype(np.int64)
        yield tally_cells(distinct, rank + distinct.size * labels)


def _loss(counted: Tally, q: Probabilities) -> float:
    """Total log loss in nats; a certain prediction is clipped at float64's eps unless it is right."""
    eps = float(np.finfo(np.float64).eps)
    return -float((xlogy(counted.churned, np.maximum(q, eps)) + xlogy(counted.stayed, np.maximum(1 - q, eps))).sum())
