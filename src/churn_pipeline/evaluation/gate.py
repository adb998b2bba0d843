"""The gate: whether a chosen model may stand, and how it compares with the champion on the same hold-out.

First the model is held against what is always there: a constant prediction, and its own promise that of customers
with churn probability p a share p churns. Then, where there is a champion, against that: log loss, calibration error
and profit on the same resamples of the same customers, as what makes a resample hard is hard for both. The gate gives
a verdict; promotion is another's decision.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field
from scipy.special import logit
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression

from churn_pipeline.evaluation.bootstrap import (
    TALLY_METRICS,
    TallyMetric,
    bootstrap_metrics,
    check_request,
    percentile_limits,
    resamples,
)
from churn_pipeline.evaluation.metrics import (
    Labels,
    Probabilities,
    Tally,
    auc,
    check_predictions,
    descending_ranks,
    log_loss,
    tally_calibration_error,
)
from churn_pipeline.evaluation.profit import CostModel, contacts, outcome

Verdict = Literal["better", "no worse", "unclear", "worse", "first", "refused"]
# A probability of 0 or 1 has no log-odds: it counts as this near to them
NEAREST = 1e-6


class Gate(BaseModel):
    """What the gate asks for.

    Attributes
    ----------
    confidence_level
        Of all intervals.
    resamples
        How many resamples.
    min_auc
        Below it no model is let through, whatever else it does.
    max_calibration_error
        A model is refused when its calibration error lies above for sure: when the interval's lower limit does. So
        neither chance on few customers (but for one calibrated model in forty) nor a trifle on many refuses one.
    calibration_slope
        Likewise for the slope of Cox's calibration line, refused when its whole interval lies outside. Below 1 a
        model is too sure of itself, above 1 not sure enough.
    min_difference
        By how much less log loss a challenger is called better, for sure.
    log_loss_margin, calibration_margin
        How much worse than the champion is no matter.
    profit_margin
        Likewise for profit per customer, as a share of a customer's mean value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    confidence_level: float = Field(default=0.95, gt=0.5, lt=1)
    resamples: int = Field(default=1000, ge=100)
    min_auc: float = Field(default=0.6, ge=0.5, lt=1)
    max_calibration_error: float = Field(default=0.03, gt=0, lt=1)
    calibration_slope: tuple[float, float] = (0.75, 1.33)
    min_difference: float = Field(default=0.0, ge=0)
    log_loss_margin: float = Field(default=0.005, ge=0)
    calibration_margin: float = Field(default=0.02, ge=0)
    profit_margin: float = Field(default=0.0025, ge=0)


@dataclass(frozen=True)
class Comparison:
    """One metric of both models; `difference` is above zero where the challenger is better."""

    metric: str
    challenger: float
    champion: float
    difference: float
    lower: float
    upper: float
    margin: float


@dataclass(frozen=True)
class GateVerdict:
    """What the gate says.

    Attributes
    ----------
    verdict
        - ``refused``: the model fails a floor, champion or not;
        - ``first``: it passes them, and there is no champion;
        - ``better``: less log loss for sure, and no worse in the rest;
        - ``no worse``: within the margins in everything, for sure;
        - ``worse``: worse than a margin in something, for sure;
        - ``unclear``: none of these; more held-out customers would tell.
    reasons
        Why, in sentences.
    floors
        The numbers of the model alone: AUC, calibration error, calibration slope and intercept with their limits, and
        the log loss it saves against a constant.
    comparisons
        The numbers of both; empty without a champion.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    floors: dict[str, float]
    comparisons: tuple[Comparison, ...] = field(default=())

    @property
    def passed(self) -> bool:
        """Whether promotion may be considered."""
        return self.verdict in ("better", "no worse", "first")

    def numbers(self) -> dict[str, float]:
        """By flat names what the gate alone knows: not the hold-out's own metrics again, nor the margins it was given."""
        found = {name: number for name, number in self.floors.items() if name not in ("auc", "calibration_error")}
        for row in self.comparisons:
            found[f"{row.metric}_champion"] = row.champion
            found[f"{row.metric}_difference"] = row.difference
            found[f"{row.metric}_difference_lower"] = row.lower
            found[f"{row.metric}_difference_upper"] = row.upper
        return {"passed": float(self.passed), **found}

    def report(self) -> dict[str, object]:
        """The verdict as plain data, to save."""
        return {"passed": self.passed, **asdict(self)}


