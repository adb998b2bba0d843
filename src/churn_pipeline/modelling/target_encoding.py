"""Target encoding that is cross-fitted by customer."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn import config_context
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import TargetEncoder

FOLDS = 5


class CustomerTargetEncoder(TargetEncoder):  # type: ignore[misc]
    """Replace each level by the churn share of its rows, shrunk towards the mean; an unseen level by the mean.

    While fitting, the rows of each of five folds get the shares of the other folds. Otherwise a level with few customers
    would reveal their labels. scikit-learn's encoder draws these folds by row. This one draws them by customer, because
    other rows of a customer reveal the label too.

    Parameters
    ----------
    smooth : "auto" or float, default="auto"
        Number of rows with the mean churn share that are added to each level; "auto" for an empirical Bayes estimate.

    References
    ----------
    Micci-Barreca (2001), "A preprocessing scheme for high-cardinality categorical attributes in classification and prediction
    problems", SIGKDD Explorations 3.
    """

    def __init__(self, smooth: Any = "auto") -> None:
        super().__init__(smooth=smooth, cv=GroupKFold(FOLDS, shuffle=True, random_state=0))

    def fit_transform(self, X: Any, y: Any, groups: Any = None) -> npt.NDArray[np.float64]:
        """Fit, and return the cross-fitted shares of the training rows.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_columns)
            Levels.
        y : array-like of shape (n_rows,)
            1 for customers who churned, 0 for the others.
        groups : array-like of int, shape (n_rows,), optional
            The customer of each row; None if each row is a customer of its own.

        Returns
        -------
        ndarray of shape (n_rows, n_columns), float64
            Churn shares.
        """
        groups = np.arange(len(y)) if groups is None else groups
        with config_context(enable_metadata_routing=True):
            shares: npt.NDArray[np.float64] = super().fit_transform(X, y, groups=groups)
        return shares
