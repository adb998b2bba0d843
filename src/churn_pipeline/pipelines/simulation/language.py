"""The language in which the configuration describes a customer base.

Everything a draw knows of the table (column names, levels, prices, risks) is written in these few words, so that
another table, or another world, is another file of configuration:

- a *choice* is a column of levels, drawn with shares; a *case* gives other shares where its condition holds;
- a *condition* (``when``) names columns and the levels they must have, all at once;
- the *charge* is a price list: items added up where their conditions hold;
- a *curve* is a line through points, flat outside them;
- the *hazard* is the monthly risk of leaving: effects of levels, and terms (a number or a curve, under a condition);
- a *scenario* is a block of the same words laid over the model.

The models are frozen and refuse unknown keys; their messages say what to mend.
"""

from __future__ import annotations

import calendar
import math
from collections.abc import Iterable, Mapping
from datetime import date
from functools import cached_property
from typing import Annotated, Any, Literal, Self, TypeVar

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

MAX_ROWS = 50_000_000
"""Customers one draw may have: an identifier is computed in 64 bits, and must not overflow."""

MAX_CURVES_OF_AGE = 8
"""Terms of the hazard that may follow a customer's age: the risk is tabulated for each subset of them."""


Key = TypeVar("Key")


def _level(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{value!r} is no level: levels are text or whole numbers (put Yes and No in quotes)")
    return value


def _several(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _sum_to_one(shares: dict[Key, float]) -> dict[Key, float]:
    total = math.fsum(shares.values())
    if abs(total - 1.0) > 1e-6:
        raise ValueError(f"the shares of {', '.join(map(repr, shares))} sum to {total:g}, not to 1")
    return shares


def _increasing(points: dict[float, float]) -> dict[float, float]:
    if not points or list(points) != sorted(points):
        raise ValueError(f"a curve needs points in increasing order, not {list(points)}")
    return points


Level = Annotated[str | int, BeforeValidator(_level)]
Condition = dict[str, Annotated[tuple[Level, ...], BeforeValidator(_several)]]
Shares = Annotated[dict[Level, NonNegativeFloat], AfterValidator(_sum_to_one)]
Points = Annotated[dict[float, float], AfterValidator(_increasing)]


class Word(BaseModel):
    """A word of the language: immutable, and deaf to keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Identifier(Word):
    """Column of unique identifiers; in ``pattern``, ``0`` stands for a digit and ``A`` for a capital letter."""

    column: str
    pattern: str


class Case(Word):
    """Shares that hold instead of a choice's own where ``when`` does; the first case that holds is taken."""

    when: Condition
    shares: Shares


class Choice(Word):
    """A column of levels. Its cases may look at the choices written before it."""

    shares: Shares
    cases: dict[str, Case] = {}

    @cached_property
    def levels(self) -> tuple[Level, ...]:
        """All levels of the column, in the order in which they are written."""
        blocks = [self.shares, *(case.shares for case in self.cases.values())]
        return tuple(dict.fromkeys(level for shares in blocks for level in shares))


class Age(Word):
    """Column of whole months since a customer was acquired, at most ``cap``.

    ``acquisition`` gives the relative number acquired, over months before the last date (1 = in the month that ends
    there). ``unbilled`` is the share of new customers who have no bill at their first month's end: their age is 0.
    ``past_risk`` is the risk of leaving before the first date drawn, relative to the hazard from then on.
    """

    column: str
    cap: PositiveInt
    acquisition: Points
    unbilled: Annotated[float, Field(ge=0, le=1)]
    past_risk: PositiveFloat = 1.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if min(self.acquisition) != 1 or min(self.acquisition.values()) < 0:
            raise ValueError("acquisition starts at month 1 and has no negative number")
        return self


class Item(Word):
    """A position of the price list: ``add`` (in currency) where ``when`` holds."""

    when: Condition
    add: float


class Charge(Word):
    """Column of monthly charges: the price list times ``multiplier``, with a normal ``spread`` (in currency)."""

    column: str
    base: float
    items: dict[str, Item] = {}
    multiplier: PositiveFloat = 1.0
    spread: NonNegativeFloat = 0.0
    round_to_cents: PositiveInt = 1


class Total(Word):
    """Column of charges so far: age times charge, and ``blank`` at age 0.

    ``spread`` is the standard deviation of the difference, in charges per root of a month after the first.
    """

    column: str
    spread: NonNegativeFloat
    blank: str


class Label(Word):
    """Column that says whether the customer left, and its two levels."""

    column: str
    leaves: Level
    stays: Level


class Curve(Word):
    """A line through ``points`` over the age or the charge; flat outside them."""

    column: str
    points: Points


class Term(Word):
    """What is added to the logarithm of the monthly risk where ``when`` holds: a number or a curve."""

    when: Condition = {}
    add: float | None = None
    curve: Curve | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.add is None) == (self.curve is None):
            raise ValueError("a term has either 'add' or 'curve'")
        return self


class Hazard(Word):
    """Logarithm of the monthly risk of leaving: an intercept, effects of levels, and terms."""

    intercept: float
    effects: dict[str, dict[Level, float]] = {}
    terms: dict[str, Term] = {}


class Fault(Word):
    """A column written wrongly, after the truth is settled: as one ``text``, or in other units (``multiply``)."""

    text: str | None = None
    multiply: PositiveFloat | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.text is None) == (self.multiply is None):
            raise ValueError("a fault has either 'text' or 'multiply'")
        return self


