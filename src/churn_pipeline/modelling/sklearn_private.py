"""All uses of scikit-learn's private attributes.

scikit-learn has no public way to read the trees of histogram gradient boosting
(https://github.com/scikit-learn/scikit-learn/issues/29731 asks to document them; open).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingClassifier


def histogram_tree_nodes(classifier: HistGradientBoostingClassifier) -> list[npt.NDArray[np.void]]:
    """Return the nodes of each tree of a fitted binary classifier.

    Parameters
    ----------
    classifier : HistGradientBoostingClassifier
        Fitted on two classes.

    Returns
    -------
    list of structured ndarray
        One array per tree. Its fields include ``value``, ``feature_idx``, ``num_threshold``, ``missing_go_to_left``,
        ``left``, ``right``, ``is_leaf`` and ``is_categorical``.
    """
    stages: list[list[Any]] = classifier._predictors  # noqa: SLF001 - there is no public attribute
    return [predictor.nodes for stage in stages for predictor in stage]


def histogram_baseline(classifier: HistGradientBoostingClassifier) -> npt.NDArray[np.float64]:
    """Return the log-odds to which a fitted binary classifier adds its trees: float64 of shape (1,)."""
    return np.ravel(classifier._baseline_prediction)  # noqa: SLF001 - there is no public attribute
