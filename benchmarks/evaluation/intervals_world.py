"""A world with known truth: customers, their churn, and the churn probabilities of a slightly wrong model."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import expit

from churn_pipeline.costs import CostModel
from churn_pipeline.evaluation.holdout import Holdout

COSTS = CostModel(value=600, offer_cost=50, contact_cost=5, acceptance=0.3)
SIGNAL, HIDDEN, PLAN = 1.2, 0.8, {"basic": 0.25, "plus": 0.0, "pro": -0.25}  # effects on the log-odds
SLOPE, SHIFT = 1.1, -0.05  # the model is overconfident and a little too low


@dataclass(frozen=True)
class World:
    """Size, churn share and rows per customer; in a panel, a hidden effect of the customer lasts over all rows."""

    rows: int
    churn: float
    rows_per_customer: int = 1
    calibrated: bool = False

    @property
    def name(self) -> str:
        """Such as "1,500 rows, 11 % churn"."""
        panel = f" of {self.rows // self.rows_per_customer:,} customers" if self.rows_per_customer > 1 else ""
        return f"{self.rows:,} rows{panel}, {self.churn:.0%} churn"

    def draw(self, rng: np.random.Generator, rows: int | None = None) -> tuple[Holdout, pd.DataFrame]:
        """Draw held-out rows and their segments: ``gender`` without any effect, and ``plan``, which the model ignores."""
        customers = (rows or self.rows) // self.rows_per_customer
        repeat = np.repeat(np.arange(customers), self.rows_per_customer)
        lasting, hidden = rng.normal(size=(2, customers))
        signal = np.sqrt(0.7) * lasting[repeat] + np.sqrt(0.3) * rng.normal(size=repeat.size)
        plan = rng.choice(list(PLAN), customers)[repeat]
        gender = rng.choice(["female", "male"], customers)[repeat]
        odds = SIGNAL * signal + pd.Series(plan).map(PLAN).to_numpy() * (not self.calibrated)
        if self.rows_per_customer > 1:
            odds = odds + HIDDEN * hidden[repeat]
        base = self._intercept()
        truth = expit(base + odds)
        predicted = expit(base + SIGNAL * signal if self.calibrated else SLOPE * (base + SIGNAL * signal) + SHIFT)
        value = rng.lognormal(6.2, 0.5, customers)[repeat]
        churned = (rng.random(repeat.size) < truth).astype(np.int64)
        groups = repeat if self.rows_per_customer > 1 else None
        return Holdout(churned, predicted, value, groups), pd.DataFrame({"gender": gender, "plan": plan})

    def _intercept(self) -> float:
        """The intercept that gives the churn share, by Gauss-Hermite quadrature over the normal effects."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(40)
        spread = np.hypot(SIGNAL, HIDDEN if self.rows_per_customer > 1 else 0)
        share = lambda base: (expit(base + spread * nodes) * weights).sum() / weights.sum() - self.churn  # noqa: E731
        return float(brentq(share, -8, 2))
