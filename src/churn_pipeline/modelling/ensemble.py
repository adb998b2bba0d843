"""Blends of fitted candidates, and their calibration.

`BlendedModel` is a scikit-learn classifier: it predicts, is stored with skops and is converted to ONNX as one object. Its
prediction is a weighted sum of its members' calibrated log-odds. That is easy to interpret and to convert exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field
from scipy.special import expit
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from churn_pipeline.modelling.candidates import CandidatePipeline
from churn_pipeline.modelling.probability_classifier import ProbabilityClassifier

Floats = npt.NDArray[np.float64]

# Log-odds of 0 and 1 are infinite, and nearby a probability's last digit changes them by whole units. So probabilities are
# shrunk to [0.0001, 0.9999], linearly instead of by clipping, which would create ties.
SHRINKAGE = 1e-4


class Calibration(BaseModel):
    """A calibration: ``logit(calibrated) = a * log(p) - b * log(1 - p) + c``.

    With ``a = b`` it is logistic calibration (Platt), otherwise beta calibration, which can also correct errors at one end
    of the scale. Slopes are not negative, so it never reverses the order of customers.

    Attributes
    ----------
    kind : {"logistic", "beta"}
        Kind of calibration.
    a, b : float
        Slopes, at least 0.
    c : float
        Intercept.

    References
    ----------
    Platt (1999), "Probabilistic Outputs for Support Vector Machines", Advances in Large Margin Classifiers.
    Kull, Silva Filho & Flach (2017), "Beta calibration: a well-founded and easily implemented improvement on logistic
    calibration for binary classifiers", AISTATS.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["logistic", "beta"]
    a: float = Field(ge=0)
    b: float = Field(ge=0)
    c: float


class Member(BaseModel):
    """A member of a blend, or the only candidate of the chosen model.

    Attributes
    ----------
    candidate : str
        The candidate's name.
    weight : float
        Weight of its log-odds; the weights of all members sum to 1.
    calibration : Calibration, optional
        Calibration of its probabilities, applied first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    candidate: str
    weight: float = Field(gt=0, le=1)
    calibration: Calibration | None = None


def shrunken_logs(p: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Logarithms of probabilities that are shrunk away from 0 and 1.

    Parameters
    ----------
    p : array-like of float
        Probabilities.

    Returns
    -------
    log_p, log_1mp : ndarray of float64
        ``log(q)`` and ``log(1 - q)``, where ``q`` maps [0, 1] linearly to [`SHRINKAGE`, ``1 - SHRINKAGE``].
    """
    shrunk = SHRINKAGE + (1.0 - 2.0 * SHRINKAGE) * np.asarray(p, dtype=np.float64)
    return np.log(shrunk), np.log(1.0 - shrunk)


def log_odds(p: npt.ArrayLike, calibration: Calibration | None = None) -> Floats:
    """Log-odds of shrunk probabilities, calibrated if a calibration is given.

    Parameters
    ----------
    p : array-like of float
        Probabilities.
    calibration : Calibration, optional
        The calibration to apply.

    Returns
    -------
    ndarray of float64
        Log-odds, with the shape of ``p``.
    """
    return _log_odds(p, *slopes(calibration))


def slopes(calibration: Calibration | None) -> tuple[float, float, float]:
    """Return ``a``, ``b`` and ``c`` of a calibration; (1, 1, 0) for none."""
    return (1.0, 1.0, 0.0) if calibration is None else (calibration.a, calibration.b, calibration.c)


def _log_odds(p: npt.ArrayLike, a: float, b: float, c: float) -> Floats:
    log_p, log_1mp = shrunken_logs(p)
    return a * log_p - b * log_1mp + c


