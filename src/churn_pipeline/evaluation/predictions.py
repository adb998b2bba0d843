"""Churn probabilities and labels: checks, and counts by distinct probability that most metrics are computed from."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

BINS = 10
ROWS_PER_BIN = 20


def check_predictions(y: npt.ArrayLike, p: npt.ArrayLike) -> tuple[Labels, Probabilities]:
    """Check labels and churn probabilities, and convert them to arrays.

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
        If the shapes differ or are not (n,), there are no rows, a label is not 0 or 1, or a probability is missing or
        outside [0, 1].
    """
    labels, probabilities = np.asarray(y), np.asarray(p, dtype=np.float64)
    if labels.ndim != 1 or labels.shape != probabilities.shape:
        raise ValueError(
            f"y has shape {labels.shape} and p has shape {probabilities.shape}; both must be (n,). "
            "From predict_proba, pass the column of class 1: predict_proba(x)[:, 1]."
        )
    if not labels.size:
        raise ValueError("There are no rows to evaluate: y and p are empty.")
    _refuse(~np.isin(labels, (0, 1)), "labels are neither 0 nor 1", "Code churned as 1 and stayed as 0.")
    _refuse(np.isnan(probabilities), "churn probabilities are NaN", "Fix the model or leave these rows out.")
    outside = (probabilities < 0) | (probabilities > 1)
    _refuse(outside, "churn probabilities lie outside [0, 1]", "Pass probabilities, not scores or log-odds.")
    return labels.astype(np.int64), probabilities


def _refuse(bad: npt.NDArray[np.bool_], what: str, fix: str) -> None:
    if bad.any():
        raise ValueError(f"{bad.sum():,} of {bad.size:,} {what} (first at position {bad.argmax()}). {fix}")


def row_log_loss(y: Labels, p: Probabilities) -> Probabilities:
    """Log loss of each row in nats, of shape (n,); probabilities are clipped at float64's eps."""
    eps = np.finfo(np.float64).eps
    return np.asarray(-np.log(np.clip(np.where(y == 1, p, 1 - p), eps, 1)))


@dataclass(frozen=True)
class Tally:
    """Numbers of churners and stayers at each distinct churn probability.

    Attributes
    ----------
    p : ndarray of shape (k,)
        The distinct churn probabilities, highest first.
    churned, stayed : ndarray of shape (k,), int64
        Customers with that probability who churned and who stayed. In a bootstrap resample both can be 0.
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
    return tally_cells(distinct, rank + distinct.size * y)


def tally_cells(
    distinct: Probabilities, cell: npt.NDArray[np.integer], row_counts: npt.NDArray[np.int64] | None = None
) -> Tally:
    """Count rows by cell: the rank of the row's probability, plus the number of distinct ones if the customer churned.

    Parameters
    ----------
    distinct : ndarray of shape (k,)
        The distinct probabilities, highest first.
    cell : ndarray of shape (n,)
        Each row's cell, from 0 to 2k - 1.
    row_counts : ndarray of shape (n,), optional
        How often each row counts.
    """
    k = distinct.size
    counts = np.bincount(cell, weights=row_counts, minlength=2 * k).astype(np.int64, copy=False)
    return Tally(distinct, churned=counts[k:], stayed=counts[:k])


def descending_ranks(p: Probabilities) -> tuple[Probabilities, npt.NDArray[np.intp]]:
    """Return the distinct probabilities (k,), highest first, and each row's rank among them (n,)."""
    ascending, rank = np.unique(p, return_inverse=True)
    return ascending[::-1], ascending.size - 1 - rank


def equal_mass_bins(counted: Tally, n_bins: int | None = None) -> npt.NDArray[np.int64]:
    """Assign each distinct probability, of shape (k,), to a bin; bins hold equal numbers of customers.

    The middle one of the customers with that probability decides.

    Parameters
    ----------
    counted
        Predictions by distinct probability.
    n_bins
        Number of bins; by default 10, and fewer below 200 rows, so that each bin holds at least 20.

    Raises
    ------
    ValueError
        If `n_bins` is below 1.
    """
    if n_bins is not None and n_bins < 1:
        raise ValueError(f"n_bins is {n_bins}; it must be at least 1.")
    customers = counted.customers
    until = np.cumsum(customers)
    total = int(until[-1])
    bins = n_bins or min(BINS, max(1, total // ROWS_PER_BIN))
    # Integer arithmetic, so that a resample and its counts always fall into the same bins
    twice_middle = 2 * until - customers
    assigned: npt.NDArray[np.int64] = np.minimum(bins * twice_middle // (2 * total), bins - 1)
    return assigned


def gain_curve(counted: Tally) -> tuple[Probabilities, Probabilities]:
    """Cumulative gain, linear between distinct probabilities, as if ties were in random order.

    Returns
    -------
    contacted : ndarray of shape (k + 1,)
        Share of customers at or above each probability, from 0 to 1.
    gained : ndarray of shape (k + 1,)
        Share of all churners who are among them, from 0 to 1.
    """
    contacted = np.concatenate(([0], np.cumsum(counted.customers)))
    gained = np.concatenate(([0], np.cumsum(counted.churned)))
    return contacted / contacted[-1], gained / gained[-1]
