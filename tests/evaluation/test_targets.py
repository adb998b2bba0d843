"""Target lists: selection, control group, and the measured effect."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from churn_pipeline.costs import CostModel, expected_profit
from churn_pipeline.evaluation.targets import (
    TargetSettings,
    detectable_effect,
    is_control,
    measured_effect,
    target_list,
)

COSTS = CostModel(value=200, offer_cost=10, contact_cost=1, acceptance=0.3)
EVERYONE = TargetSettings(control_share=0)


def base(n: int, seed: int = 0) -> tuple[list[str], np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return [f"c{i}" for i in range(n)], rng.random(n), rng.uniform(0, 400, n)


def test_profitable_customers_are_listed_highest_profit_first() -> None:
    ids, p, value = base(500)
    found = target_list(ids, p, value, COSTS, EVERYONE)
    profit = expected_profit(p, value, COSTS)
    assert set(found["id"]) == {of for of, earns in zip(ids, profit, strict=True) if earns > 0}
    assert found["expected_profit"].is_monotonic_decreasing
    assert found["rank"].tolist() == list(range(1, len(found) + 1))
    assert not found["control"].any()
    first = found.iloc[0]
    at = ids.index(first["id"])
    assert (first["churn_probability"], first["value"], first["expected_profit"]) == (p[at], value[at], profit.max())


def test_expected_spend_by_hand() -> None:
    # The contact, plus the offer for 75% stayers and 3 in 10 of the churners
    found = target_list(["a"], [0.25], 500, COSTS, EVERYONE)
    assert found["expected_spend"].tolist() == pytest.approx([1 + 10 * (0.75 + 0.25 * 0.3)])


def test_the_budget_counts_contacts_only() -> None:
    ids, p, value = base(3000)
    found = target_list(ids, p, value, COSTS, TargetSettings(max_customers=200, control_share=0.2))
    assert (~found["control"]).sum() == 200
    assert not found["control"].iloc[-1]
    assert found["control"].mean() == pytest.approx(0.2, abs=0.07)


@settings(max_examples=30, deadline=None)
@given(st.floats(1, 5000), st.integers(1, 400), st.floats(0, 0.9), st.integers(0, 50))
def test_budgets_are_used_up_and_not_exceeded(money: float, n: int, share: float, seed: int) -> None:
    ids, p, value = base(300, seed)
    wanted = TargetSettings(max_spend=money, max_customers=n, control_share=share)
    found, whole = (
        target_list(ids, p, value, COSTS, of)
        for of in (wanted, wanted.model_copy(update={"max_spend": None, "max_customers": None}))
    )
    contacted = found[~found["control"]]
    spent = contacted["expected_spend"].sum()
    assert spent <= money + 1e-9
    assert len(contacted) <= n
    pd.testing.assert_frame_equal(found, whole.head(len(found)))
    left = whole.iloc[len(found) :]
    following = left[~left["control"]]
    if len(following) and len(contacted) < n:
        assert spent + following["expected_spend"].iloc[0] > money - 1e-9


def test_the_control_group_depends_on_id_and_campaign_only() -> None:
    ids, p, value = base(2000)
    half = TargetSettings(control_share=0.3, campaign="spring")
    found = target_list(ids, p, value, COSTS, half).set_index("id")["control"]
    order = np.random.default_rng(0).permutation(2000)[:900]
    again = target_list([ids[i] for i in order], p[order], value[order], COSTS, half).set_index("id")["control"]
    assert (again == found[again.index]).all()
    other = target_list(ids, p, value, COSTS, half.model_copy(update={"campaign": "autumn"})).set_index("id")["control"]
    assert (found & other).mean() == pytest.approx(0.09, abs=0.03)
    larger = half.model_copy(update={"control_share": 0.5})
    assert all(is_control(of, larger) for of in ids if is_control(of, half))
    # The same on every machine and in every version
    assert [of for of in range(20) if is_control(of, half)] == [0, 1, 2, 4, 10, 14, 17]


def test_the_control_group_is_random() -> None:
    ids, p, value = base(20_000)
    found = target_list(ids, p, value, COSTS, TargetSettings(control_share=0.25))
    assert found["control"].mean() == pytest.approx(0.25, abs=0.015)
    means = found.groupby("control")[["churn_probability", "value", "expected_profit"]].mean()
    assert means.loc[True].to_numpy() == pytest.approx(means.loc[False].to_numpy(), rel=0.03)


def test_ties_do_not_depend_on_the_order_of_rows() -> None:
    ids = [f"c{i}" for i in range(50)]
    limited = TargetSettings(max_customers=10, control_share=0)
    there, back = (target_list(of, np.full(50, 0.5), 200, COSTS, limited)["id"].tolist() for of in (ids, ids[::-1]))
    assert there == back


def test_a_list_can_be_empty() -> None:
    ids, p, _ = base(50)
    found = target_list(ids, p, 5, COSTS, TargetSettings(max_spend=100))
    assert found.empty
    assert list(found) == ["rank", "id", "churn_probability", "value", "expected_profit", "expected_spend", "control"]
    assert target_list([], [], [], COSTS, EVERYONE).empty


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": ["a", "a"]}, "1 are repeated. Score each customer once"),
        ({"ids": ["a", None]}, "1 ids are missing"),
        ({"p": [0.5, 1.5]}, r"churn probability in \[0, 1\]"),
        ({"p": [0.5, np.nan]}, r"churn probability in \[0, 1\]"),
        ({"p": [0.5]}, "each of the 2 customers"),
        ({"value": [1.0, -1.0]}, "missing or negative"),
    ],
)
def test_bad_requests(change: dict[str, object], message: str) -> None:
    request = {"ids": ["a", "b"], "p": [0.5, 0.5], "value": 10, "costs": COSTS, "settings": EVERYONE} | change
    with pytest.raises(ValueError, match=message):
        target_list(**request)  # type: ignore[arg-type]


def test_effect_by_hand() -> None:
    churned = [1, 0, 0, 0, 1, 1, 0, 0]
    control = [False] * 4 + [True] * 4
    found = measured_effect(churned, control, value=100, spent=[5, 5, 5, 5, 99, 99, 99, 99])
    assert (found.contacted, found.control, found.churn_contacted, found.churn_control) == (4, 4, 0.25, 0.5)
    assert found.prevented == 0.25
    assert found.prevented_error == pytest.approx(math.sqrt(0.1875 / 3 + 0.25 / 3))
    assert found.profit == pytest.approx(100 * 0.25 - 5)
    assert found.profit_error == pytest.approx(100 * found.prevented_error)
    assert found.prevented_lower < 0 < found.prevented_upper


def campaign(seed: int, n: int = 4000) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A list whose contacted customers accept in 30% of cases; half of it is control."""
    ids, p, value = base(n, seed)
    found = target_list(ids, p, value, COSTS, TargetSettings(control_share=0.5, campaign=str(seed)))
    rng = np.random.default_rng(seed)
    would, accepts = rng.random(len(found)) < found["churn_probability"], rng.random(len(found)) < 0.3
    contacted = ~found["control"].to_numpy()
    churned = would & ~(contacted & accepts)
    spent = 1 + 10 * (~would | accepts)
    return churned.astype(int), ~contacted, found["value"].to_numpy(), spent


