"""The choice of a candidate or a blend, and of the calibration of each candidate.

One rule decides, on out-of-fold predictions: the simpler option stays, unless the more complex one lowers the log loss by
more than a set number of standard errors of the paired difference. A hard fold is hard for every candidate. Paired
differences therefore vary several times less than losses, and small differences can be detected.

Calibrations and blend weights are scored on folds that they were not fitted on; the final ones are fitted on all folds.

References
----------
Breiman, Friedman, Olshen & Stone (1984), "Classification and Regression Trees", section 3.4.3: one standard error.
Wolpert (1992), "Stacked Generalization", Neural Networks 5; Breiman (1996), "Stacked Regressions", Machine Learning 24:
non-negative weights, fitted out of fold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, ConfigDict
from scipy.optimize import LinearConstraint, minimize
from scipy.special import expit

from churn_pipeline.evaluation.intervals import paired_difference
from churn_pipeline.evaluation.metrics import log_loss
from churn_pipeline.modelling.ensemble import Calibration, Member, log_odds, shrunken_logs

Floats = npt.NDArray[np.float64]
Kind = Literal["none", "logistic", "beta"]
Model = Callable[[Floats], Floats]

# Simplest first. Isotonic regression is left out: it creates ties, needs far more data than three parameters do, and was
# the best kind for only one of five models on three public tables.
KINDS: tuple[Kind, ...] = ("none", "logistic", "beta")
# Below this weight, serving a member costs more than it gains.
MIN_WEIGHT = 0.05
# Decimal places. Finer weights and slopes are noise, and would differ between machines.
WEIGHT_DIGITS, SLOPE_DIGITS = 2, 4
MAX_SLOPE = 20.0
# More rows than this do not improve the fit of a few parameters.
MAX_ROWS = 100_000
# Smaller differences in log loss are rounding errors.
ROUNDING_ERROR = 1e-9


class _Report(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Difference(_Report):
    """How much lower the log loss of an option is than that of a baseline, on the same folds.

    Attributes
    ----------
    option, baseline : str
        Names of the two.
    advantage : float
        Mean over folds of the baseline's log loss minus the option's; positive if the option is better.
    standard_error : float
        Standard error of that mean.
    """

    option: str
    baseline: str
    advantage: float
    standard_error: float

    def exceeds(self, standard_errors: float) -> bool:
        """Whether the advantage exceeds this many standard errors."""
        return self.advantage > max(ROUNDING_ERROR, standard_errors * self.standard_error)

    def __str__(self) -> str:
        gain = f"gain {self.advantage:+.5f}" if self.advantage >= 0 else f"{-self.advantage:.5f} worse"
        return f"{gain}, standard error {self.standard_error:.5f}"


class CalibrationReport(_Report):
    """The calibration of a candidate, and what each kind of calibration would gain.

    Attributes
    ----------
    candidate : str
        The candidate's name.
    applied : {"none", "logistic", "beta"}
        The chosen kind.
    measured : tuple of Difference
        Gain of each kind over no calibration, measured out of fold.
    """

    candidate: str
    applied: Kind
    measured: tuple[Difference, ...]


class Choice(_Report):
    """The chosen model, the rule that decided, and the differences that it used.

    Attributes
    ----------
    candidate : str
        Name of the chosen candidate; for a blend, the names of its members, joined by ``+``.
    members : tuple of Member
        Input of `churn_pipeline.modelling.ensemble.assemble`: one member, or several for a blend.
    rule : {"lowest log loss", "simplest within one standard error", "blend"}
        The rule that decided.
    log_loss : float
        Mean log loss over folds of the chosen model; calibration and weights are fitted out of fold too.
    log_losses : dict of str to float
        The same for each candidate, after its calibration.
    decided_by : Difference, optional
        The difference that decided; None if there is only one candidate.
    blend : Difference, optional
        The best blend compared with the chosen candidate; None if only one member has weight, or blends are disabled.
    blend_members : tuple of Member
        Members of that blend, chosen or not.
    calibrations : tuple of CalibrationReport
        For each candidate.
    sentences : tuple of str
        The decision in plain sentences.
    """

    candidate: str
    members: tuple[Member, ...]
    rule: Literal["lowest log loss", "simplest within one standard error", "blend"]
    log_loss: float
    log_losses: dict[str, float]
    decided_by: Difference | None = None
    blend: Difference | None = None
    blend_members: tuple[Member, ...] = ()
    calibrations: tuple[CalibrationReport, ...] = ()
    sentences: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values for JSON, which ``Choice.model_validate`` reads."""
        return self.model_dump(mode="json")


