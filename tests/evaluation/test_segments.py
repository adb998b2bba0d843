"""Segments: readable levels, metrics equal to hand calculation, and no significant gaps from noise."""

import fairlearn.metrics as fairlearn
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import precision_score

from churn_pipeline.costs import CostModel
from churn_pipeline.evaluation.bootstrap import Resampling
from churn_pipeline.evaluation.holdout import Holdout
from churn_pipeline.evaluation.intervals import effective_rows
from churn_pipeline.evaluation.metrics import auc
from churn_pipeline.evaluation.predictions import Labels, Probabilities
from churn_pipeline.evaluation.profit import realised_profit
from churn_pipeline.evaluation.segment_gaps import gaps, holm
from churn_pipeline.evaluation.segment_levels import segment_levels
from churn_pipeline.evaluation.segments import ALL, FAIRNESS, SegmentScoring, segment_metrics

COSTS = CostModel(value=200, offer_cost=10, contact_cost=1, acceptance=0.3)


def simulate(n: int, seed: int = 0) -> tuple[Labels, Probabilities, pd.Series]:
    rng = np.random.default_rng(seed)
    p = 1 / (1 + np.exp(-rng.normal(-1.6, 1.4, n)))
    kind = pd.Series(rng.choice(["red", "green"], n), name="kind")
    return (rng.random(n) < p).astype(np.int64), p, kind


def evaluated(
    y: Labels,
    p: Probabilities,
    of: pd.Series,
    threshold: float | None = None,
    groups: np.ndarray | None = None,
    seed: int = 0,
    resamples: int = 100,
) -> pd.DataFrame:
    scoring = SegmentScoring(COSTS, threshold=threshold)
    return segment_metrics(Holdout(y, p, 200, groups), {"kind": of}, scoring, Resampling(resamples, seed=seed))  # type: ignore[arg-type]


def test_words_stay_words_and_missing_is_a_level() -> None:
    levels = segment_levels(pd.Series(["b", None, "a", "b"], name="plan", index=[3, 5, 7, 9]))
    assert levels.tolist() == ["b", "missing", "a", "b"]
    assert levels.cat.categories.tolist() == ["a", "b", "missing"]
    assert levels.name == "plan"
    assert levels.index.tolist() == [3, 5, 7, 9]


def test_few_numbers_are_levels_in_their_order() -> None:
    assert segment_levels(pd.Series([10, 2, 2, 0])).cat.categories.tolist() == ["0", "2", "10"]
    assert segment_levels(pd.Series([True, False])).cat.categories.tolist() == ["False", "True"]
    ordered = pd.Series(pd.Categorical(["low", "high"], categories=["low", "high"], ordered=True))
    assert segment_levels(ordered).cat.categories.tolist() == ["low", "high"]


def test_whole_numbers_are_cut_at_whole_numbers() -> None:
    levels = segment_levels(pd.Series(range(72)))
    assert levels.cat.categories.tolist() == ["below 18", "18 to 35", "36 to 53", "54 and more"]
    assert levels.value_counts().tolist() == [18] * 4


def test_other_numbers_are_cut_at_three_digits() -> None:
    levels = segment_levels(pd.Series(np.linspace(0, 1234.5, 400)), bins=2)
    assert levels.cat.categories.tolist() == ["below 617", "617 and more"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.integers(-5, 60), st.floats(-1e6, 1e6)), min_size=1, max_size=60),
    st.integers(2, 6),
)
def test_everyone_has_a_level(cells: list[float | None], bins: int) -> None:
    column = pd.Series(cells, dtype="float64")
    levels = segment_levels(column, bins)
    assert len(levels) == len(column)
    assert levels.notna().all()
    assert ((levels == "missing") == column.isna()).all()
    # Levels are in the order of the numbers
    known = column.notna()
    order = column[known].groupby(levels[known].cat.codes).agg(["min", "max"])
    assert (order["max"].iloc[:-1].to_numpy() <= order["min"].iloc[1:].to_numpy()).all()


def test_metrics_of_a_level_are_those_of_its_customers() -> None:
    y, p, kind = simulate(1000)
    table = evaluated(y, p, kind).set_index(["level", "metric"])
    red = (kind == "red").to_numpy()
    contacted = p >= 11 / 67
    for within, name in ((np.ones(1000, dtype=bool), ALL), (red, "red")):
        of = table.loc[name]
        assert of["rows"].eq(within.sum()).all()
        assert of["churn_share"].to_numpy() == pytest.approx(y[within].mean())
        assert of.loc["auc", "value"] == pytest.approx(auc(y[within], p[within]))
        assert of.loc["profit", "value"] == pytest.approx(realised_profit(y[within], p[within], 200, COSTS))
        assert of.loc["true_positive_rate", "value"] == pytest.approx(contacted[within & (y == 1)].mean())
        assert of.loc["false_positive_rate", "value"] == pytest.approx(contacted[within & (y == 0)].mean())
        assert of.loc["precision", "value"] == pytest.approx(y[within & contacted].mean())
        assert of.loc["calibration_gap", "value"] == pytest.approx((p - y)[within].mean())
        assert "precision_at_10pct" in of.index
        assert "empc" in of.index
        assert not of.index.duplicated().any()


