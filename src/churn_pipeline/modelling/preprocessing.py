"""Transformers of this project, which scikit-learn does not have.

The served model takes float32 input. The first numeric step therefore rounds to float32 during training too; after that
both models compute in float64. Stored models refer to the transformers and functions of this module by name, so do not
rename them.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.preprocessing import SplineTransformer
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

Floats = npt.NDArray[np.float64]

# No real value exceeds 1e30, and below it scikit-learn can sum a float32 column without overflow.
NUMBER_LIMIT = float(np.float32(1e30))
Z_SCORE_LIMIT = 10.0


def round_to_float32(values: Any) -> Floats:
    """Round numbers to the nearest float32, and return them as float64.

    Parameters
    ----------
    values : array-like of shape (n_rows, n_columns)
        Numbers. NaN stays NaN; values beyond ±1e30, including infinities, become ±1e30.

    Returns
    -------
    ndarray of shape (n_rows, n_columns), float64
        A new array.
    """
    array = np.clip(np.asarray(values, dtype=np.float64), -NUMBER_LIMIT, NUMBER_LIMIT)
    return array.astype(np.float32).astype(np.float64)


def limit_scores(scores: Any) -> Floats:
    """Clip z-scores to ten standard deviations around the mean.

    A typo such as tenure = 1e30 drives a linear model to probability 0 or 1. Sums that contain such huge values also
    depend on the order of summation. No real value is ten standard deviations away, and a limit of ten prevents both
    problems.

    Parameters
    ----------
    scores : array-like of shape (n_rows, n_columns)
        Z-scores.

    Returns
    -------
    ndarray of shape (n_rows, n_columns), float64
        The z-scores, within [-10, 10].
    """
    return np.clip(np.asarray(scores, dtype=np.float64), -Z_SCORE_LIMIT, Z_SCORE_LIMIT)


def spread_knots(column: Floats, n_knots: int) -> Floats:
    """Place strictly increasing knots at the quantiles of a column.

    Quantiles of a column with many equal values coincide, and splines on coinciding knots are discontinuous at the
    edges. Duplicate knots are therefore moved to the middle of the widest gaps.

    Parameters
    ----------
    column : ndarray of shape (n_rows,), float64
        Values without NaN, at least one.
    n_knots : int
        Number of knots; at least 2.

    Returns
    -------
    ndarray of shape (n_knots,), float64
        Knots from the smallest to the largest value; if there is only one value, knots around it.
    """
    knots = np.unique(np.quantile(column, np.linspace(0.0, 1.0, n_knots)))
    if len(knots) == 1:
        margin = max(1.0, abs(float(knots[0])))
        return np.linspace(knots[0] - margin, knots[0] + margin, n_knots)
    while len(knots) < n_knots:
        widest = int(np.argmax(np.diff(knots)))
        knots = np.insert(knots, widest + 1, knots[widest] + (knots[widest + 1] - knots[widest]) / 2)
    return knots


class QuantileSplines(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """B-splines on quantile knots that never coincide, constant outside the training range.

    This is scikit-learn's ``SplineTransformer(knots="quantile")``, except that `spread_knots` places the knots.

    Parameters
    ----------
    n_knots : int, default=6
        Knots per column.
    degree : int, default=3
        Degree of the polynomials.

    Attributes
    ----------
    knots_ : ndarray of shape (n_knots, n_columns), float64
        Where the polynomials meet. Nothing else is learned or stored.
    """

    def __init__(self, n_knots: int = 6, degree: int = 3) -> None:
        self.n_knots = n_knots
        self.degree = degree

    def fit(self, X: Any, y: Any = None) -> Self:
        """Place the knots.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_columns)
            Numbers without NaN.
        y : None
            Ignored.

        Returns
        -------
        QuantileSplines
            Itself.
        """
        X = validate_data(self, X, dtype=np.float64)
        self.knots_ = np.column_stack([spread_knots(column, self.n_knots) for column in X.T])
        return self

    def splines(self) -> SplineTransformer:
        """Return scikit-learn's transformer on these knots.

        Returns
        -------
        SplineTransformer
            Fitted.
        """
        check_is_fitted(self)
        splines = SplineTransformer(degree=self.degree, knots=self.knots_, extrapolation="constant")
        return splines.fit(self.knots_)

    def transform(self, X: Any) -> Floats:
        """Evaluate the splines.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_columns)
            Numbers without NaN.

        Returns
        -------
        ndarray of shape (n_rows, n_columns * (n_knots + degree - 1)), float64
            The basis functions, column after column.
        """
        splines = self.splines()
        basis: Floats = splines.transform(validate_data(self, X, dtype=np.float64, reset=False))
        return basis

    def get_feature_names_out(self, input_features: Any = None) -> npt.NDArray[np.object_]:
        """Name the basis functions.

        Parameters
        ----------
        input_features : array-like of str, optional
            Names of the columns.

        Returns
        -------
        ndarray of str objects
            One name per basis function.
        """
        names: npt.NDArray[np.object_] = self.splines().get_feature_names_out(input_features)
        return names


class RandomPairs(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Append sums and differences of two columns, drawn at random, each column divided by its standard deviation.

    A tree splits on single columns and needs many splits for an effect of two columns, such as day charges plus night
    charges. With the sum as a feature, one split is enough. Each new value is a sum of two products of float64 numbers,
    so an ONNX model computes exactly the same.

    Parameters
    ----------
    n_pairs : int, default=20
        Number of sums and differences to append; all of them, if there are fewer.
    n_columns : int or None, default=None
        Only the first `n_columns` columns are combined; None for all.
    random_state : int, RandomState or None, default=None
        Seed of the draw.

    Attributes
    ----------
    pairs_ : ndarray of shape (n, 2), int64
        The two column indices of each appended feature.
    factors_ : ndarray of shape (n, 2), float64
        The factors of the two columns; the second one is negative for a difference.

    References
    ----------
    Breiman (2001), "Random Forests", Machine Learning 45, section 5: forests on random linear combinations of inputs.
    """

    def __init__(self, n_pairs: int = 20, n_columns: int | None = None, random_state: Any = None) -> None:
        self.n_pairs = n_pairs
        self.n_columns = n_columns
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Draw the pairs, and compute the standard deviations.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_columns)
            Numbers without NaN, numeric columns first.
        y : None
            Ignored.

        Returns
        -------
        RandomPairs
            Itself.
        """
        X = validate_data(self, X, dtype=np.float64)
        n_columns = X.shape[1] if self.n_columns is None else self.n_columns
        deviations = X[:, :n_columns].std(axis=0)
        # Constant columns are left out. Their standard deviation may be a rounding error instead of 0.
        varying = np.flatnonzero(np.ptp(X[:, :n_columns], axis=0) > 0)
        all_pairs = [(i, j, sign) for i, j in combinations(varying, 2) for sign in (1.0, -1.0)]
        drawn = check_random_state(self.random_state).permutation(len(all_pairs))[: self.n_pairs]
        chosen = np.array([all_pairs[place] for place in sorted(drawn)]).reshape(-1, 3)
        self.pairs_ = chosen[:, :2].astype(np.int64)
        self.factors_ = 1.0 / deviations[self.pairs_]
        self.factors_[:, 1] *= chosen[:, 2]
        return self

    def transform(self, X: Any) -> Floats:
        """Append the sums and differences.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_columns)
            Numbers without NaN.

        Returns
        -------
        ndarray of shape (n_rows, n_columns + n), float64
            The unchanged columns, then the sums and differences.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        first, second = (X[:, self.pairs_[:, side]] * self.factors_[:, side] for side in (0, 1))
        return np.hstack([X, first + second])
