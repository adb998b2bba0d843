"""Markdown: lists, tables and numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def bullets(facts: Mapping[str, Any]) -> list[str]:
    """One bullet per fact."""
    return [f"- {name}: {_plain(fact)}" for name, fact in facts.items()]


def _plain(fact: Any) -> str:
    if isinstance(fact, Mapping):
        return ", ".join(f"{name} {_plain(inner)}" for name, inner in fact.items())
    if isinstance(fact, list | tuple):
        return ", ".join(map(_plain, fact))
    return str(fact)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def number(value: float, like: float | None = None) -> str:
    """Format a number with a precision chosen from its own size, or from the size of `like`; empty if not finite."""
    if not np.isfinite(value):
        return ""
    size = abs(value if like is None else like)
    digits = 1 if size >= 100 else 2 if size >= 5 else 4
    return f"{value:,.{digits}f}"


def interval(row: Mapping[Any, Any], like: float) -> str:
    """Format the limits `lower` and `upper` of a row with the precision of `like`."""
    return f"{number(row['lower'], like)} to {number(row['upper'], like)}"


def interval_or_chance(row: Mapping[Any, Any], like: float) -> str:
    """Format the limits of a row; without limits, what chance explains; empty if the row has neither."""
    if np.isfinite(row["lower"]):
        return interval(row, like)
    by_chance = row.get("by_chance", np.nan)
    return f"up to {number(by_chance, like)} by chance" if np.isfinite(by_chance) else ""


def percent(value: float) -> str:
    """Format a share; empty if not finite."""
    return f"{value:.1%}" if np.isfinite(value) else ""


def words(metric: str) -> str:
    """A metric's name as words."""
    return metric.replace("_", " ")


def code(name: str) -> str:
    """A name as code."""
    return f"`{name}`"


def escape(text: str) -> str:
    """Escape text from the data, so that it cannot break a table or be read as markup."""
    return "".join(f"\\{sign}" if sign in "\\`*_[]<>|#" else sign for sign in text.replace("\n", " "))
