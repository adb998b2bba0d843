"""The vocabulary in which the configuration describes a customer base.

Column names, levels, prices and risks are written with these classes, so another table, or another market, is another
configuration file:

- a *choice* is a categorical column, drawn by shares; a *case* has other shares for rows that match its condition;
- a *condition* (``when``) lists columns and the levels that they must all have;
- the *charge* is a price list: the sum of the items whose conditions match;
- a *curve* is a piecewise linear function, constant outside its points;
- the *hazard* is the monthly risk of leaving: effects of levels, and terms (a number or a curve, with a condition).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cached_property
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

MAX_CURVES_OF_AGE = 8
"""Maximum number of hazard terms with a curve over the age: the risk is tabulated for each subset of them."""

Key = TypeVar("Key")


def _check_level(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{value!r} is not a level: levels are text or integers (put Yes and No in quotes)")
    return value


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _check_sum(shares: dict[Key, float]) -> dict[Key, float]:
    total = math.fsum(shares.values())
    if abs(total - 1.0) > 1e-6:
        raise ValueError(f"the shares of {', '.join(map(repr, shares))} sum to {total:g} instead of 1")
    return shares


def _check_increasing(points: dict[float, float]) -> dict[float, float]:
    if not points or list(points) != sorted(points):
        raise ValueError(f"the points of a curve must be in increasing order: {list(points)}")
    return points


Level = Annotated[str | int, BeforeValidator(_check_level)]
Condition = dict[str, Annotated[tuple[Level, ...], BeforeValidator(_as_tuple)]]
Shares = Annotated[dict[Level, NonNegativeFloat], AfterValidator(_check_sum)]
Points = Annotated[dict[float, float], AfterValidator(_check_increasing)]


class Frozen(BaseModel):
    """Base class: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Identifier(Frozen):
    """The column of unique identifiers; in ``pattern``, ``0`` is any digit and ``A`` any capital letter."""

    column: str
    pattern: str


class Case(Frozen):
    """Shares for the rows that match ``when``; the first matching case applies."""

    when: Condition
    shares: Shares


class Choice(Frozen):
    """A categorical column. Conditions of its cases may use the choices above it."""

    shares: Shares
    cases: dict[str, Case] = {}

    @cached_property
    def levels(self) -> tuple[Level, ...]:
        """All levels of the column, in the order of the configuration."""
        all_shares = [self.shares, *(case.shares for case in self.cases.values())]
        return tuple(dict.fromkeys(level for shares in all_shares for level in shares))


class Age(Frozen):
    """The column of full months since a customer was acquired, at most ``cap``.

    ``acquisition`` is the relative number of acquired customers by months before the last date (1 = the month that ends
    on it). ``unbilled`` is the share of new customers without a bill at the end of their first month: their age is 0.
    ``past_risk`` scales the hazard for the time before the first date of the table.
    """

    column: str
    cap: PositiveInt
    acquisition: Points
    unbilled: Annotated[float, Field(ge=0, le=1)]
    past_risk: PositiveFloat = 1.0

    @model_validator(mode="after")
    def _check_acquisition(self) -> Self:
        if min(self.acquisition) != 1 or min(self.acquisition.values()) < 0:
            raise ValueError("acquisition must start at month 1 and have no negative number")
        return self


class Item(Frozen):
    """An item of the price list: ``add`` (in currency) for rows that match ``when``."""

    when: Condition
    add: float


class Charge(Frozen):
    """The column of monthly charges: the price list times ``multiplier``, plus normal noise (``spread``, in currency)."""

    column: str
    base: float
    items: dict[str, Item] = {}
    multiplier: PositiveFloat = 1.0
    spread: NonNegativeFloat = 0.0
    round_to_cents: PositiveInt = 1


class Total(Frozen):
    """The column of total charges: about age times charge, and ``blank`` at age 0.

    ``spread`` is the standard deviation of the difference: in monthly charges, per square root of the months after the
    first.
    """

    column: str
    spread: NonNegativeFloat
    blank: str


class Label(Frozen):
    """The column of the label and its two levels."""

    column: str
    leaves: Level
    stays: Level


class Curve(Frozen):
    """A piecewise linear function of the age or the charge through ``points``, constant outside them."""

    column: str
    points: Points


