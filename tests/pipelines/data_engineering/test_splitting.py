"""Splitting: the hold-out is stable, and no customer, identical row or later label leaks from one side to the other."""

import subprocess
import sys
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from churn_pipeline.contract.errors import TableError
from churn_pipeline.contract.table import Contract
from churn_pipeline.pipelines.data_engineering import splitting
from churn_pipeline.pipelines.data_engineering.splitting import (
    EARLY,
    FOLD_TRAIN,
    FOLD_VALIDATE,
    HOLDOUT,
    LATE,
    NOT_IN_FOLD,
    TRAIN,
    TWIN,
    SplitSettings,
    customer_groups,
    feature_groups,
    folds,
    sides,
    stable_fraction,
)

property_test = settings(max_examples=50, deadline=None)
SETTINGS = SplitSettings(holdout_share=0.3, holdout_latest=0.4, folds=3)
HORIZON = 30


def contract(with_id: bool = True, dated: bool = False) -> Contract:
    columns: dict[str, Any] = {
        "size": {"dtype": "int64"},
        "kind": {"dtype": "str", "nullable": True},
        "churn": {"dtype": "int64", "isin": [0, 1]},
    }
    roles: dict[str, Any] = {"target": {"column": "churn", "positive": 1}}
    if with_id:
        columns["id"], roles["id"] = {"dtype": "str"}, "id"
    if dated:
        columns["day"], roles["date"] = {"dtype": "datetime64[ns]"}, "day"
    label = {"meaning": "left", "horizon_days": HORIZON if dated else 0}
    return Contract.parse({"columns": columns, "roles": roles, "label": label}, "customers")


def customers(rows: int, seed: int = 0, ids: int | None = None, sizes: int = 10**6, days: int = 365) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "size": rng.integers(0, sizes, rows),
            "kind": rng.choice(np.array(["a", "b", None], dtype=object), rows),
            "churn": rng.integers(0, 2, rows),
            "id": [f"C{number}" for number in (range(rows) if ids is None else rng.integers(0, ids, rows))],
            "day": pd.Timestamp("2025-01-01") + pd.to_timedelta(rng.integers(0, days, rows), unit="D"),
        }
    )


@st.composite
def tables(draw: st.DrawFn) -> pd.DataFrame:
    """Tables with few ids, features and days, so that all of them are repeated."""
    rows = draw(st.integers(5, 60))
    return customers(
        rows, draw(st.integers(0, 10**6)), draw(st.integers(2, 60)), draw(st.integers(1, 60)), draw(st.integers(2, 400))
    )


def shared(one: pd.Series, other: pd.Series) -> set[Any]:
    return set(one) & set(other)


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
        "import pandas as pd; from churn_pipeline.pipelines.data_engineering.splitting import stable_fraction;"
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


# ---- groups ----------------------------------------------------------------------------------------------------------


def brute_force_groups(table: pd.DataFrame, names: list[list[str]]) -> list[frozenset[int]]:
    """The rows of each row's group, found by merging matching rows until nothing changes."""
    cells = [[tuple(map(str, row)) for row in table[columns].to_numpy().tolist()] for columns in names]
    groups = [{row} for row in range(len(table))]
    for one in range(len(table)):
        for other in range(one):
            if groups[one] is not groups[other] and any(column[one] == column[other] for column in cells):
                groups[one] |= groups[other]
                for row in groups[one]:
                    groups[row] = groups[one]
    return [frozenset(group) for group in groups]


@property_test
@given(tables())
def test_customer_groups_join_rows_with_a_common_customer_or_common_features(table: pd.DataFrame) -> None:
    numbers = customer_groups(table, contract())
    found = [frozenset(np.flatnonzero(numbers == number).tolist()) for number in numbers]
    assert found == brute_force_groups(table, [["id"], ["size", "kind"]])


@property_test
@given(tables())
def test_without_an_id_groups_are_rows_of_identical_features(table: pd.DataFrame) -> None:
    found = customer_groups(table, contract(with_id=False))
    assert found.tolist() == feature_groups(table, contract()).tolist()
    assert len(set(found)) == len(table[["size", "kind"]].drop_duplicates())


# ---- sides -----------------------------------------------------------------------------------------------------------


@property_test
@given(tables(), st.booleans(), st.booleans())
def test_every_row_gets_one_side(table: pd.DataFrame, with_id: bool, dated: bool) -> None:
    side = sides(table, contract(with_id, dated), SETTINGS)
    assert side.index.equals(table.index)
    assert set(side) <= {TRAIN, HOLDOUT, TWIN, EARLY, LATE}
    if not dated:
        assert set(side) <= {TRAIN, HOLDOUT, TWIN}


