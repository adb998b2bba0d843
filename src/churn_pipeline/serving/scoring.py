"""Churn probabilities from the ONNX model."""

import numpy as np
import numpy.typing as npt

from churn_pipeline.serving.bundle import CATEGORICAL, NUMERIC, OUTPUT, Bundle

# onnxruntime plans its memory at the first batch of each size; no request should wait for that.
WARM_ROWS = (1, 2, 10, 100, 1_000, 1, 1)

Numeric = npt.NDArray[np.float32] | None
Categorical = npt.NDArray[np.object_] | None
Probabilities = npt.NDArray[np.float64]


class Scorer:
    """The ONNX model of a bundle.

    Parameters
    ----------
    bundle
        The served bundle.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._session = bundle.session
        self._widths = len(bundle.numeric), len(bundle.categorical)

    def probabilities(self, numeric: Numeric, categorical: Categorical) -> Probabilities:
        """Score customers, on the calling thread.

        Parameters
        ----------
        numeric : ndarray of shape (rows, N), float32, or None
            NaN for missing; None if the model has no numeric feature.
        categorical : ndarray of shape (rows, C), object (str), or None
            ``''`` for missing; None if the model has no categorical feature.

        Returns
        -------
        ndarray of shape (rows,), float64
            Churn probabilities.
        """
        inputs = {name: given for name, given in ((NUMERIC, numeric), (CATEGORICAL, categorical)) if given is not None}
        probabilities: Probabilities = self._session.run([OUTPUT], inputs)[0]
        return probabilities

    def warm_up(self) -> None:
        """Score dummy batches of several sizes, so that onnxruntime has planned its memory before the first request."""
        n_numbers, n_levels = self._widths
        for rows in WARM_ROWS:
            numbers = np.zeros((rows, n_numbers), dtype=np.float32) if n_numbers else None
            levels = np.full((rows, n_levels), "", dtype=object) if n_levels else None
            self.probabilities(numbers, levels)
