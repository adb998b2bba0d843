"""Promotion gate: checks the chosen model on its own and compares it with the champion on the same hold-out.

First the model is compared with a constant prediction and checked for calibration. Then it is compared with the champion,
if there is one, on log loss, calibration error and profit. Both models are evaluated on the same bootstrap resamples,
because a hard resample is hard for both. The gate gives a verdict and promotes nothing.
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

from churn_pipeline.costs import CostModel, contact_profit, contacts
from churn_pipeline.evaluation.bootstrap import Resampling
from churn_pipeline.evaluation.holdout import Holdout
from churn_pipeline.evaluation.intervals import percentile_interval
from churn_pipeline.evaluation.metrics import auc, calibration_error, log_loss, tally_calibration_error
from churn_pipeline.evaluation.miscalibration import calibrated_tallies
from churn_pipeline.evaluation.predictions import (
    Labels,
    Probabilities,
    check_predictions,
    descending_ranks,
    row_log_loss,
    tally_cells,
)
from churn_pipeline.evaluation.tally_metrics import TALLY_METRICS, TallyMetric

Verdict = Literal["better", "no worse", "unclear", "worse", "first", "refused"]
# Probabilities are clipped this far from 0 and 1, where log-odds are infinite
EPSILON = 1e-6


class GateSettings(BaseModel):
    """Requirements that a model must meet.

    Attributes
    ----------
    confidence_level
        Coverage of all intervals.
    resamples
        Number of bootstrap resamples.
    min_auc
        A model with a lower AUC is refused.
    max_calibration_error
        A model is refused if the lower limit of its calibration error exceeds this value. A calibrated model is therefore
        rarely refused because of noise in a small hold-out (2.5% at a confidence level of 95%), and never because of a
        tiny error in a large one.
    calibration_slope
        Range of the slope of Cox's calibration line. A model is refused if the slope's whole interval lies outside. Below
        1 a model is overconfident, above 1 underconfident.
    min_difference
        A challenger is better if the lower limit of its gain in log loss exceeds this value.
    log_loss_margin, calibration_margin
        How much higher the challenger's log loss and calibration error may be than the champion's.
    profit_margin
        How much lower the challenger's profit per customer may be, as a share of the mean customer value.
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
    """One metric of both models; a positive `difference` means that the challenger is better."""

    metric: str
    challenger: float
    champion: float
    difference: float
    lower: float
    upper: float
    margin: float


