"""Settings of the leak check."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class LeakSettings(BaseModel):
    """When a feature counts as a leak of the label: the run stops, or warns."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_auc: float = Field(gt=0.5, le=1, default=0.95, description="The run stops if one feature has a higher AUC.")
    warn_auc: float = Field(gt=0.5, le=1, default=0.92, description="A feature with a higher AUC warns.")
    stop_share: float = Field(
        gt=0.5, lt=1, default=0.9, description="The run stops if at least this share churned in a large cell."
    )
    warn_share: float = Field(
        gt=0.5, lt=1, default=0.85, description="A large cell in which at least this share churned warns."
    )
    max_rows: int = Field(ge=1000, default=100_000, description="A larger table is checked on a sample of this size.")
    allowed: tuple[str, ...] = Field(
        default=(), description="Features that are known before the label. They warn, and never stop the run."
    )

    @model_validator(mode="after")
    def _limits_in_order(self) -> Self:
        for warn, stop in (("warn_auc", "max_auc"), ("warn_share", "stop_share")):
            if getattr(self, warn) > getattr(self, stop):
                raise ValueError(f"`{warn}` must not be above `{stop}`")
        return self
