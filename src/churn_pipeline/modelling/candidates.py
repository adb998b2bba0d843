"""Candidates: a classifier, given by its import path, and the preprocessing in front of it.

A candidate is configuration. `Candidate` validates it before anything is fitted. `build_candidate` builds one
scikit-learn pipeline, and everything that is learned from data is fitted inside it.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, model_validator
from sklearn import config_context
from sklearn.base import is_classifier
from sklearn.ensemble import BaggingClassifier
from sklearn.pipeline import Pipeline
from sklearn.utils.metadata_routing import get_routing_for_object
from threadpoolctl import threadpool_limits

from churn_pipeline.modelling.classifiers import import_classifier, known_arguments, unknown_arguments, with_defaults
from churn_pipeline.modelling.preprocessing import QuantileSplines, RandomPairs
from churn_pipeline.modelling.preprocessing_steps import CategoricalKind, NumericKind, build_preprocessing
from churn_pipeline.modelling.space import GROUPS, Choices, Range, Space

# Below this many rows a second OpenMP thread saves nothing. If the cores are busy, waiting for it takes thirty times
# as long as the work.
ROWS_FOR_THREADS = 100_000

NUMERIC_ARGUMENTS: dict[str, tuple[str, ...]] = {
    "as_is": ("pairs",),
    "scaled": (),
    "splines": tuple(inspect.signature(QuantileSplines).parameters),
}
CATEGORICAL_ARGUMENTS: dict[str, tuple[str, ...]] = {
    "one_hot": ("min_frequency", "max_categories"),
    "target": ("smooth",),
}


class Candidate(BaseModel):
    """A classifier to try, and its preprocessing.

    Attributes
    ----------
    class_path : str
        Import path of a scikit-learn-compatible classifier with ``predict_proba``; ``class`` in configuration.
    arguments : dict
        Arguments of the classifier.
    numeric : {"as_is", "scaled", "splines"}
        How numeric columns are transformed: not at all (for trees), to z-scores, or to B-splines on quantile knots
        (both for linear models).
    numeric_arguments : dict
        For ``splines``: ``n_knots`` and ``degree``. For ``as_is``: ``pairs``, the number of randomly drawn sums and
        differences of two columns that are added as features (`RandomPairs`). For ``scaled``: empty.
    categorical : {"one_hot", "target"}
        How categorical columns are transformed: to one column per level, or each level to the churn share of its rows
        (`CustomerTargetEncoder`, for trees and columns with many levels).
    categorical_arguments : dict
        For ``one_hot``: ``min_frequency`` and ``max_categories``; rarer levels share one column with unseen levels. For
        ``target``: ``smooth``, the number of rows with the mean churn share that are added to each level.
    copies : int
        Number of models that are fitted and averaged; they differ only in their random draws. Trials fit one.
    space : Space, optional
        Arguments that a search varies. Each of them also needs a value above, which the first trial uses.
    starts : list of dict
        Values that the next trials use, by argument; an argument that is not given keeps its value above.
    trials : int
        Number of trials of its search; `SearchSettings` may override it.
    keep : int
        Number of its best trials that the choice may blend.
    share : float
        Share of the time left that its search may use.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_by_name=True, validate_by_alias=True)

    class_path: str = Field(alias="class")
    arguments: dict[str, Any] = Field(default_factory=dict)
    numeric: NumericKind = "as_is"
    numeric_arguments: dict[str, Any] = Field(default_factory=dict)
    categorical: CategoricalKind = "one_hot"
    categorical_arguments: dict[str, Any] = Field(default_factory=dict)
    copies: int = Field(default=1, ge=1)
    space: Space | None = None
    starts: list[dict[str, Any]] = Field(default_factory=list)
    trials: int = Field(default=10, ge=1)
    keep: int = Field(default=1, ge=1)
    share: float = Field(default=0.25, gt=0, le=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Reject what could not be built, and list all reasons."""
        estimator = import_classifier(self.class_path)
        problems = []
        for where, given in (("arguments", self.arguments), ("space.arguments", getattr(self.space, "arguments", {}))):
            if unknown := unknown_arguments(estimator, given):
                problems.append(_unknown_text(where, unknown, self.class_path, known_arguments(estimator)))
        known = {
            "numeric_arguments": (NUMERIC_ARGUMENTS[self.numeric], f"numeric: {self.numeric}"),
            "categorical_arguments": (CATEGORICAL_ARGUMENTS[self.categorical], f"categorical: {self.categorical}"),
        }
        for group, (names, owner) in known.items():
            problems += _unknown(group, getattr(self, group), names, owner)
            problems += _unknown(f"space.{group}", getattr(self.space, group, {}), names, owner)
        if problems := problems or self._space_problems():
            raise ValueError("; ".join(problems))
        return self

    def _space_problems(self) -> list[str]:
        """List searched arguments without a first value, and first values outside the space."""
        problems = []
        for group, name, dimension in self._dimensions():
            given = getattr(self, group)
            if name not in given:
                problems.append(f"space.{group} varies {name}: add {name} to {group}, as the value of the first trial")
            elif not dimension.contains(given[name]):
                problems.append(f"{group} has {name}: {given[name]!r}, which is outside its space ({dimension})")
        searched = {name: dimension for _, name, dimension in self._dimensions()}
        for number, start in enumerate(self.starts, start=1):
            problems += [
                f"start {number} has {name}: {value!r}, which is "
                + (f"outside its space ({searched[name]})" if name in searched else "not in the space")
                for name, value in start.items()
                if name not in searched or not searched[name].contains(value)
            ]
        return problems

    def _dimensions(self) -> list[tuple[str, str, Range | Choices]]:
        return list(self.space.dimensions()) if self.space else []

    @property
    def first_trials(self) -> list[dict[str, Any]]:
        """Values of the first trials, by ``group.name``: the configured ones, then those of `starts`."""
        configured = {f"{group}.{name}": getattr(self, group)[name] for group, name, _ in self._dimensions()}
        groups = {name: group for group, name, _ in self._dimensions()}
        starts = [{f"{groups[name]}.{name}": value for name, value in start.items()} for start in self.starts]
        return [configured, *(configured | start for start in starts)]

    def with_values(self, values: Mapping[str, Any]) -> Candidate:
        """Return the candidate with these arguments, and without a search space.

        Parameters
        ----------
        values : Mapping of str
            By ``group.name``, as in `first_trials`.

        Returns
        -------
        Candidate
            A new candidate, without `space` and with the default `trials`.
        """
        groups: dict[str, Any] = {group: dict(getattr(self, group)) for group in GROUPS}
        for key, value in values.items():
            group, _, name = key.partition(".")
            groups[group][name] = value
        return Candidate(
            class_path=self.class_path,
            numeric=self.numeric,
            categorical=self.categorical,
            copies=self.copies,
            **groups,
        )


class CandidatePipeline(Pipeline):  # type: ignore[misc]
    """A Pipeline that computes the same on any number of cores.

    The order in which BLAS sums depends on its number of threads, so it gets one. That costs little, because matrices
    are narrow. Histogram gradient boosting gives the same result with any number of threads, and keeps all of them on
    large tables.
    """

    def fit(self, X: pd.DataFrame, y: Any = None, groups: npt.NDArray[np.int64] | None = None, **params: Any) -> Self:
        """Fit all steps; those that split rows, such as networks that stop early, split them by customer.

        Parameters
        ----------
        X : DataFrame of shape (n_rows, n_columns)
            Customers; not changed.
        y : array-like of shape (n_rows,)
            1 for customers who churned, 0 for the others.
        groups : ndarray of int64, shape (n_rows,), optional
            The customer of each row; None if each row is a customer of its own.
        **params
            As in `sklearn.pipeline.Pipeline.fit`.

        Returns
        -------
        CandidatePipeline
            Itself.
        """
        with reproducible_threads(len(X)), config_context(enable_metadata_routing=groups is not None):
            # scikit-learn refuses groups that no step accepts.
            if groups is not None and self.get_metadata_routing().consumes("fit", ["groups"]):
                params["groups"] = groups
            super().fit(X, y, **params)
        return self

    def predict_proba(self, X: pd.DataFrame, **params: Any) -> npt.NDArray[np.float64]:
        """Predict probabilities.

        Parameters
        ----------
        X : DataFrame of shape (n_rows, n_columns)
            Customers; not changed.
        **params
            As in `sklearn.pipeline.Pipeline.predict_proba`.

        Returns
        -------
        ndarray of shape (n_rows, 2), float64
            Probabilities of staying and of churning.
        """
        with reproducible_threads(len(X)):
            probabilities: npt.NDArray[np.float64] = super().predict_proba(X, **params)
        return probabilities


def build_candidate(
    candidate: Candidate, numeric: Sequence[str], categorical: Sequence[str], seed: int
) -> CandidatePipeline:
    """Build the pipeline of a candidate.

    Parameters
    ----------
    candidate : Candidate
        The candidate to build.
    numeric : Sequence of str
        Columns of float64, NaN where missing.
    categorical : Sequence of str
        Columns of str, ``""`` where missing.
    seed : int
        Seed of the classifier's ``random_state``, if it has one that the candidate does not set.

    Returns
    -------
    CandidatePipeline
        Unfitted, a `sklearn.pipeline.Pipeline` of two steps, ``preprocessing`` and ``classifier``, that takes a
        DataFrame with these columns.

    Raises
    ------
    ValueError
        If there is no column, or the classifier rejects its arguments.
    """
    estimator = import_classifier(candidate.class_path)
    classifier = estimator(**with_defaults(estimator, candidate.arguments, seed))
    if not is_classifier(classifier):
        raise ValueError(f"class {candidate.class_path!r} is not a classifier: choose another class")
    if numeric and (n_pairs := candidate.numeric_arguments.get("pairs", 0)):
        # Copies share the preprocessing, but each draws its own pairs.
        pairs = RandomPairs(n_pairs, n_columns=len(numeric), random_state=seed)
        classifier = Pipeline([("pairs", pairs), ("classifier", classifier)])
    if candidate.copies > 1:
        classifier = BaggingClassifier(classifier, candidate.copies, bootstrap=False, random_state=seed)
    preprocessing = build_preprocessing(
        candidate.numeric,
        numeric,
        categorical,
        candidate.numeric_arguments,
        candidate.categorical_arguments,
        candidate.categorical,
    )
    return CandidatePipeline([("preprocessing", preprocessing), ("classifier", classifier)])


def fit_transform(step: Any, X: Any, y: pd.Series, groups: npt.NDArray[np.int64] | None) -> Any:
    """Fit a preprocessing step and transform its rows; a step that splits rows splits them by customer."""
    with config_context(enable_metadata_routing=groups is not None):
        routed = groups is not None and get_routing_for_object(step).consumes("fit_transform", ["groups"])
        return step.fit_transform(X, y, **({"groups": groups} if routed else {}))


@contextmanager
def reproducible_threads(n_rows: int) -> Iterator[None]:
    """Limit BLAS to one thread; on small tables OpenMP too."""
    limits = {"blas": 1} if n_rows >= ROWS_FOR_THREADS else {"blas": 1, "openmp": 1}
    with threadpool_limits(limits):
        yield


def _unknown(where: str, given: dict[str, Any], known: Sequence[str], owner: str) -> list[str]:
    unknown = sorted(set(given) - set(known))
    return [_unknown_text(where, unknown, owner, known)] if unknown else []


def _unknown_text(where: str, unknown: list[str], owner: str, known: Sequence[str]) -> str:
    return f"{where} {unknown} are unknown to {owner}; it accepts {sorted(known) or 'none'}"
