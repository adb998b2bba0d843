"""What a run of the simulation draws: how many customers, in which layout, from which model and scenario."""

from __future__ import annotations

import calendar
from collections.abc import Mapping
from datetime import date
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from churn_pipeline.pipelines.simulation.language import Frozen, Model

MAX_ROWS = 50_000_000
"""Maximum number of customers in one draw: identifiers are computed in 64 bits and must not overflow."""


def overlay(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two mappings: nested mappings key by key, any other value of ``over`` replaces that of ``base``.

    Examples
    --------
    >>> overlay({"a": {"x": 1, "y": 2}, "b": [1, 2]}, {"a": {"y": 3}, "b": [4]})
    {'a': {'x': 1, 'y': 3}, 'b': [4]}
    """
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = overlay(merged[key], value) if both else value
    return merged


class Simulation(Frozen):
    """The parameters of a draw.

    Validation merges the chosen scenario into ``model``, so ``model`` is what is drawn. Merging twice has no further
    effect, because a scenario sets values and does not add to them.

    Raises
    ------
    ValueError
        If the scenario is missing from ``scenarios``, or the observation date is not the last day of a month.
    """

    rows: Annotated[int, Field(ge=1, le=MAX_ROWS)]
    seed: Annotated[int, Field(ge=0)]
    chunk_rows: PositiveInt
    layout: Literal["snapshot", "monthly"]
    months: PositiveInt
    observation_date: date
    horizon_months: PositiveInt
    scenario: str
    scenarios: dict[str, dict[str, Any]]
    model: Model

    @model_validator(mode="before")
    @classmethod
    def _apply_scenario(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping) or not {"model", "scenario", "scenarios"} <= set(raw):
            return raw  # pydantic reports the missing fields
        if raw["scenario"] not in raw["scenarios"]:
            raise ValueError(f"unknown scenario {raw['scenario']!r}: choose one of {list(raw['scenarios'])}")
        return {**raw, "model": overlay(raw["model"], raw["scenarios"][raw["scenario"]])}

    @model_validator(mode="after")
    def _check_observation_date(self) -> Self:
        day = self.observation_date
        if day.day != calendar.monthrange(day.year, day.month)[1]:
            raise ValueError(f"observation_date {day} is not the last day of a month")
        return self

    @property
    def window(self) -> int:
        """Number of month ends in the table; 1 for a snapshot."""
        return self.months if self.layout == "monthly" else 1

    @property
    def horizon(self) -> int:
        """Months after a date within which leaving counts as churn; 1 in the monthly layout."""
        return 1 if self.layout == "monthly" else self.horizon_months

    @cached_property
    def dates(self) -> tuple[str, ...]:
        """The month ends in the table, oldest first, in ISO format."""
        last = self.observation_date.year * 12 + self.observation_date.month - 1
        months = [divmod(last - back, 12) for back in reversed(range(self.window))]
        return tuple(f"{y:04d}-{m + 1:02d}-{calendar.monthrange(y, m + 1)[1]:02d}" for y, m in months)
