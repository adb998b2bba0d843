"""The label of a customer table: its meaning, and the horizon after which it is known."""

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

HORIZON = re.compile(r"([1-9]\d{0,3}) (day)s?|([1-9]\d{0,2}) (month)s?")
HORIZON_SYNTAX = "write `horizon: 3 months` or `horizon: 31 days`"


class Label(BaseModel):
    """The meaning of the target: what churn means, when it was observed, and over which horizon."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    meaning: str
    observed: str = ""
    horizon: str = Field(
        default="",
        description="Days or calendar months from a row's date until its label is known, such as 3 months or 31 days.",
    )

    @model_validator(mode="before")
    @classmethod
    def _reject_days(cls, content: Any) -> Any:
        if isinstance(content, Mapping) and "horizon_days" in content:
            days = content["horizon_days"]
            raise ValueError(f"horizon_days is now `horizon: {days} days`; calendar months are `horizon: 3 months`")
        return content

    @field_validator("horizon", mode="before")
    @classmethod
    def _check_horizon(cls, horizon: Any) -> str:
        text = "" if horizon is None else str(horizon)
        if text and not HORIZON.fullmatch(text):
            raise ValueError(f"must be a number of days or months: {HORIZON_SYNTAX}")
        return text

    @property
    def horizon_parts(self) -> tuple[int, Literal["days", "months"]]:
        """The horizon as a number and its unit.

        Raises
        ------
        ValueError
            If the horizon is not set. A contract with a date always has one.
        """
        match = HORIZON.fullmatch(self.horizon)
        if match is None:
            raise ValueError("label.horizon is not set")
        return (int(match[1]), "days") if match[2] else (int(match[3]), "months")
