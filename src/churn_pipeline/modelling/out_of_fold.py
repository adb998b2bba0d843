"""Out-of-fold predictions of all candidates, and functions cross-fitted on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from churn_pipeline.evaluation.metrics import log_loss

Floats = npt.NDArray[np.float64]
Model = Callable[[Floats], Floats]


@dataclass(frozen=True)
class OutOfFold:
    """Out-of-fold predictions of all candidates for the same customers.

    Attributes
    ----------
    names : tuple of str
        Candidate names, simplest first.
    y : ndarray of shape (n,), int64
        1 for customers who churned.
    fold : ndarray of shape (n,), int64
        Validation fold of each row, from 0.
    p : ndarray of shape (n, len(names)), float64
        Churn probabilities from models that were not fitted on the row.
    """

    names: tuple[str, ...]
    y: npt.NDArray[np.int64]
    fold: npt.NDArray[np.int64]
    p: Floats

    @property
    def folds(self) -> range:
        """Fold numbers."""
        return range(int(self.fold.max()) + 1)

    def fold_losses(self, p: Floats) -> Floats:
        """Log loss of probabilities (n,) in each fold."""
        return np.array([log_loss(self.y[self.fold == fold], p[self.fold == fold]) for fold in self.folds])


def align_predictions(predictions: Mapping[str, pd.DataFrame]) -> OutOfFold:
    """Combine the candidates' predictions into one table.

    Parameters
    ----------
    predictions : Mapping of str to DataFrame
        By candidate, simplest first: columns ``fold``, ``row``, ``churned`` and ``probability``.

    Returns
    -------
    OutOfFold
        Sorted by fold and row.

    Raises
    ------
    ValueError
        If there is no candidate, if there is only one fold, or if candidates were validated on different rows.
    """
    if not predictions:
        raise ValueError("There is no candidate to choose from: configure at least one under `candidates`.")
    tables = {name: table.sort_values(["fold", "row"], kind="stable") for name, table in predictions.items()}
    first_name, first = next(iter(tables.items()))
    for name, table in tables.items():
        for column in ("fold", "row", "churned"):
            if not np.array_equal(table[column].to_numpy(), first[column].to_numpy()):
                raise ValueError(
                    f"'{name}' and '{first_name}' were not validated on the same rows: column '{column}' differs. "
                    "Run the search of all candidates on the same folds."
                )
    fold = pd.factorize(first["fold"])[0].astype(np.int64)
    if fold.max() < 1:
        raise ValueError(
            "A choice needs at least two folds, because one difference has no standard error: set split.folds."
        )
    p = np.column_stack([table["probability"].to_numpy(dtype=np.float64) for table in tables.values()])
    return OutOfFold(tuple(tables), first["churned"].to_numpy().astype(np.int64), fold, p)


def cross_fitted_predictions(table: OutOfFold, fit: Callable[[Floats, npt.NDArray[np.int64]], Model]) -> Floats:
    """Predict each fold with a function fitted on all other folds.

    The base predictions for the other folds come from models that were trained on this fold too. All single-level stacking
    has this small leak; it hardly matters for a few weights.

    Parameters
    ----------
    table : OutOfFold
        Predictions to fit on.
    fit : callable
        Takes probabilities (m, n_candidates) and labels (m,). Returns a function that maps probabilities
        (k, n_candidates) to probabilities (k,).

    Returns
    -------
    ndarray of shape (n,), float64
        Probabilities.
    """
    result = np.empty(len(table.y))
    for fold in table.folds:
        scored = table.fold == fold
        result[scored] = fit(table.p[~scored], table.y[~scored])(table.p[scored])
    return result
