"""Settings of the leak check."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class LeakSettings(BaseModel):
    """When a feature gives the label away so clearly that the run stops, or warns."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_auc: float = Field(gt=0.5, le=1, default=0.95, description="The run stops if one feature has a higher AUC.")
    warn_auc: float = Field(gt=0.5, le=1, default=0.92, description="The run warns about a feature with a higher AUC.")
    stop_share: float = Field(
        gt=0.5,
        lt=1,
        default=0.9,
        description="The run stops if a large cell has a churn share with at least this lower limit.",
    )
    warn_share: float = Field(
        gt=0.5,
        lt=1,
        default=0.85,
        description="The run warns about a cell whose churn share has at least this lower limit.",
    )
    max_rows: int = Field(ge=1000, default=100_000, description="A larger table is checked on a sample of this size.")
    allowed: tuple[str, ...] = Field(
        default=(), description="Features that are known before the label. The run warns about them, but never stops."
    )

    @model_validator(mode="after")
    def _limits_in_order(self) -> Self:
        for warn, stop in (("warn_auc", "max_auc"), ("warn_share", "stop_share")):
            if getattr(self, warn) > getattr(self, stop):
                raise ValueError(f"`{warn}` must not be above `{stop}`")
        return self