class BlendedModel(ProbabilityClassifier):
    """A probability from the weighted mean of candidates' calibrated log-odds.

    With one member of weight 1 it is a calibrated candidate. It starts no threads, so it computes the same on any number
    of cores, as its members do.

    Parameters
    ----------
    members : list of (str, CandidatePipeline)
        Names and candidates.
    weights : list of float
        Weight of each member; they sum to 1.
    calibrations : list of (float, float, float)
        ``a``, ``b`` and ``c`` of each member's `Calibration`; ``(1, 1, 0)`` is no calibration.

    Attributes
    ----------
    classes_ : ndarray of shape (2,)
        0 for staying and 1 for churning.
    """

    def __init__(
        self,
        members: list[tuple[str, CandidatePipeline]],
        weights: list[float],
        calibrations: list[tuple[float, float, float]],
    ) -> None:
        self.members = members
        self.weights = weights
        self.calibrations = calibrations

    @property
    def classes_(self) -> npt.NDArray[np.int64]:
        """Classes of the members."""
        classes: npt.NDArray[np.int64] = self.members[0][1].classes_
        return classes

    @property
    def feature_names_in_(self) -> npt.NDArray[np.object_]:
        """Names of the columns that the members were fitted on."""
        names: npt.NDArray[np.object_] = self.members[0][1].feature_names_in_
        return names

    @property
    def n_features_in_(self) -> int:
        """Number of columns that the members were fitted on."""
        return int(self.members[0][1].n_features_in_)

    def __sklearn_is_fitted__(self) -> bool:
        """Whether all members are fitted."""
        try:
            for _, model in self.members:
                check_is_fitted(model)
        except NotFittedError:
            return False
        return True

    def fit(self, X: pd.DataFrame, y: Any = None, groups: npt.NDArray[np.int64] | None = None) -> Self:
        """Fit the members; weights and calibrations stay as given.

        Parameters
        ----------
        X : DataFrame of shape (n_rows, n_columns)
            Customers; not changed.
        y : array-like of shape (n_rows,)
            1 for customers who churned, 0 for the others.
        groups : ndarray of int64, shape (n_rows,), optional
            The customer of each row, for members that split rows; None if each row is a customer of its own.

        Returns
        -------
        BlendedModel
            Itself.
        """
        for _, model in self.members:
            model.fit(X, y, groups=groups)
        return self

    def predict_proba(self, X: pd.DataFrame) -> Floats:
        """Predict probabilities.

        Parameters
        ----------
        X : DataFrame of shape (n_rows, n_columns)
            Customers; not changed.

        Returns
        -------
        ndarray of shape (n_rows, 2), float64
            Probabilities of staying and of churning.
        """
        check_is_fitted(self)
        total = np.zeros(len(X))
        # In the order of the members, as in the ONNX model.
        for (_, model), weight, numbers in zip(self.members, self.weights, self.calibrations, strict=True):
            total = total + weight * _log_odds(model.predict_proba(X)[:, 1], *numbers)
        probability = expit(total)
        return np.column_stack([1.0 - probability, probability])


def assemble(models: Mapping[str, CandidatePipeline], members: Sequence[Member]) -> CandidatePipeline | BlendedModel:
    """Build the chosen model from fitted candidates.

    Parameters
    ----------
    models : Mapping of str to CandidatePipeline
        Fitted candidates by name; only members are used.
    members : Sequence of Member
        Members of the chosen model.

    Returns
    -------
    CandidatePipeline or BlendedModel
        The candidate itself, if it is the only member and is not calibrated.

    Raises
    ------
    ValueError
        If there is no member, or its model is missing.
    """
    missing = sorted({member.candidate for member in members} - set(models))
    if missing or not members:
        raise ValueError(
            f"The choice needs models of {missing or 'at least one candidate'}, but there are models of {sorted(models)}: "
            "fit all candidates and choose again."
        )
    if len(members) == 1 and members[0].calibration is None:
        return models[members[0].candidate]
    return BlendedModel(
        members=[(member.candidate, models[member.candidate]) for member in members],
        weights=[member.weight for member in members],
        calibrations=[slopes(member.calibration) for member in members],
    )
