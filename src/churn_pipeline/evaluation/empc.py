"""Expected maximum profit (EMPC): what a ranking of customers earns if the acceptance of the offer is uncertain."""

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression
from scipy.special import betainc

from churn_pipeline.costs import CostModel, check_values
from churn_pipeline.evaluation.predictions import Probabilities, check_predictions
from churn_pipeline.evaluation.ranking import Counts, Ranked, rank_customers

RESOLUTION = 1e-14


def empc(y: npt.ArrayLike, p: npt.ArrayLike, value: npt.ArrayLike, costs: CostModel) -> tuple[float, float]:
    """Expected maximum profit for customer churn (EMPC): what the ranking earns if acceptance is uncertain.

    Acceptance has a beta distribution around the assumed one. For each acceptance the best share of customers is contacted,
    highest `p` first. The paper assumes one value for all customers. Here the customers' own values are summed first, and
    then the expectation over acceptance is taken.

    Returns
    -------
    empc : float
        Per customer of the base. Overstated, because the best cut is selected on the same rows.
    share : float
        Expected share of customers contacted.

    References
    ----------
    Verbraken, Verbeke & Baesens (2013), "A Novel Profit Maximizing Metric for Measuring Classification
    Performance of Customer Churn Prediction Models", IEEE TKDE 25(5).
    """
    labels, probabilities = check_predictions(y, p)
    return empc_of_ranking(rank_customers(labels, probabilities, check_values(value, labels.size), costs), costs, None)


def empc_of_ranking(ranked: Ranked, costs: CostModel, counts: Counts) -> tuple[float, float]:
    """E[max over cuts of γ retained - spent]: the upper envelope of lines in γ, integrated piece by piece.

    Sorted by slope, the lines on the envelope are the corners of the greatest convex minorant of (retained, spent). Its
    slopes, computed by isotonic regression, are the acceptances at which the next line becomes the highest.
    """
    ones = np.ones(ranked.y.size)
    total = ranked.sums(ones, counts)[-1]
    lines = [np.append(0, ranked.sums(column, counts)) for column in (ranked.retained, ranked.spent, ones)]
    retained, spent, contacted = _lowest_of_each_slope(*lines)
    width = np.diff(retained)
    crossings = isotonic_regression(np.diff(spent) / width, weights=width).x if width.size else np.empty(0)
    excess, probability = _beta_above(crossings, costs)
    value = costs.acceptance * retained[0] - spent[0] + (width * excess).sum()
    return float(value / total), float((contacted[0] + (np.diff(contacted) * probability).sum()) / total)


def _lowest_of_each_slope(
    retained: Probabilities, spent: Probabilities, contacted: Probabilities
) -> list[Probabilities]:
    """Keep the highest line of each slope.

    Slopes are rounded to `RESOLUTION` of the largest amount: a difference near 0 would make an infinite crossing.
    """
    scale = max(np.abs(retained).max(), spent.max()) * RESOLUTION
    step = max(scale, np.finfo(np.float64).tiny)
    slope = np.round(retained / step) * step
    order = np.lexsort((spent, slope))
    first = np.append(True, np.diff(slope[order]) > 0)
    return [column[order][first] for column in (slope, spent, contacted)]


def _beta_above(at: Probabilities, costs: CostModel) -> tuple[Probabilities, Probabilities]:
    """E[max(γ - at, 0)] and P(γ > at) for acceptance γ, which is constant if its mean is 1."""
    mean, alpha = costs.acceptance, costs.acceptance * costs.acceptance_sample
    beta = costs.acceptance_sample - alpha
    x = np.clip(at, 0, 1)
    if beta <= 0:
        return np.maximum(1 - at, 0), (at < 1).astype(np.float64)
    probability = 1 - betainc(alpha, beta, x)
    return mean * (1 - betainc(alpha + 1, beta, x)) - at * probability, probability
