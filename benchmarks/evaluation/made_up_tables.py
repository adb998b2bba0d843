"""Twelve made-up tables, and what a person would choose as the roles of their columns."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd

ROWS = 800
rng = np.random.default_rng(20260101)


class MadeUp(NamedTuple):
    """A table, and the roles that a person would choose."""

    table: pd.DataFrame
    target: str
    positive: str
    id: str | None
    protected: frozenset[str] = frozenset()
    ignored: frozenset[str] = frozenset()


def _levels(*levels: object) -> np.ndarray:
    return rng.choice(np.array(levels, dtype=object), ROWS)


def _numbers(low: int, high: int) -> np.ndarray:
    return rng.integers(low, high, ROWS)


def _ids(low: int, high: int) -> np.ndarray:
    return rng.choice(np.arange(low, high), ROWS, replace=False)


def _churned(share: float = 0.25) -> np.ndarray:
    return rng.random(ROWS) < share


def broadband() -> MadeUp:
    left = _churned()
    table = {
        "AccountNumber": [f"AC{number:06d}" for number in _ids(0, 900_000)],
        "Title": _levels("Mr", "Mrs", "Ms"),
        "Date of Birth": _levels(*pd.date_range("1950-01-01", "2004-01-01", freq="17D").strftime("%Y-%m-%d")),
        "Speed Mbps": _numbers(10, 900),
        "Router Age": _numbers(0, 60),
        "Termination Date": np.where(left, "2026-03-31", ""),
        "Account Status": np.where(left, "Terminated", _levels("Live", "Suspended")),
    }
    return MadeUp(
        pd.DataFrame(table),
        *("Account Status", "Terminated", "AccountNumber"),
        ignored=frozenset({"Termination Date", "Date of Birth"}),
    )


def streaming() -> MadeUp:
    left = _churned()
    table = {
        "user_uuid": [f"{number:08x}" for number in _ids(0, 900_000)],
        "country": _levels("DE", "FR", "ES"),
        "hours_watched": rng.gamma(2, 9, ROWS).round(1),
        "age_band": _levels("18-25", "26-40", "41-65"),
        "auto_renew": np.where(left & (rng.random(ROWS) < 0.6), "off", "on"),
        "cancelled_at": np.where(left, "2026-02-01", ""),
        "retained": (~left).astype(int),
    }
    return MadeUp(
        pd.DataFrame(table),
        *("retained", "0", "user_uuid"),
        protected=frozenset({"age_band"}),
        ignored=frozenset({"cancelled_at", "auto_renew"}),
    )


def pension_fund() -> MadeUp:
    left = _churned(0.1)
    table = {
        "Nr": np.arange(1, ROWS + 1),
        "PolicyNo": _ids(4_000_000, 4_900_000),
        "Sex": _levels("m", "f"),
        "Civil Status": _levels("single", "married", "widowed"),
        "Premium": rng.uniform(20, 900, ROWS).round(2),
        "Policy Age": _numbers(0, 400),
        "Broker": _levels(*range(101, 160)),
        "Lapse": np.where(left, "Y", "N"),
    }
    return MadeUp(pd.DataFrame(table), "Lapse", "Y", "PolicyNo", frozenset({"Sex", "Civil Status"}), frozenset({"Nr"}))


def food_delivery() -> MadeUp:
    left = _churned(0.4)
    table = {
        "customer_key": _ids(10_000, 99_999),
        "first_name": _levels(*(f"Name{number}" for number in range(90))),
        "orders_30d": rng.poisson(3, ROWS),
        "rating": rng.choice([1.0, 2.0, 3.5, 5.0], ROWS),
        "newsletter": _levels("Yes", "No"),
        "has_coupon": _levels("Yes", "No"),
        "churn_probability": np.where(left, rng.uniform(0.4, 1, ROWS), rng.uniform(0, 0.7, ROWS)).round(4),
        "churned_next_quarter": np.where(left, "Yes", "No"),
    }
    ignored = frozenset({"first_name", "churn_probability"})
    return MadeUp(pd.DataFrame(table), "churned_next_quarter", "Yes", "customer_key", ignored=ignored)


def energy() -> MadeUp:
    left = _churned(0.15)
    table = {
        "contract_id": [f"C-{number}" for number in _ids(0, 99_999)],
        "plz": _levels(*rng.integers(10_115, 99_000, 50)),
        "kwh": rng.normal(3200, 800, ROWS).round(),
        "heat_pump": _levels(True, False),
        "nationality": _levels("A", "B", "C"),
        "switch_reason": np.where(left, _levels("price", "move"), ""),
        "switched_supplier": left,
    }
    return MadeUp(
        pd.DataFrame(table),
        *("switched_supplier", "True", "contract_id"),
        protected=frozenset({"nationality"}),
        ignored=frozenset({"switch_reason"}),
    )


def saas_seats() -> MadeUp:
    left = _churned()
    table = {
        "id": np.arange(500, 500 + ROWS),
        "company": [f"Company {number} Ltd" for number in range(ROWS)],
        "seats": _numbers(1, 400),
        "plan": _levels("free", "team", "business"),
        "is_active": _levels(0, 1),
        "tickets": rng.poisson(1, ROWS),
        "downgraded": _levels(0, 1),
        "churn_flag": left.astype(int),
        "churn_label": np.where(left, "churn", "no churn"),
    }
    ignored = frozenset({"company", "churn_flag"})
    return MadeUp(pd.DataFrame(table), "churn_label", "churn", "id", ignored=ignored)


def newspaper() -> MadeUp:
    left = _churned()
    table = {
        "Subscriber ID": _ids(700_000, 799_999),
        "HH Income": _levels("$ 30,000 - 39,999", "$ 50,000 - 59,999"),
        "Home Ownership": _levels("RENTER", "OWNER"),
        "Ethnicity": _levels("w", "x", "y"),
        "dummy for Children": _levels("Y", "N"),
        "Year Of Residence": _numbers(1, 40),
        "Age range": _levels("25-29", "30-34", "65-69"),
        "Address": [f"{number} Main Street" for number in range(ROWS)],
        "State": ["CA"] * ROWS,
        "Zip Code": _levels(90_630, 92_614, 92_646),
        "Subscriber": np.where(left, "NO", "YES"),
    }
    return MadeUp(
        pd.DataFrame(table),
        *("Subscriber", "NO", "Subscriber ID"),
        protected=frozenset({"Ethnicity", "Age range"}),
        ignored=frozenset({"Address"}),
    )


def car_sharing() -> MadeUp:
    left = _churned()
    table = {
        "member_number": _ids(1, 5000),
        "licence_years": _numbers(0, 40),
        "birth_year": _numbers(1950, 2005),
        "vehicle_age": _numbers(0, 12),
        "trips": rng.poisson(6, ROWS),
        "last_trip": _levels(*pd.date_range("2026-01-01", "2026-03-31").strftime("%Y-%m-%d")),
        "exit_survey_score": np.where(left, _numbers(1, 6).astype(str), ""),
        "status": np.where(left, "inactive", "active"),
    }
    return MadeUp(
        pd.DataFrame(table),
        *("status", "inactive", "member_number"),
        protected=frozenset({"birth_year"}),
        ignored=frozenset({"exit_survey_score", "last_trip"}),
    )


def retail_bank() -> MadeUp:
    left = _churned(0.2)
    table = {
        "Client_ID": [f"CL{number:07d}" for number in _ids(0, 9_000_000)],
        "Last Name": _levels(*(f"Name{number}" for number in range(300))),
        "Credit Score": _numbers(300, 850),
        "Dependents": _numbers(0, 5),
        "Disability": _levels("yes", "no"),
        "Marital": _levels("S", "M", "D"),
        "Closed Account": np.where(left, 1, 0),
        "Balance": np.where(rng.random(ROWS) < 0.3, "unknown", rng.normal(9000, 3000, ROWS).round(2).astype(str)),
    }
    return MadeUp(
        pd.DataFrame(table),
        *("Closed Account", "1", "Client_ID"),
        protected=frozenset({"Disability", "Marital"}),
        ignored=frozenset({"Last Name"}),
    )


def fitness_app() -> MadeUp:
    left = _churned(0.5)
    table = {
        "device_id": [f"d{number:x}" for number in _ids(0, 2**22)],
        "gender_identity": _levels("a", "b", "c"),
        "user_age": _numbers(16, 80),
        "app_age_days": _numbers(1, 900),
        "steps": rng.normal(7000, 2000, ROWS).round(),
        "uninstalled": np.where(left, "t", "f"),
        "last_week_sessions": np.where(left, 0, rng.poisson(4, ROWS) + 1),
    }
    return MadeUp(
        pd.DataFrame(table),
        *("uninstalled", "t", "device_id"),
        protected=frozenset({"gender_identity", "user_age"}),
        ignored=frozenset({"last_week_sessions"}),
    )


def lottery_club() -> MadeUp:
    left = _churned()
    table = {
        "ROWID": np.arange(ROWS),
        "kunde": _ids(100_000, 999_999),
        "religion": _levels("a", "b"),
        "tickets_per_month": rng.poisson(4, ROWS),
        "win_total": rng.exponential(20, ROWS).round(2),
        "sms_opt_in": _levels("j", "n"),
        "resigned": np.where(left, "yes", "no"),
    }
    return MadeUp(pd.DataFrame(table), "resigned", "yes", "kunde", frozenset({"religion"}), frozenset({"ROWID"}))


def telephone_trial() -> MadeUp:
    left = _churned()
    table = {
        "phone": [f"0{number}" for number in _ids(150_000_000, 150_900_000)],
        "SIM age": _numbers(0, 90),
        "under 18": _levels(0, 1),
        "area code": _levels(201, 408, 415, 510),
        "night mins": rng.normal(200, 50, ROWS).round(1),
        "customer service calls": rng.poisson(1.5, ROWS),
        "churn reason code": np.where(left, _levels("R1", "R2"), "R0"),
        "churn?": np.where(left, "True.", "False."),
    }
    return MadeUp(
        pd.DataFrame(table),
        *("churn?", "True.", "phone"),
        protected=frozenset({"under 18"}),
        ignored=frozenset({"churn reason code"}),
    )


TABLES: tuple[Callable[[], MadeUp], ...] = (
    broadband,
    streaming,
    pension_fund,
    food_delivery,
    energy,
    saas_seats,
    newspaper,
    car_sharing,
    retail_bank,
    fitness_app,
    lottery_club,
    telephone_trial,
)
