"""Ten made-up tables of different shapes: what the draft guesses, and that each table is valid by its draft."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from kedro.io import AbstractDataset

from churn_pipeline.contract.draft import draft, read_for_draft
from churn_pipeline.contract.schema import contract_from
from churn_pipeline.contract.validation import validate_table

ROWS = 400
RNG = np.random.default_rng


@dataclass(frozen=True)
class Expected:
    """What the draft of a table must contain."""

    target: str
    positive: str | int | bool
    id: str | None = None
    date: str | None = None
    protected: set[str] = field(default_factory=set)
    ignored: set[str] = field(default_factory=set)
    dtypes: dict[str, str] = field(default_factory=dict)
    bounds: dict[str, tuple[float, float]] = field(default_factory=dict)
    invalid: int = 0


def _churn(rng: np.random.Generator) -> np.ndarray:
    return rng.random(ROWS) < 0.3


def status_beside_yes_and_no() -> tuple[pd.DataFrame, Expected]:
    """A telephone company: the status has three levels, and every Yes/No column is a feature."""
    rng = RNG(1)
    churned = _churn(rng)
    reasons = rng.choice(["Competitor", "Price", "Moved"], ROWS)
    table = pd.DataFrame(
        {
            "Customer ID": [f"{number:04d}-QX" for number in range(ROWS)],
            "Gender": rng.choice(["Male", "Female"], ROWS),
            "Married": rng.choice(["Yes", "No"], ROWS),
            "Zip Code": rng.choice([90001, 90210, 91911, 92101], ROWS),
            "City": rng.choice(["Los Angeles", "San Diego"], ROWS),
            "Monthly Charge": rng.uniform(18, 110, ROWS).round(2),
            "Customer Status": np.where(churned, "Churned", rng.choice(["Stayed", "Joined"], ROWS, p=[0.9, 0.1])),
            "Churn Category": np.where(churned, reasons, ""),
            "Churn Reason": np.where(churned & (rng.random(ROWS) < 0.6), reasons, ""),
            "Paperless Billing": rng.choice(["Yes", "No"], ROWS),
        }
    )
    ignored = {"Churn Category", "Churn Reason"}
    return table, Expected(
        *("Customer Status", "Churned", "Customer ID", None, {"Gender", "Married"}, ignored),
        dtypes={"Zip Code": "str", "City": "str", "Paperless Billing": "str"},
    )


def bank_with_row_numbers() -> tuple[pd.DataFrame, Expected]:
    """A bank: row numbers, customer numbers and surnames, and a share."""
    rng = RNG(2)
    surnames = [
        f"{first}{last}" for first in "ABCDEFGHIJKLMN" for last in ("son", "er", "ov", "ski", "ez", "ini", "sen")
    ]
    table = pd.DataFrame(
        {
            "RowNumber": np.arange(1, ROWS + 1),
            "CustomerId": rng.choice(np.arange(15_000_000, 16_000_000), ROWS, replace=False),
            "Surname": rng.choice(surnames, ROWS),
            "Age": rng.integers(18, 90, ROWS),
            "Branch": rng.integers(1, 120, ROWS),
            "Utilisation": rng.beta(2, 2, ROWS).round(3),
            "HasCrCard": rng.integers(0, 2, ROWS),
            "Exited": _churn(rng).astype(int),
            "IsActiveMember": rng.integers(0, 2, ROWS),
        }
    )
    return table, Expected(
        *("Exited", 1, "CustomerId", None, {"Age"}, {"RowNumber", "Surname"}),
        {"Branch": "str", "HasCrCard": "int64"},
        {"Utilisation": (0, 1)},
    )


def cards_with_scores_of_a_model() -> tuple[pd.DataFrame, Expected]:
    """Credit cards: an unusual name for the id, and a column that separates the classes by a threshold."""
    rng = RNG(3)
    churned = _churn(rng)
    table = pd.DataFrame(
        {
            "CLIENTNUM": rng.choice(np.arange(708_000_000, 828_000_000, 17), ROWS, replace=False),
            "Attrition_Flag": np.where(churned, "Attrited Customer", "Existing Customer"),
            "Customer_Age": rng.integers(26, 73, ROWS),
            "Marital_Status": rng.choice(["Married", "Single", "Unknown"], ROWS),
            "Months_on_book": rng.integers(13, 56, ROWS),
            "Naive_Bayes_Output": np.where(churned, rng.uniform(0.9, 1, ROWS), rng.uniform(0, 0.1, ROWS)).round(6),
        }
    )
    return table, Expected(
        "Attrition_Flag",
        "Attrited Customer",
        "CLIENTNUM",
        None,
        {"Customer_Age", "Marital_Status"},
        {"Naive_Bayes_Output"},
        {"Marital_Status": "str"},
    )


def gym_without_an_id() -> tuple[pd.DataFrame, Expected]:
    """A gym: no id, and the label twice."""
    rng = RNG(4)
    churned = _churn(rng)
    table = pd.DataFrame(
        {
            "gender": rng.integers(0, 2, ROWS),
            "Contract_period": rng.choice([1, 6, 12], ROWS),
            "Lifetime": rng.integers(0, 30, ROWS),
            "Churn": churned.astype(int),
            "Churn_label": np.where(churned, "Yes", "No"),
            "Stays": np.where(churned, "f", "t"),
        }
    )
    return table, Expected("Churn", 1, None, None, {"gender"}, {"Churn_label", "Stays"})


def panel_of_months() -> tuple[pd.DataFrame, Expected]:
    """Subscriptions: a row for each customer and month, and a number for each row."""
    rng = RNG(5)
    months = pd.date_range("2026-01-01", periods=4, freq="MS").strftime("%Y-%m-%d")
    table = pd.DataFrame(
        {
            "record": np.arange(5000, 5000 + ROWS),
            "customer_id": np.repeat(np.arange(1000, 1000 + ROWS // 4), 4),
            "month": np.tile(months, ROWS // 4),
            "account_age": rng.integers(1, 80, ROWS),
            "status": np.where(_churn(rng), "cancelled", rng.choice(["active", "paused"], ROWS)),
            "trial": rng.choice(["Yes", "No"], ROWS),
        }
    )
    return table, Expected("status", "cancelled", "customer_id", "month", set(), {"record"}, {"account_age": "int64"})


def mobile_with_ages_of_heads() -> tuple[pd.DataFrame, Expected]:
    """Mobile phones: several protected ages, the age of a device, and one small negative number."""
    rng = RNG(6)
    revenue = rng.uniform(0, 90, ROWS).round(2)
    revenue[7] = -0.02
    table = pd.DataFrame(
        {
            "CustomerID": rng.choice(np.arange(3_000_000, 3_400_000), ROWS, replace=False),
            "Churn": np.where(_churn(rng), "Yes", "No"),
            "MonthlyRevenue": revenue,
            "CurrentEquipmentAge": rng.integers(1, 900, ROWS),
            "AgeHH1": rng.integers(18, 90, ROWS),
            "HeadOfHousehold ages": rng.integers(18, 90, ROWS),
            "MaritalStatus": rng.choice(["Yes", "No", "Unknown"], ROWS),
            "age_of_subscription": rng.integers(1, 90, ROWS),
        }
    )
    return table, Expected(
        "Churn",
        "Yes",
        "CustomerID",
        None,
        {"AgeHH1", "HeadOfHousehold ages", "MaritalStatus"},
        set(),
        {},
        {"MonthlyRevenue": (0, 200)},
        invalid=1,
    )


def shop_with_stray_words() -> tuple[pd.DataFrame, Expected]:
    """A shop: numbers with a word among them, and the same word as a level elsewhere."""
    rng = RNG(7)
    orders = rng.integers(1, 40, ROWS).astype(str).astype(object)
    orders[::50] = "n/a"
    spend = rng.uniform(5, 500, ROWS).round(2).astype(str).astype(object)
    spend[3::40] = "unknown"
    days = rng.integers(0, 300, ROWS).astype(str).astype(object)
    days[11] = "tbd"
    table = pd.DataFrame(
        {
            "client no": [f"K{number}" for number in range(ROWS)],
            "orders": orders,
            "spend": spend,
            "days since order": days,
            "channel": rng.choice(["web", "shop", "unknown"], ROWS),
            "newsletter": rng.choice(["Yes", "No"], ROWS),
            "is_churned": _churn(rng),
        }
    )
    dtypes = {"orders": "int64", "spend": "float64", "days since order": "int64", "channel": "str"}
    return table, Expected("is_churned", True, "client no", None, set(), set(), dtypes)


def insurer_with_codes() -> tuple[pd.DataFrame, Expected]:
    """An insurer: codes that are integers, and counts whose names contain the same words."""
    rng = RNG(8)
    table = pd.DataFrame(
        {
            "policy_id": rng.choice(np.arange(100_000, 900_000), ROWS, replace=False),
            "postcode": rng.choice(rng.integers(10_115, 99_999, 80), ROWS),
            "city_code": rng.integers(1, 30, ROWS),
            "city_tier": rng.integers(1, 4, ROWS),
            "branch_visits": rng.integers(0, 9, ROWS),
            "depot": rng.choice(rng.integers(10_115, 99_999, 30), ROWS),
            "nationality": rng.choice(["A", "B"], ROWS),
            "date_of_birth": rng.choice(pd.date_range("1950-01-01", "2000-01-01").strftime("%Y-%m-%d"), ROWS),
            "claims": rng.poisson(1, ROWS),
            "lapsed": np.where(_churn(rng), "y", "n"),
        }
    )
    dtypes = {"postcode": "str", "city_code": "str", "depot": "str", "city_tier": "int64", "branch_visits": "int64"}
    return table, Expected("lapsed", "y", "policy_id", None, {"nationality"}, {"date_of_birth"}, dtypes)


def campaign_with_comments() -> tuple[pd.DataFrame, Expected]:
    """A newspaper: the target has no typical name, and comments are free text."""
    rng = RNG(9)
    churned = _churn(rng)
    table = pd.DataFrame(
        {
            "email": [f"reader{number}@example.org" for number in range(ROWS)],
            "full name": [f"Reader {number % 390}" for number in range(ROWS)],
            "comment": [f"called about issue {number}" for number in range(ROWS)],
            "edition": rng.choice(["day", "weekend", "digital"], ROWS),
            "left_handed_layout": rng.choice(["Yes", "No"], ROWS),
            "outcome": np.where(churned, "terminated", "renewed"),
        }
    )
    return table, Expected("outcome", "terminated", "email", None, set(), {"full name", "comment"})


def energy_supplier() -> tuple[pd.DataFrame, Expected]:
    """An energy supplier: refunds filled in only for churners, a level for all others, and an unnamed first column."""
    rng = RNG(10)
    churned = _churn(rng)
    table = pd.DataFrame(
        {
            "Unnamed: 0": np.arange(ROWS),
            "meter": rng.choice(np.arange(10_000, 90_000), ROWS, replace=False),
            "consumption": rng.normal(3000, 900, ROWS).round(),
            "balance": rng.normal(0, 50, ROWS).round(2),
            "discount_pct": rng.integers(0, 101, ROWS),
            "refund": np.where(churned & (rng.random(ROWS) < 0.7), rng.uniform(1, 90, ROWS).round(2), np.nan),
            "leaving_form": np.where(churned, rng.choice(["letter", "mail"], ROWS), "none"),
            "has_left": np.where(churned, "true", "false"),
        }
    )
    ignored = {"Unnamed: 0", "refund", "leaving_form"}
    return table, Expected("has_left", True, "meter", None, set(), ignored, {}, {"discount_pct": (0, 100)})


TABLES = (
    status_beside_yes_and_no,
    bank_with_row_numbers,
    cards_with_scores_of_a_model,
    gym_without_an_id,
    panel_of_months,
    mobile_with_ages_of_heads,
    shop_with_stray_words,
    insurer_with_codes,
    campaign_with_comments,
    energy_supplier,
)


@pytest.mark.parametrize("table_and_expected", TABLES, ids=lambda make: make.__name__)
def test_a_table_of_this_shape_is_drafted(
    table_and_expected: Callable[[], tuple[pd.DataFrame, Expected]], tmp_path: Path
) -> None:
    table, expected = table_and_expected()
    path = tmp_path / "customers.csv"
    table.to_csv(path, index=False)

    content = yaml.safe_load(draft(*read_for_draft(path)))

    contract = contract_from(content, "drafted")
    roles, columns = contract.roles, contract.columns
    assert (roles.target.column, roles.target.positive) == (expected.target, expected.positive)
    assert (roles.id, roles.date) == (expected.id, expected.date)
    assert set(roles.protected) == expected.protected
    assert set(roles.ignored) == expected.ignored
    assert {name: columns[name].dtype for name in expected.dtypes} == expected.dtypes
    bounds = {name: columns[name].in_range for name in expected.bounds}
    assert {name: (b.min_value, b.max_value) for name, b in bounds.items() if b} == expected.bounds
    loaded = AbstractDataset.from_config("source", content["source"]).load()
    assert len(validate_table(loaded, contract).quarantine) == expected.invalid
