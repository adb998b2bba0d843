"""Draws customers from a model, block by block, as arrays.

A block is `BLOCK` customers with one random stream, seeded by the seed and the block's number. Hence a draw does not
depend on the size of its chunks, and a smaller draw is the head of a larger one.

Within a block a table is a dictionary of arrays by column name: codes of levels, ages in months, charges in cents.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from churn_pipeline.pipelines.simulation.language import Choice, Condition, Identifier, Model
from churn_pipeline.pipelines.simulation.settings import Simulation

BLOCK = 10_000
"""Customers per random stream. Another number changes every draw, even with the same seed."""

MAX_BATCHES = 500
"""Maximum number of batches of `BLOCK` candidates per block; a block that needs more raises an error."""

Table = dict[str, NDArray[Any]]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def matches(when: Condition, table: Table, model: Model, size: int) -> NDArray[np.bool_]:
    """Rows in which every column of a condition has one of its levels, bool of shape (size,)."""
    mask = np.ones(size, dtype=bool)
    for column, levels in when.items():
        wanted = np.array([level in levels for level in model.levels[column]])
        mask &= wanted[table[column]]
    return mask


def draw_choice(choice: Choice, table: Table, model: Model, rng: Generator) -> NDArray[np.int8]:
    """Draw the codes of one categorical column, int8 of shape (BLOCK,)."""
    cases = list(choice.cases.values())
    which = np.full(BLOCK, len(cases))  # the choice's own shares, unless a case matches
    for number, case in reversed(list(enumerate(cases))):
        which[matches(case.when, table, model, BLOCK)] = number
    shares = [*(case.shares for case in cases), choice.shares]
    bounds = np.cumsum([[case.get(level, 0.0) for level in choice.levels] for case in shares], axis=1)
    bounds = (bounds / bounds[:, -1:])[:, :-1]
    uniform = rng.random(BLOCK)
    codes = np.zeros(BLOCK, dtype=np.int8)
    for bound in bounds.T:
        codes += uniform >= bound[which]
    return codes


def draw_charge(table: Table, model: Model, rng: Generator) -> Integers:
    """Draw the monthly charges in cents, int64 of shape (BLOCK,)."""
    charge = model.charge
    price = np.full(BLOCK, charge.base)
    for item in charge.items.values():
        price += item.add * matches(item.when, table, model, BLOCK)
    price = price * charge.multiplier + charge.spread * rng.standard_normal(BLOCK)
    return to_cents(price, charge.round_to_cents)


def to_cents(amount: Floats, step: int) -> Integers:
    """Round amounts to multiples of ``step`` cents, none below 0."""
    return np.maximum(np.rint(amount * (100 / step)), 0).astype(np.int64) * step


class Risk:
    """Cumulative risk of leaving, tabulated over the age.

    Few hazard terms have a curve over the age, so the table has a row for each subset of them that a customer can match.
    Everything that is constant over time is one factor per customer. The probability of staying from one age to another
    is ``exp(-factor * (cumulative[subset, to] - cumulative[subset, from]))``. There is no risk at age 0.

    Parameters
    ----------
    model
        The customer base.
    oldest : int
        Highest age that is looked up, in months.
    """

    def __init__(self, model: Model, oldest: int) -> None:
        self.model = model
        ages = np.minimum(np.arange(oldest), model.age.cap).astype(np.float64)
        curves = [np.interp(ages, *_points(term.curve.points)) for term in model.age_terms if term.curve]
        log_risk = np.zeros((2 ** len(curves), oldest))
        for number, curve in enumerate(curves):
            log_risk[(np.arange(len(log_risk)) >> number) & 1 == 1] += curve
        monthly = np.exp(log_risk)
        monthly[:, 0] = 0.0
        self.cumulative = np.pad(np.cumsum(monthly, axis=1), ((0, 0), (1, 0)))

    def factor(self, table: Table) -> Floats:
        """The part of the monthly risk that is constant over time, float64 of shape (BLOCK,)."""
        model, hazard = self.model, self.model.hazard
        log_risk = np.full(BLOCK, hazard.intercept)
        for column, effects in hazard.effects.items():
            log_risk += np.array([effects.get(level, 0.0) for level in model.levels[column]])[table[column]]
        for term in hazard.terms.values():
            if term.curve is None:
                log_risk += (term.add or 0.0) * matches(term.when, table, model, BLOCK)
            elif term.curve.column == model.charge.column:
                curve = np.interp(table[model.charge.column] / 100, *_points(term.curve.points))
                log_risk += curve * matches(term.when, table, model, BLOCK)
        return np.asarray(np.exp(log_risk))

    def subset(self, table: Table) -> Integers:
        """The age terms that each row matches, as the bits of a number, int64 of shape (BLOCK,)."""
        bits = np.zeros(BLOCK, dtype=np.int64)
        for number, term in enumerate(self.model.age_terms):
            bits += matches(term.when, table, self.model, BLOCK).astype(np.int64) << number
        return bits

    def leaving(self, factor: Floats, subset: Integers, age: Integers, horizon: int) -> Floats:
        """The probability of leaving within ``horizon`` months of an age, rounded to 6 decimals; 0 at age 0."""
        risk = self.cumulative[subset, age + horizon] - self.cumulative[subset, age]
        return np.where(age == 0, 0.0, np.round(-np.expm1(-factor * risk), 6))


def _points(points: dict[float, float]) -> tuple[list[float], list[float]]:
    return list(points), list(points.values())


def draw_blocks(simulation: Simulation) -> Iterator[Table]:
    """Draw all customers, one block after the other.

    Yields
    ------
    dict of str to ndarray
        One row per customer and date, ordered by customer: codes of the choices and of the label, age in months and
        charges in cents. The identifier column holds the customer's number (from 0), the date column the date's number
        in the window, and the truth column the probability of leaving within the horizon, rounded to 6 decimals.

    Raises
    ------
    ValueError
        If too few customers stay until the first date to fill a block.
    """
    model = simulation.model
    oldest = int(max(model.age.acquisition)) + 1
    risk = Risk(model, oldest + simulation.horizon)
    for number in range(math.ceil(simulation.rows / BLOCK)):
        rng = np.random.default_rng(np.random.SeedSequence(simulation.seed, spawn_key=(number,)))
        customers = draw_survivors(simulation, risk, rng)
        rows = follow(simulation, risk, customers, rng)
        rows[model.identifier.column] += number * BLOCK
        yield {name: column[rows[model.identifier.column] < simulation.rows] for name, column in rows.items()}


def draw_survivors(simulation: Simulation, risk: Risk, rng: Generator) -> Table:
    """Draw `BLOCK` customers who have not left before their first date in the window.

    Candidates are drawn as acquired, and kept with their probability of staying until that date. Besides the model's
    columns the table has ``" first"`` (the number of that date), ``" factor"`` and ``" subset"`` (see `Risk`); the leading
    space avoids clashes with columns of the model. The age is that at the first date, before it is capped.
    """
    model, last = simulation.model, simulation.window - 1
    months = np.arange(1, max(model.age.acquisition) + 1)
    acquired = np.cumsum(np.interp(months, *_points(model.age.acquisition)))
    kept: list[Table] = []
    for _ in range(MAX_BATCHES):
        batch: Table = {}
        for column, choice in model.choices.items():
            batch[column] = draw_choice(choice, batch, model, rng)
        batch[model.charge.column] = draw_charge(batch, model, rng)
        month = 1 + np.searchsorted(acquired / acquired[-1], rng.random(BLOCK), side="right")
        unbilled = rng.random(BLOCK) < model.age.unbilled
        batch[" first"] = np.maximum(last + 1 - month, 0)
        batch[model.age.column] = month - unbilled - (last - batch[" first"])
        batch[" factor"], batch[" subset"] = risk.factor(batch), risk.subset(batch)
        past = risk.cumulative[batch[" subset"], batch[model.age.column]]
        # Customers who join within the window have no earlier risk: their first date ends their first month.
        past[batch[" first"] > 0] = 0.0
        stays = rng.random(BLOCK) < np.round(np.exp(-model.age.past_risk * batch[" factor"] * past), 6)
        kept.append({name: column[stays] for name, column in batch.items()})
        if sum(len(part[" first"]) for part in kept) >= BLOCK:
            return {name: np.concatenate([part[name] for part in kept])[:BLOCK] for name in batch}
    raise ValueError(f"fewer than 1 in {MAX_BATCHES} customers stay until the first date: lower the hazard")


def follow(simulation: Simulation, risk: Risk, customers: Table, rng: Generator) -> Table:
    """Follow a block through the window: one row per customer and date, from the first date until the customer leaves.

    The label compares a uniform number with the rounded probability, so the probabilities in the truth file are exact.
    """
    model, age = simulation.model, simulation.model.age
    drift = model.total.spread * np.clip(rng.standard_normal(BLOCK), -4, 4)
    there = np.ones(BLOCK, dtype=bool)
    dates: list[Table] = []
    for date in range(simulation.window):
        present = np.flatnonzero(there & (customers[" first"] <= date))
        rows = {name: column[present] for name, column in customers.items()}
        months = rows[age.column] + date - rows[" first"]
        chance = risk.leaving(rows[" factor"], rows[" subset"], months, simulation.horizon)
        leaves = rng.random(BLOCK)[present] < chance
        there[present[leaves]] = False
        months = np.minimum(months, age.cap)
        # The square root lets the difference grow like a sum of independent ones, and the total never falls.
        billed = months + drift[present] * np.sqrt(np.maximum(months - 1, 0))
        rows[model.identifier.column] = present
        rows[model.date_column] = np.full(len(present), date)
        rows[age.column] = months
        total = to_cents(rows[model.charge.column] / 100 * billed, model.charge.round_to_cents)
        rows[model.total.column] = total
        rows[model.label.column] = leaves.astype(np.int8)
        rows[model.truth_column] = chance
        dates.append(rows)
    order = np.argsort(np.concatenate([rows[model.identifier.column] for rows in dates]), kind="stable")
    names = [*model.columns, model.date_column, model.truth_column]
    return {name: np.concatenate([rows[name] for rows in dates])[order] for name in names}


def identifiers(identifier: Identifier, numbers: Integers, seed: int) -> NDArray[np.str_]:
    """Identifiers of customer numbers, unique without storing any.

    The numbers are permuted by ``(a * number + b) mod m``: m is the number of identifiers that match the pattern, a is
    coprime to m and near m / golden ratio, and b comes from the seed.

    Parameters
    ----------
    identifier
        Its pattern: ``0`` is any digit, ``A`` any capital letter, any other character is literal.
    numbers : ndarray of shape (n,), int64
        Customer numbers from 0.
    seed : int
        Seed of the draw.

    Raises
    ------
    ValueError
        If too few identifiers match the pattern, or too many for 64 bits.
    """
    symbols = {"0": b"0123456789", "A": bytes(range(65, 91))}
    places = [symbols.get(symbol, symbol.encode("ascii")) for symbol in identifier.pattern]
    size = math.prod(map(len, places))
    highest = int(numbers.max(initial=0))
    if not highest < size < 2**63 // (highest + 2):
        problem = "too few" if highest >= size else "too many to compute them in 64 bits"
        raise ValueError(f"pattern {identifier.pattern!r} has {size} identifiers, {problem} for customer {highest}")
    factor = int(size * 0.6180339887)
    while math.gcd(factor, size) != 1:
        factor += 1
    offset = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]) % size
    rest = (numbers * factor + offset) % size
    text = np.empty((len(numbers), len(places)), dtype=np.uint8)
    for place in reversed(range(len(places))):
        rest, digit = np.divmod(rest, len(places[place]))
        text[:, place] = np.frombuffer(places[place], dtype=np.uint8)[digit]
    return text.view(f"S{len(places)}").ravel().astype(f"U{len(places)}")
