"""Which candidate is chosen, whether a blend beats it, and which probabilities are calibrated.

Everything is decided on out-of-fold predictions, by one rule: what is simpler stays, unless what is less simple has a
log loss that is lower by more than a standard error of the difference, fold by fold. What makes a fold hard is hard for
all, so that differences between candidates vary several times less than their losses, and small ones can be told.

Whatever is learned here (a calibration, a blend's weights) is learned on all folds but one and evaluated on that one, in
turn; what is used in the end is learned on all of them.

References
----------
Breiman, Friedman, Olshen & Stone (1984), "Classification and Regression Trees", section 3.4.3: one standard error.
Wolpert (1992), "Stacked Generalization", Neural Networks 5; Breiman (1996), "Stacked Regressions", Machine Learning 24:
weights that are not negative, learned out of fold.
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

# From the simplest. Isotonic regression is left out: of five models on three public tables it was the best kind for one.
# It ties customers, and needs far more of them than three numbers do.
KINDS: tuple[Kind, ...] = ("none", "logistic", "beta")
# A member of less weight costs more to serve than it can bring.
LEAST_WEIGHT = 0.05
# Whole percents, and slopes of four digits: finer ones are noise, and would differ from one machine to another.
WEIGHT_DIGITS, SLOPE_DIGITS = 2, 4
MOST_SLOPE = 20.0
# A handful of numbers is not learned better from more rows than this.
MOST_ROWS = 100_000
# Differences in log loss below this are arithmetic.
ROUNDING_ERROR = 1e-9


class _Report(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Difference(_Report):
    """How much lower the log loss of one is than that of another, on the same folds.

    Attributes
    ----------
    of, over : str
        The one, and the other.
    advantage : float
        Mean over folds of the other's log loss minus the one's.
    standard_error : float
        Of that mean.
    """

    of: str
    over: str
    advantage: float
    standard_error: float

    def exceeds(self, standard_errors: float) -> bool:
        """Whether the one is better by more than so many standard errors."""
        return self.advantage > max(ROUNDING_ERROR, standard_errors * self.standard_error)

    def __str__(self) -> str:
        return f"{self.advantage:+.5f} (standard error {self.standard_error:.5f})"


class CalibrationReport(_Report):
    """What calibrating a candidate brought, and what was decided.

    Attributes
    ----------
    candidate : str
        Its name.
    applied : {"none", "logistic", "beta"}
        What was decided.
    measured : tuple of Difference
        Each kind of calibration over none, evaluated on folds it was not learned on.
    """

    candidate: str
    applied: Kind
    measured: tuple[Difference, ...]


class Choice(_Report):
    """What was chosen, by which rule, and by how much.

    Attributes
    ----------
    candidate : str
        The chosen candidate; of a blend the names of its members, joined by ``+``.
    members : tuple of Member
        What `churn_pipeline.modelling.ensemble.assemble` makes the model of: one, or several for a blend.
    rule : {"lowest log loss", "simplest within one standard error", "blend"}
        Which rule decided.
    log_loss : float
        Mean over folds of what was chosen, calibration and weights not having seen the fold.
    log_losses : dict of str to float
        The same for every candidate, calibrated where that was decided.
    decided_by : Difference, optional
        The difference that the rule went by; none, where there was one candidate.
    blend : Difference, optional
        The best blend over the chosen candidate; none, where weights left a single candidate.
    blend_members : tuple of Member
        That blend, chosen or not.
    calibrations : tuple of CalibrationReport
        What was measured for each candidate.
    sentences : tuple of str
        The same for people.
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
        """The same as plain values for JSON; ``Choice.model_validate`` reads them back."""
        return self.model_dump(mode="json")


@dataclass(frozen=True)
class OutOfFold:
    """Predictions of all candidates for the same customers, side by side.

    Attributes
    ----------
    names : tuple of str
        Candidates, the simplest first.
    y : ndarray of shape (n,), int64
        1 for those who churned.
    fold : ndarray of shape (n,), int64
        Which fold validated the row, from 0.
    p : ndarray of shape (n, len(names)), float64
        Probabilities by models that had not seen the row.
    """

    names: tuple[str, ...]
    y: npt.NDArray[np.int64]
    fold: npt.NDArray[np.int64]
    p: Floats

    @property
    def folds(self) -> range:
        """The folds."""
        return range(int(self.fold.max()) + 1)

    def losses(self, p: Floats) -> Floats:
        """Log loss of probabilities (n,) in each fold."""
        return np.array([log_loss(self.y[self.fold == fold], p[self.fold == fold]) for fold in self.folds])


