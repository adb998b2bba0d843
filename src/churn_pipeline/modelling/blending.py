"""Calibrations and blend weights, fitted to out-of-fold predictions.

References
----------
Wolpert (1992), "Stacked Generalization", Neural Networks 5; Breiman (1996), "Stacked Regressions", Machine Learning 24:
non-negative weights, fitted out of fold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import LinearConstraint, minimize
from scipy.special import expit

from churn_pipeline.modelling.ensemble import Calibration, Member, log_odds, shrunken_logs

Floats = npt.NDArray[np.float64]
Kind = Literal["none", "logistic", "beta"]

# Below this weight, serving a member costs more than it gains.
MIN_WEIGHT = 0.05
# Decimal places. Finer weights and slopes are noise, and would differ between machines.
WEIGHT_DIGITS, SLOPE_DIGITS = 2, 4
MAX_SLOPE = 20.0
# More rows than this do not improve the fit of a few parameters.
MAX_ROWS = 100_000


def fit_calibration(p: Floats, y: npt.NDArray[np.int64], kind: Kind) -> Calibration | None:
    """Fit a calibration by maximum likelihood.

    Parameters
    ----------
    p : ndarray of shape (n,)
        Probabilities.
    y : ndarray of shape (n,)
        1 for customers who churned.
    kind : {"none", "logistic", "beta"}
        The kind of calibration.

    Returns
    -------
    Calibration or None
        None for ``"none"``.
    """
    if kind == "none":
        return None
    p, y = _thin(p, y)
    log_p, log_1mp = shrunken_logs(p)
    columns = [log_p - log_1mp] if kind == "logistic" else [log_p, -log_1mp]
    Z = np.column_stack([*columns, np.ones_like(log_p)])
    bounds = [(0.0, MAX_SLOPE)] * len(columns) + [(-MAX_SLOPE, MAX_SLOPE)]
    start = np.array([1.0] * len(columns) + [0.0])
    found = minimize(_loss_of_weights, start, (Z, y), "L-BFGS-B", jac=True, bounds=bounds)
    *slopes, c = (round(float(value), SLOPE_DIGITS) for value in found.x)
    return Calibration(kind=kind, a=slopes[0], b=slopes[-1], c=c)


def fit_weights(Z: Floats, y: npt.NDArray[np.int64]) -> Floats:
    """Fit the weights of a blend: non-negative, with sum 1, and with the lowest log loss.

    The problem is convex. While a weight is below `MIN_WEIGHT`, the member with the lowest one is removed and the others
    are fitted again.

    Parameters
    ----------
    Z : ndarray of shape (n, n_candidates)
        Log-odds.
    y : ndarray of shape (n,)
        1 for customers who churned.

    Returns
    -------
    ndarray of shape (n_candidates,), float64
        Weights, rounded to whole percents.
    """
    Z, y = _thin(Z, y)
    members = np.arange(Z.shape[1])
    found = _fit_simplex(Z, y)
    while found.min() < MIN_WEIGHT:
        members = np.delete(members, np.argmin(found))
        found = _fit_simplex(Z[:, members], y)
    weights = np.zeros(Z.shape[1])
    weights[members] = found
    return round_weights(weights)


def round_weights(weights: Floats) -> Floats:
    """Round weights to whole percents that sum to 1; weights below `MIN_WEIGHT` become 0.

    Parameters
    ----------
    weights : ndarray of shape (n_candidates,)
        Non-negative, with sum 1.

    Returns
    -------
    ndarray of shape (n_candidates,), float64
        The rounded weights.
    """
    kept = np.where((weights >= MIN_WEIGHT) | (weights == weights.max()), weights, 0.0)
    rounded = np.round(kept / kept.sum(), WEIGHT_DIGITS)
    rounded[np.argmax(rounded)] += 1.0 - rounded.sum()
    return np.asarray(np.round(rounded, WEIGHT_DIGITS), dtype=np.float64)


def fit_members(p: Floats, y: npt.NDArray[np.int64], names: Sequence[str], kinds: Sequence[Kind]) -> tuple[Member, ...]:
    """Fit a blend: first the calibration of each candidate, then the weights.

    Parameters
    ----------
    p : ndarray of shape (n, len(names))
        Probabilities.
    y : ndarray of shape (n,)
        1 for customers who churned.
    names : Sequence of str
        Names of the candidates, in the order of the columns of ``p``.
    kinds : Sequence of {"none", "logistic", "beta"}
        Kind of calibration of each candidate.

    Returns
    -------
    tuple of Member
        The candidates with a weight above 0.
    """
    calibrations = [fit_calibration(p[:, column], y, kind) for column, kind in enumerate(kinds)]
    Z = np.column_stack([log_odds(p[:, column], calibration) for column, calibration in enumerate(calibrations)])
    return tuple(
        Member(candidate=name, weight=float(weight), calibration=calibration)
        for name, weight, calibration in zip(names, fit_weights(Z, y), calibrations, strict=True)
        if weight > 0
    )


def blend(p: Floats, names: Sequence[str], members: Sequence[Member]) -> Floats:
    """Blend probabilities as `churn_pipeline.modelling.ensemble.BlendedModel` does.

    Parameters
    ----------
    p : ndarray of shape (n, len(names))
        Probabilities.
    names : Sequence of str
        Names of the candidates, in the order of the columns of ``p``.
    members : Sequence of Member
        The blend.

    Returns
    -------
    ndarray of shape (n,), float64
        Probabilities.
    """
    total = np.zeros(len(p))
    for member in members:
        total = total + member.weight * log_odds(p[:, names.index(member.candidate)], member.calibration)
    return np.asarray(expit(total), dtype=np.float64)


def _thin(values: Floats, y: npt.NDArray[np.int64]) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Keep every k-th row, spread evenly over folds, if there are more than `MAX_ROWS`."""
    step = -(-len(y) // MAX_ROWS)
    return values[::step], y[::step]


def _fit_simplex(Z: Floats, y: npt.NDArray[np.int64]) -> Floats:
    size = Z.shape[1]
    if size == 1:
        return np.ones(1)
    found = minimize(
        _loss_of_weights,
        np.full(size, 1.0 / size),
        (Z, y),
        "SLSQP",
        jac=True,
        bounds=[(0.0, 1.0)] * size,
        constraints=LinearConstraint(np.ones((1, size)), 1.0, 1.0),
        options={"ftol": 1e-10},
    )
    weights = np.maximum(found.x, 0.0)
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def _loss_of_weights(weights: Floats, Z: Floats, y: npt.NDArray[np.int64]) -> tuple[float, Floats]:
    """Log loss of weighted log-odds, and its gradient. Einsum, because BLAS sums in an order that depends on threads."""
    total = np.einsum("ij,j->i", Z, weights)
    loss = float(np.mean(np.logaddexp(0.0, total) - y * total))
    return loss, np.einsum("ij,i->j", Z, expit(total) - y) / len(y)
