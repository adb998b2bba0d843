"""The planted leaks really separate churners from stayers, and the honest features do not."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from tests.leaks.zoo_outside import COLUMNS, HONEST, LEAKS, Labels

ROWS = 5_000
# The rows that a leak gives away, from its own columns; `table` holds these columns and the customers'.
GIVEN_AWAY: dict[str, Callable[[pd.DataFrame], "pd.Series[bool]"]] = {
    "refund_after_closing": lambda table: table["refunded_amount"] > 0,
    "balance_cleared_at_closing": lambda table: table["account_balance"] == 0,
    "usage_missing_after_closing": lambda table: table["usage_last_30_days"].isna(),
    "invoices_end_with_the_contract": lambda table: table["last_invoice_month"] < "2024-06",
    "payments_stop": lambda table: table["days_since_payment"] > 34,
    "open_end_is_a_sentinel": lambda table: table["contract_end"] != 99991231,
    "status_after_closing": lambda table: table["account_status"].isin(["final bill", "debt collection", "archived"]),
    "closing_tariff_code": lambda table: table["tariff_code"] == 17,
    "batch_job_writes_the_record": lambda table: table["updated_at_minute"].between(190, 194),
    "counter_stops": lambda table: table["invoices_last_year"] < 12,
    "usage_falls_to_nothing": lambda table: table["usage_change_percent"] == -100,
    "save_offer": lambda table: table["offered_discount"] > 0,
    "exit_survey": lambda table: table["survey_score"].notna(),
    "template_in_the_agents_notes": lambda table: table["agent_note_length"] >= 400,
    "only_open_accounts_have_a_next_visit": lambda table: table["next_visit"].isna(),
    "ported_number": lambda table: table["number_ported_to"].notna(),
    "equipment_comes_back": lambda table: table["router"] == "in stock",
    "last_charge_is_prorated": lambda table: ~table["last_charge"].isin([9.99, 19.99, 29.99, 39.99, 59.99]),
    "archive_numbers_its_records": lambda table: (table["record_number"] // 1_000_000).isin([3, 8, 14]),
    "source_system_in_the_reference": lambda table: table["external_reference"].str.startswith("AR-"),
    "noisy_copy_of_the_label": lambda table: table["care_index"] > 0.5,
    "score_of_a_model_fitted_on_these_labels": lambda table: table["model_score"] > 0.55,
    "household_share_includes_the_customer": lambda table: table["household_churn_share"] == 1,
    "leave_one_out_encoding": lambda table: (
        table["region_churn_index"] < table.groupby("sales_region")["region_churn_index"].transform("max")
    ),
    "days_between_login_and_extract": lambda table: table["extracted_day"] - table["last_login_day"] > 40,
    "state_means_closed_for_one_product": lambda table: (
        table["product_line"].map({"mobile": "B1", "fixed": "B2", "tv": "B3"}) == table["billing_state"]
    ),
    "half_year_includes_the_months_after": lambda table: (
        table["minutes_second_half"] < 0.6 * table["minutes_first_half"]
    ),
    "months_without_invoice": lambda table: table["months_on_book"] - table["invoices_sent"] > 1,
    "copy_is_frozen_at_closing": lambda table: table["billing_copy"] != table["charge"],
}
TOGETHER_ONLY = [
    "days_between_login_and_extract",
    "state_means_closed_for_one_product",
    "half_year_includes_the_months_after",
    "months_without_invoice",
    "copy_is_frozen_at_closing",
]
ALL = {**LEAKS, **HONEST}


def made_up_table(churn_share: float) -> tuple[pd.DataFrame, Labels]:
    rng = np.random.default_rng(7)
    customers = pd.DataFrame(
        {
            "plan": rng.choice(["A", "B", "C"], ROWS),
            "charge": rng.gamma(4, 12, ROWS).round(2),
            "lines": rng.integers(1, 4, ROWS),
        },
        index=pd.RangeIndex(10, 10 + ROWS),
    )
    return customers, (rng.random(ROWS) < churn_share).astype(np.int_)


def added(name: str, churn_share: float, seed: int = 1) -> tuple[pd.DataFrame, Labels]:
    customers, churned = made_up_table(churn_share)
    return ALL[name](customers, churned, np.random.default_rng(seed)), churned


def cells(column: "pd.Series[float] | pd.Series[str]") -> "pd.Series[str]":
    """Each frequent value is a cell, missing values are one, and 40 quantile ranges share the rest of a numeric column."""
    frequent = column.isin(column.value_counts().loc[lambda counts: counts >= 60].index)
    cell = column.astype(str).where(frequent, "missing" if not pd.api.types.is_numeric_dtype(column) else "rest")
    rest = ~frequent & column.notna()
    if pd.api.types.is_numeric_dtype(column) and rest.any():
        cell[rest] = pd.qcut(column[rest].rank(method="first"), max(1, min(40, int(rest.sum()) // 60))).astype(str)
    return cell


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("churn_share", [0.12, 0.27, 0.5])
def test_a_feature_has_one_value_per_customer_and_repeats_with_its_seed(name: str, churn_share: float) -> None:
    customers, churned = made_up_table(churn_share)
    before = customers.copy()
    first, again, other = (ALL[name](customers, churned, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.index.equals(customers.index)
    assert not set(first.columns) & set(customers.columns)
    pd.testing.assert_frame_equal(first, again)
    assert not first.equals(other)
    pd.testing.assert_frame_equal(customers, before)
    for column in first:
        assert first[column].dtype == object or pd.api.types.is_numeric_dtype(first[column])
        assert len(first[column].unique()) > 1


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("kept", [["plan"], ["lines"], ["charge", "lines"]])
def test_a_feature_needs_no_particular_column(name: str, kept: list[str]) -> None:
    customers, churned = made_up_table(0.27)
    assert len(ALL[name](customers[kept], churned, np.random.default_rng(1))) == ROWS


def test_no_two_features_share_a_column() -> None:
    columns = [column for name in ALL for column in added(name, 0.27)[0].columns]
    assert len(columns) == len(set(columns))


def test_every_leak_has_its_columns_and_its_rows() -> None:
    assert set(LEAKS) == set(COLUMNS) == set(GIVEN_AWAY)
    assert not set(LEAKS) & set(HONEST)
    for name, columns in COLUMNS.items():
        assert set(columns) <= set(added(name, 0.27)[0].columns)


@pytest.mark.parametrize("name", LEAKS)
@pytest.mark.parametrize("churn_share", [0.12, 0.27])
def test_a_leak_gives_churners_away(name: str, churn_share: float) -> None:
    columns, churned = added(name, churn_share)
    customers, _ = made_up_table(churn_share)
    rows = GIVEN_AWAY[name](customers.join(columns)).to_numpy()
    assert churned[rows].mean() >= 0.9
    assert rows[churned == 1].mean() >= 0.35
    assert rows[churned == 0].mean() <= 0.03


@pytest.mark.parametrize("name", TOGETHER_ONLY)
@pytest.mark.parametrize("churn_share", [0.12, 0.27])
def test_the_columns_of_a_pair_say_little_alone(name: str, churn_share: float) -> None:
    columns, churned = added(name, churn_share)
    for column in columns:
        shares = pd.Series(churned, columns.index).groupby(cells(columns[column])).agg(["mean", "size"])
        assert shares.loc[shares["size"] >= 50, "mean"].max() < 0.75


@pytest.mark.parametrize("name", HONEST)
@pytest.mark.parametrize("churn_share", [0.12, 0.27, 0.5])
def test_an_honest_feature_gives_nobody_away(name: str, churn_share: float) -> None:
    columns, churned = added(name, churn_share)
    for column in columns:
        shares = pd.Series(churned, columns.index).groupby(cells(columns[column])).agg(["mean", "size"])
        # 85 % is the highest share by construction, and a cell of `size` customers varies around it.
        chance = 2.6 * np.sqrt(0.85 * 0.15 / shares["size"])
        large = shares["size"] >= 25
        assert (shares.loc[large, "mean"] <= 0.85 + chance[large]).all(), shares[large].nlargest(3, "mean")


@pytest.mark.parametrize("churn_share", [0.12, 0.27])
def test_the_earlier_score_is_strong(churn_share: float) -> None:
    columns, churned = added("last_quarters_risk_score", churn_share)
    assert 0.88 < roc_auc_score(churned, columns["churn_score_last_quarter"]) <= 0.93
