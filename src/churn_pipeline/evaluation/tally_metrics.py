"""The metrics that are resampled, computed from counts by distinct probability: fast enough for a thousand resamples.

Sums of products are not written with @: BLAS splits them among threads, so the order of additions and hence the result
would depend on the machine.
"""

from collections.abc import Callable

import numpy as np

from churn_pipeline.evaluation.metrics import (
    Metric,
    auc,
    average_precision,
    brier,
    lift_top_decile,
    log_loss,
    tally_lift,
)
from churn_pipeline.evaluation.predictions import Probabilities, Tally

TallyMetric = Callable[[Tally], float]


def _auc(counted: Tally) -> float:
    above = np.cumsum(counted.churned)
    pairs = above[-1] * counted.stayed.sum()
    return float((counted.stayed * (above - 0.5 * counted.churned)).sum() / pairs)


def _average_precision(counted: Tally) -> float:
    above = np.cumsum(counted.churned)
    # The resample may have no customer with the highest probabilities
    precision = above / np.maximum(np.cumsum(counted.customers), 1)
    return float((counted.churned * precision).sum() / above[-1])


def _mean_loss(if_churned: Probabilities, if_stayed: Probabilities) -> TallyMetric:
    def mean_loss(counted: Tally) -> float:
        loss = counted.churned * if_churned + counted.stayed * if_stayed
        return float(loss.sum() / counted.customers.sum())

    return mean_loss


def _log_loss(distinct: Probabilities) -> TallyMetric:
    eps = np.finfo(np.float64).eps
    return _mean_loss(-np.log(np.clip(distinct, eps, 1 - eps)), -np.log(np.clip(1 - distinct, eps, 1 - eps)))


def _brier(distinct: Probabilities) -> TallyMetric:
    return _mean_loss((1 - distinct) ** 2, distinct**2)


# By metric: a function from the distinct probabilities to the metric of their counts
TALLY_METRICS: dict[Metric, Callable[[Probabilities], TallyMetric]] = {
    auc: lambda _: _auc,
    average_precision: lambda _: _average_precision,
    log_loss: _log_loss,
    brier: _brier,
    lift_top_decile: lambda _: tally_lift,
}
