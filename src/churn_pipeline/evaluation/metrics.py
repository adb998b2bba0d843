"""Metrics of churn probabilities: each takes who churned, ``y``, and with what probability, ``p``, and gives a number.

A metric is named in configuration: by its name in `METRICS`, or by the import path of a function ``(y, p) ->
float``.
"""

import difflib
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score
from sklearn.metrics import log_loss as sklearn_log_loss

Labels = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Metric = Callable[[Labels, Probabilities], float]

BINS = 10
ROWS_PER_BIN = 20


def check_predictions(y: npt.ArrayLike, p: npt.ArrayLike) -> tuple[Labels, Probabilities]:
    """Refuse what no metric is defined on.

    Parameters
    ----------
    y : array-like of shape (n,)
        1 for a customer who churned, 0 for one who stayed.
    p : array-like of shape (n,)
        Churn probabilities.

    Returns
    -------
    y : ndarray of shape (n,), int64
    p : ndarray of shape (n,), float64

    Raises
    ------
    ValueError
        When shapes differ or are not (n,), there are no rows, a label is not 0 or 1, or a probability is
        missing or outside [0, 1].
    """
    labels, probabilities = np.asarray(y), np.asarray(p, dtype=np.float64)
    if labels.ndim != 1 or labels.shape != probabilities.shape:
        raise ValueError(
            f"y has shape {labels.shape} and p has shape {probabilities.shape}; both must be (n,). "
            "Of predict_proba take the column of class 1: predict_proba(x)[:, 1]."
        )
    if not labels.size:
        raise ValueError("There are no rows to evaluate: y and p are empty.")
    _refuse(~np.isin(labels, (0, 1)), "labels are neither 0 nor 1", "Code churned as 1 and stayed as 0.")
    _refuse(np.isnan(probabilities), "churn probabilities are NaN", "Mend the model or leave these rows out.")
    outside = (probabilities < 0) | (probabilities > 1)
    _refuse(outside, "churn probabilities lie outside [0, 1]", "Give probabilities, not scores or log-odds.")
    return labels.astype(np.int64), probabilities


def _refuse(bad: npt.NDArray[np.bool_], what: str, fix: str) -> None:
    if bad.any():
        raise ValueError(f"{bad.sum():,} of {bad.size:,} {what} (first at position {bad.argmax()}). {fix}")


def _check_classes(y: Labels, metric: str, needed: tuple[int, ...] = (0, 1)) -> None:
    for label in needed:
        if not (y == label).any():
            raise ValueError(
                f"'{metric}' is not defined here: none of the {y.size:,} customers "
                f"{'churned' if label else 'stayed'}. Evaluate more rows together, or leave this metric out for them."
            )


@dataclass(frozen=True)
class Tally:
    """Who churned and who stayed at each distinct churn probability: all that a metric needs to know.

    Attributes
    ----------
    p : ndarray of shape (k,)
        The distinct churn probabilities, highest first.
    churned, stayed : ndarray of shape (k,), int64
        How many customers of each kind have that probability; a bootstrap resample may have none.
    """

    p: Probabilities
    churned: Counts
    stayed: Counts

    @property
    def customers(self) -> Counts:
        """Customers at each probability, of shape (k,)."""
        return self.churned + self.stayed


def tally(y: Labels, p: Probabilities) -> Tally:
    """Count checked predictions by distinct probability."""
    distinct, rank = descending_ranks(p)
    counts = np.bincount(rank + distinct.size * y, minlength=2 * distinct.size)
    return Tally(distinct, churned=counts[distinct.size :], stayed=counts[: distinct.size])


def descending_ranks(p: Probabilities) -> tuple[Probabilities, npt.NDArray[np.intp]]:
    """Sort out the distinct probabilities (k,), highest first, and each row's place among them (n,)."""
    ascending, rank = np.unique(p, return_inverse=True)
    return ascending[::-1], ascending.size - 1 - rank


def auc(y: Labels, p: Probabilities) -> float:
    """Area under the ROC curve: the chance that a churner has a higher probability than a stayer, ties half.

    Raises
    ------
    ValueError
        When only one class is present.
    """
    y, p = check_predictions(y, p)
    _check_classes(y, "auc")
    return float(roc_auc_score(y, p))


def average_precision(y: Labels, p: Probabilities) -> float:
    """Area under the precision–recall curve as a sum of steps, without interpolation.

    Raises
    ------
    ValueError
        When nobody churned.
    """
    y, p = check_predictions(y, p)
    _check_classes(y, "average_precision", needed=(1,))
    return float(average_precision_score(y, p))


def log_loss(y: Labels, p: Probabilities) -> float:
    """Mean negative log-likelihood, in nats.

    Certain and wrong costs 36, not infinity, as probabilities are clipped to float64's eps.
    """
    y, p = check_predictions(y, p)
    return float(sklearn_log_loss(y, p, labels=[0, 1]))


def brier(y: Labels, p: Probabilities) -> float:
    """Mean squared distance of the probability from what happened, in [0, 1]."""
    y, p = check_predictions(y, p)
    return float(brier_score_loss(y, p, labels=[0, 1]))


