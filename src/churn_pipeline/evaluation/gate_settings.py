"""Requirements of the promotion gate."""

from pydantic import BaseModel, ConfigDict, Field


class GateSettings(BaseModel):
    """Requirements that a model must meet.

    Attributes
    ----------
    confidence_level
        Coverage of the intervals by which a model is evaluated on its own.
    min_auc
        A model with a lower AUC is refused.
    calibration_shift
        Tolerated calibration-in-the-large, in log-odds: 0.18 is odds that are 1.2 times too high or too low. A model is
        refused if the whole interval lies outside.
    calibration_slope
        Tolerated slope of Cox's calibration line, by the same rule. Below 1 a model is overconfident, above 1
        underconfident.
    log_loss_share
        Margin of the log loss: the share of the baseline's gain over a constant prediction that may be lost.
    profit_share
        Margin of the profit: the share of the baseline's profit that may be lost.
    error_rate
        Error of each non-inferiority test, which is one-sided. All tests for a significant loss together have the same
        error, two-sided.
    sufficient_power
        The hold-out suffices if an equally good challenger passes with at least this probability.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    confidence_level: float = Field(default=0.95, gt=0.5, lt=1)
    min_auc: float = Field(default=0.6, ge=0.5, lt=1)
    calibration_shift: tuple[float, float] = (-0.18, 0.18)
    calibration_slope: tuple[float, float] = (0.75, 1.33)
    log_loss_share: float = Field(default=0.1, gt=0, lt=1)
    profit_share: float = Field(default=0.2, gt=0, lt=1)
    error_rate: float = Field(default=0.05, gt=0, lt=0.5)
    sufficient_power: float = Field(default=0.95, gt=0.5, lt=1)