@property_test
@given(tables(), st.booleans(), st.booleans())
def test_no_customer_and_no_feature_row_is_on_both_sides(table: pd.DataFrame, with_id: bool, dated: bool) -> None:
    side = sides(table, contract(with_id, dated), SETTINGS)
    train, holdout = table[side == TRAIN], table[side == HOLDOUT]
    rows = [list(map(tuple, part[["size", "kind"]].astype(str).to_numpy())) for part in (train, holdout)]
    assert not set(rows[0]) & set(rows[1])
    if with_id:
        assert not shared(train["id"], holdout["id"])
        # nor does a customer have rows in training and others that are set aside because of the hold-out
        assert not shared(train["id"], table["id"][side == EARLY])


@property_test
@given(tables())
def test_with_a_date_the_holdout_is_later_and_training_labels_were_known_by_then(table: pd.DataFrame) -> None:
    side = sides(table, contract(dated=True), SETTINGS)
    train, holdout = table[side == TRAIN], table[side == HOLDOUT]
    begin = table["day"].quantile(1 - SETTINGS.holdout_latest, interpolation="nearest")
    assert (holdout["day"] >= begin).all()
    assert (train["day"] + pd.Timedelta(days=HORIZON) <= begin).all()
    assert (train["day"] < begin).all()
    held_out = stable_fraction(table[["id"]]) < SETTINGS.holdout_share
    assert (side[held_out & (table["day"] >= begin).to_numpy()] == HOLDOUT).all()


def test_with_a_date_and_no_horizon_training_still_ends_before_the_holdout_begins() -> None:
    table = customers(300, ids=100)
    plain = contract(dated=True).model_copy(update={"label": contract().label})
    side = sides(table, plain, SETTINGS)
    assert table["day"][side == TRAIN].max() < table["day"][side == HOLDOUT].min()


@property_test
@given(tables(), st.integers(0, 100), st.randoms(use_true_random=False))
def test_held_out_customers_stay_held_out_when_rows_are_added_or_shuffled(
    table: pd.DataFrame, seed: int, random: Any
) -> None:
    before = set(table["id"][sides(table, contract(), SETTINGS) == HOLDOUT])
    more = pd.concat([table, customers(30, seed, ids=90)], ignore_index=True)
    order = list(range(len(more)))
    random.shuffle(order)
    more = more.iloc[order]
    side = sides(more, contract(), SETTINGS)
    assert (side[more["id"].isin(before)] == HOLDOUT).all()
    assert before >= set(table["id"]) & set(more["id"][side == HOLDOUT])


def test_the_hold_out_share_is_near_the_setting() -> None:
    table = customers(10_000)
    for share in (0.1, 0.3, 0.5):
        side = sides(table, contract(), SplitSettings(holdout_share=share, holdout_latest=0.5, folds=3))
        assert abs((side == HOLDOUT).mean() - share) < 0.015


def test_a_larger_share_holds_out_the_same_customers_and_more() -> None:
    table = customers(2000)
    small, large = (
        sides(table, contract(), SplitSettings(holdout_share=share, holdout_latest=0.5, folds=3)) == HOLDOUT
        for share in (0.1, 0.2)
    )
    assert (large | ~small).all()


def test_the_label_does_not_influence_the_hold_out() -> None:
    table = customers(500, sizes=50)
    flipped = table.assign(churn=1 - table["churn"])
    for with_id in (True, False):
        pd.testing.assert_series_equal(
            sides(table, contract(with_id), SETTINGS), sides(flipped, contract(with_id), SETTINGS)
        )


# ---- folds -----------------------------------------------------------------------------------------------------------


def make_folds(table: pd.DataFrame, of: Contract, number: int = 3, seed: int = 1) -> pd.DataFrame:
    setting = SplitSettings(holdout_share=0.3, holdout_latest=0.4, folds=number)
    return folds(table, table["churn"], of, setting, seed)


@property_test
@given(tables(), st.booleans())
def test_each_row_validates_once_and_groups_stay_together(table: pd.DataFrame, with_id: bool) -> None:
    try:
        made = make_folds(table, contract(with_id))
    except TableError:
        assume(False)
    assert list(made) == ["fold_1", "fold_2", "fold_3"]
    assert (made == FOLD_VALIDATE).sum(axis=1).eq(1).all()
    assert made.isin([FOLD_TRAIN, FOLD_VALIDATE]).all(axis=None)
    groups = customer_groups(table, contract(with_id))
    assert (made.groupby(groups).transform("first") == made).all(axis=None)


