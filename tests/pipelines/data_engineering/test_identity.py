"""Identity: which rows are one customer, and the stable number of each customer."""

import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from tests.pipelines.data_engineering.test_splitting import contract, customers, property_test, tables

from churn_pipeline.contract.table import Contract
from churn_pipeline.pipelines.data_engineering.identity import identify_customers, share_by_chance, stable_fraction


def few_levels(rows: int, columns: int, seed: int = 0) -> pd.DataFrame:
    """Rows that are often identical by chance: three-level columns that depend on each other."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 4, rows)
    shares = rng.dirichlet([0.3] * 3, (4, columns))
    draws = rng.random((rows, columns, 1)) > np.cumsum(shares[kind], axis=2)
    levels = draws.sum(axis=2).clip(max=2)
    return pd.DataFrame(levels, columns=[f"f{number}" for number in range(columns)])


def without_id(features: pd.DataFrame) -> Contract:
    columns = {str(name): {"dtype": "int64"} for name in features}
    content = {
        "columns": {**columns, "churn": {"dtype": "int64"}},
        "roles": {"target": {"column": "churn", "positive": 1}},
        "label": {"meaning": "left"},
    }
    return Contract.parse(content, "customers")


# ---- which rows are one customer -------------------------------------------------------------------------------------


@property_test
@given(tables())
def test_with_an_id_rows_of_one_id_are_one_customer(table: pd.DataFrame) -> None:
    found = identify_customers(table, contract())
    assert found.report == {"rule": "id", "reason": "Rows with the same 'id' are one customer."}
    assert pd.crosstab(found.groups, table["id"]).gt(0).sum().eq(1).all()
    assert len(set(found.groups)) == table["id"].nunique()


@pytest.mark.parametrize("columns", [4, 6, 8, 10, 12])
def test_rows_that_are_often_identical_by_chance_are_customers_of_their_own(columns: int) -> None:
    table = few_levels(8000, columns)
    found = identify_customers(table, without_id(table))
    assert found.report["rule"] == "each row"
    assert found.report["identical_share"] > 0.5
    assert len(set(found.groups)) == 8000
    assert "so each row is a customer of its own: " in found.report["reason"]


@pytest.mark.parametrize("seed", range(5))
def test_copies_of_rows_that_are_rarely_identical_by_chance_are_one_customer(seed: int) -> None:
    rng = np.random.default_rng(seed)
    once = few_levels(3000, 6, seed).assign(minutes=rng.integers(0, 1000, 3000))
    table = pd.concat([once, once.sample(300, random_state=seed)], ignore_index=True)
    found = identify_customers(table, without_id(table))
    assert found.report["rule"] == "identical rows"
    assert len(set(found.groups)) == len(once.drop_duplicates())
    assert found.groups.tolist() == pd.factorize(pd.MultiIndex.from_frame(table))[0].tolist()


def test_the_estimate_is_the_share_of_identical_rows_where_columns_are_independent() -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.integers(0, 3, (8000, 10)))
    assert abs(share_by_chance(table) - table.duplicated(keep=False).mean()) < 0.02


def test_a_constant_column_does_not_hide_copies() -> None:
    once = pd.DataFrame({"minutes": np.arange(500), "calls": np.arange(500)[::-1], "plan": 1})
    assert share_by_chance(pd.concat([once, once])) < 0.01


def test_the_setting_replaces_the_estimate() -> None:
    table = few_levels(500, 4)
    one = identify_customers(table, without_id(table), "one_customer")
    assert one.report["rule"] == "identical rows"
    assert len(set(one.groups)) == len(table.drop_duplicates())
    assert "as set by `split.identical_rows: one_customer`" in one.report["reason"]
    copied = customers(50).pipe(lambda once: pd.concat([once, once]))
    separate = identify_customers(copied, contract(with_id=False), "separate_customers")
    assert separate.report["rule"] == "each row"


@pytest.mark.parametrize("rule", ["one_customer", "separate_customers"])
def test_appended_rows_do_not_change_the_numbers_of_earlier_rows(rule: Any) -> None:
    table = few_levels(900, 4)
    before = identify_customers(table.head(500), without_id(table), rule).fractions
    assert identify_customers(table, without_id(table), rule).fractions[:500].tolist() == before.tolist()


def test_the_rule_does_not_matter_for_rows_without_an_identical_row() -> None:
    table = customers(400)
    one, separate = (
        identify_customers(table, contract(with_id=False), rule).fractions
        for rule in ("one_customer", "separate_customers")  # type: ignore[attr-defined]
    )
    assert one.tolist() == separate.tolist() == stable_fraction(table[["size", "kind"]]).tolist()


def test_identical_rows_that_are_separate_customers_have_different_numbers() -> None:
    table = pd.concat([few_levels(1, 4)] * 2000, ignore_index=True)
    fractions = identify_customers(table, without_id(table), "separate_customers").fractions
    assert stats.kstest(fractions, "uniform").statistic < 0.04


@pytest.mark.parametrize("with_id", [True, False])
def test_a_table_without_rows_has_no_customers(with_id: bool) -> None:
    found = identify_customers(customers(5).head(0), contract(with_id))
    assert found.groups.shape == found.fractions.shape == (0,)


# ---- the stable hash -------------------------------------------------------------------------------------------------


def test_known_fractions() -> None:
    """If these values change, training would use customers who were held out before."""
    ids = stable_fraction(pd.DataFrame({"id": ["C-00001", "C-00002", "7590-VHVEG", "", "Ümit"]}))
    assert ids.tolist() == [
        0.9061718939650796,
        0.44238110902107153,
        0.5231491461209571,
        0.8931675160897388,
        0.750723811214779,
    ]
    rows = pd.DataFrame({"size": [1, 2], "charge": [0.1, 25.0], "kind": ["a", None], "paid": [True, False]})
    assert stable_fraction(rows).tolist() == [0.24379771693800345, 0.6236532457392052]


def test_fractions_are_the_same_in_another_process() -> None:
    code = (
        "import pandas as pd; from churn_pipeline.pipelines.data_engineering.identity import stable_fraction;"
        "print(stable_fraction(pd.DataFrame({'id': ['C-00001', 'C-00002']})).tolist())"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"}
    ).stdout
    assert said.strip() == str(stable_fraction(pd.DataFrame({"id": ["C-00001", "C-00002"]})).tolist())


@property_test
@given(tables(), st.randoms(use_true_random=False))
def test_a_fraction_depends_only_on_its_row(table: pd.DataFrame, random: Any) -> None:
    fractions = stable_fraction(table)
    order = list(range(len(table)))
    random.shuffle(order)
    some = order[: max(1, len(order) // 2)]
    assert stable_fraction(table.iloc[some]).tolist() == fractions[some].tolist()
    assert ((fractions >= 0) & (fractions < 1)).all()


def test_cell_boundaries_matter() -> None:
    apart = stable_fraction(pd.DataFrame({"a": ["1", "12"], "b": ["23", "3"]}))
    assert apart[0] != apart[1]


def test_an_empty_table_has_no_fractions() -> None:
    assert stable_fraction(pd.DataFrame({"id": pd.Series(dtype=object)})).shape == (0,)


def test_a_rotation_draws_other_fractions_that_are_independent_of_the_former() -> None:
    ids = pd.DataFrame({"id": [f"C-{number:05d}" for number in range(4000)]})
    drawn = [stable_fraction(ids, rotation) for rotation in (0, 1, 2)]
    assert drawn[0].tolist() == stable_fraction(ids).tolist()
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert abs(np.corrcoef(drawn[a], drawn[b])[0, 1]) < 0.06
        # the share held out by both is the product of the shares
        assert np.mean((drawn[a] < 0.2) & (drawn[b] < 0.2)) == pytest.approx(0.04, abs=0.015)


def test_a_rotated_contract_holds_out_others_and_has_the_same_digest() -> None:
    first = contract()
    turned = first.model_copy(update={"holdout_rotation": 1})
    rows = pd.DataFrame({name: [str(number) for number in range(600)] for name in first.columns})
    before, after = (stable_fraction(rows[[str(of.roles.id)]], of.holdout_rotation) < 0.3 for of in (first, turned))
    assert (before != after).any()
    assert first.digest() == turned.digest()


@pytest.mark.parametrize(
    "ids", [range(20_000), [f"C-{number:06d}" for number in range(20_000)]], ids=["numbers", "text"]
)
def test_fractions_are_uniform(ids: Any) -> None:
    fractions = stable_fraction(pd.DataFrame({"id": ids}))
    assert stats.kstest(fractions, "uniform").statistic < 0.015
    # fractions of consecutive ids are unrelated
    assert abs(np.corrcoef(fractions[:-1], fractions[1:])[0, 1]) < 0.03
