"""Bootstrap intervals: how far a metric could be off because of which customers happen to be evaluated."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from churn_pipeline.evaluation.intervals import percentile_interval
from churn_pipeline.evaluation.metrics import Metric, calibration_error, resolve_metric
from churn_pipeline.evaluation.predictions import (
    Labels,
    Probabilities,
    Tally,
    check_predictions,
    descending_ranks,
    equal_mass_bins,
    tally,
    tally_cells,
)
from churn_pipeline.evaluation.tally_metrics import TALLY_METRICS

Rows = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Resampling:
    """How bootstrap intervals are computed.

    Attributes
    ----------
    resamples
        Number of resamples.
    confidence_level
        Coverage of the intervals.
    seed
        The same seed gives the same resamples for every metric; with more resamples, the first ones stay the same.
    """

    resamples: int = 1000
    confidence_level: float = 0.95
    seed: int = 0

    def check(self, y: Labels) -> None:
        """Refuse settings and labels that allow no interval.

        Raises
        ------
        ValueError
            If the confidence level is out of range, there are too few resamples for it, or only one class occurs.
        """
        level = self.confidence_level
        if not 0 < level < 1:
            raise ValueError(f"confidence_level is {level}; it must lie between 0 and 1, such as 0.95.")
        needed = math.ceil(round(2 / (1 - level), 6))
        if self.resamples < needed:
            raise ValueError(
                f"{self.resamples} resamples are too few for a {level:.0%} interval; use at least {needed}."
            )
        if y.min() == y.max():
            raise ValueError(
                f"All {y.size:,} customers {'churned' if y[0] else 'stayed'}: there is nothing to resample. "
                "Evaluate more rows together."
            )

    def draw(self, y: Labels, groups: npt.ArrayLike | None = None) -> Iterator[Rows]:
        """Draw the rows of each resample; every resample has both classes.

        Parameters
        ----------
        y : ndarray of shape (n,)
            Labels.
        groups : array-like of shape (n,), optional
            Group key of each row; rows with the same key are drawn together.
        """
        draw = _row_drawer(y.size) if groups is None else _group_drawer(groups, y.size)
        rng = np.random.default_rng(self.seed)
        for _ in range(self.resamples):
            rows = draw(rng)
            while not 0 < y[rows].sum() < rows.size:
                rows = draw(rng)
            yield rows


DEFAULT_RESAMPLING = Resampling()


def bootstrap_metrics(
    y: npt.ArrayLike,
    p: npt.ArrayLike,
    metrics: Sequence[str] | Mapping[str, Metric],
    resampling: Resampling = DEFAULT_RESAMPLING,
    groups: npt.ArrayLike | None = None,
) -> pd.DataFrame:
    """Metrics of a model on a set of customers, with bootstrap intervals.

    Customers are drawn with replacement, regardless of their class: the churn share is itself random, and drawing within
    classes would hide that. A resample without both classes is drawn again.

    Limits are percentiles of the resamples. The limits of the calibration error are reflected about its value instead,
    because the error is biased upwards and resampling adds to the bias; the lower limit is 0 if chance alone explains the
    value. That last check treats rows of one group as independent.

    Parameters
    ----------
    y : array-like of shape (n,)
        1 for a customer who churned, 0 for one who stayed.
    p : array-like of shape (n,)
        Churn probabilities.
    metrics
        Names that `resolve_metric` accepts, or metrics by name. Those of this project are computed from counts, others
        on the rows of each resample.
    resampling
        Number of resamples, confidence level and seed.
    groups : array-like of shape (n,), optional
        Group key of each row, if a customer can have several rows. Rows with the same key are drawn together, because
        they are not independent.

    Returns
    -------
    pandas.DataFrame
        Columns metric, value, lower, upper; one row per metric, in the given order.

    Raises
    ------
    ValueError
        If predictions are invalid, only one class or one group occurs, a group key is missing, there are too few
        resamples for the confidence level, or a metric is not finite.

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
    resampling.check(labels)
    functions = metrics if isinstance(metrics, Mapping) else {name: resolve_metric(name) for name in metrics}
    values = {name: _finite(name, function(labels, probabilities)) for name, function in functions.items()}
    draws = _draw_metrics(labels, probabilities, functions, resampling, groups)
    limits = {name: percentile_interval(drawn, resampling.confidence_level) for name, drawn in draws.items()}
    counted = tally(labels, probabilities)
    for name, function in functions.items():
        if function is calibration_error:
            limits[name] = _calibration_interval(values[name], draws[name], resampling, counted)
    return pd.DataFrame(
        [(name, value, *limits[name]) for name, value in values.items()],
        columns=["metric", "value", "lower", "upper"],
    )


