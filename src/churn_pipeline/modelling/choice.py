"""The choice of a candidate or a blend, and of the calibration of each candidate.

One rule decides, on out-of-fold predictions: the simpler option stays, unless the more complex one lowers the log loss by
more than a set number of standard errors of the paired difference. A hard fold is hard for every candidate. Paired
differences therefore vary several times less than losses, and small differences can be detected.

Calibrations and blend weights are scored on folds that they were not fitted on; the final ones are fitted on all folds.

References
----------
Breiman, Friedman, Olshen & Stone (1984), "Classification and Regression Trees", section 3.4.3: one standard error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit

from churn_pipeline.evaluation.intervals import paired_difference
from churn_pipeline.modelling.blending import Kind, blend, fit_calibration, fit_members
from churn_pipeline.modelling.choice_report import CalibrationReport, Choice, Difference, explain
from churn_pipeline.modelling.ensemble import Calibration, Member, log_odds
from churn_pipeline.modelling.out_of_fold import (
    Floats,
    Model,
    OutOfFold,
    align_predictions,
    cross_fitted_predictions,
)

# Simplest first. Isotonic regression is left out: it creates ties, needs far more data than three parameters do, and was
# the best kind for only one of five models on three public tables.
KINDS: tuple[Kind, ...] = ("none", "logistic", "beta")


def choose_candidate(
    predictions: Mapping[str, pd.DataFrame],
    standard_errors: float = 1.0,
    blend_standard_errors: float = 1.0,
    calibrate: bool = True,
) -> Choice:
    """Choose a candidate or a blend.

    First, each candidate is calibrated if that helps. Second, the simplest candidate whose log loss is within
    `standard_errors` standard errors of the best is chosen. Third, a blend of all candidates replaces it if the blend is
    clearly better.

    The standard error is the uncorrected one of the mean paired fold difference. The correction for overlapping training
    sets (Nadeau & Bengio 2003) is meant for repeated random splits, where test sets overlap too; with five folds it would
    widen the error by half. In simulations the uncorrected error was right. Logistic regressions on 5 and on 20 features
    of 1,000 customers were compared in four settings with 150 draws each. Their differences had standard deviations of
    0.0041, 0.0051, 0.0070 and 0.0090; the uncorrected estimates were 0.0051, 0.0054, 0.0072 and 0.0092.

    Parameters
    ----------
    predictions : Mapping of str to DataFrame
        By candidate, simplest first: columns ``fold``, ``row``, ``churned`` and ``probability``.
    standard_errors : float, default=1.0
        A more complex candidate, or a calibration, must be better by more than this many standard errors.
    blend_standard_errors : float, default=1.0
        A blend must be better by more than this many standard errors. Infinity disables blends.
    calibrate : bool, default=True
        Whether candidates may be calibrated.

    Returns
    -------
    Choice
        The chosen model, the rule that decided, and the differences that it used.

    Raises
    ------
    ValueError
        If the predictions cannot be compared; see `align_predictions`.
    """
    table = align_predictions(predictions)
    reports = [_choose_calibration(table, column, standard_errors, calibrate) for column in range(len(table.names))]
    kinds = [report.applied for report in reports]
    cross_fitted = [
        cross_fitted_predictions(table, _calibration_fitter(column, kind)) for column, kind in enumerate(kinds)
    ]
    losses = np.column_stack([table.fold_losses(p) for p in cross_fitted])
    chosen, best = simplest_within(losses, standard_errors)
    members = (
        Member(candidate=table.names[chosen], weight=1.0, calibration=_fit_on_all(table, chosen, kinds[chosen])),
    )
    choice = Choice(
        candidate=table.names[chosen],
        members=members,
        rule="lowest log loss" if chosen == best else "simplest within one standard error",
        log_loss=float(losses[:, chosen].mean()),
        log_losses={name: float(loss) for name, loss in zip(table.names, losses.mean(axis=0), strict=True)},
        decided_by=_deciding_difference(table.names, losses, chosen, best),
        calibrations=tuple(reports),
    )
    choice = _choose_blend(table, kinds, choice, cross_fitted[chosen], blend_standard_errors)
    return choice.model_copy(update={"sentences": tuple(explain(choice, standard_errors, blend_standard_errors))})


def simplest_within(losses: Floats, standard_errors: float) -> tuple[int, int]:
    """Find the simplest option that is at most `standard_errors` standard errors worse than the best.

    Parameters
    ----------
    losses : ndarray of shape (n_folds, n_candidates)
        Losses, simplest candidate first.
    standard_errors : float
        Tolerance, in standard errors of the paired difference to the best.

    Returns
    -------
    chosen, best : int
        Column indices of the two. Of equally good options, the simplest counts as the best.
    """
    best = int(np.argmin(losses.mean(axis=0)))
    for place in range(best):
        difference = paired_difference(losses[:, place], losses[:, best])
        if difference.mean <= standard_errors * difference.standard_error:
            return place, best
    return best, best


def _calibration_fitter(column: int, kind: Kind) -> Callable[[Floats, npt.NDArray[np.int64]], Model]:
    """Return a function that fits a candidate's calibration; ``"none"`` leaves probabilities unchanged."""

    def fit(p: Floats, y: npt.NDArray[np.int64]) -> Model:
        calibration = fit_calibration(p[:, column], y, kind)
        if calibration is None:
            return lambda given: given[:, column]
        return lambda given: np.asarray(expit(log_odds(given[:, column], calibration)))

    return fit


