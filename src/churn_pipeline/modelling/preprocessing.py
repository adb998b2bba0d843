"""What stands between a table of customers and a classifier, as scikit-learn steps.

Two ideas shape it. First, the served model reads float32, so the fitted one must never have seen more: the first
numeric step rounds to what float32 can hold, and from there both calculate in double. Second, whatever a caller sends
is answered: missing values, levels never seen and absurd magnitudes all have a defined meaning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, SplineTransformer, StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

Numeric = Literal["as_is", "scaled", "splines"]
Floats = npt.NDArray[np.float64]

# No customer is beyond 1e30, and below it scikit-learn may add up a column of float32 without overflow.
NUMBER_LIMIT = float(np.float32(1e30))
SCORE_LIMIT = 10.0


def round_to_float32(values: Any) -> Floats:
    """Round numbers to the nearest float32, and keep them in float64.

    Parameters
    ----------
    values : array-like of shape (n_rows, n_columns)
        Numbers. NaN stays NaN; what is beyond 1e30 (infinities too) becomes 1e30.

    Returns
    -------
    ndarray of shape (n_rows, n_columns), float64
        A new array.
    """
    array = np.clip(np.asarray(values, dtype=np.float64), -NUMBER_LIMIT, NUMBER_LIMIT)
    return array.astype(np.float32).astype(np.float64)


def limit_scores(scores: Any) -> Floats:
    """Hold standard scores within ten deviations of the mean.

    A linear model takes a slip of the keyboard (a tenure of 1e30) for certainty, and the sum of two such slips depends
    on the order of summation. Ten deviations is further than any honest value and harmless in both respects.

    Parameters
    ----------
    scores : array-like of shape (n_rows, n_columns)
        Standard scores.

    Returns
    -------
    ndarray of shape (n_rows, n_columns), float64
        The scores, within [-10, 10].
    """
    return np.clip(np.asarray(scores, dtype=np.float64), -SCORE_LIMIT, SCORE_LIMIT)


def spread_knots(column: Floats, n_knots: int) -> Floats:
    """Place strictly increasing knots at the quantiles of a column.

    Quantiles of a column with many equal values coincide, and splines on coinciding knots break off at the edges. The
    spare knots go where they are needed most: to the middle of the widest gaps.

    Parameters
    ----------
    column : ndarray of shape (n_rows,), float64
        Values without NaN, at least one.
    n_knots : int
        How many knots; at least 2.

    Returns
    -------
    ndarray of shape (n_knots,), float64
        Knots from the smallest to the largest value; around the value, if there is but one.
    """
    knots = np.unique(np.quantile(column, np.linspace(0.0, 1.0, n_knots)))
    if len(knots) == 1:
        reach = max(1.0, abs(float(knots[0])))
        return np.linspace(knots[0] - reach, knots[0] + reach, n_knots)
    while len(knots) < n_knots:
        widest = int(np.argmax(np.diff(knots)))
        knots = np.insert(knots, widest + 1, knots[widest] + (knots[widest + 1] - knots[widest]) / 2)
    return knots


class QuantileSplines(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """B-splines on quantile knots that never coincide, constant beyond the values seen.

    ``SplineTransformer(knots="quantile")`` with its knots repaired by `spread_knots`; all else is scikit-learn's.

    Parameters
    ----------
    n_knots : int, default=6
        Knots per column.
    degree : int, default=3
        Degree of the polynomials.

    Attributes
    ----------
    knots_ : ndarray of shape (n_knots, n_columns), float64
        Where the polynomials meet. Nothing else is learned, so nothing else has to be stored.
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
        """Make the splines on the knots.

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
    """Append sums and differences of two numbers, drawn at random, each number in units of its standard deviation.

    A tree splits on one column at a time, and needs a staircase of splits for what depends on two (the whole bill rather
    than calls by day and by night; more calls than one would expect of so many minutes). A sum makes a step of it. Every
    value is a product of two doubles, or the sum of two such: an ONNX model can calculate exactly the same.

    Parameters
    ----------
    n_pairs : int, default=20
        How many to append; all, if there are fewer.
    n_columns : int or None, default=None
        How many of the first columns are numbers; None for all.
    random_state : int, RandomState or None, default=None
        Decides which are drawn.

    Attributes
    ----------
    pairs_ : ndarray of shape (n, 2), int64
        The two columns of each.
    factors_ : ndarray of shape (n, 2), float64
        What each of the two is multiplied by.

    References
    ----------
    Breiman (2001), "Random Forests", Machine Learning 45, section 5: forests on random linear combinations of inputs.
    """

    def __init__(self, n_pairs: int = 20, n_columns: int | None = None, random_state: Any = None) -> None:
        self.n_pairs = n_pairs
        self.n_columns = n_columns
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Draw the pairs, and measure the deviations.

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
        # A column that does not vary has nothing to add to another; its deviation may be a rounding error, and not 0.
        varying = np.flatnonzero(np.ptp(X[:, :n_columns], axis=0) > 0)
        all_pairs = [(i, j, sign) for i, j in combinations(varying, 2) for sign in (1.0, -1.0)]
        drawn = check_random_state(self.random_state).permutation(len(all_pairs))[: self.n_pairs]
        chosen = np.array([all_pairs[place] for place in sorted(drawn)]).reshape(-1, 3)
        self.pairs_ = chosen[:, :2].astype(np.int64)
        self.factors_ = 1.0 / deviations[self.pairs_]
        self.factors_[:, 1] *= chosen[:, 2]
        return self

    def transform(self, X: Any) -> Floats:
        """Append the sums.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_columns)
            Numbers without NaN.

        Returns
        -------
        ndarray of shape (n_rows, n_columns + n), float64
            The columns as they were, then the sums.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        first, second = (X[:, self.pairs_[:, side]] * self.factors_[:, side] for side in (0, 1))
        return np.hstack([X, first + second])


