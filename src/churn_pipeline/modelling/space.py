"""Search spaces: for each searched argument of a candidate, a range of numbers or a list of choices."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

STRICT = ConfigDict(frozen=True, extra="forbid", strict=True)


class Range(BaseModel):
    """Numbers from `low` to `high`, both included; integers if both are written without a decimal point.

    Attributes
    ----------
    low, high : int or float
        Bounds.
    log : bool
        Whether to search on a logarithmic scale.
    step : int or float, optional
        Restricts values to `low`, `low + step`, and so on.
    """

    model_config = STRICT

    low: int | float
    high: int | float
    log: bool = False
    step: int | float | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"low ({self.low}) must be below high ({self.high}), and both must be finite")
        if self.log and self.low <= 0:
            raise ValueError(f"log needs a low above 0, not {self.low}")
        if self.log and self.step is not None:
            raise ValueError("log and step exclude each other: remove one of them")
        if self.step is not None and not 0 < self.step <= self.high - self.low:
            raise ValueError(f"step ({self.step}) must be above 0 and at most high - low ({self.high - self.low})")
        if self.is_integer and isinstance(self.step, float):
            raise ValueError(f"step ({self.step}) must be an integer, because low and high are")
        return self

    @property
    def is_integer(self) -> bool:
        """Whether the range holds integers only."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def contains(self, value: Any) -> bool:
        """Whether a value is in the range."""
        if isinstance(value, bool) or not isinstance(value, int if self.is_integer else (int, float)):
            return False
        steps = (value - self.low) / self.step if self.step else 0.0
        return bool(self.low <= value <= self.high) and math.isclose(steps, round(steps), abs_tol=1e-9)

    def __str__(self) -> str:
        return f"{self.low} to {self.high}" + (f" in steps of {self.step}" if self.step else "")


class Choices(BaseModel):
    """A list of values to choose from.

    Attributes
    ----------
    choices : list of None, bool, int, float or str
        At least two that differ.
    """

    model_config = STRICT

    choices: list[bool | int | float | str | None] = Field(min_length=2)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.choices)) < len(self.choices):
            raise ValueError(f"choices {self.choices} are not all different: remove the duplicates")
        return self

    def contains(self, value: Any) -> bool:
        """Whether a value is one of the choices."""
        return any(value == choice and type(value) is type(choice) for choice in self.choices)

    def __str__(self) -> str:
        return f"one of {self.choices}"


def _kind(block: Any) -> str:
    has_choices = "choices" in block if isinstance(block, dict) else isinstance(block, Choices)
    return "choices" if has_choices else "range"


Dimension = Annotated[Annotated[Range, Tag("range")] | Annotated[Choices, Tag("choices")], Discriminator(_kind)]


class Space(BaseModel):
    """Arguments of a candidate that a search varies, in the same groups as in `Candidate`.

    Attributes
    ----------
    arguments, numeric_arguments, categorical_arguments : dict of str to Range or Choices
        By argument name.
    """

    model_config = STRICT

    arguments: dict[str, Dimension] = Field(default_factory=dict)
    numeric_arguments: dict[str, Dimension] = Field(default_factory=dict)
    categorical_arguments: dict[str, Dimension] = Field(default_factory=dict)

    def dimensions(self) -> Iterator[tuple[str, str, Range | Choices]]:
        """Yield group, argument and dimension of every searched argument, always in the same order."""
        for group in GROUPS:
            for name, dimension in sorted(getattr(self, group).items()):
                yield group, name, dimension


GROUPS: tuple[str, ...] = tuple(Space.model_fields)
