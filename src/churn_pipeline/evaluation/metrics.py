"""Metrics of churn probabilities: functions of the labels ``y`` and the churn probabilities ``p``.

Configuration names a metric by its name in `METRICS`, or by the import path of a function ``(y, p) -> float``.
"""

import difflib
import importlib
import inspect
from collections.abc import Callable

import numpy as np
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score
from sklearn.metrics import log_loss as sklearn_log_loss

from churn_pipeline.evaluation.calibration import calibration_in_the_large, calibration_line
from churn_pipeline.evaluation.miscalibration import tally_miscalibration
from churn_pipeline.evaluation.predictions import (
    Labels,
    Probabilities,
    Tally,
    check_predictions,
    equal_mass_bins,
    gain_curve,
    tally,
)

Metric = Callable[[Labels, Probabilities], float]


def _check_classes(y: Labels, metric: str, needed: tuple[int, ...] = (0, 1)) -> None:
    for label in needed:
        if not (y == label).any():
            raise ValueError(
                f"'{metric}' is not defined here: none of the {y.size:,} customers "
                f"{'churned' if label else 'stayed'}. Evaluate more rows together, or leave this metric out."
            )


def auc(y: Labels, p: Probabilities) -> float:
    """Area under the ROC curve: the chance that a churner has a higher probability than a stayer; ties count half.

    Raises
    ------
    ValueError
        If only one class is present.
    """
    y, p = check_predictions(y, p)
    _check_classes(y, "auc")
    return float(roc_auc_score(y, p))


def average_precision(y: Labels, p: Probabilities) -> float:
    """Area under the precision–recall curve as a sum of steps, without interpolation.

    Raises
    ------
    ValueError
        If no customer churned.
    """
    y, p = check_predictions(y, p)
    _check_classes(y, "average_precision", needed=(1,))
    return float(average_precision_score(y, p))


def log_loss(y: Labels, p: Probabilities) -> float:
    """Mean negative log-likelihood, in nats.

    Probabilities are clipped at float64's eps, so a certain and wrong one costs 36 and not infinity.
    """
    y, p = check_predictions(y, p)
    return float(sklearn_log_loss(y, p, labels=[0, 1]))


def brier(y: Labels, p: Probabilities) -> float:
    """Mean squared difference between the probability and the label, in [0, 1]."""
    y, p = check_predictions(y, p)
    return float(brier_score_loss(y, p, labels=[0, 1]))


def calibration_error(y: Labels, p: Probabilities, n_bins: int | None = None) -> float:
    """Compute the expected calibration error over bins of equal mass.

    It is the mean distance between a bin's churn share and its mean probability, weighted by customers. All bins hold
    the same number of customers, because churn is rare and bins of equal width would mostly be empty. Customers with the
    same probability are never split between bins, so the order of rows does not matter.

    Parameters
    ----------
    y, p : ndarray of shape (n,)
        Labels (1 for churned) and churn probabilities.
    n_bins
        As in `equal_mass_bins`.

    Returns
    -------
    float
        In [0, 1]. It is biased upwards: on 1,600 rows and with 10 bins, a perfectly calibrated model has an error of about
        0.02 by chance. It has no interval for that reason. Use it to read a reliability diagram, and `miscalibration`,
        `calibration_intercept` and `calibration_slope` to evaluate a model.

    References
    ----------
    Naeini, Cooper & Hauskrecht (2015), "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI.
    Nixon et al. (2019), "Measuring Calibration in Deep Learning", CVPR Workshops: equal mass.
    Kumar, Liang & Ma (2019), "Verified Uncertainty Calibration", NeurIPS: the upward bias.
    """
    return tally_calibration_error(tally(*check_predictions(y, p)), n_bins)


def tally_calibration_error(counted: Tally, n_bins: int | None = None) -> float:
    """`calibration_error` of counted predictions."""
    customers = counted.customers
    excess = np.bincount(equal_mass_bins(counted, n_bins), weights=counted.churned - counted.p * customers)
    return float(np.abs(excess).sum() / customers.sum())


def lift_top_decile(y: Labels, p: Probabilities) -> float:
    """Churn share of the 10% of customers with the highest churn probability, divided by the churn share of all.

    If customers are tied at the 10% mark, the result is the expected value over random orders of the tie. If 10% is not a
    whole number of customers, the last one counts in part.

    Returns
    -------
    float
        1 for guessing; at most 10, or 1 / churn share if that is less.

    Raises
    ------
    ValueError
        If no customer churned.
    """
    y, p = check_predictions(y, p)
    _check_classes(y, "lift_top_decile", needed=(1,))
    return tally_lift(tally(y, p))