@dataclass(frozen=True)
class OutOfFold:
    """Out-of-fold predictions of all candidates for the same customers.

    Attributes
    ----------
    names : tuple of str
        Candidate names, simplest first.
    y : ndarray of shape (n,), int64
        1 for customers who churned.
    fold : ndarray of shape (n,), int64
        Validation fold of each row, from 0.
    p : ndarray of shape (n, len(names)), float64
        Churn probabilities from models that were not fitted on the row.
    """

    names: tuple[str, ...]
    y: npt.NDArray[np.int64]
    fold: npt.NDArray[np.int64]
    p: Floats

    @property
    def folds(self) -> range:
        """Fold numbers."""
        return range(int(self.fold.max()) + 1)

    def fold_losses(self, p: Floats) -> Floats:
        """Log loss of probabilities (n,) in each fold."""
        return np.array([log_loss(self.y[self.fold == fold], p[self.fold == fold]) for fold in self.folds])


def align_predictions(predictions: Mapping[str, pd.DataFrame]) -> OutOfFold:
    """Combine the candidates' predictions into one table.

    Parameters
    ----------
    predictions : Mapping of str to DataFrame
        By candidate, simplest first: columns ``fold``, ``row``, ``churned`` and ``probability``.

    Returns
    -------
    OutOfFold
        Sorted by fold and row.

    Raises
    ------
    ValueError
        If there is no candidate, if there is only one fold, or if candidates were validated on different rows.
    """
    if not predictions:
        raise ValueError("There is no candidate to choose from: configure at least one under `candidates`.")
    tables = {name: table.sort_values(["fold", "row"], kind="stable") for name, table in predictions.items()}
    first_name, first = next(iter(tables.items()))
    for name, table in tables.items():
        for column in ("fold", "row", "churned"):
            if not np.array_equal(table[column].to_numpy(), first[column].to_numpy()):
                raise ValueError(
                    f"'{name}' and '{first_name}' were not validated on the same rows: column '{column}' differs. "
                    "Run the search of all candidates on the same folds."
                )
    fold = pd.factorize(first["fold"])[0].astype(np.int64)
    if fold.max() < 1:
        raise ValueError(
            "A choice needs at least two folds, because one difference has no standard error: set split.folds."
        )
    p = np.column_stack([table["probability"].to_numpy(dtype=np.float64) for table in tables.values()])
    return OutOfFold(tuple(tables), first["churned"].to_numpy().astype(np.int64), fold, p)


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
    return choice.model_copy(update={"sentences": tuple(_sentences(choice, standard_errors, blend_standard_errors))})


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


def cross_fitted_predictions(table: OutOfFold, fit: Callable[[Floats, npt.NDArray[np.int64]], Model]) -> Floats:
    """Predict each fold with a function fitted on all other folds.

    The base predictions for the other folds come from models that were trained on this fold too. All single-level stacking
    has this small leak; it hardly matters for a few weights.

    Parameters
    ----------
    table : OutOfFold
        Predictions to fit on.
    fit : callable
        Takes probabilities (m, n_candidates) and labels (m,). Returns a function that maps probabilities
        (k, n_candidates) to probabilities (k,).

    Returns
    -------
    ndarray of shape (n,), float64
        Probabilities.
    """
    result = np.empty(len(table.y))
    for fold in table.folds:
        scored = table.fold == fold
        result[scored] = fit(table.p[~scored], table.y[~scored])(table.p[scored])
    return result


