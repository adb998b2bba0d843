"""Profit: equal to hand calculation and to Verbraken's integral; hindsight is overstated."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import special
from scipy.integrate import quad

from churn_pipeline.costs import (
    NO_CONTACT_THRESHOLD,
    CostModel,
    ValueColumn,
    break_even,
    contact_profit,
    contact_profit_churner,
    contact_profit_stayer,
    contacts,
    expected_profit,
)
from churn_pipeline.evaluation.bootstrap import Resampling, bootstrap_metrics
from churn_pipeline.evaluation.empc import empc
from churn_pipeline.evaluation.holdout import Holdout
from churn_pipeline.evaluation.metrics import lift_top_decile
from churn_pipeline.evaluation.predictions import Labels, Probabilities
from churn_pipeline.evaluation.profit import profit_metrics, realised_profit
from churn_pipeline.evaluation.profit_curve import profit_curve
from churn_pipeline.evaluation.sensitivity import sensitivity

COSTS = CostModel(value=200, offer_cost=10, contact_cost=1, acceptance=0.3)
property_test = settings(max_examples=60, deadline=None)
costs_of_any_kind = st.builds(
    CostModel,
    value=st.floats(1, 1000),
    offer_cost=st.floats(0, 100),
    contact_cost=st.floats(0.01, 20),
    acceptance=st.floats(0.05, 1),
)


def simulate(n: int, seed: int = 0) -> tuple[Labels, Probabilities]:
    """Labels drawn from the churn probabilities."""
    rng = np.random.default_rng(seed)
    p = 1 / (1 + np.exp(-rng.normal(-1.6, 1.4, n)))
    return (rng.random(n) < p).astype(np.int64), p


def best_threshold(y: npt.ArrayLike, p: npt.ArrayLike, value: npt.ArrayLike, costs: CostModel) -> float:
    """The threshold that earns most on these rows, or none if contacting always loses."""
    earned = contact_profit(y, np.broadcast_to(value, np.shape(y)), costs)
    by_probability = pd.Series(earned).groupby(np.asarray(p, dtype=float)).sum().sort_index(ascending=False).cumsum()
    return float(by_probability.idxmax()) if by_probability.max() > 0 else NO_CONTACT_THRESHOLD


@st.composite
def customers(draw: st.DrawFn) -> tuple[Labels, Probabilities, Probabilities]:
    n = draw(st.integers(2, 40))
    y = draw(st.lists(st.integers(0, 1), min_size=n, max_size=n))
    assume(0 < sum(y) < n)
    p = draw(st.lists(st.one_of(st.sampled_from([0.0, 0.2, 0.5, 1.0]), st.floats(0, 1)), min_size=n, max_size=n))
    value = draw(st.lists(st.one_of(st.just(0.0), st.floats(0.01, 500)), min_size=n, max_size=n))
    return np.array(y), np.array(p), np.array(value)


def test_profit_of_one_contact_by_hand() -> None:
    # A churner accepts in 3 of 10 cases and earns 200 - 10; the contact costs 1. A stayer costs 10 + 1
    assert contact_profit_churner(200, COSTS) == pytest.approx(0.3 * 190 - 1)
    assert contact_profit_stayer(COSTS) == -11
    assert expected_profit([0.25], 200, COSTS) == pytest.approx(0.25 * 56 + 0.75 * -11)
    assert contact_profit([1, 0], [200, 900], COSTS) == pytest.approx([56, -11])


def test_break_even_by_hand() -> None:
    # p * 56 = (1 - p) * 11
    assert break_even(200, COSTS) == pytest.approx(11 / 67)
    assert break_even([200, 400, 13, 10, 0], COSTS) == pytest.approx(
        [11 / 67, 11 / 127, NO_CONTACT_THRESHOLD, NO_CONTACT_THRESHOLD, NO_CONTACT_THRESHOLD]
    )
    assert not contacts([1.0], 10, COSTS).any()


def test_realised_profit_by_hand() -> None:
    y, p = [1, 0, 1, 0], [0.9, 0.5, 0.1, 0.0]
    assert realised_profit(y, p, 200, COSTS) == pytest.approx((56 - 11) / 4)
    assert realised_profit(y, p, 200, COSTS, threshold=0.9) == pytest.approx(56 / 4)
    assert realised_profit(y, p, [200, 200, 200, 200], COSTS, threshold=0) == pytest.approx((2 * 56 - 2 * 11) / 4)
    assert best_threshold(y, p, 200, COSTS) == 0.1
    assert best_threshold([0, 1], [0.9, 0.5], 20, COSTS) == NO_CONTACT_THRESHOLD


@property_test
@given(st.floats(0, 1), st.floats(0, 1000), costs_of_any_kind)
def test_contact_pays_from_break_even_on(p: float, value: float, costs: CostModel) -> None:
    threshold = float(break_even(value, costs))
    assert 0 <= threshold <= NO_CONTACT_THRESHOLD
    assume(abs(p - threshold) > 1e-9)
    assert (p > threshold) == (expected_profit([p], value, costs)[0] > 0)


@property_test
@given(customers(), costs_of_any_kind)
def test_hindsight_is_the_most_that_a_threshold_earns(
    drawn: tuple[Labels, Probabilities, Probabilities], costs: CostModel
) -> None:
    y, p, value = drawn
    metrics = table_of(profit_metrics(Holdout(y, p, value), costs, budgets=(), resampling=Resampling(40)))["value"]
    best = realised_profit(y, p, value, costs, metrics["hindsight_threshold"])
    assert metrics["hindsight_profit"] == pytest.approx(best, abs=1e-9)
    for threshold in (*np.unique(p), NO_CONTACT_THRESHOLD):
        assert realised_profit(y, p, value, costs, float(threshold)) <= best + 1e-9
    assert realised_profit(y, p, value, costs, NO_CONTACT_THRESHOLD) == 0


def test_break_even_earns_most_where_probabilities_are_true() -> None:
    y, p = simulate(200_000)
    at = float(break_even(200, COSTS))
    chosen, best = (realised_profit(y, p, 200, COSTS, of) for of in (at, best_threshold(y, p, 200, COSTS)))
    assert best - chosen < 0.02
    assert best_threshold(y, p, 200, COSTS) == pytest.approx(at, abs=0.05)
    assert expected_profit(p, 200, COSTS)[p >= at].sum() / y.size == pytest.approx(chosen, abs=0.2)


def test_hindsight_is_overstated_on_few_customers() -> None:
    gain = []
    for seed in range(60):
        y, p = simulate(200, seed)
        gain.append(
            realised_profit(y, p, 200, COSTS, best_threshold(y, p, 200, COSTS)) - realised_profit(y, p, 200, COSTS)
        )
    assert min(gain) >= 0
    assert np.mean(gain) > 0.3


def envelope(y: Labels, p: Probabilities, value: Probabilities, costs: CostModel) -> float:
    """EMPC straight from its definition, by numeric integration over acceptance."""
    alpha = costs.acceptance * costs.acceptance_sample
    beta = costs.acceptance_sample - alpha
    scale = special.beta(alpha, beta)
    cuts = [p >= at for at in np.unique(p)]
    kept = np.array([0, *[(y * (value - costs.offer_cost))[cut].sum() for cut in cuts]])
    spent = np.array([0, *[(costs.contact_cost + (1 - y) * costs.offer_cost)[cut].sum() for cut in cuts]])

    def most(acceptance: float) -> float:
        density = acceptance ** (alpha - 1) * (1 - acceptance) ** (beta - 1) / scale
        return float((acceptance * kept - spent).max() * density)

    # Piece by piece: the integrand is smooth between the acceptances at which lines cross
    with np.errstate(divide="ignore", invalid="ignore"):
        cross = np.unique(((spent[:, None] - spent) / (kept[:, None] - kept))[np.triu_indices(kept.size, 1)])
    corners = [0, *[at for at in cross if 1e-6 < at < 1 - 1e-6], 1]
    parts = [quad(most, low, high)[0] for low, high in pairwise(corners)]
    return float(sum(parts) / y.size)


@settings(max_examples=12, deadline=None)
@given(customers(), st.just(0.0) | st.floats(0.01, 60), st.floats(0.1, 10), st.floats(0.2, 0.8))
def test_empc_is_its_integral(
    drawn: tuple[Labels, Probabilities, Probabilities], offer: float, contact: float, acceptance: float
) -> None:
    y, p, value = (of[:12] for of in drawn)
    costs = CostModel(value=1, offer_cost=offer, contact_cost=contact, acceptance=acceptance)
    found, share = empc(y, p, value, costs)
    assert found == pytest.approx(envelope(y, p, value, costs), rel=1e-5, abs=1e-6)
    assert 0 <= share <= 1


@pytest.mark.parametrize("tiny", [5e-324, 1e-310, 1e-200, 1e-12])
@pytest.mark.parametrize("others", [0.0, 200.0])
@pytest.mark.parametrize("contact_cost", [0.0, 1e-310, 1.0])
def test_empc_of_a_value_near_zero_is_that_of_zero(tiny: float, others: float, contact_cost: float) -> None:
    y, p = np.array([1, 1, 0, 1, 1]), np.array([0.9, 0.5, 0.3, 0.2, 0.1])
    costs = COSTS.model_copy(update={"offer_cost": 0.0, "contact_cost": contact_cost})
    zero, near = ([at, others, at, others / 2, at] for at in (0.0, tiny))
    assert empc(y, p, near, costs)[0] == pytest.approx(empc(y, p, zero, costs)[0], abs=1e-9)


def test_empc_equals_empulse() -> None:
    # By empulse 0.13.1 with alpha 6, beta 14, clv 200, d 10, f 1: its documented example
    y, p = np.tile([0, 1], 4), np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.8, 0.9])
    assert empc(y, p, 200, COSTS)[0] == pytest.approx(23.875593418348124, abs=1e-9)


def test_empc_with_certain_acceptance_is_the_maximum_profit() -> None:
    y, p = simulate(300)
    certain = COSTS.model_copy(update={"acceptance": 1.0})
    best = realised_profit(y, p, 200, certain, best_threshold(y, p, 200, certain))
    assert empc(y, p, 200, certain)[0] == pytest.approx(best)
    sure = COSTS.model_copy(update={"acceptance_sample": 1e7})
    assert empc(y, p, 200, sure)[0] == pytest.approx(
        realised_profit(y, p, 200, COSTS, best_threshold(y, p, 200, COSTS)), abs=0.01
    )


def test_empc_grows_with_uncertainty_and_with_ranking() -> None:
    y, p = simulate(2000)
    doubts = [empc(y, p, 200, COSTS.model_copy(update={"acceptance_sample": of}))[0] for of in (100, 20, 3)]
    assert doubts == sorted(doubts)
    shuffled = np.random.default_rng(0).permutation(p)
    assert empc(y, shuffled, 200, COSTS)[0] < empc(y, p, 200, COSTS)[0]


def table_of(table: pd.DataFrame) -> pd.DataFrame:
    return table.set_index("metric")


def test_profit_metrics_by_hand() -> None:
    y, p = np.array([1, 1, 0, 1, 0, 0, 0, 0, 0, 0]), np.linspace(0.95, 0.05, 10)
    found = table_of(profit_metrics(Holdout(y, p, 200), COSTS, budgets=(0.2, 5), resampling=Resampling(100)))["value"]
    assert found["precision_at_20pct"] == 1
    assert found["lift_at_20pct"] == pytest.approx(1 / 0.3)
    assert found["precision_at_5"] == pytest.approx(3 / 5)
    assert found["contacted_share"] == 0.8  # all from 11 / 67 on
    assert found["profit"] == pytest.approx((3 * 56 - 5 * 11) / 10)
    assert found["profit_of_contacting_all"] == pytest.approx((3 * 56 - 7 * 11) / 10)
    assert found["predicted_profit"] == pytest.approx(expected_profit(p[:8], 200, COSTS).sum() / 10)
    assert found["hindsight_profit"] == pytest.approx((3 * 56 - 11) / 10)
    assert found["hindsight_threshold"] == p[3]
    assert found["empc"] == pytest.approx(empc(y, p, 200, COSTS)[0])


def test_lift_at_a_tenth_is_the_top_decile_lift_with_the_same_interval() -> None:
    y, p = simulate(800)
    p = p.round(1)
    ours = table_of(profit_metrics(Holdout(y, p, 200), COSTS, budgets=(0.1,), resampling=Resampling(100, seed=3))).loc[
        "lift_at_10pct"
    ]
    assert ours["value"] == pytest.approx(lift_top_decile(y, p))
    theirs = table_of(bootstrap_metrics(y, p, ["lift_top_decile"], resampling=Resampling(100, seed=3))).loc[
        "lift_top_decile"
    ]
    assert ours.to_numpy(float) == pytest.approx(theirs.to_numpy(float))


@pytest.mark.parametrize("per_customer", [1, 3])
def test_resampled_metrics_are_those_of_the_resample(per_customer: int) -> None:
    y, p = simulate(120)
    value, groups = np.linspace(0, 400, 120), np.arange(120) // per_customer
    for seed in range(3):
        # With 40 resamples, the limits are close to the minimum and the maximum
        table = table_of(profit_metrics(Holdout(y, p, value, groups), COSTS, resampling=Resampling(40, seed=seed)))
        assert np.isfinite(table.to_numpy(float)).all()
        assert (table["lower"] <= table["upper"]).all()
        profits = table_of(
            bootstrap_metrics(
                y,
                np.arange(120) / 120,  # stands for the row
                {"profit": lambda y, i: _profit_of_rows(y, p, value, i)},
                groups=groups,
                resampling=Resampling(40, seed=seed),
            )
        )
        assert table.loc["profit"].to_numpy(float) == pytest.approx(profits.loc["profit"].to_numpy(float))


def _profit_of_rows(y: Labels, p: Probabilities, value: Probabilities, i: Probabilities) -> float:
    rows = np.rint(i * 120).astype(int)
    return realised_profit(y, p[rows], value[rows], COSTS)


def test_profit_intervals_have_their_coverage() -> None:
    p_many = simulate(400_000, 99)[1]
    true = (np.maximum(expected_profit(p_many, 200, COSTS), 0)).mean()
    held = 0
    for seed in range(60):
        row = table_of(
            profit_metrics(Holdout(*simulate(400, seed), 200), COSTS, budgets=(), resampling=Resampling(100, seed=seed))
        )
        held += row.loc["profit", "lower"] <= true <= row.loc["profit", "upper"]  # type: ignore[operator]
    assert held / 60 >= 0.85


def test_the_curve_passes_through_realised_profits() -> None:
    y, p = simulate(500)
    value = np.linspace(50, 400, 500)
    curve = profit_curve(Holdout(y, p, value), COSTS, points=80, resampling=Resampling(100))
    assert len(curve) <= 80
    assert curve["threshold"].is_monotonic_increasing
    for row in curve.iloc[::9].to_dict("records"):
        assert row["profit"] == pytest.approx(realised_profit(y, p, value, COSTS, row["threshold"]))
        assert row["contacted_share"] == pytest.approx((p >= row["threshold"]).mean())
    assert ((curve["lower"] <= curve["profit"] + 1e-9) & (curve["profit"] - 1e-9 <= curve["upper"])).all()
    clustered = profit_curve(Holdout(y, p, value, np.arange(500) // 2), COSTS, points=80, resampling=Resampling(100))
    pd.testing.assert_series_equal(curve["profit"], clustered["profit"])


def test_a_wrong_assumption_costs_profit() -> None:
    y, p = simulate(50_000)
    table = sensitivity(Holdout(y, p, 200), COSTS)
    assert len(table) == 20
    assumed = table[table["factor"] == 1]
    assert assumed["profit"].to_numpy() == pytest.approx(realised_profit(y, p, 200, COSTS))
    assert (
        table["profit"] - table["profit_with_assumed_costs"] > -0.02
    ).all()  # with true probabilities, up to sampling noise
    rows = table.set_index(["parameter", "factor"])
    assert rows.loc[("value", 2.0), "setting"] == 400
    assert rows.loc[("offer_cost", 0.5), "threshold"] == pytest.approx(6 / (0.3 * 195 + 5))
    for parameter, sign in (("value", 1), ("acceptance", 1), ("offer_cost", -1), ("contact_cost", -1)):
        assert (np.diff(rows.loc[parameter]["profit"]) * sign > 0).all()  # type: ignore[arg-type]
        assert (np.diff(rows.loc[parameter]["threshold"]) * sign < 0).all()  # type: ignore[arg-type]


def test_assumed_costs_keep_the_contacts() -> None:
    y, p = simulate(300)
    row = sensitivity(Holdout(y, p, 200), COSTS).set_index(["parameter", "factor"]).loc[("offer_cost", 2.0)]
    earned = np.where(y == 1, 0.3 * 180 - 1, -21) * (p >= 11 / 67)
    assert row["profit_with_assumed_costs"] == pytest.approx(earned.mean())
    assert row["profit"] == pytest.approx((np.where(y == 1, 53, -21) * (p >= 21 / 74)).mean())
    assert row["profit_with_assumed_costs"] != pytest.approx(row["profit"])


def test_the_curve_contacts_from_the_threshold_on() -> None:
    y, p = np.array([1, 0, 1, 0]), np.array([0.0, 0.0, 1.0, 1.0])
    curve = profit_curve(Holdout(y, p, 200), COSTS, points=6, resampling=Resampling(40)).set_index("threshold")
    assert curve.loc[[0.0, 1.0], "contacted_share"].tolist() == [1, 0.5]
    assert curve.loc[[0.0, 1.0], "profit"].to_list() == pytest.approx([45 / 2, 45 / 4])


def test_acceptance_is_at_most_one() -> None:
    y, p = simulate(200)
    table = sensitivity(Holdout(y, p, 200), COSTS.model_copy(update={"acceptance": 0.8}))
    assert table.loc[table["parameter"] == "acceptance", "setting"].to_list() == pytest.approx([0.4, 0.64, 0.8, 1, 1])


def test_values_come_from_a_number_or_a_column() -> None:
    table = pd.DataFrame({"charge": [10.0, 0.0]})
    assert COSTS.values(table).tolist() == [200, 200]
    by_column = COSTS.model_copy(update={"value": ValueColumn(column="charge", months=12)})
    assert by_column.values(table).tolist() == [120, 0]
    with pytest.raises(ValueError, match="column 'charge', which the cost model takes values from, is missing"):
        by_column.values(pd.DataFrame())
    with pytest.raises(ValueError, match=r"1 of 2 customer values are missing or negative \(first at position 1\)"):
        by_column.values(pd.DataFrame({"charge": [1.0, np.nan]}))


@pytest.mark.parametrize(
    "change", [{"value": 0}, {"acceptance": 0}, {"acceptance": 1.1}, {"offer_cost": -1}, {"discount": 3}]
)
def test_impossible_costs_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        CostModel.model_validate(COSTS.model_dump() | change)
    assert CostModel.model_validate(COSTS.model_dump() | {"value": {"column": "charge"}}).value == ValueColumn(
        column="charge"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": [1.0]}, r"Values have shape \(1,\) for 4 customers"),
        ({"value": [1.0, -1, 2, 3]}, "missing or negative"),
        ({"budgets": (0.0,)}, "A budget of 0 cannot be evaluated on 4 customers"),
        ({"budgets": (5,)}, "A budget of 5 cannot"),
        ({"y": [0, 0, 0, 0]}, "All 4 customers stayed"),
    ],
)
def test_bad_requests(change: dict[str, object], message: str) -> None:
    request = {"y": [0, 1, 0, 1], "value": 10, "budgets": (0.1,)} | change
    with pytest.raises(ValueError, match=message):
        profit_metrics(
            Holdout(request["y"], [0.1, 0.5, 0.2, 0.6], request["value"]),  # type: ignore[arg-type]
            COSTS,
            request["budgets"],  # type: ignore[arg-type]
            resampling=Resampling(100),
        )
