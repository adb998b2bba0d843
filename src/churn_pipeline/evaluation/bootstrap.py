"""How far off a metric could be by the luck of which customers are evaluated: intervals, paired differences."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from churn_pipeline.evaluation.metrics import (
    Labels,
    Metric,
    Probabilities,
    Tally,
    auc,
    average_precision,
    brier,
    calibration_error,
    check_predictions,
    descending_ranks,
    equal_mass_bins,
    lift_top_decile,
    log_loss,
    resolve_metric,
    tally,
    tally_calibration_error,
    tally_lift,
)

Rows = npt.NDArray[np.intp]
TallyMetric = Callable[[Tally], float]


def bootstrap_metrics(
    y: npt.ArrayLike,
    p: npt.ArrayLike,
    metrics: Sequence[str] | Mapping[str, Metric],
    n_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    groups: npt.ArrayLike | None = None,
) -> pd.DataFrame:
    """Metrics of a model on a set of customers, with bootstrap intervals.

    Customers are drawn with replacement, whatever their class: the share that churns is itself a matter of
    luck, and drawing within classes would hide that from every metric that depends on it. A resample without
    both classes is drawn again. Where `groups` repeats a key, whole groups are drawn, as rows of one customer
    are not independent. The metrics of this project are computed from one sort of `p` and each resample's
    counts; others on its rows.

    Limits are percentiles of the resamples. Those of a calibration error are reflected about the value
    instead, and start at zero where chance alone could explain it, as luck raises such an error and
    resampling raises it again. Rows of one group are taken as independent for that last point.

    Parameters
    ----------
    y : array-like of shape (n,)
        1 for a customer who churned, 0 for one who stayed.
    p : array-like of shape (n,)
        Churn probabilities.
    metrics
        Names that `resolve_metric` knows, or metrics by name.
    n_resamples
        How many resamples.
    level
        Share of repetitions in which the interval shall hold the true value.
    seed
        The same seed gives the same resamples, whatever the metrics; more resamples keep the first ones.
    groups : array-like of shape (n,), optional
        A key for each row; rows of one key are drawn together.

    Returns
    -------
    pandas.DataFrame
        Columns metric, value, lower, upper; a row for each metric, in the order given.

    Raises
    ------
    ValueError
        On predictions that no metric is defined on, a single class, a single group, a missing key, too few
        resamples for the level, or a metric that gives no finite number.

    References
    ----------
    Efron & Tibshirani (1993), "An Introduction to the Bootstrap", chapters 8 (resample as the data were
    sampled) and 13 (percentile intervals).
    Davison & Hinkley (1997), "Bootstrap Methods and their Application", section 5.2: reflected limits.
    Bröcker & Smith (2007), "Increasing the Reliability of Reliability Diagrams", Weather and Forecasting
    22: what chance alone explains.
    Field & Welsh (2007), "Bootstrapping clustered data", JRSS B 69(3): whole groups.
    """
    labels, probabilities = check_predictions(y, p)
    check_request(labels, n_resamples, level)
    functions = metrics if isinstance(metrics, Mapping) else {name: resolve_metric(name) for name in metrics}
    values = {name: _finite(name, function(labels, probabilities)) for name, function in functions.items()}
    drawn_rows = resamples(labels, groups, n_resamples, seed)
    draws = _draw(labels, probabilities, functions, drawn_rows, n_resamples)
    limits = {name: percentile_limits(drawn, level) for name, drawn in draws.items()}
    counted = tally(labels, probabilities)
    for name, function in functions.items():
        if function is calibration_error:
            limits[name] = _calibration_limits(values[name], draws[name], level, counted, seed)
    return pd.DataFrame(
        [(name, value, *limits[name]) for name, value in values.items()],
        columns=["metric", "value", "lower", "upper"],
    )


def check_request(y: Labels, n_resamples: int, level: float) -> None:
    """Refuse what no interval can be given for."""
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; it must lie between 0 and 1, such as 0.95.")
    needed = math.ceil(round(2 / (1 - level), 6))
    if n_resamples < needed:
        raise ValueError(f"{n_resamples} resamples cannot give a {level:.0%} interval; take at least {needed}.")
    if y.min() == y.max():
        raise ValueError(
            f"All {y.size:,} customers {'churned' if y[0] else 'stayed'}: there is nothing to resample. "
            "Evaluate more rows together."
        )


def _finite(name: str, value: float) -> float:
    if not np.isfinite(value):
        raise ValueError(f"Metric '{name}' gave {value}. It must be finite on any rows with both classes.")
    return float(value)


def resamples(y: Labels, groups: npt.ArrayLike | None, n_resamples: int, seed: int) -> Iterator[Rows]:
    """Draw the rows of each resample, with both classes among them."""
    draw = _row_drawer(y.size) if groups is None else _group_drawer(groups, y.size)
    rng = np.random.default_rng(seed)
    for _ in range(n_resamples):
        rows = draw(rng)
        while not 0 < y[rows].sum() < rows.size:
            rows = draw(rng)
        yield rows


def _row_drawer(n: int) -> Callable[[np.random.Generator], Rows]:
    return lambda rng: rng.integers(n, size=n)


def _group_drawer(groups: npt.ArrayLike, n: int) -> Callable[[np.random.Generator], Rows]:
    keys = pd.Series(groups)
    codes, distinct = pd.factorize(keys)
    if codes.shape != (n,):
        raise ValueError(f"There are {codes.size:,} group keys for {n:,} rows; give one for each row.")
    if (codes < 0).any():
        raise ValueError(f"{(codes < 0).sum():,} of {n:,} group keys are missing. Give each row a key.")
    if len(distinct) < 2:
        raise ValueError("All rows are of one group: there is nothing to resample. Leave `groups` out.")

    def draw(rng: np.random.Generator) -> Rows:
        times = np.bincount(rng.integers(len(distinct), size=len(distinct)), minlength=len(distinct))
        return np.repeat(np.arange(n), times[codes])

    return draw


def _draw(
    y: Labels, p: Probabilities, functions: Mapping[str, Metric], drawn_rows: Iterator[Rows], n_resamples: int
) -> dict[str, Probabilities]:
    """Each metric on each resample, of shape (n_resamples,)."""
    distinct, rank = descending_ranks(p)
    cell = rank + distinct.size * y
    ours = {name: function for name, function in functions.items() if function in TALLY_METRICS}
    fast = {name: TALLY_METRICS[function](distinct) for name, function in ours.items()}
    draws = {name: np.empty(n_resamples) for name in functions}
    for i, rows in enumerate(drawn_rows):
        counts = np.bincount(cell[rows], minlength=2 * distinct.size)
        counted = Tally(distinct, churned=counts[distinct.size :], stayed=counts[: distinct.size])
        for name, function in functions.items():
            value = fast[name](counted) if name in fast else _finite(name, function(y[rows], p[rows]))
            draws[name][i] = value
    return draws


def percentile_limits(drawn: Probabilities, level: float) -> tuple[float, float]:
    """The middle `level` of what was drawn."""
    lower, upper = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(lower), float(upper)


def _calibration_limits(
    value: float, drawn: Probabilities, level: float, counted: Tally, seed: int
) -> tuple[float, float]:
    """Limits of a calibration error, which luck raises: once in the value, and twice in its resamples.

    Percentile limits lie above the truth for a well calibrated model, always. So resamples are reflected
    about the value (basic bootstrap), the limits are stretched to hold the value, and the lower one is zero
    where a perfectly calibrated model could have come to that value by chance.
    """
    low, high = percentile_limits(drawn, level)
    lower, upper = max(0.0, min(2 * value - high, value)), min(1.0, max(2 * value - low, value))
    by_chance = np.quantile(_calibration_error_by_chance(counted, seed), (1 + level) / 2)
    return (0.0 if value <= by_chance else lower), upper


def _calibration_error_by_chance(counted: Tally, seed: int, times: int = 2000) -> Probabilities:
    """Calibration errors on these probabilities if they were true, by the normal law of each bin's churn."""
    customers = counted.customers
    variance = np.bincount(equal_mass_bins(counted), weights=counted.p * (1 - counted.p) * customers)
    noise = np.random.default_rng(seed).normal(size=(times, variance.size)) * np.sqrt(variance)
    errors: Probabilities = np.abs(noise).sum(axis=1) / customers.sum()
    return errors