def side_by_side(predictions: Mapping[str, pd.DataFrame]) -> OutOfFold:
    """Put the candidates' predictions side by side.

    Parameters
    ----------
    predictions : Mapping of str to DataFrame
        By candidate, the simplest first: columns ``fold``, ``row``, ``churned`` and ``probability``.

    Returns
    -------
    OutOfFold
        In the order of fold and row.

    Raises
    ------
    ValueError
        If there is no candidate, there is but one fold, or candidates were validated on different rows.
    """
    if not predictions:
        raise ValueError("There is no candidate to choose: configure at least one.")
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
        raise ValueError("A choice needs at least two folds: differences within one have no standard error.")
    p = np.column_stack([table["probability"].to_numpy(dtype=np.float64) for table in tables.values()])
    return OutOfFold(tuple(tables), first["churned"].to_numpy().astype(np.int64), fold, p)


def choose_candidate(
    predictions: Mapping[str, pd.DataFrame],
    standard_errors: float = 1.0,
    blend_standard_errors: float = 1.0,
    calibrate: bool = True,
) -> Choice:
    """Choose a candidate or a blend.

    First each candidate is calibrated, if that helps. Then the simplest is taken that is not worse than the best by more
    than a standard error. Then a blend of all is weighed up against that.

    The standard error is that of the mean of paired fold differences, as it is. The correction for overlapping training
    sets (Nadeau & Bengio 2003) is made for repeated random splits, where test sets overlap as well. For five folds it
    widens the error by half, and in simulations the plain one was right: logistic regressions on 5 and on 20 features of
    1,000 customers, 150 draws in each of four settings, differ with a deviation of 0.0041, 0.0051, 0.0070 and 0.0090;
    the plain error says 0.0051, 0.0054, 0.0072 and 0.0092.

    Parameters
    ----------
    predictions : Mapping of str to DataFrame
        By candidate, the simplest first: columns ``fold``, ``row``, ``churned`` and ``probability``.
    standard_errors : float, default=1.0
        How many standard errors a less simple candidate, or a calibration, has to be better by.
    blend_standard_errors : float, default=1.0
        How many a blend has to be better by. Infinity: there is no blend.
    calibrate : bool, default=True
        Whether calibrations are tried.

    Returns
    -------
    Choice
        What was chosen, by which rule, and by how much.

    Raises
    ------
    ValueError
        If the predictions cannot be compared.
    """
    table = side_by_side(predictions)
    reports = [_weigh_calibrations(table, column, standard_errors, calibrate) for column in range(len(table.names))]
    kinds = [report.applied for report in reports]
    left_out = [left_out_predictions(table, _calibrator(column, kind)) for column, kind in enumerate(kinds)]
    losses = np.column_stack([table.losses(p) for p in left_out])
    chosen, best = simplest_within(losses, standard_errors)
    members = (Member(candidate=table.names[chosen], weight=1.0, calibration=_learn(table, chosen, kinds[chosen])),)
    choice = Choice(
        candidate=table.names[chosen],
        members=members,
        rule="lowest log loss" if chosen == best else "simplest within one standard error",
        log_loss=float(losses[:, chosen].mean()),
        log_losses={name: float(loss) for name, loss in zip(table.names, losses.mean(axis=0), strict=True)},
        decided_by=_deciding_difference(table.names, losses, chosen, best),
        calibrations=tuple(reports),
    )
    choice = _weigh_blend(table, kinds, choice, left_out[chosen], blend_standard_errors)
    return choice.model_copy(update={"sentences": tuple(_tell(choice, standard_errors, blend_standard_errors))})


def simplest_within(losses: Floats, standard_errors: float) -> tuple[int, int]:
    """Find the simplest that is not worse than the best by more than some standard errors.

    Parameters
    ----------
    losses : ndarray of shape (n_folds, n_candidates)
        Losses, the simplest candidate first.
    standard_errors : float
        How many standard errors of the paired difference to the best.

    Returns
    -------
    chosen, best : int
        Their places. Of equals the simplest is the best.
    """
    best = int(np.argmin(losses.mean(axis=0)))
    for place in range(best):
        difference = paired_difference(losses[:, place], losses[:, best])
        if difference.mean <= standard_errors * difference.standard_error:
            return place, best
    return best, best