def _finite(name: str, value: float) -> float:
    if not np.isfinite(value):
        raise ValueError(f"Metric '{name}' returned {value}. It must be finite for any rows with both classes.")
    return float(value)


def _row_drawer(n: int) -> Callable[[np.random.Generator], Rows]:
    return lambda rng: rng.integers(n, size=n)


def _group_drawer(groups: npt.ArrayLike, n: int) -> Callable[[np.random.Generator], Rows]:
    keys = pd.Series(groups)
    codes, distinct = pd.factorize(keys)
    if codes.shape != (n,):
        raise ValueError(f"There are {codes.size:,} group keys for {n:,} rows; pass one for each row.")
    if (codes < 0).any():
        raise ValueError(f"{(codes < 0).sum():,} of {n:,} group keys are missing. Give each row a key.")
    if len(distinct) < 2:
        raise ValueError("All rows belong to one group: there is nothing to resample. Omit `groups`.")

    def draw(rng: np.random.Generator) -> Rows:
        times = np.bincount(rng.integers(len(distinct), size=len(distinct)), minlength=len(distinct))
        return np.repeat(np.arange(n), times[codes])

    return draw


def _draw_metrics(
    y: Labels,
    p: Probabilities,
    functions: Mapping[str, Metric],
    resampling: Resampling,
    groups: npt.ArrayLike | None,
) -> dict[str, Probabilities]:
    """Each metric on each resample, of shape (resamples,)."""
    distinct, rank = descending_ranks(p)
    cell = rank + distinct.size * y
    fast = {name: TALLY_METRICS[of](distinct) for name, of in functions.items() if of in TALLY_METRICS}
    draws = {name: np.empty(resampling.resamples) for name in functions}
    for i, rows in enumerate(resampling.draw(y, groups)):
        counted = tally_cells(distinct, cell[rows])
        for name, function in functions.items():
            draws[name][i] = fast[name](counted) if name in fast else _finite(name, function(y[rows], p[rows]))
    return draws


def _calibration_interval(
    value: float, drawn: Probabilities, resampling: Resampling, counted: Tally
) -> tuple[float, float]:
    """Interval of a calibration error, which is biased upwards: once in the value, twice in its resamples.

    The percentile limits of a well calibrated model always lie above the truth. So the resamples are reflected about the
    value (basic bootstrap), and the limits are stretched to contain the value. The lower limit is 0 if a perfectly
    calibrated model could have this value by chance.
    """
    level = resampling.confidence_level
    low, high = percentile_interval(drawn, level)
    lower, upper = max(0.0, min(2 * value - high, value)), min(1.0, max(2 * value - low, value))
    by_chance = np.quantile(_calibration_error_by_chance(counted, resampling.seed), (1 + level) / 2)
    return (0.0 if value <= by_chance else lower), upper


def _calibration_error_by_chance(counted: Tally, seed: int, times: int = 2000) -> Probabilities:
    """Draw calibration errors as if the probabilities were true, by a normal approximation in each bin."""
    customers = counted.customers
    variance = np.bincount(equal_mass_bins(counted), weights=counted.p * (1 - counted.p) * customers)
    noise = np.random.default_rng(seed).normal(size=(times, variance.size)) * np.sqrt(variance)
    errors: Probabilities = np.abs(noise).sum(axis=1) / customers.sum()
    return errors
