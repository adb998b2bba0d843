"""Import of a candidate's class from its import path."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any


def import_classifier(path: str) -> type[Any]:
    """Import a classifier.

    Parameters
    ----------
    path : str
        Import path, such as ``sklearn.linear_model.LogisticRegression``.

    Returns
    -------
    type
        The class.

    Raises
    ------
    ValueError
        If there is no such class, or it is not a classifier with ``predict_proba``.
    """
    module_name, _, name = path.rpartition(".")
    if not module_name:
        raise ValueError(f"class {path!r} is not an import path; write it like sklearn.linear_model.LogisticRegression")
    try:
        found = getattr(import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"class {path!r} cannot be imported ({error}); check the spelling, or install its package"
        ) from error
    if not inspect.isclass(found) or not all(hasattr(found, method) for method in ("fit", "get_params")):
        raise ValueError(f"class {path!r} is not a scikit-learn estimator: fit or get_params is missing")
    if not hasattr(found, "predict_proba"):
        raise ValueError(f"class {path!r} has no predict_proba: choose a classifier that predicts probabilities")
    return found
