"""Settings of the leak check."""

from pydantic import BaseModel, ConfigDict, Field


class LeakSettings(BaseModel):
    """When a feature counts as a leak of the label: the run stops, or warns."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_auc: float = Field(gt=0.5, le=1, default=0.95, description="Highest AUC that a single feature may have.")
    bins: int = Field(ge=2, default=20, description="Number of quantile bins of a numeric feature.")
    allowed: tuple[str, ...] = Field(
        default=(), description="Features that are known before the label. They warn, and never stop the run."
    )