def test_shares_have_wilson_intervals() -> None:
    y, p, kind = simulate(1000)
    row = evaluated(y, p, kind, threshold=0.5).set_index(["level", "metric"]).loc[(ALL, "true_positive_rate")]
    k = int(((p >= 0.5) & (y == 1)).sum())
    limits = binomtest(k, int(y.sum())).proportion_ci(method="wilson")
    assert (row["lower"], row["upper"]) == pytest.approx((limits.low, limits.high))


def test_no_contacts_still_have_an_interval() -> None:
    y, p, kind = simulate(400)
    table = evaluated(y, p, kind, threshold=1.0).set_index(["level", "metric"])
    assert table.loc[(ALL, "contacted_share"), "value"] == 0
    assert 0 < table.loc[(ALL, "contacted_share"), "upper"] < 0.05  # type: ignore[operator]
    assert np.isnan(table.loc[(ALL, "precision"), "value"])  # type: ignore[arg-type]
    assert "precision" not in set(gaps(table.reset_index(), ["kind"])["metric"])


def test_tiny_and_one_sided_levels_are_listed_and_not_scored() -> None:
    y, p, kind = simulate(500)
    kind = kind.where(np.arange(500) >= 12, "tiny")
    kind = kind.where((y == 1) | (np.arange(500) < 300), "stayers")
    table = evaluated(y, p, kind)
    notes = table[table["note"] != ""].set_index("level")
    assert notes["note"].to_dict() == {"stayers": "one class only", "tiny": "fewer than 30 customers"}
    assert notes.loc["tiny", "rows"] == 12
    assert notes[["value", "lower", "upper", "churn_share"]].isna().all(axis=None)
    assert not gaps(table, ["kind"])[["highest", "lowest"]].isin(["tiny", "stayers"]).any(axis=None)


def test_repeated_customers_count_once() -> None:
    y, p, kind = (np.repeat(of, 4) for of in simulate(200))
    keys, kind = np.repeat(np.arange(200), 4), pd.Series(kind)
    alone, together = (evaluated(y, p, kind, groups=of).set_index(["level", "metric"]) for of in (None, keys))
    for metric in ("auc", "profit", "contacted_share", "calibration_gap"):
        width = [float(of.loc[(ALL, metric), "upper"] - of.loc[(ALL, metric), "lower"]) for of in (alone, together)]  # type: ignore[operator]
        assert width[1] / width[0] == pytest.approx(2, rel=0.3), metric
    few = evaluated(y[:100], p[:100], kind[:100], groups=keys[:100])
    assert (few["note"] == "fewer than 30 customers").all()  # 25 of them, in 100 rows


def test_gaps_by_hand() -> None:
    table = pd.DataFrame(
        {
            "segment": [ALL, "kind", "kind", "kind"],
            "level": [ALL, "a", "b", "c"],
            "rows": 100,
            "metric": "auc",
            "value": [0.8, 0.7, 0.9, 0.8],
            "lower": [0.75, 0.66, 0.87, 0.7],
            "upper": [0.85, 0.73, 0.92, 0.9],
            "note": "",
        }
    )
    of_two = gaps(table[table["level"] != "c"]).iloc[0]
    assert (of_two["highest"], of_two["lowest"], of_two["gap"]) == ("b", "a", pytest.approx(0.2))
    assert of_two["lower"] == pytest.approx(0.2 - np.hypot(0.03, 0.03))
    assert of_two["upper"] == pytest.approx(0.2 + np.hypot(0.02, 0.04))
    assert of_two["significant"]
    of_three = gaps(table).iloc[0]
    assert of_three["gap"] == of_two["gap"]
    assert of_three["lower"] < of_two["lower"]


def test_an_unfair_model_has_significant_gaps_and_a_fair_one_does_not() -> None:
    alarms = 0
    for seed in range(15):
        y, p, kind = simulate(1200, seed)
        found = gaps(evaluated(y, p, kind, seed=seed), ["kind"]).set_index("metric")
        alarms += int(found.loc[list(FAIRNESS), "significant"].sum())
        if seed < 3:
            bent = np.where(kind == "red", p**1.6, p)
            unfair = gaps(evaluated(y, bent, kind, seed=seed), ["kind"]).set_index("metric")
            assert unfair.loc[["contacted_share", "true_positive_rate", "calibration_gap"], "significant"].all()
            assert (unfair.loc[["contacted_share", "true_positive_rate"], "highest"] == "green").all()
    assert alarms <= 3  # of 75


