"""Bootstrap intervals: how far a metric could be off because of which customers happen to be evaluated."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from churn_pipeline.evaluation.calibration import calibration_in_the_large, calibration_line
from churn_pipeline.evaluation.intervals import percentile_interval, z_margin
from churn_pipeline.evaluation.metrics import (
    Metric,
    calibration_error,
    calibration_intercept,
    calibration_slope,
    miscalibration,
    resolve_metric,
)
from churn_pipeline.evaluation.predictions import (
    Labels,
    Probabilities,
    check_predictions,
    descending_ranks,
    tally_cells,
)
from churn_pipeline.evaluation.tally_metrics import TALLY_METRICS

Rows = npt.NDArray[np.intp]
# Robust standard errors of metrics that are not resampled
STANDARD_ERRORS: dict[Metric, Callable[[Labels, Probabilities, npt.ArrayLike | None], float]] = {
    calibration_intercept: lambda y, p, groups: calibration_in_the_large(y, p, groups).error,
    calibration_slope: lambda y, p, groups: calibration_line(y, p, groups).slope_error,
}
# Biased upwards, because they are never negative
WITHOUT_INTERVAL: tuple[Metric, ...] = (calibration_error, miscalibration)


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

    Limits are percentiles of the resamples. Two kinds of metrics are not resampled:

    - calibration intercept and slope have normal intervals with robust standard errors;
    - miscalibration and calibration error are biased upwards, so that no interval has its coverage: limits are NaN.

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
    Field & Welsh (2007), "Bootstrapping clustered data", JRSS B 69(3): whole groups.
    """
    labels, probabilities = check_predictions(y, p)
    resampling.check(labels)
    functions = metrics if isinstance(metrics, Mapping) else {name: resolve_metric(name) for name in metrics}
    values = {name: _finite(name, function(labels, probabilities)) for name, function in functions.items()}
    level = resampling.confidence_level
    limits = dict.fromkeys(functions, (np.nan, np.nan))
    for name, function in functions.items():
        if function in STANDARD_ERRORS:
            margin = z_margin(STANDARD_ERRORS[function](labels, probabilities, groups), level)
            limits[name] = values[name] - margin, values[name] + margin
    drawn_metrics = {
        name: function for name, function in functions.items() if function not in (*STANDARD_ERRORS, *WITHOUT_INTERVAL)
    }
    for name, drawn in _draw_metrics(labels, probabilities, drawn_metrics, resampling, groups).items():
        limits[name] = percentile_interval(drawn, level)
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
