"""Logistic regression on the similarity to some training customers."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.special import expit
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.utils.validation import check_is_fitted, validate_data

from churn_pipeline.modelling.probability_classifier import ProbabilityClassifier

Floats = npt.NDArray[np.float64]


class NystroemClassifier(ProbabilityClassifier):
    """Kernel logistic regression with a radial kernel, approximated by the Nyström method.

    The fitted model is a weighted sum of similarities to the landmarks, so it needs no matrix of the approximation.

    Parameters
    ----------
    n_components : int, default=300
        Number of landmarks: training rows drawn at random.
    gamma : float, default=1.0
        Inverse width of the kernel, relative to the total variance of the features: the similarity of two rows is
        ``exp(-gamma * squared distance / total variance)``.
    C : float, default=1.0
        Inverse strength of the L2 penalty.
    random_state : int, RandomState or None, default=None
        Seed of the draw.

    Attributes
    ----------
    classes_ : ndarray of shape (2,)
        The two classes.
    gamma_ : float
        Inverse width of the kernel in units of the features.
    landmarks_ : ndarray of shape (n_landmarks, n_features), float64
        The landmarks; fewer than `n_components` if there are fewer rows.
    weights_ : ndarray of shape (n_landmarks,), float64
        Weight of the similarity to each landmark.
    intercept_ : float
        Log-odds of a row that is similar to no landmark.

    References
    ----------
    Williams and Seeger (2001), "Using the Nyström Method to Speed Up Kernel Machines", NIPS 13.
    """

    def __init__(
        self, n_components: int = 300, *, gamma: float = 1.0, C: float = 1.0, random_state: Any = None
    ) -> None:
        self.n_components = n_components
        self.gamma = gamma
        self.C = C
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Draw the landmarks, and fit the logistic regression.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_features)
            Numbers without NaN, of similar scale.
        y : array-like of shape (n_rows,)
            1 for customers who churned, 0 for the others.

        Returns
        -------
        NystroemClassifier
            Itself.
        """
        X, y = validate_data(self, X, y, dtype=np.float64)
        variance = float(X.var(axis=0).sum())
        self.gamma_ = self.gamma / variance if variance > 0 else self.gamma
        nystroem = Nystroem(
            gamma=self.gamma_, n_components=min(self.n_components, len(X)), random_state=self.random_state
        )
        logistic = LogisticRegression(C=self.C, max_iter=1000)
        logistic.fit(nystroem.fit_transform(X), y)
        self.classes_ = logistic.classes_
        self.landmarks_ = nystroem.components_
        self.weights_ = nystroem.normalization_.T @ logistic.coef_[0]
        self.intercept_ = float(logistic.intercept_[0])
        return self

    def predict_proba(self, X: Any) -> Floats:
        """Predict probabilities.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_features)
            Numbers without NaN.

        Returns
        -------
        ndarray of shape (n_rows, 2), float64
            Probabilities of staying and of churning.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        similarity = rbf_kernel(X, self.landmarks_, gamma=self.gamma_)
        churn = expit(similarity @ self.weights_ + self.intercept_)
        return np.column_stack([1.0 - churn, churn])