# Sums of products below are not written with @: BLAS shares them out among threads, which on a busy machine is
# slower by far, and adds up in an order that depends on how many there are.


def _auc(counted: Tally) -> float:
    above = np.cumsum(counted.churned)
    pairs = above[-1] * counted.stayed.sum()
    return float((counted.stayed * (above - 0.5 * counted.churned)).sum() / pairs)


def _average_precision(counted: Tally) -> float:
    above = np.cumsum(counted.churned)
    # Probabilities above the first that was drawn have nobody at all
    precision = above / np.maximum(np.cumsum(counted.customers), 1)
    return float((counted.churned * precision).sum() / above[-1])


def _mean_loss(if_churned: Probabilities, if_stayed: Probabilities) -> TallyMetric:
    def of(counted: Tally) -> float:
        loss = counted.churned * if_churned + counted.stayed * if_stayed
        return float(loss.sum() / counted.customers.sum())

    return of


def _log_loss(distinct: Probabilities) -> TallyMetric:
    eps = np.finfo(np.float64).eps
    return _mean_loss(-np.log(np.clip(distinct, eps, 1 - eps)), -np.log(np.clip(1 - distinct, eps, 1 - eps)))


def _brier(distinct: Probabilities) -> TallyMetric:
    return _mean_loss((1 - distinct) ** 2, distinct**2)