def left_out_predictions(table: OutOfFold, fit: Callable[[Floats, npt.NDArray[np.int64]], Model]) -> Floats:
    """Predict each fold by what was learned on all others.

    The members' own predictions for the others come from models that had the fold among their training rows; that much
    is shared by every stacking on one layer of folds, and hardly matters to a handful of weights.

    Parameters
    ----------
    table : OutOfFold
        Predictions to learn on.
    fit : callable
        Learns from probabilities (m, n_candidates) and outcomes (m,) a function of probabilities (k, n_candidates).

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
    """Learn a calibration by maximum likelihood.

    Parameters
    ----------
    p : ndarray of shape (n,)
        Probabilities.
    y : ndarray of shape (n,)
        1 for those who churned.
    kind : {"none", "logistic", "beta"}
        What to learn.

    Returns
    -------
    Calibration or None
        The map; none for ``"none"``.
    """
    if kind == "none":
        return None
    p, y = _thin(p, y)
    of_churn, of_stay = shrunken_logs(p)
    columns = [of_churn - of_stay] if kind == "logistic" else [of_churn, -of_stay]
    Z = np.column_stack([*columns, np.ones_like(of_churn)])
    bounds = [(0.0, MOST_SLOPE)] * len(columns) + [(-MOST_SLOPE, MOST_SLOPE)]
    start = np.array([1.0] * len(columns) + [0.0])
    found = minimize(_loss_of_weights, start, (Z, y), "L-BFGS-B", jac=True, bounds=bounds)
    *held, c = (round(float(value), SLOPE_DIGITS) for value in found.x)
    return Calibration(kind=kind, a=held[0], b=held[-1], c=c)


def fit_weights(Z: Floats, y: npt.NDArray[np.int64]) -> Floats:
    """Learn a blend's weights: not negative, of sum 1, and of least log loss.

    The problem is convex. While a member is below `LEAST_WEIGHT`, the least one is dropped and the others learned again.

    Parameters
    ----------
    Z : ndarray of shape (n, n_candidates)
        Log-odds.
    y : ndarray of shape (n,)
        1 for those who churned.

    Returns
    -------
    ndarray of shape (n_candidates,), float64
        Weights, in whole percents.
    """
    Z, y = _thin(Z, y)
    members = np.arange(Z.shape[1])
    found = _fit_simplex(Z, y)
    while found.min() < LEAST_WEIGHT:
        members = np.delete(members, np.argmin(found))
        found = _fit_simplex(Z[:, members], y)
    found = np.round(found, WEIGHT_DIGITS)
    found[np.argmax(found)] += 1.0 - found.sum()
    weights = np.zeros(Z.shape[1])
    weights[members] = np.round(found, WEIGHT_DIGITS)
    return weights


def _thin(values: Floats, y: npt.NDArray[np.int64]) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Every so-manieth row, evenly over all folds, where there are more than it takes."""
    step = -(-len(y) // MOST_ROWS)
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
    """Log loss of weighted log-odds, and its gradient; by einsum, as BLAS adds up in an order that depends on threads."""
    total = np.einsum("ij,j->i", Z, weights)
    loss = float(np.mean(np.logaddexp(0.0, total) - y * total))
    return loss, np.einsum("ij,i->j", Z, expit(total) - y) / len(y)


def _calibrator(column: int, kind: Kind) -> Callable[[Floats, npt.NDArray[np.int64]], Model]:
    """How one candidate is calibrated; without a calibration its probabilities are what they are."""

    def fit(p: Floats, y: npt.NDArray[np.int64]) -> Model:
        learned = fit_calibration(p[:, column], y, kind)
        if learned is None:
            return lambda given: given[:, column]
        return lambda given: np.asarray(expit(log_odds(given[:, column], learned)))

    return fit


def _learn(table: OutOfFold, column: int, kind: Kind) -> Calibration | None:
    return fit_calibration(table.p[:, column], table.y, kind)


def fit_members(p: Floats, y: npt.NDArray[np.int64], names: Sequence[str], kinds: Sequence[Kind]) -> tuple[Member, ...]:
    """Learn a blend: each candidate's calibration, and then the weights.

    Parameters
    ----------
    p : ndarray of shape (n, len(names))
        Probabilities.
    y : ndarray of shape (n,)
        1 for those who churned.
    names : Sequence of str
        Candidates.
    kinds : Sequence of {"none", "logistic", "beta"}
        How each is calibrated.

    Returns
    -------
    tuple of Member
        The candidates that have weight.
    """
    learned = [fit_calibration(p[:, column], y, kind) for column, kind in enumerate(kinds)]
    Z = np.column_stack([log_odds(p[:, column], calibration) for column, calibration in enumerate(learned)])
    return tuple(
        Member(candidate=name, weight=float(weight), calibration=calibration)
        for name, weight, calibration in zip(names, fit_weights(Z, y), learned, strict=True)
        if weight > 0
    )


def blend(p: Floats, names: Sequence[str], members: Sequence[Member]) -> Floats:
    """Blend probabilities as `churn_pipeline.modelling.ensemble.BlendedModel` does.

    Parameters
    ----------
    p : ndarray of shape (n, len(names))
        Probabilities.
    names : Sequence of str
        Whose they are.
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


def _weigh_calibrations(table: OutOfFold, column: int, standard_errors: float, calibrate: bool) -> CalibrationReport:
    """Measure every kind of calibration of one candidate out of fold, and decide."""
    kinds = KINDS if calibrate else KINDS[:1]
    losses = [table.losses(left_out_predictions(table, _calibrator(column, kind))) for kind in kinds]
    chosen, _ = simplest_within(np.column_stack(losses), standard_errors)
    measured = [_difference(kind, "none", loss, losses[0]) for kind, loss in zip(kinds[1:], losses[1:], strict=True)]
    return CalibrationReport(candidate=table.names[column], applied=kinds[chosen], measured=tuple(measured))


def _weigh_blend(
    table: OutOfFold, kinds: Sequence[Kind], choice: Choice, chosen: Floats, standard_errors: float
) -> Choice:
    """Take a blend instead of the chosen candidate's probabilities (n,), if it is better by enough."""
    members = fit_members(table.p, table.y, table.names, kinds)
    if len(members) == 1 or np.isinf(standard_errors):
        return choice

    def fit(p: Floats, y: npt.NDArray[np.int64]) -> Model:
        learned = fit_members(p, y, table.names, kinds)
        return lambda given: blend(given, table.names, learned)

    losses = table.losses(left_out_predictions(table, fit))
    # Kept off 0 and 1 as in a blend, if that is better: for a blend to win, it has to win by its members.
    rival = min(table.losses(chosen), table.losses(expit(log_odds(chosen))), key=np.mean)
    name = "+".join(member.candidate for member in members)
    difference = _difference(name, choice.candidate, losses, rival)
    update: dict[str, Any] = {"blend": difference, "blend_members": members}
    if difference.exceeds(standard_errors):
        update |= {"candidate": name, "members": members, "rule": "blend"}
        update |= {"log_loss": float(losses.mean()), "decided_by": difference}
    return choice.model_copy(update=update)


def _difference(of: str, over: str, losses: Floats, other_losses: Floats) -> Difference:
    found = paired_difference(other_losses, losses)
    return Difference(of=of, over=over, advantage=found.mean, standard_error=found.standard_error)


def _deciding_difference(names: Sequence[str], losses: Floats, chosen: int, best: int) -> Difference | None:
    """Chosen over best, if they differ; else over the next best of the simpler ones, or of all if it is the simplest."""
    if len(names) == 1:
        return None
    means = losses.mean(axis=0)
    rivals = [best] if chosen != best else (range(best) if best else range(1, len(names)))
    rival = min(rivals, key=lambda place: float(means[place]))
    return _difference(names[chosen], names[rival], losses[:, chosen], losses[:, rival])


def _tell(choice: Choice, standard_errors: float, blend_standard_errors: float) -> list[str]:
    """The choice in sentences, what decided first."""
    return [
        *_tell_rule(choice, standard_errors),
        *_tell_blend(choice, blend_standard_errors),
        *(_tell_calibration(report) for report in choice.calibrations if report.measured),
    ]


def _tell_rule(choice: Choice, standard_errors: float) -> list[str]:
    decided = choice.decided_by
    if choice.rule == "blend":
        return []
    if decided is None:
        return [f"{choice.candidate} is the only candidate: log loss {choice.log_loss:.5f}."]
    if choice.rule == "lowest log loss":
        told = f"it has the lowest log loss, {choice.log_loss:.5f}; over {decided.over} it gains {decided}."
    else:
        told = (
            f"log loss {choice.log_loss:.5f}. The best, {decided.over}, is more complex and ahead by no more than "
            f"{standard_errors:g} × the standard error: the gain over it is {decided}."
        )
    return [f"{choice.candidate} was chosen by {choice.rule}: {told}"]


def _tell_blend(choice: Choice, standard_errors: float) -> list[str]:
    if choice.blend is None:
        return ["No blend was weighed up: there is none, or none was asked for."]
    weights = ", ".join(f"{member.weight:.0%} {member.candidate}" for member in choice.blend_members)
    verdict = "was chosen" if choice.rule == "blend" else "was not chosen"
    return [
        f"A blend ({weights}) {verdict}: its gain in log loss over {choice.blend.over} is {choice.blend}; asked for is "
        f"more than {standard_errors:g} × the standard error."
    ]


def _tell_calibration(report: CalibrationReport) -> str:
    verdict = "is not calibrated" if report.applied == "none" else f"is calibrated ({report.applied})"
    measured = ", ".join(f"{difference.of} {difference}" for difference in report.measured)
    return f"{report.candidate} {verdict}: gain in log loss out of fold by {measured}."
