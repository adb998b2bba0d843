"""Profit against threshold."""

import numpy as np
import pandas as pd

from churn_pipeline.costs import CostModel, contact_profit
from churn_pipeline.evaluation.bootstrap import Resampling
from churn_pipeline.evaluation.holdout import Holdout
from churn_pipeline.evaluation.predictions import Probabilities

CURVE_RESAMPLING = Resampling(resamples=500)


def profit_curve(
    holdout: Holdout, costs: CostModel, points: int = 200, resampling: Resampling = CURVE_RESAMPLING
) -> pd.DataFrame:
    """Compute profit by threshold, with a pointwise bootstrap band.

    Parameters
    ----------
    holdout, costs, resampling
        As in `profit_metrics`.
    points
        Largest number of thresholds.

    Returns
    -------
    pandas.DataFrame
        Columns threshold (ascending, from 0 to 1), contacted_share, profit, lower, upper; at most `points` rows. Half of
        the thresholds are evenly spaced, the others are quantiles of `p`.
    """
    labels, probabilities = holdout.y, holdout.p
    resampling.check(labels)
    earned = contact_profit(labels, holdout.value, costs)
    quantiles = np.quantile(probabilities, np.linspace(0, 1, points // 2))
    thresholds = np.unique(np.concatenate((quantiles, np.linspace(0, 1, points - points // 2))))
    # The highest threshold at which the customer is contacted
    highest = np.searchsorted(thresholds, probabilities, side="right") - 1

    def curve(weights: Probabilities) -> Probabilities:
        at = np.bincount(highest, weights=weights, minlength=thresholds.size)
        return np.asarray(np.cumsum(at[::-1])[::-1] / labels.size)

    drawn = np.empty((resampling.resamples, thresholds.size))
    for i, rows in enumerate(resampling.draw(labels, holdout.groups)):
        counts = np.bincount(rows, minlength=labels.size)
        drawn[i] = curve(earned * counts) * (labels.size / rows.size)
    level = resampling.confidence_level
    lower, upper = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return pd.DataFrame(
        {
            "threshold": thresholds,
            "contacted_share": curve(np.ones(labels.size)),
            "profit": curve(earned),
            "lower": lower,
            "upper": upper,
        }
    )
