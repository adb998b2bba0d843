"""Splitting: the hold-out is stable, and no customer, identical row or later label leaks from one side to the other."""

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from churn_pipeline.contract.errors import TableError
from churn_pipeline.contract.table import Contract
from churn_pipeline.pipelines.data_engineering import splitting
from churn_pipeline.pipelines.data_engineering.identity import identify_customers, stable_fraction
from churn_pipeline.pipelines.data_engineering.splitting import (
    EARLY,
    FOLD_TRAIN,
    FOLD_VALIDATE,
    HOLDOUT,
    LATE,
    NOT_IN_FOLD,
    TRAIN,
    SplitSettings,
    check_set_aside,
    folds,
    label_known,
    sides,
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
    label = {"meaning": "left", **({"horizon": f"{HORIZON} days"} if dated else {})}
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


def groups_of(table: pd.DataFrame, of: Contract) -> np.ndarray:
    return identify_customers(table, of).groups


def split(table: pd.DataFrame, of: Contract, settings: SplitSettings = SETTINGS) -> pd.Series:
    return sides(table, identify_customers(table, of, settings.identical_rows), of, settings)


def shared(one: pd.Series, other: pd.Series) -> set[Any]:
    return set(one) & set(other)


# ---- sides -----------------------------------------------------------------------------------------------------------


@property_test
@given(tables(), st.booleans(), st.booleans())
def test_every_row_gets_one_side(table: pd.DataFrame, with_id: bool, dated: bool) -> None:
    side = split(table, contract(with_id, dated))
    assert side.index.equals(table.index)
    assert set(side) <= ({TRAIN, HOLDOUT, EARLY, LATE} if dated else {TRAIN, HOLDOUT})


@property_test
@given(tables(), st.booleans(), st.booleans())
def test_no_customer_is_on_both_sides(table: pd.DataFrame, with_id: bool, dated: bool) -> None:
    side = split(table, contract(with_id, dated))
    groups = pd.Series(groups_of(table, contract(with_id, dated)))
    assert not shared(groups[side == TRAIN], groups[side == HOLDOUT])
    # nor does a customer have rows in training and others that are set aside because of the hold-out
    assert not shared(groups[side == TRAIN], groups[side == EARLY])


@pytest.mark.parametrize("levels", [3, 10])
def test_distinct_ids_are_distinct_customers_even_if_their_features_match(levels: int) -> None:
    table = customers(8000, sizes=levels)
    side = split(table, contract())
    assert set(side) == {TRAIN, HOLDOUT}
    assert abs((side == HOLDOUT).mean() - SETTINGS.holdout_share) < 0.02


@pytest.mark.parametrize("levels", [2, 9, 10**6])
def test_without_an_id_the_hold_out_has_its_share_however_few_values_a_row_can_take(levels: int) -> None:
    table = customers(8000, sizes=levels)
    side = split(table, contract(with_id=False))
    assert abs((side == HOLDOUT).mean() - SETTINGS.holdout_share) < 0.02


@property_test
@given(tables())
def test_with_a_date_the_holdout_is_later_and_training_labels_were_known_by_then(table: pd.DataFrame) -> None:
    side = split(table, contract(dated=True))
    train, holdout = table[side == TRAIN], table[side == HOLDOUT]
    begin = table["day"].quantile(1 - SETTINGS.holdout_latest, interpolation="nearest")
    assert (holdout["day"] >= begin).all()
    assert (train["day"] + pd.Timedelta(days=HORIZON) <= begin).all()
    assert (train["day"] < begin).all()
    held_out = stable_fraction(table[["id"]]) < SETTINGS.holdout_share
    assert (side[held_out & (table["day"] >= begin).to_numpy()] == HOLDOUT).all()


def test_calendar_months_are_added_as_calendar_months() -> None:
    dates = pd.Series(pd.to_datetime(["2025-01-31", "2025-02-28", "2025-05-31"]))
    label = contract(dated=True).label
    months = label.model_copy(update={"horizon": "3 months"})
    assert label_known(dates, months).dt.strftime("%m-%d").tolist() == ["04-30", "05-28", "08-31"]
    days = label.model_copy(update={"horizon": "31 days"})
    assert label_known(dates, days).dt.strftime("%m-%d").tolist() == ["03-03", "03-31", "07-01"]


def test_training_ends_three_months_before_the_hold_out_begins_with_a_label_over_three_months() -> None:
    ends = pd.date_range("2025-01-31", periods=12, freq="ME")
    table = customers(1200, ids=400).assign(day=np.tile(ends, 100))
    of = contract(dated=True)
    quarter = of.model_copy(update={"label": of.label.model_copy(update={"horizon": "3 months"})})
    side = split(table, quarter, SETTINGS.model_copy(update={"holdout_latest": 0.25}))
    assert table["day"][side == HOLDOUT].min() == pd.Timestamp("2025-09-30")
    assert table["day"][side == TRAIN].max() == pd.Timestamp("2025-06-30")


def test_above_the_cap_the_run_stops_with_rows_and_reasons() -> None:
    side = pd.Series([TRAIN] * 30 + [HOLDOUT] * 10 + [EARLY] * 40 + [LATE] * 20)
    check_set_aside(side, "ours", SETTINGS)
    with pytest.raises(TableError) as stopped:
        check_set_aside(side, "ours", SETTINGS.model_copy(update={"max_set_aside": 0.59}))
    said = str(stopped.value)
    assert "60 of 100 rows (60.0%) would be set aside, more than 59.0% (`split.max_set_aside`)" in said
    assert f"40 rows {EARLY}. Reduce `split.holdout_share`" in said
    assert f"20 rows {LATE}. Provide more dates" in said


@property_test
@given(tables(), st.integers(0, 100), st.randoms(use_true_random=False))
def test_held_out_customers_stay_held_out_when_rows_are_added_or_shuffled(
    table: pd.DataFrame, seed: int, random: Any
) -> None:
    before = set(table["id"][split(table, contract()) == HOLDOUT])
    more = pd.concat([table, customers(30, seed, ids=90)], ignore_index=True)
    order = list(range(len(more)))
    random.shuffle(order)
    more = more.iloc[order]
    side = split(more, contract())
    assert (side[more["id"].isin(before)] == HOLDOUT).all()
    assert before >= set(table["id"]) & set(more["id"][side == HOLDOUT])


def test_the_hold_out_share_is_near_the_setting() -> None:
    table = customers(10_000)
    for share in (0.1, 0.3, 0.5):
        side = split(table, contract(), SplitSettings(holdout_share=share, holdout_latest=0.5, folds=3))
        assert abs((side == HOLDOUT).mean() - share) < 0.015


def test_a_larger_share_holds_out_the_same_customers_and_more() -> None:
    table = customers(2000)
    small, large = (
        split(table, contract(), SplitSettings(holdout_share=share, holdout_latest=0.5, folds=3)) == HOLDOUT
        for share in (0.1, 0.2)
    )
    assert (large | ~small).all()


def test_the_label_does_not_influence_the_hold_out() -> None:
    table = customers(500, sizes=50)
    flipped = table.assign(churn=1 - table["churn"])
    for with_id in (True, False):
        pd.testing.assert_series_equal(split(table, contract(with_id)), split(flipped, contract(with_id)))


# ---- folds -----------------------------------------------------------------------------------------------------------


def make_folds(table: pd.DataFrame, of: Contract, number: int = 3, seed: int = 1) -> pd.DataFrame:
    setting = SplitSettings(holdout_share=0.3, holdout_latest=0.4, folds=number)
    return folds(table, table["churn"], groups_of(table, of), of, setting, seed)


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
    groups = groups_of(table, contract(with_id))
    assert (made.groupby(groups).transform("first") == made).all(axis=None)


def test_a_fold_with_a_customer_on_both_sides_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def by_rows(groups: np.ndarray, churn: np.ndarray, number: int, seed: int) -> np.ndarray:
        return np.random.default_rng(seed).integers(0, number, len(groups))

    monkeypatch.setattr(splitting, "_fold_of_customers", by_rows)
    make_folds(customers(200), contract())
    with pytest.raises(TableError, match="training customers are also in the validation side of fold_1") as refused:
        make_folds(customers(200, ids=60), contract())
    assert "C1" not in str(refused.value)
    # Without an id, identical rows are one customer.
    copied = pd.concat([customers(100), customers(100)], ignore_index=True)
    with pytest.raises(TableError, match="training customers are also"):
        make_folds(copied, contract(with_id=False))


def test_folds_of_customers_with_many_rows_are_balanced_by_rows_and_churn() -> None:
    rng = np.random.default_rng(3)
    table = customers(6000, ids=500).assign(churn=lambda table: rng.random(len(table)) < 0.1)
    made = make_folds(table.astype({"churn": int}), contract(), number=5)
    for name in made:
        validates = made[name] == FOLD_VALIDATE
        assert abs(validates.mean() - 0.2) < 0.01
        assert abs(table["churn"][validates].mean() - table["churn"].mean()) < 0.01


def test_forward_folds_of_a_panel_with_few_values_are_balanced() -> None:
    """In each fold, a fifth of the customers validate, although many of their rows are identical."""
    rng = np.random.default_rng(0)
    ends = pd.date_range("2025-01-31", periods=12, freq="ME")
    table = customers(12_000, sizes=3).assign(
        id=np.repeat([f"C{number}" for number in range(1000)], 12),
        day=np.tile(ends, 1000),
        churn=(rng.random(12_000) < 0.1).astype(int),
    )
    made = make_folds(table, contract(dated=True), number=5)
    assert ((made == FOLD_VALIDATE).sum() == 2 * 200).all()


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
    groups = pd.Series(groups_of(table, contract(with_id, dated=True)))
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
        match=r"3 folds need 3 customers of each class, and one class has 2:.*reduce `split.folds`",
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
    "setting",
    [
        {"holdout_share": 0},
        {"holdout_share": 1},
        {"holdout_latest": 1},
        {"folds": 1},
        {"fold": 5},
        {"max_set_aside": 1},
    ],
)
def test_settings_outside_their_bounds_are_rejected(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        SplitSettings(**{"holdout_share": 0.2, "holdout_latest": 0.2, "folds": 5, **setting})