def calibration_error(y: Labels, p: Probabilities, n_bins: int | None = None) -> float:
    """Compute the expected calibration error over bins of equal mass.

    The mean, weighted by customers, of how far each bin's churn share lies from its mean probability. The
    bins hold equally many customers each, as bins of equal width leave most of them empty for a rare event.
    Customers of one probability are never split between bins, so the order of rows does not matter.

    Parameters
    ----------
    y, p : ndarray of shape (n,)
        Who churned, and the churn probabilities.
    n_bins
        How many bins; by default 10, and fewer below 200 rows, so that each holds at least 20.

    Returns
    -------
    float
        In [0, 1]. Never negative, so that a perfectly calibrated model shows a little error by chance alone:
        about 0.02 with 10 bins on 1,600 rows. Compare models on the same rows.

    References
    ----------
    Naeini, Cooper & Hauskrecht (2015), "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI.
    Nixon et al. (2019), "Measuring Calibration in Deep Learning", CVPR Workshops: equal mass.
    Kumar, Liang & Ma (2019), "Verified Uncertainty Calibration", NeurIPS: the upward bias.
    """
    return tally_calibration_error(tally(*check_predictions(y, p)), n_bins)


def tally_calibration_error(counted: Tally, n_bins: int | None = None) -> float:
    """`calibration_error` of predictions that are counted already."""
    customers = counted.customers
    excess = np.bincount(equal_mass_bins(counted, n_bins), weights=counted.churned - counted.p * customers)
    return float(np.abs(excess).sum() / customers.sum())


def equal_mass_bins(counted: Tally, n_bins: int | None = None) -> npt.NDArray[np.int64]:
    """Place each distinct probability, of shape (k,), in the bin that the middle of its customers falls in.

    Raises
    ------
    ValueError
        When `n_bins` is below 1.
    """
    if n_bins is not None and n_bins < 1:
        raise ValueError(f"n_bins is {n_bins}; it must be at least 1.")
    customers = counted.customers
    until = np.cumsum(customers)
    total = int(until[-1])
    bins = n_bins or min(BINS, max(1, total // ROWS_PER_BIN))
    # In whole numbers: a resample and its counts must come to the same bins, to the last customer
    twice_middle = 2 * until - customers
    place: npt.NDArray[np.int64] = np.minimum(bins * twice_middle // (2 * total), bins - 1)
    return place


def lift_top_decile(y: Labels, p: Probabilities) -> float:
    """Churn share among the 10 % of customers with the highest churn probability, over the churn share of all.

    Customers tied at the border count by the share of them that fits: the expected value over random orders
    of a tie. Where 10 % is not a whole number of customers, the last counts in part.

    Returns
    -------
    float
        1 for guessing; at best 10, or one over the churn share where that is less.

    Raises
    ------
    ValueError
        When nobody churned.
    """
    y, p = check_predictions(y, p)
    _check_classes(y, "lift_top_decile", needed=(1,))
    return tally_lift(tally(y, p))


def tally_lift(counted: Tally, share: float = 0.1) -> float:
    """Lift among the top `share` of customers, of predictions that are counted already."""
    contacted, gained = gain_curve(counted)
    return float(np.interp(share, contacted, gained) / share)


def gain_curve(counted: Tally) -> tuple[Probabilities, Probabilities]:
    """Cumulative gain, straight between distinct probabilities: a tie in random order.

    Returns
    -------
    contacted : ndarray of shape (k + 1,)
        Share of customers at or above each probability, from 0 to 1.
    gained : ndarray of shape (k + 1,)
        Share of all who churned that is among them, from 0 to 1.
    """
    contacted = np.concatenate(([0], np.cumsum(counted.customers)))
    gained = np.concatenate(([0], np.cumsum(counted.churned)))
    return contacted / contacted[-1], gained / gained[-1]


METRICS: dict[str, Metric] = {
    "auc": auc,
    "average_precision": average_precision,
    "log_loss": log_loss,
    "brier": brier,
    "calibration_error": calibration_error,
    "lift_top_decile": lift_top_decile,
}
GREATER_IS_BETTER: dict[str, bool] = {
    "auc": True,
    "average_precision": True,
    "log_loss": False,
    "brier": False,
    "calibration_error": False,
    "lift_top_decile": True,
}


def resolve_metric(name: str) -> Metric:
    """Find the metric that configuration names.

    Parameters
    ----------
    name
        A name in `METRICS`, or the import path of a function ``(y, p) -> float`` such as
        ``sklearn.metrics.d2_brier_score``.

    Raises
    ------
    ValueError
        When it is neither, cannot be imported, or cannot be called with ``y`` and ``p``.
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
    if not _takes_two(function):
        raise ValueError(f"Metric '{name}' cannot be called as {function_name}(y, p). {_choices()}")
    metric: Metric = function
    return metric


def _choices() -> str:
    return f"Name one of {', '.join(METRICS)}, or give the import path of a function (y, p) -> float."


def _takes_two(function: object) -> bool:
    if not callable(function):
        return False
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        return False
    except ValueError:  # some compiled functions tell no signature
        return True
    return True


def greater_is_better(name: str) -> bool:
    """Whether more of a metric is better.

    Parameters
    ----------
    name
        As in `resolve_metric`. A function from elsewhere says so by an attribute ``greater_is_better``.

    Raises
    ------
    ValueError
        When the metric is not found, or does not say.
    """
    if name in GREATER_IS_BETTER:
        return GREATER_IS_BETTER[name]
    answer = getattr(resolve_metric(name), "greater_is_better", None)
    if answer is None:
        raise ValueError(
            f"Metric '{name}' does not say whether more is better. "
            f"Under its definition write: {name.rpartition('.')[2]}.greater_is_better = True (or False)."
        )
    return bool(answer)
