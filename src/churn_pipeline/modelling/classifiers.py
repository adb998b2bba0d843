"""Classifiers by import path: which arguments they take, and what a candidate sets unless its configuration does."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any

# By class name. These libraries otherwise print, write files, or depend on the number of cores.
# n_jobs: 0 lets LightGBM follow OpenMP, whose threads `reproducible_threads` limits. CatBoost's own default of
# leaf_estimation_iterations depends on the number of trees, so the first trees would differ with the number of trees.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "LGBMClassifier": {"n_jobs": 0, "deterministic": True, "force_col_wise": True, "verbosity": -1},
    "XGBClassifier": {"n_jobs": 1},
    "CatBoostClassifier": {
        "thread_count": 1,
        "verbose": False,
        "allow_writing_files": False,
        "leaf_estimation_iterations": 10,
    },
}


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
    except (ImportError, AttributeError, OSError) as error:
        raise ValueError(f"class {path!r} cannot be imported ({error}); {_import_help(module_name, error)}") from error
    if not inspect.isclass(found) or not all(hasattr(found, method) for method in ("fit", "get_params")):
        raise ValueError(f"class {path!r} is not a scikit-learn estimator: fit or get_params is missing")
    if not hasattr(found, "predict_proba"):
        raise ValueError(f"class {path!r} has no predict_proba: choose a classifier that predicts probabilities")
    return found


def _import_help(module_name: str, error: Exception) -> str:
    if isinstance(error, OSError):
        return "install that system library (Debian: apt install libgomp1; macOS: brew install libomp)"
    if module_name.partition(".")[0] in ("xgboost", "catboost"):
        return "install it with: pip install 'churn-pipeline[boosters]'"
    return "check the spelling, or install its package"


def with_defaults(estimator: type[Any], arguments: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Add the arguments that make a classifier reproducible and silent, unless they are set.

    Parameters
    ----------
    estimator : type
        The classifier.
    arguments : Mapping of str
        The candidate's arguments; not changed.
    seed : int
        Value of ``random_state``, if the classifier has one.

    Returns
    -------
    dict of str
        All arguments.
    """
    random_state = {"random_state": seed} if "random_state" in _accepted(estimator) else {}
    return {**random_state, **DEFAULTS.get(estimator.__name__, {}), **arguments}


def unknown_arguments(estimator: type[Any], names: Iterable[str]) -> list[str]:
    """Find names that are no arguments of a classifier.

    Parameters
    ----------
    estimator : type
        The classifier.
    names : iterable of str
        Names from the configuration.

    Returns
    -------
    list of str
        The unknown names, sorted. A class of an unknown library that takes ``**kwargs`` accepts every name.
    """
    unknown = sorted(set(names) - set(_accepted(estimator)))
    if estimator.__name__ == "LGBMClassifier":
        return _unknown_to_lightgbm(tuple(unknown))
    return [] if "kwargs" in _accepted(estimator) else unknown


def known_arguments(estimator: type[Any]) -> Sequence[str]:
    """List the arguments of a classifier, for error messages.

    Parameters
    ----------
    estimator : type
        The classifier.

    Returns
    -------
    sequence of str
        Their names.
    """
    return [name for name in _accepted(estimator) if name != "kwargs"]


def _accepted(estimator: type[Any]) -> list[str]:
    """Names in the signature; XGBoost and LightGBM declare further ones by `get_params`."""
    names = [name for name in inspect.signature(estimator.__init__).parameters if name != "self"]
    if estimator.__name__ in DEFAULTS and "kwargs" in names:
        declared = set(estimator().get_params())
        return sorted(declared) if estimator.__name__ == "XGBClassifier" else [*sorted(declared), "kwargs"]
    return names


class _Messages:
    """Collects what LightGBM logs."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def info(self, text: str) -> None:
        self.texts.append(text)

    warning = info


@cache
def _unknown_to_lightgbm(names: tuple[str, ...]) -> list[str]:
    """Ask LightGBM, which accepts all of its training parameters and only warns of other names."""
    import lightgbm
    import numpy as np

    if not names:
        return []
    messages = _Messages()
    lightgbm.register_logger(messages)
    try:
        # An empty value is not read, but its name is checked.
        lightgbm.Dataset(np.zeros((2, 1)), params={**dict.fromkeys(names, ""), "verbosity": 0}).construct()
    finally:
        lightgbm.register_logger(logging.getLogger("lightgbm"))
    warned = {text.partition("Unknown parameter: ")[2].strip() for text in messages.texts}
    return [name for name in names if name in warned or not name.isidentifier()]