def fit_calibration(p: Floats, y: npt.NDArray[np.int64], kind: Kind) -> Calibration | None:
    """Fit a calibration by maximum likelihood.

    Parameters
    ----------
    p : ndarray of shape (n,)
        Probabilities.
    y : ndarray of shape (n,)
        1 for customers who churned.
    kind : {"none", "logistic", "beta"}
        The kind of calibration.

    Returns
    -------
    Calibration or None
        None for ``"none"``.
    """
    if kind == "none":
        return None
    p, y = _thin(p, y)
    log_p, log_1mp = shrunken_logs(p)
    columns = [log_p - log_1mp] if kind == "logistic" else [log_p, -log_1mp]
    Z = np.column_stack([*columns, np.ones_like(log_p)])
    bounds = [(0.0, MAX_SLOPE)] * len(columns) + [(-MAX_SLOPE, MAX_SLOPE)]
    start = np.array([1.0] * len(columns) + [0.0])
    found = minimize(_loss_of_weights, start, (Z, y), "L-BFGS-B", jac=True, bounds=bounds)
    *slopes, c = (round(float(value), SLOPE_DIGITS) for value in found.x)
    return Calibration(kind=kind, a=slopes[0], b=slopes[-1], c=c)


def fit_weights(Z: Floats, y: npt.NDArray[np.int64]) -> Floats:
    """Fit the weights of a blend: non-negative, with sum 1, and with the lowest log loss.

    The problem is convex. While a weight is below `MIN_WEIGHT`, the member with the lowest one is removed and the others
    are fitted again.

    Parameters
    ----------
    Z : ndarray of shape (n, n_candidates)
        Log-odds.
    y : ndarray of shape (n,)
        1 for customers who churned.

    Returns
    -------
    ndarray of shape (n_candidates,), float64
        Weights, rounded to whole percents.
    """
    Z, y = _thin(Z, y)
    members = np.arange(Z.shape[1])
    found = _fit_simplex(Z, y)
    while found.min() < MIN_WEIGHT:
        members = np.delete(members, np.argmin(found))
        found = _fit_simplex(Z[:, members], y)
    found = np.round(found, WEIGHT_DIGITS)
    found[np.argmax(found)] += 1.0 - found.sum()
    weights = np.zeros(Z.shape[1])
    weights[members] = np.round(found, WEIGHT_DIGITS)
    return weights