def test_a_fold_with_a_customer_on_both_sides_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def by_rows(groups: np.ndarray, churn: np.ndarray, number: int, seed: int) -> list[np.ndarray]:
        place = np.random.default_rng(seed).integers(0, number, len(groups))
        return [np.where(place == fold, FOLD_VALIDATE, FOLD_TRAIN) for fold in range(number)]

    monkeypatch.setattr(splitting, "_grouped_folds", by_rows)
    make_folds(customers(200), contract())
    with pytest.raises(TableError, match="training customers are also in the validation side of fold_1") as refused:
        make_folds(customers(200, ids=60), contract())
    assert "C1" not in str(refused.value)
    # Without an id, customers are identified by their features.
    with pytest.raises(TableError, match="identical features"):
        make_folds(customers(200, sizes=5), contract(with_id=False))


def test_folds_have_similar_sizes_and_churn_shares() -> None:
    table = customers(3000).assign(churn=lambda table: (np.arange(3000) % 10 == 0).astype(int))
    made = make_folds(table, contract(), number=5)
    for name in made:
        validates = made[name] == FOLD_VALIDATE
        assert abs(validates.mean() - 0.2) < 0.01
        assert abs(table["churn"][validates].mean() - 0.1) < 0.01


def test_folds_are_the_same_for_the_same_seed_only() -> None:
    table = customers(200)
    pd.testing.assert_frame_equal(make_folds(table, contract(), seed=1), make_folds(table, contract(), seed=1))
    assert not make_folds(table, contract(), seed=1).equals(make_folds(table, contract(), seed=2))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(30, 200), st.booleans(), st.integers(2, 6))
def test_forward_folds_train_only_on_labels_known_before_validation(
    seed: int, ids: int, with_id: bool, number: int
) -> None:
    table = customers(400, seed, ids=ids, days=500)
    try:
        made = make_folds(table, contract(with_id, dated=True), number)
    except TableError:
        assume(False)
    groups = pd.Series(customer_groups(table, contract(with_id, dated=True)))
    begins = []
    for name in made:
        train, validates = made[name] == FOLD_TRAIN, made[name] == FOLD_VALIDATE
        begin = table["day"][validates].min()
        assert (table["day"][train] + pd.Timedelta(days=HORIZON) <= begin).all()
        assert not shared(groups[train], groups[validates])
        begins.append(begin)
    assert begins == sorted(begins)
    assert ((made == FOLD_VALIDATE).sum(axis=1) <= 1).all()
    assert made.isin([NOT_IN_FOLD, FOLD_TRAIN, FOLD_VALIDATE]).all(axis=None)


def test_forward_folds_validate_on_different_periods() -> None:
    table = customers(2000, days=500)
    made = make_folds(table, contract(dated=True), 4)
    spans = [table["day"][made[name] == FOLD_VALIDATE].agg(["min", "max"]) for name in made]
    for before, after in pairwise(spans):
        assert before["max"] < after["min"]


def test_too_few_customers_of_a_class_are_a_clear_error() -> None:
    table = customers(50).assign(churn=[1, 1, *[0] * 48])
    with pytest.raises(
        TableError,
        match=r"3 folds need 3 groups of customers of each class, and one class has 2:.*reduce `split.folds`",
    ):
        make_folds(table, contract())
    with pytest.raises(TableError, match="one class has 0"):
        make_folds(customers(50).assign(churn=0), contract())


def test_a_side_of_a_forward_fold_with_one_class_is_a_clear_error() -> None:
    table = customers(200, days=500).assign(churn=lambda table: (table["day"] > "2026-01-01").astype(int))
    with pytest.raises(TableError, match="side of fold_1 has one class only"):
        make_folds(table, contract(dated=True))


def test_a_single_customer_cannot_be_cross_validated() -> None:
    with pytest.raises(TableError, match="cannot be cross-validated"):
        make_folds(customers(50).assign(id="C"), contract())


@pytest.mark.parametrize(
    "setting", [{"holdout_share": 0}, {"holdout_share": 1}, {"holdout_latest": 1}, {"folds": 1}, {"fold": 5}]
)
def test_settings_outside_their_bounds_are_rejected(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        SplitSettings(**{"holdout_share": 0.2, "holdout_latest": 0.2, "folds": 5, **setting})
