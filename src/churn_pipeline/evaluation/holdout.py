"""Held-out customers with their labels, churn probabilities and values."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from churn_pipeline.costs import check_values
from churn_pipeline.evaluation.predictions import Labels, Probabilities, check_predictions


@dataclass(frozen=True, eq=False)
class Holdout:
    """Held-out rows, as arrays in the same order.

    Attributes
    ----------
    y : ndarray of shape (n,), int64
        1 for a customer who churned, 0 for one who stayed.
    p : ndarray of shape (n,), float64
        Churn probabilities.
    value : ndarray of shape (n,), float64
        Value of each customer if retained; a single number is broadcast.
    groups : ndarray of shape (n,), optional
        Group key of each row, if a customer can have several rows.

    Raises
    ------
    ValueError
        If predictions or values are invalid, or shapes differ.
    """

    y: Labels
    p: Probabilities
    value: Probabilities
    groups: npt.NDArray[np.generic] | None = None

    def __post_init__(self) -> None:
        labels, probabilities = check_predictions(self.y, self.p)
        values = check_values(self.value, labels.size)
        keys = None if self.groups is None else np.asarray(self.groups)
        if keys is not None and keys.shape != labels.shape:
            raise ValueError(f"There are {keys.size:,} group keys for {labels.size:,} rows; pass one for each row.")
        for name, checked in (("y", labels), ("p", probabilities), ("value", values), ("groups", keys)):
            object.__setattr__(self, name, checked)

    def select(self, rows: npt.NDArray[np.bool_]) -> "Holdout":
        """The rows of a mask of shape (n,), at least one."""
        groups = None if self.groups is None else self.groups[rows]
        return Holdout(self.y[rows], self.p[rows], self.value[rows], groups)

    def count_customers(self, rows: npt.NDArray[np.bool_]) -> int:
        """Number of distinct customers in the rows of a mask of shape (n,)."""
        return int(rows.sum()) if self.groups is None else len(pd.unique(self.groups[rows]))
