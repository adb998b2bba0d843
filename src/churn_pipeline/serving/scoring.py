"""Churn probabilities by the ONNX model, and what is decided by them."""

import numpy as np
import numpy.typing as npt

from churn_pipeline.serving.bundle import CATEGORICAL, NUMERIC, OUTPUT, Bundle

# onnxruntime plans its memory anew for every size that it has not seen: the first request must not wait for that.
WARM_ROWS = (1, 2, 10, 100, 1_000, 1, 1)

Numeric = npt.NDArray[np.float32] | None
Categorical = npt.NDArray[np.object_] | None
Probabilities = npt.NDArray[np.float64]


class Scorer:
    """The ONNX model of a bundle.

    Parameters
    ----------
    bundle
        What was shipped.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._session = bundle.session
        self._threshold = bundle.manifest.threshold
        self._widths = len(bundle.numeric), len(bundle.categorical)

    def probabilities(self, numeric: Numeric, categorical: Categorical) -> Probabilities:
        """Score customers, on the calling thread.

        Parameters
        ----------
        numeric : ndarray of shape (rows, N), float32, or None
            NaN where missing; None, if the model takes no numbers.
        categorical : ndarray of shape (rows, C), object (str), or None
            ``''`` where missing; None, if the model takes no levels.

        Returns
        -------
        ndarray of shape (rows,), float64
            Churn probabilities.
        """
        inputs = {name: given for name, given in ((NUMERIC, numeric), (CATEGORICAL, categorical)) if given is not None}
        found: Probabilities = self._session.run([OUTPUT], inputs)[0]
        return found

    def contact(self, probabilities: Probabilities) -> npt.NDArray[np.bool_]:
        """Who is to be contacted: those at the shipped threshold or above, of shape (rows,)."""
        return probabilities >= self._threshold

    def warm_up(self) -> None:
        """Score made-up rows of several sizes, so that no caller waits for what onnxruntime does once."""
        n_numbers, n_levels = self._widths
        for rows in WARM_ROWS:
            numbers = np.zeros((rows, n_numbers), dtype=np.float32) if n_numbers else None
            levels = np.full((rows, n_levels), "", dtype=object) if n_levels else None
            self.probabilities(numbers, levels)
