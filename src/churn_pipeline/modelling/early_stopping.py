"""Early stopping that validates on other customers than it trains on."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import clone
from sklearn.ensemble import BaggingClassifier, HistGradientBoostingClassifier
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline

from churn_pipeline.modelling.candidates import CandidatePipeline, reproducible_threads

logger = logging.getLogger(__name__)

# Above this many rows, scikit-learn's `early_stopping="auto"` stops early.
ROWS_FOR_AUTO = 10_000


def fit_candidate(
    model: CandidatePipeline, X: pd.DataFrame, y: pd.Series, groups: npt.NDArray[np.int64] | None = None
) -> CandidatePipeline:
    """Fit a candidate; rows of one customer do not decide when boosting stops.

    Histogram gradient boosting stops early on rows that it draws at random. If a customer has several rows, some of them
    validate what the others trained, and boosting stops too late. In that case the number of trees is found first, by
    training and validating one copy on different customers. Then the model is fitted on all rows with this number.

    Parameters
    ----------
    model : CandidatePipeline
        Unfitted, as returned by `build_candidate`; not changed.
    X : DataFrame of shape (n_rows, n_columns)
        Customers; not changed.
    y : Series of shape (n_rows,)
        1 for customers who churned, 0 for the others.
    groups : ndarray of int64, shape (n_rows,), optional
        The customer of each row; None if each row is a customer of its own.

    Returns
    -------
    CandidatePipeline
        A fitted copy.
    """
    model = clone(model)
    if groups is None or len(np.unique(groups)) == len(groups):
        return model.fit(X, y)
    steps, booster = _steps(model)
    if isinstance(booster, HistGradientBoostingClassifier):
        if _stops_early(booster, len(X)):
            booster.set_params(max_iter=_count_trees(steps, booster, X, y, groups), early_stopping=False)
    elif getattr(booster, "early_stopping", False) or getattr(booster, "n_iter_no_change", None):
        logger.warning(
            "%s may stop early on rows drawn at random, although customers have several rows: it stops too late. "
            "Set a fixed number of iterations.",
            type(booster).__name__,
        )
    return model.fit(X, y, groups=groups)


def _steps(model: CandidatePipeline) -> tuple[list[Any], Any]:
    """The steps in front of the classifier, and the classifier itself; of a model with copies, the one that is copied."""
    classifier = model.named_steps["classifier"]
    classifier = classifier.estimator if isinstance(classifier, BaggingClassifier) else classifier
    inner = [step for _, step in classifier.steps] if isinstance(classifier, Pipeline) else [classifier]
    return [model.named_steps["preprocessing"], *inner[:-1]], inner[-1]


def _stops_early(booster: HistGradientBoostingClassifier, n_rows: int) -> bool:
    stops = booster.early_stopping is True or (booster.early_stopping == "auto" and n_rows > ROWS_FOR_AUTO)
    # Without a validation fraction the training loss decides, which needs no split.
    return stops and booster.validation_fraction is not None


def _count_trees(
    steps: list[Any],
    booster: HistGradientBoostingClassifier,
    X: pd.DataFrame,
    y: pd.Series,
    groups: npt.NDArray[np.int64],
) -> int:
    """Train and validate on different customers until the validation loss stops falling; return the number of trees."""
    churned = pd.Series(y.to_numpy()).groupby(groups).max()
    training, _ = train_test_split(
        churned.index.to_numpy(),
        test_size=booster.validation_fraction,
        stratify=churned if churned.value_counts().min() > 1 else None,
        random_state=booster.random_state,
    )
    trains = np.isin(groups, training)
    with reproducible_threads(len(X)):
        inputs, validation = X[trains], X[~trains]
        for step in map(clone, steps):
            inputs = step.fit_transform(inputs, y[trains])
            validation = step.transform(validation)
        counted = clone(booster).fit(inputs, y[trains], X_val=validation, y_val=y[~trains])
    return int(counted.n_iter_)