def evaluate_gate(
    y: npt.ArrayLike,
    p_challenger: npt.ArrayLike,
    p_champion: npt.ArrayLike | None,
    value: npt.ArrayLike,
    costs: CostModel,
    settings: Gate,
    seed: int = 0,
    groups: npt.ArrayLike | None = None,
    constant: float | None = None,
) -> GateVerdict:
    """Evaluate a challenger on the hold-out, alone and against the champion.

    Parameters
    ----------
    y : array-like of shape (n,)
        Who churned.
    p_challenger, p_champion : array-like of shape (n,)
        Churn probabilities of the same customers by both models. The champion must not have been trained on them
        either: hold out by a stable hash.
    value : float or array-like of shape (n,)
        What a saved customer is worth.
    costs, settings
        The cost model, and what the gate asks for.
    seed
        Same seed, same resamples.
    groups : array-like of shape (n,), optional
        A key for each row where a customer has several; rows of one key are drawn together.
    constant
        What to predict without a model, such as the churn share of the training rows; by default that of these rows,
        which no constant beats.

    Raises
    ------
    ValueError
        On predictions that no metric is defined on, or a single class.

    References
    ----------
    Cox (1958), "Two Further Applications of a Model for Binary Regression", Biometrika 45: the calibration line.
    Efron & Tibshirani (1993), "An Introduction to the Bootstrap", chapters 8 and 13.
    Wellek (2010), "Testing Statistical Hypotheses of Equivalence and Noninferiority": margins.
    """
    labels, challenger = check_predictions(y, p_challenger)
    check_request(labels, settings.resamples, settings.confidence_level)
    floors, reasons = _floors(labels, challenger, settings, seed, groups, constant)
    compared: tuple[Comparison, ...] = ()
    if p_champion is not None:
        champion = check_predictions(labels, p_champion)[1]
        values = np.broadcast_to(np.asarray(value, dtype=np.float64), labels.shape)
        compared = _compare(labels, challenger, champion, values, costs, settings, seed, groups)
    if reasons:
        return GateVerdict("refused", tuple(reasons), floors, compared)
    if p_champion is None:
        return GateVerdict("first", ("There is no champion to compare with.",), floors)
    verdict, why = _verdict(compared, settings)
    return GateVerdict(verdict, tuple(why), floors, compared)


def _floors(
    y: Labels, p: Probabilities, settings: Gate, seed: int, groups: npt.ArrayLike | None, constant: float | None
) -> tuple[dict[str, float], list[str]]:
    error = bootstrap_metrics(y, p, ["calibration_error"], settings.resamples, settings.confidence_level, seed, groups)
    share = float(y.mean()) if constant is None else constant
    saved = _losses(y, np.full(y.size, share)) - _losses(y, p)
    saved_drawn = np.array([saved[rows].mean() for rows in resamples(y, groups, settings.resamples, seed)])
    floors = {
        "auc": auc(y, p),
        "calibration_error": float(error["value"].iloc[0]),
        "calibration_error_lower": float(error["lower"].iloc[0]),
        **_calibration_line_limits(y, p, settings.confidence_level, groups),
        "saved_log_loss": float(saved.mean()),
        "saved_log_loss_lower": percentile_limits(saved_drawn, settings.confidence_level)[0],
    }
    return floors, list(_refusals(floors, float(np.ptp(p)), settings))


