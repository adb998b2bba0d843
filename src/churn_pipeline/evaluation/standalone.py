"""Requirements that a model must meet on its own, whether or not there is a champion."""

from collections.abc import Iterator

import numpy as np
from scipy.stats import norm

from churn_pipeline.evaluation.calibration import calibration_in_the_large, calibration_line
from churn_pipeline.evaluation.gate_settings import GateSettings
from churn_pipeline.evaluation.holdout import Holdout
from churn_pipeline.evaluation.intervals import mean_with_error
from churn_pipeline.evaluation.metrics import auc
from churn_pipeline.evaluation.predictions import row_log_loss

# Probabilities closer together than this are the same
SAME = 1e-9


def standalone_metrics(holdout: Holdout, settings: GateSettings, constant: float) -> dict[str, float]:
    """AUC, calibration-in-the-large and slope with their limits, and the reduction in log loss over a constant prediction.

    ``detectable_odds`` is the factor by which all odds must be wrong for the model to be refused with probability
    `settings.sufficient_power`.
    """
    y, p, groups = holdout.y, holdout.p, holdout.groups
    z = float(norm.ppf((1 + settings.confidence_level) / 2))
    shift, line = calibration_in_the_large(y, p, groups), calibration_line(y, p, groups)
    saved, saved_error = mean_with_error(row_log_loss(y, np.full(y.size, constant)) - row_log_loss(y, p), groups)
    detectable = max(settings.calibration_shift) + (z + float(norm.ppf(settings.sufficient_power))) * shift.error
    return {
        "churners": float(y.sum()),
        "auc": auc(y, p),
        "calibration_shift": shift.value,
        "calibration_shift_lower": shift.value - z * shift.error,
        "calibration_shift_upper": shift.value + z * shift.error,
        "calibration_slope": line.slope,
        "calibration_slope_lower": line.slope - z * line.slope_error,
        "calibration_slope_upper": line.slope + z * line.slope_error,
        "saved_log_loss": saved,
        "saved_log_loss_lower": saved - z * saved_error,
        "detectable_odds": float(np.exp(detectable)),
    }


def refusals(metrics: dict[str, float], spread: float, settings: GateSettings) -> Iterator[str]:
    """Reasons to refuse a model, as sentences; none if it meets all requirements.

    Parameters
    ----------
    metrics
        Result of `standalone_metrics`.
    spread
        Difference between the highest and the lowest churn probability.
    settings
        The requirements.
    """
    if spread < SAME:
        yield "The model gives every customer the same churn probability."
    if metrics["saved_log_loss_lower"] <= 0:
        yield (
            "It does not significantly beat a constant prediction: its log loss is "
            f"{_lower_or_higher(metrics['saved_log_loss'])} ({settings.confidence_level:.0%} interval: "
            f"{_lower_or_higher(metrics['saved_log_loss_lower'])} in the worst case)."
        )
    if metrics["auc"] < settings.min_auc:
        yield f"Its AUC of {metrics['auc']:.3f} is below the required {settings.min_auc:g}."
    if _outside(metrics, "calibration_shift", settings.calibration_shift):
        level = "low" if metrics["calibration_shift"] > 0 else "high"
        odds = [np.exp(metrics[f"calibration_shift{end}"]) for end in ("", "_lower", "_upper")]
        tolerated = [np.exp(limit) for limit in settings.calibration_shift]
        yield (
            f"It is miscalibrated: its churn probabilities are too {level}. The observed odds are {odds[0]:.2f} times the "
            f"predicted ones [{odds[1]:.2f}, {odds[2]:.2f}], outside {tolerated[0]:.2f} to {tolerated[1]:.2f}."
        )
    if spread >= SAME and _outside(metrics, "calibration_slope", settings.calibration_slope):
        confidence = "overconfident" if metrics["calibration_slope"] < 1 else "underconfident"
        yield (
            f"It is {confidence}: its calibration slope is {metrics['calibration_slope']:.2f} "
            f"[{metrics['calibration_slope_lower']:.2f}, {metrics['calibration_slope_upper']:.2f}], "
            f"outside {settings.calibration_slope[0]:g} to {settings.calibration_slope[1]:g}."
        )


def _outside(metrics: dict[str, float], name: str, tolerated: tuple[float, float]) -> bool:
    return metrics[f"{name}_upper"] < tolerated[0] or metrics[f"{name}_lower"] > tolerated[1]


def _lower_or_higher(saved: float) -> str:
    return f"{abs(saved):.4f} {'lower' if saved >= 0 else 'higher'}"