# For each metric of this project: from the distinct probabilities, a function of how often each was drawn
TALLY_METRICS: dict[Metric, Callable[[Probabilities], TallyMetric]] = {
    auc: lambda _: _auc,
    average_precision: lambda _: _average_precision,
    log_loss: _log_loss,
    brier: _brier,
    calibration_error: lambda _: tally_calibration_error,
    lift_top_decile: lambda _: tally_lift,
}


@dataclass(frozen=True)
class PairedDifference:
    """How much more one model scored than another on the same folds or rows.

    Attributes
    ----------
    mean
        Mean of first minus second.
    standard_error
        Of that mean.
    lower, upper
        A t interval for it.
    n
        How many pairs.
    """

    mean: float
    standard_error: float
    lower: float
    upper: float
    n: int


def paired_difference(
    scores_a: npt.ArrayLike, scores_b: npt.ArrayLike, test_to_train: float = 0.0, level: float = 0.95
) -> PairedDifference:
    """Compare two models by the scores they have on the same folds, or the losses they have on the same rows.

    What makes a fold hard is hard for both models, so that differences vary far less than scores.

    Parameters
    ----------
    scores_a, scores_b : array-like of shape (n,)
        Scores of the two models, in the same order of folds or rows.
    test_to_train
        Zero for rows of one hold-out. For cross-validation, the rows tested over the rows trained on in a
        fold, which is 1 / (k - 1) for k folds: the corrected resampled t-test. Folds share training rows, so
        that without the correction the standard error is too small.
    level
        Share of repetitions in which the interval shall hold the true difference.

    Raises
    ------
    ValueError
        When the shapes differ or are not (n,), there are fewer than two pairs, a score is not finite, or
        `test_to_train` is negative.

    References
    ----------
    Nadeau & Bengio (2003), "Inference for the Generalization Error", Machine Learning 52.
    Bouckaert & Frank (2004), "Evaluating the Replicability of Significance Tests for Comparing Learning
    Algorithms".
    """
    a, b = np.asarray(scores_a, dtype=np.float64), np.asarray(scores_b, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape or a.size < 2:
        raise ValueError(f"Scores have shapes {a.shape} and {b.shape}; both must be (n,), and n at least 2.")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("A score is NaN or infinite. Leave out a fold that failed for both models, not for one.")
    if test_to_train < 0:
        raise ValueError(f"test_to_train is {test_to_train}; it must not be negative. For k folds it is 1 / (k - 1).")
    differences = a - b
    mean = float(differences.mean())
    error = float(differences.std(ddof=1) * math.sqrt(1 / a.size + test_to_train))
    reach = float(stats.t.ppf((1 + level) / 2, df=a.size - 1)) * error
    return PairedDifference(mean, error, mean - reach, mean + reach, a.size)
