"""What this project's own classifiers share."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin


class ProbabilityClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier whose classes follow from its probabilities; subclasses define `predict_proba` and ``classes_``."""

    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:
        """Predict probabilities: float64 of shape (n_rows, 2)."""
        raise NotImplementedError

    def predict(self, X: Any) -> npt.NDArray[np.int64]:
        """Predict the more probable class.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_columns)
            As in `predict_proba`.

        Returns
        -------
        ndarray of shape (n_rows,)
            0 or 1.
        """
        classes: npt.NDArray[np.int64] = self.classes_[np.argmax(self.predict_proba(X), axis=1)]
        return classes
