"""What may be tried on a table: a classifier by its import path, and what stands in front of it.

A candidate is configuration. `Candidate` reads it, and says what is wrong with it before anything is fitted;
`build_candidate` makes the one scikit-learn pipeline in which everything learned from data is fitted.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, model_validator
from sklearn.base import is_classifier
from sklearn.ensemble import BaggingClassifier
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from churn_pipeline.modelling.preprocessing import Numeric, QuantileSplines, RandomPairs, build_preprocessing
from churn_pipeline.modelling.space import GROUPS, Space

# What skops may load, beyond what it trusts itself. Everything here computes; nothing here runs code it was given.
TRUSTED_TYPES: tuple[str, ...] = (
    "churn_pipeline.modelling.candidates.CandidatePipeline",
    "churn_pipeline.modelling.ensemble.BlendedModel",
    "churn_pipeline.modelling.preprocessing.QuantileSplines",
    "churn_pipeline.modelling.preprocessing.RandomPairs",
    "churn_pipeline.modelling.preprocessing.limit_scores",
    "churn_pipeline.modelling.preprocessing.round_to_float32",
    "numpy.dtype",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
)

# Below this many rows a second OpenMP thread saves nothing, and where others want the cores, waiting for it costs
# thirty times the work.
ROWS_FOR_THREADS = 100_000

NUMERIC_ARGUMENTS: dict[str, tuple[str, ...]] = {
    "as_is": ("pairs",),
    "scaled": (),
    "splines": tuple(inspect.signature(QuantileSplines).parameters),
}
CATEGORICAL_ARGUMENTS: tuple[str, ...] = ("min_frequency", "max_categories")


class Candidate(BaseModel):
    """A classifier to try, and what stands in front of it.

    Attributes
    ----------
    class_path : str
        Import path of a scikit-learn-compatible classifier with ``predict_proba``; ``class`` in configuration.
    arguments : dict
        Its arguments.
    numeric : {"as_is", "scaled", "splines"}
        What becomes of a number: nothing (for trees), a standard score, or B-splines on quantile knots (the last two
        for linear models).
    numeric_arguments : dict
        For ``splines``: ``n_knots`` and ``degree``. For ``as_is``: ``pairs``, how many sums and differences of two
        numbers the classifier also sees (`RandomPairs`). None for ``scaled``.
    categorical_arguments : dict
        ``min_frequency`` and ``max_categories``: what is rarer shares one column with what was never seen.
    copies : int
        How many of it, alike but for what each draws at random, are fitted and averaged. A search tries single ones.
    space : Space, optional
        What a search may vary. Each argument named there is also given above: that is what the search tries first.
    trials : int
        How many trials its search takes, unless the search's settings say otherwise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_by_name=True, validate_by_alias=True)

    class_path: str = Field(alias="class")
    arguments: dict[str, Any] = Field(default_factory=dict)
    numeric: Numeric = "as_is"
    numeric_arguments: dict[str, Any] = Field(default_factory=dict)
    categorical_arguments: dict[str, Any] = Field(default_factory=dict)
    copies: int = Field(default=1, ge=1)
    space: Space | None = None
    trials: int = Field(default=10, ge=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Refuse what could not be built, with every reason at once."""
        estimator = import_classifier(self.class_path)
        known = {
            "arguments": (_parameters(estimator), self.class_path),
            "numeric_arguments": (NUMERIC_ARGUMENTS[self.numeric], f"numeric: {self.numeric}"),
            "categorical_arguments": (CATEGORICAL_ARGUMENTS, "one-hot encoding"),
        }
        problems = []
        for group, (names, of) in known.items():
            problems += _unknown(group, getattr(self, group), names, of)
            problems += _unknown(f"space.{group}", getattr(self.space, group, {}), names, of)
        if problems := problems or self._misplaced():
            raise ValueError("; ".join(problems))
        return self

    def _misplaced(self) -> list[str]:
        """Say which searched arguments have no first value, or one outside the space."""
        problems = []
        for group, name, dimension in self.space.dimensions() if self.space else ():
            given = getattr(self, group)
            if name not in given:
                problems.append(f"space.{group} searches {name}: give {group} the {name} to try first")
            elif not dimension.holds(given[name]):
                problems.append(f"{group} has {name}: {given[name]!r}, which its space does not hold ({dimension})")
        return problems

    @property
    def searched(self) -> dict[str, Any]:
        """What its own arguments say of all that is searched, by ``group.name``: the first trial."""
        dimensions = self.space.dimensions() if self.space else ()
        return {f"{group}.{name}": getattr(self, group)[name] for group, name, _ in dimensions}

    def with_values(self, values: Mapping[str, Any]) -> Candidate:
        """The candidate with other arguments, nothing of it being searched any more.

        Parameters
        ----------
        values : Mapping of str
            By ``group.name``, as of `searched`.

        Returns
        -------
        Candidate
            A new one, without space and trials.
        """
        groups: dict[str, Any] = {group: dict(getattr(self, group)) for group in GROUPS}
        for key, value in values.items():
            group, _, name = key.partition(".")
            groups[group][name] = value
        return Candidate(class_path=self.class_path, numeric=self.numeric, copies=self.copies, **groups)


class CandidatePipeline(Pipeline):  # type: ignore[misc]
    """A Pipeline that computes the same on any number of cores.

    What BLAS adds up, it adds up in an order that depends on its number of threads: here it has one. That costs little,
    since matrices are narrow. Histogram gradient boosting gives the same with any number, and on large tables keeps
    all its threads.
    """

    def fit(self, X: pd.DataFrame, y: Any = None, **params: Any) -> Self:
        """Fit all steps.

        Parameters
        ----------
        X : DataFrame of shape (n_rows, n_columns)
            Customers; not changed.
        y : array-like of shape (n_rows,)
            1 for those who churned, 0 for the others.
        **params
            As of `sklearn.pipeline.Pipeline.fit`.

        Returns
        -------
        CandidatePipeline
            Itself.
        """
        with _steady_threads(len(X)):
            super().fit(X, y, **params)
        return self

    def predict_proba(self, X: pd.DataFrame, **params: Any) -> npt.NDArray[np.float64]:
        """Estimate probabilities.

        Parameters
        ----------
        X : DataFrame of shape (n_rows, n_columns)
            Customers; not changed.
        **params
            As of `sklearn.pipeline.Pipeline.predict_proba`.

        Returns
        -------
        ndarray of shape (n_rows, 2), float64
            Probabilities of staying and of churning.
        """
        with _steady_threads(len(X)):
            probabilities: npt.NDArray[np.float64] = super().predict_proba(X, **params)
        return probabilities


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
            f"class {path!r} cannot be imported ({error}); check the spelling, or install the package it is in"
        ) from error
    if not inspect.isclass(found) or not all(hasattr(found, method) for method in ("fit", "get_params")):
        raise ValueError(f"class {path!r} is not a scikit-learn estimator: it lacks fit or get_params")
    if not hasattr(found, "predict_proba"):
        raise ValueError(f"class {path!r} has no predict_proba: a candidate must give probabilities")
    return found


def build_candidate(
    candidate: Candidate, numeric: Sequence[str], categorical: Sequence[str], seed: int
) -> CandidatePipeline:
    """Build the pipeline of a candidate.

    Parameters
    ----------
    candidate : Candidate
        What to build.
    numeric : Sequence of str
        Columns of float64, NaN where missing.
    categorical : Sequence of str
        Columns of str, ``""`` where missing.
    seed : int
        Becomes the classifier's ``random_state``, if it has one and the candidate does not set it.

    Returns
    -------
    CandidatePipeline
        Unfitted, a `sklearn.pipeline.Pipeline` of two steps, ``preprocessing`` and ``classifier``, that takes a
        DataFrame with these columns.

    Raises
    ------
    ValueError
        If there is no column, or the classifier refuses its arguments.
    """
    estimator = import_classifier(candidate.class_path)
    arguments = dict(candidate.arguments)
    if "random_state" in _parameters(estimator):
        arguments.setdefault("random_state", seed)
    classifier = estimator(**arguments)
    if not is_classifier(classifier):
        raise ValueError(f"class {candidate.class_path!r} is not a classifier")
    if numeric and (n_pairs := candidate.numeric_arguments.get("pairs", 0)):
        # Behind the preprocessing, which the copies share: each draws pairs of its own.
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
    )
    return CandidatePipeline([("preprocessing", preprocessing), ("classifier", classifier)])


@contextmanager
def _steady_threads(n_rows: int) -> Iterator[None]:
    """Give BLAS one thread, and OpenMP too if the table is small."""
    limits = {"blas": 1} if n_rows >= ROWS_FOR_THREADS else {"blas": 1, "openmp": 1}
    with threadpool_limits(limits):
        yield


def _parameters(estimator: type[Any]) -> tuple[str, ...]:
    """Names of the arguments a class takes."""
    return tuple(name for name in inspect.signature(estimator.__init__).parameters if name != "self")


def _unknown(where: str, given: dict[str, Any], known: Sequence[str], of: str) -> list[str]:
    """Say which given arguments are not known; a class with ``**kwargs`` knows them all."""
    unknown = sorted(set(given) - set(known))
    if not unknown or "kwargs" in known:
        return []
    return [f"{where} {unknown} are not known to {of}; it takes {sorted(known) or 'none'}"]