@dataclass(frozen=True)
class GateVerdict:
    """Verdict of the gate, with reasons and metrics.

    Attributes
    ----------
    verdict
        - ``refused``: the model fails one of the standalone requirements, whether or not there is a champion;
        - ``first``: it passes all of them, and there is no champion;
        - ``better``: its log loss is significantly lower, and the other metrics are not worse;
        - ``no worse``: every metric is significantly within its margin;
        - ``worse``: a metric is significantly worse than its margin allows;
        - ``unclear``: none of these; more held-out customers are needed.
    reasons
        The reasons, as sentences.
    standalone
        Metrics of the model on its own: AUC, calibration error, calibration slope and intercept with their limits, and the
        reduction in log loss compared with a constant prediction.
    comparisons
        Metrics of both models; empty without a champion.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    standalone: dict[str, float]
    comparisons: tuple[Comparison, ...] = field(default=())

    @property
    def passed(self) -> bool:
        """Whether promotion may be considered."""
        return self.verdict in ("better", "no worse", "first")

    def numbers(self) -> dict[str, float]:
        """Flat metrics for logging, without hold-out metrics that are logged elsewhere and without the settings."""
        metrics = {name: number for name, number in self.standalone.items() if name not in ("auc", "calibration_error")}
        for row in self.comparisons:
            metrics[f"{row.metric}_champion"] = row.champion
            metrics[f"{row.metric}_difference"] = row.difference
            metrics[f"{row.metric}_difference_lower"] = row.lower
            metrics[f"{row.metric}_difference_upper"] = row.upper
        return {"passed": float(self.passed), **metrics}

    def report(self) -> dict[str, object]:
        """The verdict as plain data for a report."""
        return {"passed": self.passed, **asdict(self)}


def evaluate_challenger(
    holdout: Holdout,
    p_champion: npt.ArrayLike | None,
    costs: CostModel,
    settings: GateSettings,
    seed: int = 0,
    constant: float | None = None,
) -> GateVerdict:
    """Evaluate a challenger on the hold-out, on its own and against the champion.

    Parameters
    ----------
    holdout
        Labels, values and group keys of n rows, and the challenger's churn probabilities.
    p_champion : array-like of shape (n,), optional
        The champion's churn probabilities. The champion must not have been trained on these customers either, so the
        hold-out must be selected by a stable hash.
    costs, settings
        The cost model, and the requirements.
    seed
        The same seed gives the same resamples.
    constant
        The constant prediction to beat, such as the churn share of the training rows. By default the churn share of these
        rows, which is the best possible constant.

    Raises
    ------
    ValueError
        If predictions are invalid, or only one class occurs.

    References
    ----------
    Cox (1958), "Two Further Applications of a Model for Binary Regression", Biometrika 45: the calibration line.
    Efron & Tibshirani (1993), "An Introduction to the Bootstrap", chapters 8 and 13.
    Wellek (2010), "Testing Statistical Hypotheses of Equivalence and Noninferiority": margins.
    """
    resampling = Resampling(settings.resamples, settings.confidence_level, seed)
    resampling.check(holdout.y)
    standalone = _standalone(holdout, resampling, constant)
    reasons = tuple(_refusals(standalone, float(np.ptp(holdout.p)), settings))
    compared: tuple[Comparison, ...] = ()
    if p_champion is not None:
        champion = Holdout(holdout.y, np.asarray(p_champion), holdout.value, holdout.groups)
        margins = (
            settings.log_loss_margin,
            settings.calibration_margin,
            settings.profit_margin * float(holdout.value.mean()),
        )
        compared = _compare(holdout, champion, costs, margins, resampling)
    if reasons:
        return GateVerdict("refused", reasons, standalone, compared)
    if p_champion is None:
        return GateVerdict("first", ("There is no champion to compare with.",), standalone)
    verdict, why = _verdict(compared, settings)
    return GateVerdict(verdict, tuple(why), standalone, compared)


def _standalone(holdout: Holdout, resampling: Resampling, constant: float | None) -> dict[str, float]:
    y, p, groups = holdout.y, holdout.p, holdout.groups
    error = calibration_error(y, p)
    by_chance = [tally_calibration_error(drawn) for drawn in calibrated_tallies(p, groups, resampling.resamples)]
    share = float(y.mean()) if constant is None else constant
    saved = row_log_loss(y, np.full(y.size, share)) - row_log_loss(y, p)
    saved_drawn = np.array([saved[rows].mean() for rows in resampling.draw(y, groups)])
    return {
        "auc": auc(y, p),
        "calibration_error": error,
        "calibration_error_lower": max(
            0.0, error - float(np.quantile(by_chance, (1 + resampling.confidence_level) / 2))
        ),
        **_calibration_line_limits(y, p, resampling.confidence_level, groups),
        "saved_log_loss": float(saved.mean()),
        "saved_log_loss_lower": percentile_interval(saved_drawn, resampling.confidence_level)[0],
    }


def _refusals(metrics: dict[str, float], spread: float, settings: GateSettings) -> Iterator[str]:
    level, (low, high) = f"{settings.confidence_level:.0%} interval", settings.calibration_slope
    if spread < 1e-9:
        yield "The model gives every customer the same churn probability."
    if metrics["saved_log_loss_lower"] <= 0:
        yield (
            "It does not significantly beat a constant prediction: its log loss is "
            f"{_lower_or_higher(metrics['saved_log_loss'])} ({level}: {_lower_or_higher(metrics['saved_log_loss_lower'])} "
            "in the worst case)."
        )
    if metrics["auc"] < settings.min_auc:
        yield f"Its AUC of {metrics['auc']:.3f} is below the required {settings.min_auc:g}."
    if metrics["calibration_error_lower"] > settings.max_calibration_error:
        yield (
            f"It is miscalibrated: its calibration error is {metrics['calibration_error']:.3f}, at least "
            f"{metrics['calibration_error_lower']:.3f} ({level}); at most {settings.max_calibration_error:g} is allowed."
        )
    if spread >= 1e-9 and (metrics["calibration_slope_upper"] < low or metrics["calibration_slope_lower"] > high):
        confidence = "overconfident" if metrics["calibration_slope"] < 1 else "underconfident"
        yield (
            f"It is {confidence}: its calibration slope is {metrics['calibration_slope']:.2f} "
            f"[{metrics['calibration_slope_lower']:.2f}, {metrics['calibration_slope_upper']:.2f}], "
            f"outside {low:g} to {high:g}."
        )


def _lower_or_higher(saved: float) -> str:
    return f"{abs(saved):.4f} {'lower' if saved >= 0 else 'higher'}"


@dataclass(frozen=True)
class CalibrationLine:
    """Intercept and slope of a logistic regression of `y` on the log-odds of `p`, with standard errors.

    A calibrated model has intercept 0 and slope 1.
    """

    intercept: float
    slope: float
    intercept_error: float
    slope_error: float


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
    Cox (1958), Biometrika 45.
    White (1982), "Maximum Likelihood Estimation of Misspecified Models", Econometrica 50: the standard errors.
    """
    labels, probabilities = check_predictions(y, p)
    log_odds = np.asarray(logit(np.clip(probabilities, EPSILON, 1 - EPSILON)))
    if np.ptp(log_odds) < EPSILON:
        error = 1 / np.sqrt(labels.size * max(labels.mean() * (1 - labels.mean()), EPSILON))
        shift = logit(np.clip(labels.mean(), EPSILON, 1 - EPSILON)) - log_odds.mean()
        return CalibrationLine(float(shift), 1.0, float(error), np.inf)
    fitted = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(log_odds[:, None], labels)
    design = np.column_stack((np.ones(log_odds.size), log_odds))
    share = fitted.predict_proba(log_odds[:, None])[:, 1]
    scores = design * (labels - share)[:, None]
    if groups is not None:
        scores = pd.DataFrame(scores).groupby(np.asarray(groups)).sum().to_numpy()
    # The pseudo-inverse, because the matrix is singular if the classes are perfectly separated
    bread = np.linalg.pinv(np.einsum("ni,n,nj->ij", design, share * (1 - share), design))
    errors = np.sqrt(np.diag(bread @ np.einsum("ni,nj->ij", scores, scores) @ bread))
    return CalibrationLine(float(fitted.intercept_[0]), float(fitted.coef_[0, 0]), float(errors[0]), float(errors[1]))


