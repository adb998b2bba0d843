"""Calibration on the log-odds scale: Cox's line, and calibration-in-the-large, with robust standard errors."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from churn_pipeline.evaluation.intervals import group_sums
from churn_pipeline.evaluation.predictions import Probabilities, check_predictions

# Probabilities are clipped this far from 0 and 1, where log-odds are infinite
EPSILON = 1e-6
# Log-odds beyond this count as 0 and 1
WIDEST_SHIFT = 50.0


@dataclass(frozen=True)
class CalibrationLine:
    """Intercept and slope of a logistic regression of `y` on the log-odds of `p`, with standard errors.

    A calibrated model has intercept 0 and slope 1.
    """

    intercept: float
    slope: float
    intercept_error: float
    slope_error: float


@dataclass(frozen=True)
class Shift:
    """Calibration-in-the-large: what must be added to all log-odds so that the model predicts the observed number of churners.

    A model is calibrated in the large if it is 0. Above 0, churn probabilities are too low.
    """

    value: float
    error: float


def calibration_line(y: npt.ArrayLike, p: npt.ArrayLike, groups: npt.ArrayLike | None = None) -> CalibrationLine:
    """Fit Cox's calibration line, with robust standard errors.

    If all probabilities are equal, the slope is undefined: it is returned as 1 with an infinite standard error.

    Parameters
    ----------
    y, p : array-like of shape (n,)
        Labels (1 for churned) and churn probabilities.
    groups : array-like of shape (n,), optional
        Group key of each row; rows with the same key are not treated as independent.

    References
    ----------
    Cox (1958), "Two Further Applications of a Model for Binary Regression", Biometrika 45.
    White (1982), "Maximum Likelihood Estimation of Misspecified Models", Econometrica 50: the standard errors.
    """
    labels, probabilities = check_predictions(y, p)
    log_odds = _log_odds(probabilities)
    if np.ptp(log_odds) < EPSILON:
        error = 1 / np.sqrt(labels.size * max(labels.mean() * (1 - labels.mean()), EPSILON))
        shift = logit(np.clip(labels.mean(), EPSILON, 1 - EPSILON)) - log_odds.mean()
        return CalibrationLine(float(shift), 1.0, float(error), np.inf)
    fitted = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(log_odds[:, None], labels)
    design = np.column_stack((np.ones(log_odds.size), log_odds))
    share = fitted.predict_proba(log_odds[:, None])[:, 1]
    scores = group_sums(design * (labels - share)[:, None], groups)
    # The pseudo-inverse, because the matrix is singular if the classes are perfectly separated
    bread = np.linalg.pinv(np.einsum("ni,n,nj->ij", design, share * (1 - share), design))
    errors = np.sqrt(np.diag(bread @ np.einsum("ni,nj->ij", scores, scores) @ bread))
    return CalibrationLine(float(fitted.intercept_[0]), float(fitted.coef_[0, 0]), float(errors[0]), float(errors[1]))


def calibration_in_the_large(y: npt.ArrayLike, p: npt.ArrayLike, groups: npt.ArrayLike | None = None) -> Shift:
    """Estimate calibration-in-the-large: Cox's intercept with the slope fixed at 1.

    Parameters
    ----------
    y, p : array-like of shape (n,)
        Labels (1 for churned), of which both classes occur, and churn probabilities.
    groups : array-like of shape (n,), optional
        Group key of each row; rows with the same key are not treated as independent.

    References
    ----------
    Van Calster et al. (2016), "A calibration hierarchy for risk models was defined", Journal of Clinical Epidemiology 74.
    """
    labels, probabilities = check_predictions(y, p)
    log_odds, churners = _log_odds(probabilities), labels.sum()
    value = float(brentq(lambda by: expit(log_odds + by).sum() - churners, -WIDEST_SHIFT, WIDEST_SHIFT))
    share = expit(log_odds + value)
    scores = group_sums(labels - share, groups)
    return Shift(value, float(np.sqrt((scores**2).sum()) / (share * (1 - share)).sum()))


def _log_odds(p: Probabilities) -> Probabilities:
    return np.asarray(logit(np.clip(p, EPSILON, 1 - EPSILON)))