def _refusals(floors: dict[str, float], spread: float, settings: Gate) -> Iterator[str]:
    sure, (low, high) = f"({settings.confidence_level:.0%} interval)", settings.calibration_slope
    if spread < 1e-9:
        yield "The model gives every customer the same churn probability."
    if floors["saved_log_loss_lower"] <= 0:
        yield (
            "It is no better than a constant prediction by more than chance: it saves "
            f"{floors['saved_log_loss']:.4f} log loss, and perhaps only {floors['saved_log_loss_lower']:.4f} {sure}."
        )
    if floors["auc"] < settings.min_auc:
        yield f"Its AUC is {floors['auc']:.3f}, below the least that is let through, {settings.min_auc:g}."
    if floors["calibration_error_lower"] > settings.max_calibration_error:
        yield (
            f"It is miscalibrated: its calibration error is {floors['calibration_error']:.3f}, and no less than "
            f"{floors['calibration_error_lower']:.3f} {sure}; {settings.max_calibration_error:g} is let through."
        )
    if spread >= 1e-9 and (floors["calibration_slope_upper"] < low or floors["calibration_slope_lower"] > high):
        sure_of_itself = "too sure of itself" if floors["calibration_slope"] < 1 else "not sure enough"
        yield (
            f"It is {sure_of_itself}: its calibration slope is {floors['calibration_slope']:.2f} "
            f"[{floors['calibration_slope_lower']:.2f}, {floors['calibration_slope_upper']:.2f}], "
            f"outside {low:g} to {high:g}."
        )


@dataclass(frozen=True)
class CalibrationLine:
    """Intercept and slope that the log-odds of `p` need to fit `y` best: 0 and 1 for a calibrated model."""

    intercept: float
    slope: float
    intercept_error: float
    slope_error: float


def calibration_line(y: npt.ArrayLike, p: npt.ArrayLike, groups: npt.ArrayLike | None = None) -> CalibrationLine:
    """Cox's calibration line, with robust standard errors.

    Of one probability for all, no slope can be told: it is 1, give or take infinity.

    Parameters
    ----------
    y, p : array-like of shape (n,)
        Who churned, and the churn probabilities.
    groups : array-like of shape (n,), optional
        A key for each row; rows of one key are not taken as independent.

    References
    ----------
    Cox (1958), Biometrika 45.
    White (1982), "Maximum Likelihood Estimation of Misspecified Models", Econometrica 50: the errors.
    """
    labels, probabilities = check_predictions(y, p)
    odds = np.asarray(logit(np.clip(probabilities, NEAREST, 1 - NEAREST)))
    if np.ptp(odds) < NEAREST:
        error = 1 / np.sqrt(labels.size * max(labels.mean() * (1 - labels.mean()), NEAREST))
        shift = logit(np.clip(labels.mean(), NEAREST, 1 - NEAREST)) - odds.mean()
        return CalibrationLine(float(shift), 1.0, float(error), np.inf)
    fitted = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(odds[:, None], labels)
    design = np.column_stack((np.ones(odds.size), odds))
    share = fitted.predict_proba(odds[:, None])[:, 1]
    scores = design * (labels - share)[:, None]
    if groups is not None:
        scores = pd.DataFrame(scores).groupby(np.asarray(groups)).sum().to_numpy()
    # The pseudo-inverse, as perfectly separated classes leave no information
    bread = np.linalg.pinv(np.einsum("ni,n,nj->ij", design, share * (1 - share), design))
    errors = np.sqrt(np.diag(bread @ np.einsum("ni,nj->ij", scores, scores) @ bread))
    return CalibrationLine(float(fitted.intercept_[0]), float(fitted.coef_[0, 0]), float(errors[0]), float(errors[1]))


