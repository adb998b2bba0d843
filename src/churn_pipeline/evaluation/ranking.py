"""Customers ranked by churn probability: profit of contacting all above a cut, and the cut that earns most."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from churn_pipeline.costs import NO_CONTACT_THRESHOLD, CostModel
from churn_pipeline.evaluation.predictions import Labels, Probabilities

Counts = npt.NDArray[np.int64] | None


@dataclass(frozen=True)
class Ranked:
    """Customers in descending order of churn probability, with a cut after each distinct probability.

    With acceptance γ, contacting all customers above a cut earns the sum of ``γ * retained - spent``.
    """

    p: Probabilities  # probability at each cut, (k,)
    last: npt.NDArray[np.intp]  # last row above each cut, (k,)
    y: Labels  # labels in that order, (n,); the following have the same shape and order
    retained: Probabilities  # value minus offer cost, if a churner accepts
    spent: Probabilities  # contact cost, plus the offer cost of a stayer
    order: npt.NDArray[np.intp]

    def sums(self, of: Probabilities | Labels, counts: Counts) -> Probabilities:
        """Sums of a column above each cut, (k,); `counts` says how often each row counts."""
        summed = np.cumsum(of if counts is None else of * counts)
        return np.asarray(summed[self.last], dtype=np.float64)


def rank_customers(y: Labels, p: Probabilities, value: Probabilities, costs: CostModel) -> Ranked:
    """Rank customers, given as arrays of shape (n,)."""
    order = np.argsort(-p, kind="stable")
    y, p, value = y[order], p[order], value[order]
    last = np.flatnonzero(np.append(np.diff(p) != 0, True))
    retained = y * (value - costs.offer_cost)
    spent = np.asarray(costs.contact_cost + (1 - y) * costs.offer_cost, dtype=np.float64)
    return Ranked(p[last], last, y, retained, spent, order)


def best_cut(ranked: Ranked, acceptance: float, counts: Counts) -> tuple[float, float]:
    """The threshold that earns most on these rows, and its total profit."""
    profit = acceptance * ranked.sums(ranked.retained, counts) - ranked.sums(ranked.spent, counts)
    best = int(profit.argmax())
    return (float(ranked.p[best]), float(profit[best])) if profit[best] > 0 else (NO_CONTACT_THRESHOLD, 0.0)