class Term(Frozen):
    """A number or a curve that is added to the logarithm of the monthly risk of rows that match ``when``."""

    when: Condition = {}
    add: float | None = None
    curve: Curve | None = None

    @model_validator(mode="after")
    def _check_add_or_curve(self) -> Self:
        if (self.add is None) == (self.curve is None):
            raise ValueError("a term needs either 'add' or 'curve'")
        return self


class Hazard(Frozen):
    """The logarithm of the monthly risk of leaving: an intercept, effects of levels, and terms."""

    intercept: float
    effects: dict[str, dict[Level, float]] = {}
    terms: dict[str, Term] = {}


class Fault(Frozen):
    """A column that is exported wrongly: as a constant ``text``, or in other units (``multiply``).

    The true probabilities are those of the correct column.
    """

    text: str | None = None
    multiply: PositiveFloat | None = None

    @model_validator(mode="after")
    def _check_text_or_multiply(self) -> Self:
        if (self.text is None) == (self.multiply is None):
            raise ValueError("a fault needs either 'text' or 'multiply'")
        return self


class Model(Frozen):
    """A customer base: the columns of its table, and how customers are acquired, charged and lost.

    Raises
    ------
    ValueError
        If a condition or an effect names an unknown column or level; the message says where.
    """

    columns: tuple[str, ...]
    date_column: str
    truth_column: str
    identifier: Identifier
    choices: dict[str, Choice]
    age: Age
    charge: Charge
    total: Total
    label: Label
    hazard: Hazard
    faults: dict[str, Fault] = {}

    @cached_property
    def levels(self) -> dict[str, tuple[Level, ...]]:
        """Levels of each categorical column, the label included (``stays`` first)."""
        return {
            **{column: choice.levels for column, choice in self.choices.items()},
            self.label.column: (self.label.stays, self.label.leaves),
        }

    @cached_property
    def age_terms(self) -> tuple[Term, ...]:
        """The hazard terms with a curve over the age; the other terms are constant over time."""
        terms = self.hazard.terms.values()
        return tuple(term for term in terms if term.curve and term.curve.column == self.age.column)

    @model_validator(mode="after")
    def _check_columns(self) -> Self:
        numbers = {self.age.column, self.charge.column}
        others = [self.identifier.column, self.total.column, self.label.column, *numbers]
        if sorted(self.columns) != sorted([*self.choices, *others]):
            different = set(self.columns) ^ {*self.choices, *others} or "a column is listed twice"
            raise ValueError(f"'columns' differs from the columns described below it: {different}")
        drawn: set[str] = set()
        for column, choice in self.choices.items():
            for name, case in choice.cases.items():
                self._check_known(f"choices.{column}.cases.{name}", case.when.items(), drawn)
            drawn.add(column)
        for name, item in self.charge.items.items():
            self._check_known(f"charge.items.{name}", item.when.items(), drawn)
        self._check_known("hazard.effects", self.hazard.effects.items(), drawn)
        for name, term in self.hazard.terms.items():
            self._check_known(f"hazard.terms.{name}", term.when.items(), drawn)
            if term.curve and term.curve.column not in numbers:
                raise ValueError(
                    f"hazard.terms.{name}: a curve needs one of the columns {numbers}, not {term.curve.column!r}"
                )
        if len(self.age_terms) > MAX_CURVES_OF_AGE:
            raise ValueError(f"hazard.terms: at most {MAX_CURVES_OF_AGE} curves over {self.age.column!r} are possible")
        self._check_faults()
        return self

    def _check_known(self, place: str, used: Iterable[tuple[str, Iterable[Level]]], columns: set[str]) -> None:
        for column, levels in used:
            if column not in columns:
                raise ValueError(f"{place}: {column!r} is not one of the choices drawn before: {sorted(columns)}")
            if unknown := [level for level in levels if level not in self.levels[column]]:
                raise ValueError(f"{place}: {column!r} has no level {unknown}, only {self.levels[column]}")

    def _check_faults(self) -> None:
        charges = {self.charge.column, self.total.column}
        for column, fault in self.faults.items():
            if column not in self.columns:
                raise ValueError(f"faults: unknown column {column!r}")
            if fault.multiply is not None and column not in charges:
                raise ValueError(f"faults.{column}: 'multiply' works for {charges} only")