def _calibration_line_limits(
    y: Labels, p: Probabilities, confidence_level: float, groups: npt.ArrayLike | None
) -> dict[str, float]:
    line, z = calibration_line(y, p, groups), float(norm.ppf((1 + confidence_level) / 2))
    return {
        "calibration_intercept": line.intercept,
        "calibration_intercept_lower": line.intercept - z * line.intercept_error,
        "calibration_intercept_upper": line.intercept + z * line.intercept_error,
        "calibration_slope": line.slope,
        "calibration_slope_lower": line.slope - z * line.slope_error,
        "calibration_slope_upper": line.slope + z * line.slope_error,
    }


class _Model:
    """One model on the hold-out: computes log loss, calibration error and profit on a resample."""

    def __init__(self, holdout: Holdout, costs: CostModel) -> None:
        y, p, value = holdout.y, holdout.p, holdout.value
        self.distinct, rank = descending_ranks(p)
        self.cell = rank + self.distinct.size * y
        self.log_loss: TallyMetric = TALLY_METRICS[log_loss](self.distinct)
        self.earned = contacts(p, value, costs) * contact_profit(y, value, costs)

    def metrics(self, counts: npt.NDArray[np.int64]) -> tuple[float, float, float]:
        """Metrics with row i counted ``counts[i]`` times; `counts` has shape (n,)."""
        counted = tally_cells(self.distinct, self.cell, counts)
        profit = float((self.earned * counts).sum() / counts.sum())
        return self.log_loss(counted), tally_calibration_error(counted), profit


def _compare(
    challenger: Holdout,
    champion: Holdout,
    costs: CostModel,
    margins: tuple[float, float, float],
    resampling: Resampling,
) -> tuple[Comparison, ...]:
    y, models = challenger.y, [_Model(holdout, costs) for holdout in (challenger, champion)]
    sign = np.array([-1, -1, 1])  # lower log loss, lower calibration error and higher profit are better
    whole = np.array([model.metrics(np.ones(y.size, dtype=np.int64)) for model in models])
    drawn = np.empty((resampling.resamples, sign.size))
    for i, rows in enumerate(resampling.draw(y, challenger.groups)):
        counts = np.bincount(rows, minlength=y.size)
        drawn[i] = (np.array(models[0].metrics(counts)) - models[1].metrics(counts)) * sign
    return tuple(
        Comparison(
            name,
            float(whole[0, j]),
            float(whole[1, j]),
            float((whole[0, j] - whole[1, j]) * sign[j]) + 0.0,  # adding 0 turns -0 into 0
            *percentile_interval(drawn[:, j] + 0.0, resampling.confidence_level),
            margins[j],
        )
        for j, name in enumerate(("log_loss", "calibration_error", "profit"))
    )


def _verdict(compared: tuple[Comparison, ...], settings: GateSettings) -> tuple[Verdict, list[str]]:
    worse = [row for row in compared if row.upper < -row.margin]
    if worse:
        return "worse", [_sentence(row, "is significantly worse than tolerated") for row in worse]
    unclear = [row for row in compared if row.lower < -row.margin]
    if unclear:
        return "unclear", [_sentence(row, "may be worse than tolerated") for row in unclear]
    first = compared[0]
    if first.lower > settings.min_difference:
        return "better", [_sentence(first, "is significantly better"), "The other metrics are no worse."]
    return "no worse", [_sentence(row, "is within the margin") for row in compared]


def _sentence(row: Comparison, finding: str) -> str:
    name = row.metric.replace("_", " ").capitalize()
    difference = (
        f"{_better_or_worse(row.difference)} than the champion's" if row.difference else "equal to the champion's"
    )
    interval = (
        f"interval {_better_or_worse(row.lower)} to {_better_or_worse(row.upper)}"
        if row.lower or row.upper
        else "the same on every resample"
    )
    return (
        f"{name} {finding}: {difference} ({row.challenger:.4f} vs {row.champion:.4f}), {interval}; "
        f"up to {row.margin:.4f} worse is tolerated."
    )


def _better_or_worse(difference: float) -> str:
    if not difference:
        return "no difference"
    return f"{abs(difference):.4f} {'better' if difference > 0 else 'worse'}"