class Model(Word):
    """A customer base: its table and how its customers come and go.

    Raises
    ------
    ValueError
        If a name is used that no column has, or a level that its column has not; with the place.
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
        """Levels of each column of levels, the label's among them (who stays first)."""
        return {
            **{column: choice.levels for column, choice in self.choices.items()},
            self.label.column: (self.label.stays, self.label.leaves),
        }

    @cached_property
    def age_terms(self) -> tuple[Term, ...]:
        """The terms of the hazard that follow the age; the other terms do not change with time."""
        terms = self.hazard.terms.values()
        return tuple(term for term in terms if term.curve and term.curve.column == self.age.column)

    @model_validator(mode="after")
    def _check(self) -> Self:
        numbers = {self.age.column, self.charge.column}
        others = [self.identifier.column, self.total.column, self.label.column, *numbers]
        if sorted(self.columns) != sorted([*self.choices, *others]):
            odd = set(self.columns) ^ {*self.choices, *others} or "one named twice"
            raise ValueError(f"'columns' and the columns described differ: {odd}")
        drawn: set[str] = set()
        for column, choice in self.choices.items():
            for name, case in choice.cases.items():
                self._known(f"choices.{column}.cases.{name}", case.when.items(), drawn)
            drawn.add(column)
        for name, item in self.charge.items.items():
            self._known(f"charge.items.{name}", item.when.items(), drawn)
        self._known("hazard.effects", self.hazard.effects.items(), drawn)
        for name, term in self.hazard.terms.items():
            self._known(f"hazard.terms.{name}", term.when.items(), drawn)
            if term.curve and term.curve.column not in numbers:
                raise ValueError(f"hazard.terms.{name}: a curve is over one of {numbers}, not {term.curve.column!r}")
        if len(self.age_terms) > MAX_CURVES_OF_AGE:
            raise ValueError(f"hazard.terms: at most {MAX_CURVES_OF_AGE} curves over {self.age.column!r}")
        self._check_faults()
        return self

    def _known(self, place: str, used: Iterable[tuple[str, Iterable[Level]]], columns: set[str]) -> None:
        for column, levels in used:
            if column not in columns:
                raise ValueError(f"{place}: no choice {column!r} is drawn before this; there are {sorted(columns)}")
            if unknown := [level for level in levels if level not in self.levels[column]]:
                raise ValueError(f"{place}: {column!r} has no level {unknown}; it has {self.levels[column]}")

    def _check_faults(self) -> None:
        charges = {self.charge.column, self.total.column}
        for column, fault in self.faults.items():
            if column not in self.columns:
                raise ValueError(f"faults: there is no column {column!r}")
            if fault.multiply is not None and column not in charges:
                raise ValueError(f"faults.{column}: only {charges} can be written in other units")


def overlay(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one mapping over another: mappings are merged key by key, anything else is replaced.

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


class Simulation(Word):
    """What to draw (``rows`` customers, in which layout) and from which model.

    On validation the chosen scenario is laid over ``model``, so ``model`` is the world that is drawn. Overrides are
    values, not changes: laying a scenario twice is laying it once.

    Raises
    ------
    ValueError
        If the scenario is not among ``scenarios``, or the observation date is not the last day of a month.
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
            return raw  # what is missing is reported by the fields
        if raw["scenario"] not in raw["scenarios"]:
            raise ValueError(f"there is no scenario {raw['scenario']!r}; choose one of {list(raw['scenarios'])}")
        return {**raw, "model": overlay(raw["model"], raw["scenarios"][raw["scenario"]])}

    @model_validator(mode="after")
    def _check(self) -> Self:
        day = self.observation_date
        if day.day != calendar.monthrange(day.year, day.month)[1]:
            raise ValueError(f"observation_date {day} is not the last day of a month")
        return self

    @property
    def window(self) -> int:
        """Number of month ends drawn: one for a snapshot."""
        return self.months if self.layout == "monthly" else 1

    @property
    def horizon(self) -> int:
        """Months after a date within which leaving counts: one between monthly snapshots."""
        return 1 if self.layout == "monthly" else self.horizon_months

    @cached_property
    def dates(self) -> tuple[str, ...]:
        """The month ends drawn, oldest first, as ISO text."""
        last = self.observation_date.year * 12 + self.observation_date.month - 1
        months = [divmod(last - back, 12) for back in reversed(range(self.window))]
        return tuple(f"{y:04d}-{m + 1:02d}-{calendar.monthrange(y, m + 1)[1]:02d}" for y, m in months)
