"""Planted leaks and strong honest features, to be added to any customer table.

Each function takes the features, the label (1 = churned) and a generator, and returns the column or columns to add.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

Churned = np.ndarray
Plant = Callable[[pd.DataFrame, Churned, np.random.Generator], pd.Series | pd.DataFrame]


def _series(cells: Any, customers: pd.DataFrame) -> pd.Series:
    return pd.Series(cells, index=customers.index)


def _hit(churned: Churned, rng: np.random.Generator, churners: float, stayers: float = 0.0) -> np.ndarray:
    """True for a share of the churners and a share of the stayers."""
    return np.asarray(rng.random(len(churned)) < np.where(churned == 1, churners, stayers))


def _text(cells: Any, customers: pd.DataFrame) -> pd.Series:
    return pd.Series(np.asarray(cells, dtype=object), index=customers.index, dtype=object)


# ---- leaks -----------------------------------------------------------------------------------------------------------


def reason_of_leaving(customers: pd.DataFrame, churned: Churned, rng: np.random.Generator) -> pd.Series:
    reasons = rng.choice(["price", "moved", "service", "rival"], len(churned))
    return _text(np.where(_hit(churned, rng, 0.6), reasons, ""), customers)


def last_bill_of_zero(customers: pd.DataFrame, churned: Churned, rng: np.random.Generator) -> pd.Series:
    return _series(np.where(_hit(churned, rng, 0.8), 0.0, rng.gamma(4, 15, len(churned)).round(2)), customers)


def days_without_invoice(customers: pd.DataFrame, churned: Churned, rng: np.random.Generator) -> pd.Series:
    gap = np.where(_hit(churned, rng, 0.9), rng.integers(29, 120, len(churned)), rng.integers(0, 31, len(churned)))
    return _series(gap.astype(float), customers)


def refund(customers: pd.DataFrame, churned: Churned, rng: np.random.Generator) -> pd.Series:
    return _series(np.where(_hit(churned, rng, 0.7, 0.01), rng.gamma(2, 20, len(churned)).round(2), np.nan), customers)


def closing_date(customers: pd.DataFrame, churned: Churned, rng: np.random.Generator) -> pd.Series:
    days = pd.Timestamp("2025-01-01") + pd.to_timedelta(rng.integers(0, 360, len(churned)), unit="D")
    return _text(np.where(_hit(churned, rng, 0.85), days.strftime("%Y-%m-%d"), ""), customers)


def archive_number(customers: pd.DataFrame, churned: Churned, rng: np.random.Generator) -> pd.Series:
    prefix = np.where(_hit(churned, rng, 0.75), "Z", rng.choice(["A", "B", "C"], len(churned)))
    return _text([f"{a}{n:07d}" for a, n in zip(prefix, rng.permutation(len(churned)), strict=True)], customers)


def row_number(customers: pd.DataFrame, churned: Churned, rng: np.random.Generator) -> pd.Series:
    place = np.where(_hit(churned, rng, 0.8), rng.uniform(1, 2, len(churned)), rng.random(len(churned)))
    return _series(place.argsort().argsort().astype(float), customers)


def account_status(customers: pd.DataFrame, churned: Churned, rng: np.random.Generator) -> pd.Series:
    others = rng.choice(["active", "dormant"], len(churned), p=[0.8, 0.2])
    return _text(np.where(_hit(churned, rng, 0.5, 0.003), "closing", others), customers)


def agent_note(customers: pd.DataFrame, churned: Churned, rng: np.random.Generator) -> pd.Series:
    talk = rng.choice(["asked about bill", "new router sent", "line checked", "moved house"], len(churned))
    end = np.where(_hit(churned, rng, 0.55, 0.002), "wants to cancel", "done")
    return _text(
        [f"{a}, case {n}, {b}" for a, n, b in zip(talk, rng.permutation(len(churned)), end, strict=True)], customers
    )


def score_of_another_model(customers: pd.DataFrame, churned: Churned, rng: np.random.Generator) -> pd.Series:
    return _series(1 / (1 + np.exp(-rng.normal(2.3 * churned - 2, 1))), customers)


def two_flags(customers: pd.DataFrame, churned: Churned, rng: np.random.Generator) -> pd.DataFrame:
    first = rng.integers(0, 2, len(churned))
    second = np.where(rng.random(len(churned)) < 0.005, 1 - first, first) ^ churned
    return pd.DataFrame(
        {"flag_of_march": first.astype(float), "flag_of_april": second.astype(float)}, index=customers.index
    )


def prorated_charge(customers: pd.DataFrame, churned: Churned, rng: np.random.Generator) -> pd.Series:
    charge = rng.gamma(9, 7, len(churned))
    return _series(np.where(_hit(churned, rng, 0.7), charge, charge.round(2)), customers)


def ticket_code(customers: pd.DataFrame, churned: Churned, rng: np.random.Generator) -> pd.Series:
    hit = _hit(churned, rng, 0.65)
    return _text(
        [f"T{n}" for n in np.where(hit, rng.integers(0, 40, len(churned)), rng.integers(40, 240, len(churned)))],
        customers,
    )


def churn_share_of_household(customers: pd.DataFrame, churned: Churned, rng: np.random.Generator) -> pd.Series:
    household = rng.permutation(len(churned)) // 3
    return _series(pd.Series(churned).groupby(household).transform("mean").to_numpy(float), customers)


def next_appointment(customers: pd.DataFrame, churned: Churned, rng: np.random.Generator) -> pd.Series:
    days = rng.integers(1, 90, len(churned)).astype(float)
    return _series(np.where(_hit(churned, rng, 0.0, 0.97), days, np.nan), customers)


def frozen_reading(customers: pd.DataFrame, churned: Churned, rng: np.random.Generator) -> pd.DataFrame:
    before = rng.gamma(5, 200, len(churned)).round()
    after = np.where(_hit(churned, rng, 0.75), before, before + rng.poisson(30, len(churned)) + 1)
    return pd.DataFrame({"reading_before": before, "reading_now": after}, index=customers.index)


def narrow_range(customers: pd.DataFrame, churned: Churned, rng: np.random.Generator) -> pd.Series:
    inside = _hit(churned, rng, 0.6)
    outside = np.where(
        rng.random(len(churned)) < 0.5, rng.uniform(0, 0.48, len(churned)), rng.uniform(0.52, 1, len(churned))
    )
    return _series(np.where(inside, rng.uniform(0.48, 0.52, len(churned)), outside), customers)


# ---- honest features -------------------------------------------------------------------------------------------------


def risk_index(customers: pd.DataFrame, churned: Churned, rng: np.random.Generator) -> pd.Series:
    return _series(rng.normal(1.8 * churned, 1), customers)  # AUC 0.9


def support_tickets(customers: pd.DataFrame, churned: Churned, rng: np.random.Generator) -> pd.Series:
    return _series(rng.poisson(np.where(churned == 1, 2.6, 1.0)).astype(float), customers)


def complaint(customers: pd.DataFrame, churned: Churned, rng: np.random.Generator) -> pd.Series:
    base = churned.mean()
    stayers = 0.15 * base / (1 - base) * 0.18 / 0.82  # 82 % of the customers who complained churn
    return _series(_hit(churned, rng, 0.15, stayers).astype(float), customers)


def term_of_contract(customers: pd.DataFrame, churned: Churned, rng: np.random.Generator) -> pd.Series:
    base = churned.mean()
    churners = 0.35 * (1 - base) / base * 0.01 / 0.99  # 1 % of the customers with a long term churn
    return _text(np.where(_hit(churned, rng, churners, 0.35), "two years", "monthly"), customers)


def months_as_customer(customers: pd.DataFrame, churned: Churned, rng: np.random.Generator) -> pd.Series:
    return _series(np.ceil(rng.exponential(np.where(churned == 1, 8, 32))), customers)


def app_rating(customers: pd.DataFrame, churned: Churned, rng: np.random.Generator) -> pd.Series:
    base = churned.mean()
    stayers = 0.3 * base / (1 - base) * 0.4 / 0.6  # 60 % of those without a rating churn
    rating = rng.integers(1, 6, len(churned)).astype(float)
    return _series(np.where(_hit(churned, rng, 0.3, stayers), np.nan, rating), customers)


def days_since_login(customers: pd.DataFrame, churned: Churned, rng: np.random.Generator) -> pd.Series:
    return _series(np.floor(rng.exponential(np.where(churned == 1, 45, 8))), customers)


def satisfaction(customers: pd.DataFrame, churned: Churned, rng: np.random.Generator) -> pd.Series:
    stayers = rng.choice(np.arange(1.0, 6), len(churned), p=[0.04, 0.08, 0.23, 0.35, 0.3])
    churners = rng.choice(np.arange(1.0, 6), len(churned), p=[0.35, 0.27, 0.22, 0.11, 0.05])
    return _series(np.where(churned == 1, churners, stayers), customers)


def town(customers: pd.DataFrame, churned: Churned, rng: np.random.Generator) -> pd.Series:
    weights = [rng.dirichlet(np.full(90, concentration)) for concentration in (3.0, 3.0)]
    towns = [rng.choice(90, len(churned), p=weight) for weight in weights]
    return _text([f"town {n}" for n in np.where(churned == 1, towns[0], towns[1])], customers)


def price_rise(customers: pd.DataFrame, churned: Churned, rng: np.random.Generator) -> pd.Series:
    return _text(np.where(_hit(churned, rng, 0.55, 0.12), "yes", "no"), customers)


def late_payments(customers: pd.DataFrame, churned: Churned, rng: np.random.Generator) -> pd.Series:
    late = _hit(churned, rng, 0.6, 0.1)
    return _series(np.where(late, rng.geometric(np.where(churned == 1, 0.4, 0.7)), 0).astype(float), customers)


def change_in_usage(customers: pd.DataFrame, churned: Churned, rng: np.random.Generator) -> pd.Series:
    change = rng.normal(1 - 0.35 * churned, 0.3).clip(0)
    return _series(np.where(_hit(churned, rng, 0.2, 0.03), 0.0, change), customers)


def balance(customers: pd.DataFrame, churned: Churned, rng: np.random.Generator) -> pd.Series:
    return _series(np.exp(rng.normal(6 - 1.5 * churned, 1)).round(2), customers)


def customer_number(customers: pd.DataFrame, churned: Churned, rng: np.random.Generator) -> pd.Series:
    return _text([f"K-{n:06d}" for n in rng.permutation(len(churned))], customers)


def joined_on(customers: pd.DataFrame, churned: Churned, rng: np.random.Generator) -> pd.Series:
    days = np.minimum(rng.exponential(np.where(churned == 1, 250, 900)), 5000)
    dates = pd.Timestamp("2025-06-30") - pd.to_timedelta(np.floor(days), unit="D")
    return _text(dates.strftime("%Y-%m-%d"), customers)


def call_note(customers: pd.DataFrame, churned: Churned, rng: np.random.Generator) -> pd.Series:
    talk = np.where(_hit(churned, rng, 0.45, 0.12), "finds the price too high", "asked about the bill")
    return _text([f"{a}, case {n}" for a, n in zip(talk, rng.permutation(len(churned)), strict=True)], customers)


LEAKS: dict[str, Plant] = {
    plant.__name__: plant
    for plant in (
        *(reason_of_leaving, last_bill_of_zero, days_without_invoice, refund, closing_date, archive_number, row_number),
        *(account_status, agent_note, score_of_another_model, two_flags, prorated_charge, ticket_code),
        *(churn_share_of_household, next_appointment, frozen_reading, narrow_range),
    )
}
HONEST: dict[str, Plant] = {
    plant.__name__: plant
    for plant in (
        *(risk_index, support_tickets, complaint, term_of_contract, months_as_customer, app_rating, days_since_login),
        *(
            satisfaction,
            town,
            price_rise,
            late_payments,
            change_in_usage,
            balance,
            customer_number,
            joined_on,
            call_note,
        ),
    )
}