def _thin(values: Floats, y: npt.NDArray[np.int64]) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Keep every k-th row, spread evenly over folds, if there are more than `MAX_ROWS`."""
    step = -(-len(y) // MAX_ROWS)
    return values[::step], y[::step]


def _fit_simplex(Z: Floats, y: npt.NDArray[np.int64]) -> Floats:
    size = Z.shape[1]
    if size == 1:
        return np.ones(1)
    found = minimize(
        _loss_of_weights,
        np.full(size, 1.0 / size),
        (Z, y),
        "SLSQP",
        jac=True,
        bounds=[(0.0, 1.0)] * size,
        constraints=LinearConstraint(np.ones((1, size)), 1.0, 1.0),
        options={"ftol": 1e-10},
    )
    weights = np.maximum(found.x, 0.0)
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def _loss_of_weights(weights: Floats, Z: Floats, y: npt.NDArray[np.int64]) -> tuple[float, Floats]:
    """Log loss of weighted log-odds, and its gradient. Einsum, because BLAS sums in an order that depends on threads."""
    total = np.einsum("ij,j->i", Z, weights)
    loss = float(np.mean(np.logaddexp(0.0, total) - y * total))
    return loss, np.einsum("ij,i->j", Z, expit(total) - y) / len(y)


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


def fit_members(p: Floats, y: npt.NDArray[np.int64], names: Sequence[str], kinds: Sequence[Kind]) -> tuple[Member, ...]:
    """Fit a blend: first the calibration of each candidate, then the weights.

    Parameters
    ----------
    p : ndarray of shape (n, len(names))
        Probabilities.
    y : ndarray of shape (n,)
        1 for customers who churned.
    names : Sequence of str
        Names of the candidates, in the order of the columns of ``p``.
    kinds : Sequence of {"none", "logistic", "beta"}
        Kind of calibration of each candidate.

    Returns
    -------
    tuple of Member
        The candidates with a weight above 0.
    """
    calibrations = [fit_calibration(p[:, column], y, kind) for column, kind in enumerate(kinds)]
    Z = np.column_stack([log_odds(p[:, column], calibration) for column, calibration in enumerate(calibrations)])
    return tuple(
        Member(candidate=name, weight=float(weight), calibration=calibration)
        for name, weight, calibration in zip(names, fit_weights(Z, y), calibrations, strict=True)
        if weight > 0
    )


def blend(p: Floats, names: Sequence[str], members: Sequence[Member]) -> Floats:
    """Blend probabilities as `churn_pipeline.modelling.ensemble.BlendedModel` does.

    Parameters
    ----------
    p : ndarray of shape (n, len(names))
        Probabilities.
    names : Sequence of str
        Names of the candidates, in the order of the columns of ``p``.
    members : Sequence of Member
        The blend.

    Returns
    -------
    ndarray of shape (n,), float64
        Probabilities.
    """
    total = np.zeros(len(p))
    for member in members:
        total = total + member.weight * log_odds(p[:, names.index(member.candidate)], member.calibration)
    return np.asarray(expit(total), dtype=np.float64)


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


def _sentences(choice: Choice, standard_errors: float, blend_standard_errors: float) -> list[str]:
    """Explain the choice, beginning with the reason that decided."""
    return [
        *_explain_rule(choice, standard_errors),
        _explain_blend(choice, blend_standard_errors),
        *(_explain_calibration(report) for report in choice.calibrations if report.measured),
    ]


def _explain_rule(choice: Choice, standard_errors: float) -> list[str]:
    difference = choice.decided_by
    if choice.rule == "blend":
        return []
    if difference is None:
        return [f"Chosen: {choice.candidate}, the only candidate (log loss {choice.log_loss:.5f})."]
    if choice.rule == "lowest log loss":
        return [
            f"Chosen: {choice.candidate}, the candidate with the lowest log loss ({choice.log_loss:.5f}). "
            f"Compared with {difference.baseline}: {difference}."
        ]
    return [
        f"Chosen: {choice.candidate} (log loss {choice.log_loss:.5f}), the simplest candidate within "
        f"{_plural(standard_errors)} of the best. {difference.baseline} is more complex, and its log loss is "
        f"{-difference.advantage:.5f} lower (standard error {difference.standard_error:.5f})."
    ]


def _explain_blend(choice: Choice, standard_errors: float) -> str:
    if choice.blend is None:
        return "No blend was compared: only one candidate got weight, or blends are disabled."
    weights = ", ".join(f"{member.weight:.0%} {member.candidate}" for member in choice.blend_members)
    verdict = "Chosen: a blend" if choice.rule == "blend" else "Not chosen: a blend"
    return (
        f"{verdict} ({weights}). Compared with {choice.blend.baseline}: {choice.blend} "
        f"(required: more than {_plural(standard_errors)})."
    )


def _explain_calibration(report: CalibrationReport) -> str:
    verdict = "not calibrated" if report.applied == "none" else f"{report.applied} calibration"
    gains = "; ".join(f"with {difference.option} calibration: {difference}" for difference in report.measured)
    return f"{report.candidate}: {verdict}. Out-of-fold log loss {gains}."


def _plural(standard_errors: float) -> str:
    return f"{standard_errors:g} standard error{'' if standard_errors == 1 else 's'}"