def test_the_effect_of_a_contact_is_found() -> None:
    held, truth = [], []
    for seed in range(60):
        found = measured_effect(*campaign(seed))
        ids, p, value = base(4000, seed)
        listed = target_list(ids, p, value, COSTS, EVERYONE)
        true = listed["expected_profit"].mean()
        held.append(found.profit_lower <= true <= found.profit_upper)
        truth.append(found.profit - true)
    assert np.mean(held) >= 0.87
    assert np.mean(truth) == pytest.approx(0, abs=1.5)


def test_no_effect_is_rarely_significant() -> None:
    alarms = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        found = measured_effect(rng.random(600) < 0.4, rng.random(600) < 0.3, 1, 0)
        alarms += not found.prevented_lower <= 0 <= found.prevented_upper
    assert alarms <= 12


def test_the_detectable_effect_is_detected_with_its_power() -> None:
    effect = detectable_effect(1500, 500, 0.4)
    shown = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        control = np.repeat([False, True], [1500, 500])
        churned = rng.random(2000) < np.where(control, 0.4, 0.4 - effect)
        shown += measured_effect(churned, control, 1, 0).prevented_lower > 0
    assert shown / 200 == pytest.approx(0.8, abs=0.09)
    assert detectable_effect(100, 0, 0.4) == math.inf
    assert detectable_effect(1500, 50, 0.4) > effect


@pytest.mark.parametrize(
    ("churned", "control", "message"),
    [
        ([1, 0, 2, 0], [True, True, False, False], r"\(0 or 1\)"),
        ([1, 0], [True, False, False], "Pass for each customer"),
        ([1, 0, 1], [True, False, False], "at least two contacted customers and two control customers"),
    ],
)
def test_effects_that_cannot_be_estimated(churned: list[int], control: list[bool], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measured_effect(churned, control, 1, 0)


def test_identical_customers_have_no_error() -> None:
    found = measured_effect([0, 0, 0, 0], [True, True, False, False], 10, 1)
    assert (found.prevented, found.prevented_error, found.profit, found.profit_error) == (0, 0, -1, 0)