def _calibration_line_limits(
    y: Labels, p: Probabilities, level: float, groups: npt.ArrayLike | None
) -> dict[str, float]:
    line, z = calibration_line(y, p, groups), float(norm.ppf((1 + level) / 2))
    return {
        "calibration_intercept": line.intercept,
        "calibration_intercept_lower": line.intercept - z * line.intercept_error,
        "calibration_intercept_upper": line.intercept + z * line.intercept_error,
        "calibration_slope": line.slope,
        "calibration_slope_lower": line.slope - z * line.slope_error,
        "calibration_slope_upper": line.slope + z * line.slope_error,
    }


def _losses(y: Labels, p: Probabilities) -> Probabilities:
    """Log loss of each row, of shape (n,)."""
    eps = np.finfo(np.float64).eps
    return np.asarray(-np.log(np.clip(np.where(y == 1, p, 1 - p), eps, 1)))


class _Model:
    """One model on the hold-out; its log loss, calibration error and profit on any resample of it."""

    def __init__(self, y: Labels, p: Probabilities, value: Probabilities, costs: CostModel) -> None:
        self.distinct, rank = descending_ranks(p)
        self.cell = rank + self.distinct.size * y
        self.log_loss: TallyMetric = TALLY_METRICS[log_loss](self.distinct)
        self.earned = contacts(p, value, costs) * outcome(y, value, costs)

    def on(self, times: npt.NDArray[np.int64]) -> tuple[float, float, float]:
        k = self.distinct.size
        counts = np.bincount(self.cell, weights=times, minlength=2 * k).astype(np.int64)
        counted = Tally(self.distinct, churned=counts[k:], stayed=counts[:k])
        profit = float((self.earned * times).sum() / times.sum())
        return self.log_loss(counted), tally_calibration_error(counted), profit


def _compare(
    y: Labels,
    challenger: Probabilities,
    champion: Probabilities,
    value: Probabilities,
    costs: CostModel,
    settings: Gate,
    seed: int,
    groups: npt.ArrayLike | None,
) -> tuple[Comparison, ...]:
    models = [_Model(y, p, value, costs) for p in (challenger, champion)]
    better = np.array([-1, -1, 1])  # less loss, less error, more profit
    once = np.array([model.on(np.ones(y.size, dtype=np.int64)) for model in models])
    drawn = np.empty((settings.resamples, better.size))
    for i, rows in enumerate(resamples(y, groups, settings.resamples, seed)):
        times = np.bincount(rows, minlength=y.size)
        drawn[i] = (np.array(models[0].on(times)) - models[1].on(times)) * better
    margins = (settings.log_loss_margin, settings.calibration_margin, settings.profit_margin * float(value.mean()))
    return tuple(
        Comparison(
            name,
            float(once[0, j]),
            float(once[1, j]),
            # 0 is added as minus zero would be printed as such
            float((once[0, j] - once[1, j]) * better[j]) + 0.0,
            *percentile_limits(drawn[:, j] + 0.0, settings.confidence_level),
            margins[j],
        )
        for j, name in enumerate(("log_loss", "calibration_error", "profit"))
    )


def _verdict(compared: tuple[Comparison, ...], settings: Gate) -> tuple[Verdict, list[str]]:
    worse = [row for row in compared if row.upper < -row.margin]
    if worse:
        return "worse", [_say(row, "is worse by more than the margin") for row in worse]
    open_ = [row for row in compared if row.lower < -row.margin]
    if open_:
        return "unclear", [_say(row, "could be worse by more than the margin") for row in open_]
    first = compared[0]
    if first.lower > settings.min_difference:
        return "better", [_say(first, "is better"), "The rest is no worse."]
    return "no worse", [_say(row, "is within the margin") for row in compared]


def _say(row: Comparison, what: str) -> str:
    name = row.metric.replace("_", " ").capitalize()
    return (
        f"{name} {what}: {row.challenger:.4f} against the champion's {row.champion:.4f}, an improvement of "
        f"{row.difference:.4f} [{row.lower:.4f}, {row.upper:.4f}] with a margin of {row.margin:.4f}."
    )