def tally_lift(counted: Tally, share: float = 0.1) -> float:
    """Lift of the top `share` of customers, from counted predictions."""
    contacted, gained = gain_curve(counted)
    return float(np.interp(share, contacted, gained) / share)


def miscalibration(y: Labels, p: Probabilities) -> float:
    """How much an isotonic recalibration on the same rows lowers the log loss, in nats; no bins are involved.

    It is at least 0, and above 0 by chance even for a calibrated model: see `miscalibration_by_chance`.
    """
    return tally_miscalibration(tally(*check_predictions(y, p)))


def calibration_intercept(y: Labels, p: Probabilities) -> float:
    """Calibration in the large: what must be added to all log-odds to predict the observed number of churners.

    0 is best. Above 0, the churn probabilities are too low.

    Raises
    ------
    ValueError
        If only one class is present.
    """
    y, p = check_predictions(y, p)
    _check_classes(y, "calibration_intercept")
    return calibration_in_the_large(y, p).value


def calibration_slope(y: Labels, p: Probabilities) -> float:
    """Slope of Cox's calibration line, a logistic regression of the label on the log-odds.

    1 is best. Below 1, the model is overconfident.

    Raises
    ------
    ValueError
        If only one class is present.
    """
    y, p = check_predictions(y, p)
    _check_classes(y, "calibration_slope")
    return calibration_line(y, p).slope


METRICS: dict[str, Metric] = {
    "auc": auc,
    "average_precision": average_precision,
    "log_loss": log_loss,
    "brier": brier,
    "lift_top_decile": lift_top_decile,
    "calibration_intercept": calibration_intercept,
    "calibration_slope": calibration_slope,
    "miscalibration": miscalibration,
    "calibration_error": calibration_error,
}
# By metrics without a direction: the value of a calibrated model
BEST_AT = {"calibration_intercept": 0.0, "calibration_slope": 1.0}
GREATER_IS_BETTER: dict[str, bool] = {
    "auc": True,
    "average_precision": True,
    "log_loss": False,
    "brier": False,
    "lift_top_decile": True,
    "miscalibration": False,
    "calibration_error": False,
}


def resolve_metric(name: str) -> Metric:
    """Return the metric with a name or an import path.

    Parameters
    ----------
    name
        A name in `METRICS`, or the import path of a function ``(y, p) -> float`` such as
        ``sklearn.metrics.d2_brier_score``.

    Raises
    ------
    ValueError
        If it is neither, cannot be imported, or cannot be called with ``y`` and ``p``.
    """
    if name in METRICS:
        return METRICS[name]
    module_path, _, function_name = name.rpartition(".")
    if not module_path:
        near = difflib.get_close_matches(name, METRICS, n=1)
        hint = f"Did you mean '{near[0]}'? " if near else ""
        raise ValueError(f"There is no metric '{name}'. {hint}{_choices()}")
    try:
        function = getattr(importlib.import_module(module_path), function_name)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"Metric '{name}' cannot be imported: {error}. {_choices()}") from error
    if not _takes_labels_and_probabilities(function):
        raise ValueError(f"Metric '{name}' cannot be called as {function_name}(y, p). {_choices()}")
    metric: Metric = function
    return metric


def _choices() -> str:
    return f"Use one of {', '.join(METRICS)}, or the import path of a function (y, p) -> float."


def _takes_labels_and_probabilities(function: object) -> bool:
    if not callable(function):
        return False
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        return False
    except ValueError:  # some compiled functions have no signature
        return True
    return True


def greater_is_better(name: str) -> bool:
    """Whether a higher value of the metric is better.

    Parameters
    ----------
    name
        As in `resolve_metric`. A function of your own needs an attribute ``greater_is_better``.

    Raises
    ------
    ValueError
        If the metric is not found, has no such attribute, or is best at a value between.
    """
    if name in BEST_AT:
        raise ValueError(f"Metric '{name}' has no direction: it is best at {BEST_AT[name]:g}.")
    if name in GREATER_IS_BETTER:
        return GREATER_IS_BETTER[name]
    answer = getattr(resolve_metric(name), "greater_is_better", None)
    if answer is None:
        raise ValueError(
            f"Metric '{name}' has no attribute greater_is_better. "
            f"Below its definition, add: {name.rpartition('.')[2]}.greater_is_better = True (or False)."
        )
    return bool(answer)