def _fit_on_all(table: OutOfFold, column: int, kind: Kind) -> Calibration | None:
    return fit_calibration(table.p[:, column], table.y, kind)


def _choose_calibration(table: OutOfFold, column: int, standard_errors: float, calibrate: bool) -> CalibrationReport:
    """Measure each kind of calibration of one candidate out of fold, and choose one."""
    kinds = KINDS if calibrate else KINDS[:1]
    losses = [table.fold_losses(cross_fitted_predictions(table, _calibration_fitter(column, kind))) for kind in kinds]
    chosen, _ = simplest_within(np.column_stack(losses), standard_errors)
    measured = [_difference(kind, "none", loss, losses[0]) for kind, loss in zip(kinds[1:], losses[1:], strict=True)]
    return CalibrationReport(candidate=table.names[column], applied=kinds[chosen], measured=tuple(measured))


def _choose_blend(
    table: OutOfFold, kinds: Sequence[Kind], choice: Choice, chosen: Floats, standard_errors: float
) -> Choice:
    """Replace the chosen candidate by a blend if the blend is clearly better.

    `chosen` holds the out-of-fold probabilities (n,) of the chosen candidate.
    """
    members = fit_members(table.p, table.y, table.names, kinds)
    if len(members) == 1 or np.isinf(standard_errors):
        return choice

    def fit(p: Floats, y: npt.NDArray[np.int64]) -> Model:
        fitted = fit_members(p, y, table.names, kinds)
        return lambda given: blend(given, table.names, fitted)

    losses = table.fold_losses(cross_fitted_predictions(table, fit))
    # A blend shrinks probabilities away from 0 and 1. To keep this from deciding the comparison, its rival is shrunk as well
    # if that lowers the rival's loss.
    rival = min(table.fold_losses(chosen), table.fold_losses(expit(log_odds(chosen))), key=np.mean)
    name = "+".join(member.candidate for member in members)
    difference = _difference(name, choice.candidate, losses, rival)
    update: dict[str, Any] = {"blend": difference, "blend_members": members}
    if difference.exceeds(standard_errors):
        update |= {"candidate": name, "members": members, "rule": "blend"}
        update |= {"log_loss": float(losses.mean()), "decided_by": difference}
    return choice.model_copy(update=update)


def _difference(option: str, baseline: str, losses: Floats, baseline_losses: Floats) -> Difference:
    found = paired_difference(baseline_losses, losses)
    return Difference(option=option, baseline=baseline, advantage=found.mean, standard_error=found.standard_error)


def _deciding_difference(names: Sequence[str], losses: Floats, chosen: int, best: int) -> Difference | None:
    """Compare the chosen candidate with the best one.

    If it is the best itself, compare it with the best simpler candidate, or with the second best if none is simpler.
    """
    if len(names) == 1:
        return None
    means = losses.mean(axis=0)
    rivals = [best] if chosen != best else (range(best) if best else range(1, len(names)))
    rival = min(rivals, key=lambda place: float(means[place]))
    return _difference(names[chosen], names[rival], losses[:, chosen], losses[:, rival])
