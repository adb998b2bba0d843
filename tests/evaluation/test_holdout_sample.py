"""The hold-out sample: which customers are chosen, and what of them is kept."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.customers import make_contract, raw_customers, table_file

from churn_pipeline.contract.cells import model_inputs
from churn_pipeline.contract.validation import validate_table
from churn_pipeline.evaluation.holdout_sample import draw_sample, read_sample, sample_content

ROLES = table_file()["roles"]
CONTRACT = make_contract(roles={**ROLES, "ignored": ["charge"]})
CUSTOMERS = validate_table(raw_customers(600), CONTRACT).customers.reset_index(drop=True)


class ByMonths:
    """Predicts a churn probability that falls with the months, which are unique."""

    def predict_proba(self, X: pd.DataFrame) -> np.ndarray:
        p = 1 / (1 + X["months"].to_numpy(dtype=np.float64))
        return np.column_stack([1 - p, p])


def drawn(customers: pd.DataFrame = CUSTOMERS, max_rows: int = 100, **changed: Any) -> pd.DataFrame:
    features = model_inputs(customers, CONTRACT)
    given = {"customers": customers, "value_column": "charge", **changed}
    return draw_sample(ByMonths(), features, contract=CONTRACT, max_rows=max_rows, **given)


def test_a_sample_has_features_and_values_but_no_id_label_or_other_column() -> None:
    assert set(drawn()) == {*CONTRACT.features, "charge"}
    assert set(drawn(value_column=None)) == set(CONTRACT.features)
    assert ROLES["id"] not in drawn()


def test_a_small_hold_out_is_kept_whole() -> None:
    assert len(drawn(max_rows=600)) == 600
    assert len(drawn(max_rows=599)) <= 599


def test_the_choice_depends_on_neither_order_nor_seed() -> None:
    shuffled = CUSTOMERS.sample(frac=1, random_state=7).reset_index(drop=True)
    pd.testing.assert_frame_equal(drawn(), drawn(shuffled))
    assert sample_content(drawn()) == sample_content(drawn(shuffled))


def test_few_changed_customers_change_few_rows() -> None:
    chosen, later = (drawn(part).astype(str).agg("|".join, axis=1) for part in (CUSTOMERS, CUSTOMERS[:-1]))
    assert len(set(chosen) & set(later)) >= 60


def test_all_ranges_of_the_churn_probability_are_in_a_sample() -> None:
    quantiles = np.linspace(0, 1, 11)
    found = np.histogram(drawn()["months"], np.quantile(CUSTOMERS["months"].astype(float), quantiles))[0]
    assert found.min() >= 4


def test_every_level_is_in_a_sample() -> None:
    rare = CUSTOMERS.assign(plan=["ZZ" if row == 311 else plan for row, plan in enumerate(CUSTOMERS["plan"])])
    features = model_inputs(rare, CONTRACT)
    for name in CONTRACT.categorical:
        assert set(drawn(rare)[name]) == set(features[name])


@pytest.mark.parametrize("max_rows", [100, 250])
def test_levels_without_number_leave_half_of_a_sample_to_the_other_rows(max_rows: int) -> None:
    many = CUSTOMERS.assign(plan=[f"P{row}" for row in range(600)])
    sample = drawn(many, max_rows)
    assert max_rows // 2 <= len(sample) <= max_rows


def test_a_sample_is_read_as_it_was_written() -> None:
    pd.testing.assert_frame_equal(read_sample(sample_content(drawn())), drawn())
