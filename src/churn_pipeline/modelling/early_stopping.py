"""Boosting stops early on the validation rows of each fold, and is then fitted on all rows with the number of trees found.

Rows of one customer never lie on both sides of a fold, so they cannot decide together when boosting stops. A fold is
predicted by a model whose number of trees was found on the validation rows of the other folds, not on its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from churn_pipeline.modelling.candidates import Candidate, CandidatePipeline, fit_transform, reproducible_threads
from churn_pipeline.modelling.classifiers import import_classifier

Floats = npt.NDArray[np.float64]
Rows = tuple[Floats, npt.NDArray[np.int64]]
Groups = npt.NDArray[np.int64] | None


@dataclass(frozen=True)
class _Library:
    """How one library's classifier stops early.

    Attributes
    ----------
    trees : str
        Argument with the number of trees.
    off : dict
        Arguments that switch early stopping off; None removes the argument.
    stops : callable
        Whether it stops early with these arguments.
    fit : callable
        Fits it on rows and stops on others; returns their probabilities and the number of trees.
    """

    trees: str
    off: Mapping[str, Any]
    stops: Callable[[Mapping[str, Any]], bool]
    fit: Callable[[Any, Rows, Rows], tuple[Floats, int]]


def stops_early(candidate: Candidate) -> bool:
    """Whether a candidate finds its number of trees on validation rows.

    Parameters
    ----------
    candidate : Candidate
        The candidate to fit.

    Returns
    -------
    bool
        True for boosting with ``early_stopping_rounds`` (LightGBM, XGBoost, CatBoost) or ``early_stopping: true``
        (scikit-learn's histogram gradient boosting).
    """
    library = _library(candidate)
    return library is not None and library.stops(candidate.arguments)


def with_trees(candidate: Candidate, trees: int) -> Candidate:
    """Return the candidate with a fixed number of trees, and without early stopping.

    Parameters
    ----------
    candidate : Candidate
        A candidate that stops early.
    trees : int
        The number of trees.

    Returns
    -------
    Candidate
        A new candidate.
    """
    library = _library(candidate)
    assert library is not None
    arguments = {**candidate.arguments, **library.off, library.trees: max(1, trees)}
    return candidate.model_copy(
        update={"arguments": {name: value for name, value in arguments.items() if value is not None}}
    )


def trees_for_all_rows(trees: Sequence[int]) -> int:
    """Number of trees for a fit on all rows, from the numbers found on the folds.

    The training rows of one of k folds are a share of (k-1)/k. More rows carry more trees, so the mean is raised by k/(k-1).

    Parameters
    ----------
    trees : Sequence of int
        Number of trees of each fold.

    Returns
    -------
    int
        At least 1.

    Examples
    --------
    >>> trees_for_all_rows([90, 110, 100, 100, 100])
    125
    """
    return max(1, math.floor(sum(trees) / max(1, len(trees) - 1) + 0.5))


def trees_of_other_folds(trees: Sequence[int]) -> list[int]:
    """For each fold, the mean number of trees of the other folds.

    Parameters
    ----------
    trees : Sequence of int
        Number of trees of each fold.

    Returns
    -------
    list of int
        One number per fold.

    Examples
    --------
    >>> trees_of_other_folds([10, 20, 30])
    [25, 20, 15]
    """
    if len(trees) == 1:
        return list(trees)
    total = sum(trees)
    return [max(1, math.floor((total - own) / (len(trees) - 1) + 0.5)) for own in trees]


def fit_and_stop(
    model: CandidatePipeline,
    candidate: Candidate,
    training: tuple[pd.DataFrame, pd.Series, Groups],
    X: pd.DataFrame,
    y: pd.Series,
) -> tuple[Floats, int]:
    """Fit boosting on training rows until it no longer improves on validation rows.

    Parameters
    ----------
    model : CandidatePipeline
        Unfitted and with one copy, as returned by `build_candidate`; not changed.
    candidate : Candidate
        The candidate that the model was built from; it stops early.
    training : (DataFrame, Series, ndarray or None)
        Training rows, their labels, and the customer of each row.
    X : DataFrame of shape (n_rows, n_columns)
        Validation customers.
    y : Series of shape (n_rows,)
        1 for those who churned, 0 for the others.

    Returns
    -------
    probability : ndarray of shape (n_rows,), float64
        Churn probabilities of the validation customers, from the best number of trees.
    trees : int
        That number.
    """
    library = _library(candidate)
    assert library is not None
    classifier = model.named_steps["classifier"]
    inner = [step for _, step in classifier.steps] if isinstance(classifier, Pipeline) else [classifier]
    inputs, label, groups = training
    fitted: Any = inputs
    validation: Any = X
    with reproducible_threads(len(inputs)):
        for step in map(clone, [model.named_steps["preprocessing"], *inner[:-1]]):
            fitted = fit_transform(step, fitted, label, groups)
            validation = step.transform(validation)
        return library.fit(clone(inner[-1]), (fitted, label.to_numpy()), (validation, y.to_numpy()))


def _fit_lightgbm(classifier: Any, training: Rows, validation: Rows) -> tuple[Floats, int]:
    classifier.fit(*training, eval_X=validation[0], eval_y=validation[1])
    return classifier.predict_proba(validation[0])[:, 1], int(classifier.best_iteration_)


def _fit_xgboost(classifier: Any, training: Rows, validation: Rows) -> tuple[Floats, int]:
    classifier.fit(*training, eval_set=[validation], verbose=False)
    return classifier.predict_proba(validation[0])[:, 1].astype(np.float64), int(classifier.best_iteration) + 1


def _fit_catboost(classifier: Any, training: Rows, validation: Rows) -> tuple[Floats, int]:
    classifier.fit(*training, eval_set=validation)
    return classifier.predict_proba(validation[0])[:, 1], int(classifier.tree_count_)


def _fit_histogram(classifier: Any, training: Rows, validation: Rows) -> tuple[Floats, int]:
    classifier.fit(*training, X_val=validation[0], y_val=validation[1])
    # The first score is that of no trees.
    trees = max(1, int(np.argmax(classifier.validation_score_)))
    return next(islice(classifier.staged_predict_proba(validation[0]), trees - 1, None))[:, 1], trees


def _has_rounds(arguments: Mapping[str, Any]) -> bool:
    return arguments.get("early_stopping_rounds") is not None


_ROUNDS_OFF = {"early_stopping_rounds": None}
_LIBRARIES: dict[tuple[str, str], _Library] = {
    ("lightgbm", "LGBMClassifier"): _Library("n_estimators", _ROUNDS_OFF, _has_rounds, _fit_lightgbm),
    ("xgboost", "XGBClassifier"): _Library("n_estimators", _ROUNDS_OFF, _has_rounds, _fit_xgboost),
    ("catboost", "CatBoostClassifier"): _Library("iterations", _ROUNDS_OFF, _has_rounds, _fit_catboost),
    ("sklearn", "HistGradientBoostingClassifier"): _Library(
        "max_iter", {"early_stopping": False}, lambda arguments: arguments.get("early_stopping") is True, _fit_histogram
    ),
}


def _library(candidate: Candidate) -> _Library | None:
    found = import_classifier(candidate.class_path)
    return _LIBRARIES.get((found.__module__.partition(".")[0], found.__name__))