def numeric_steps(kind: Numeric, arguments: Mapping[str, Any]) -> Pipeline:
    """Build the numeric branch.

    A missing value becomes the median, and a column of its own tells that it was missing. So no classifier meets NaN:
    some take it, but not when a whole column is missing, and not all of them take it to ONNX.

    Parameters
    ----------
    kind : {"as_is", "scaled", "splines"}
        What becomes of a number.
    arguments : Mapping
        Arguments of `QuantileSplines`; not read for the other kinds.

    Returns
    -------
    Pipeline
        Unfitted.
    """
    rounded = ("rounded", FunctionTransformer(round_to_float32, feature_names_out="one-to-one"))
    # An all-missing column stays (as zeros): a column may be empty in one fold and not in another.
    steps: list[tuple[str, Any]] = [("median", SimpleImputer(strategy="median", keep_empty_features=True))]
    if kind == "scaled":
        steps.append(("scaled", StandardScaler()))
        steps.append(("limited", FunctionTransformer(limit_scores, feature_names_out="one-to-one")))
    elif kind == "splines":
        steps.append(("splines", QuantileSplines(**arguments)))
    missing = MissingIndicator(features="missing-only", error_on_new=False)
    return Pipeline([rounded, ("known", FeatureUnion([("values", Pipeline(steps)), ("missing", missing)]))])


def build_preprocessing(
    kind: Numeric,
    numeric: Sequence[str],
    categorical: Sequence[str],
    numeric_arguments: Mapping[str, Any],
    categorical_arguments: Mapping[str, Any],
) -> ColumnTransformer:
    """Build the step in front of the classifier.

    Parameters
    ----------
    kind : {"as_is", "scaled", "splines"}
        What becomes of a number.
    numeric, categorical : Sequence of str
        Names of the columns; together at least one.
    numeric_arguments, categorical_arguments : Mapping
        Arguments of `QuantileSplines` and of ``OneHotEncoder``.

    Returns
    -------
    ColumnTransformer
        Unfitted. Its output is dense float64: numeric columns first, then one column per level.

    Raises
    ------
    ValueError
        If there is no column at all.
    """
    branches: list[tuple[str, Any, list[str]]] = []
    if numeric:
        steps = numeric_steps(kind, numeric_arguments)
        branches.append(("numeric", steps, list(numeric)))
    if categorical:
        encoder = OneHotEncoder(handle_unknown="infrequent_if_exist", sparse_output=False, **categorical_arguments)
        branches.append(("categorical", encoder, list(categorical)))
    if not branches:
        raise ValueError("A candidate needs at least one feature: both numeric and categorical are empty.")
    return ColumnTransformer(branches, remainder="drop", sparse_threshold=0.0)