def test_protected_attributes_are_compared_in_fairness_and_others_are_not() -> None:
    y, p, kind = simulate(600)
    table = evaluated(y, p, kind)
    assert set(gaps(table, ["kind"])["metric"]) == set(FAIRNESS)
    assert set(gaps(table)["metric"]) == {"auc", "profit", "calibration_gap"}


def test_holms_correction_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]) == pytest.approx([1, 1])
    assert holm([]).size == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holms_correction_lies_between_none_and_bonferronis(p_values: list[float]) -> None:
    corrected, p = holm(p_values), np.array(p_values)
    assert (corrected >= p).all()
    assert (corrected <= np.minimum(1, p * p.size)).all()
    assert corrected.min() == pytest.approx(min(1, p.min() * p.size))


def test_more_gaps_make_each_less_significant() -> None:
    y, p, kind = simulate(1500)
    one, many = (
        segment_metrics(
            Holdout(y, np.where(kind == "red", p**1.15, p), np.full(1500, 200.0)),
            {
                "kind": kind,
                **{f"noise {i}": pd.Series(np.random.default_rng(i).choice(["a", "b"], 1500)) for i in range(n)},
            },
            SegmentScoring(COSTS),
            Resampling(50),
        )
        for n in (0, 6)
    )
    alone, among = (gaps(of, set(of["segment"])).set_index(["segment", "metric"]) for of in (one, many))
    assert (among.loc["kind", "p_value"] >= alone.loc["kind", "p_value"]).all()
    assert among.loc[("kind", "calibration_gap"), "p_value"] > alone.loc[("kind", "calibration_gap"), "p_value"]
    assert among.loc["kind", "gap"].tolist() == alone.loc["kind", "gap"].tolist()


def test_gaps_without_a_difference_are_significant_in_at_most_5_of_100_tables() -> None:
    alarms = 0
    for seed in range(60):
        y, p, kind = simulate(700, seed)
        alarms += int(gaps(evaluated(y, p, kind, seed=seed, resamples=40), ["kind"])["significant"].any())
    assert alarms <= 7  # at most 3 are expected


def test_shares_and_gaps_are_fairlearns() -> None:
    y, p, kind = simulate(1000)
    table = evaluated(y, p, kind, threshold=0.3)
    contacted = (p >= 0.3).astype(int)
    names = {
        "contacted_share": fairlearn.selection_rate,
        "true_positive_rate": fairlearn.true_positive_rate,
        "false_positive_rate": fairlearn.false_positive_rate,
        "precision": precision_score,
    }
    frame = fairlearn.MetricFrame(metrics=names, y_true=y, y_pred=contacted, sensitive_features=kind)
    found = gaps(table, ["kind"]).set_index("metric")["gap"]
    for name in names:
        levels = table[(table["segment"] == "kind") & (table["metric"] == name)].set_index("level")["value"]
        assert levels.to_dict() == pytest.approx(frame.by_group[name].to_dict())
        assert found[name] == pytest.approx(frame.difference()[name])
    parity = fairlearn.demographic_parity_difference(y, contacted, sensitive_features=kind)
    assert found["contacted_share"] == pytest.approx(parity)
    odds = fairlearn.equalized_odds_difference(y, contacted, sensitive_features=kind)
    assert max(found["true_positive_rate"], found["false_positive_rate"]) == pytest.approx(odds)


def test_shares_of_grouped_rows_have_the_effective_number_of_rows() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(300), 4)
    alone = rng.random(1200) < 0.2
    assert effective_rows(alone, groups) == pytest.approx(1200, rel=0.15)
    assert effective_rows(np.repeat(alone[:300], 4), groups) == pytest.approx(300, rel=0.01)
    assert effective_rows(np.zeros(1200, dtype=bool), groups) == 300


def test_a_single_level_is_no_segment_and_has_no_gap() -> None:
    y, p, _ = simulate(200)
    same = segment_levels(pd.Series([1.0] * 190 + list(range(2, 12))), bins=2)
    assert same.cat.categories.tolist() == ["any"]
    table = evaluated(y, p, same)
    assert set(table["level"]) == {ALL, "any"}
    assert gaps(table).empty


def test_levels_must_fit() -> None:
    y, p, kind = simulate(100)
    with pytest.raises(ValueError, match="Segment 'kind' has 99 levels for 100 customers"):
        evaluated(y, p, kind[:99])
