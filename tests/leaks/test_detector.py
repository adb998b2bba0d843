"""The leak check: what each test finds, what it says, and what it leaves alone."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score
from sklearn.tree import DecisionTreeClassifier

from churn_pipeline.leaks import LeakFinding, LeakReport, LeakSettings, find_leaks
from churn_pipeline.leaks.cells import ALPHA, limits, make_labels, out_of_fold_shares, separation
from churn_pipeline.leaks.trees import tree_shares

ROWS = 3000
SETTINGS = LeakSettings()


def label(share: float = 0.2, seed: int = 0, rows: int = ROWS) -> np.ndarray:
    return (np.random.default_rng(seed).random(rows) < share).astype(int)


def check(churned: np.ndarray, **columns: object) -> LeakReport:
    return find_leaks(pd.DataFrame(columns), churned, SETTINGS, seed=1)


def only(report: LeakReport) -> LeakFinding:
    assert len(report.findings) == 1, report.findings
    return report.findings[0]


# ---- limits and shares -----------------------------------------------------------------------------------------------


@given(st.integers(1, 3000), st.data(), st.integers(1, 10_000))
def test_limits_are_those_of_an_exact_binomial_test(rows: int, data: st.DataObject, tests: int) -> None:
    churners = data.draw(st.integers(0, rows))
    lower, upper = limits(np.array([rows]), np.array([churners]), tests)
    exact = binomtest(churners, rows).proportion_ci(1 - 2 * ALPHA / tests, "exact")
    assert lower[0] == pytest.approx(exact.low, abs=1e-9)
    assert upper[0] == pytest.approx(exact.high, abs=1e-9)


def test_a_share_comes_from_other_folds_only() -> None:
    churned = label()
    labels = make_labels(churned, 1)
    codes = np.random.default_rng(1).integers(0, 40, ROWS)
    shares = out_of_fold_shares(codes, labels)
    inside = labels.folds == 2
    flipped = make_labels(churned, 1)
    changed = churned.copy()
    changed[inside] = 1 - changed[inside]
    again = out_of_fold_shares(codes, type(flipped)(changed, labels.folds))
    for code in range(40):  # only the table's share, the prior, differs
        np.testing.assert_allclose(again[inside & (codes == code)], shares[inside & (codes == code)], atol=0.02)


def test_a_tree_gives_the_shares_of_scikit_learns_classifier() -> None:
    churned = label()
    labels = make_labels(churned, 1)
    feature = np.random.default_rng(1).normal(size=ROWS) + churned
    shares = tree_shares(feature, labels)
    inside = labels.folds == 0
    tree = DecisionTreeClassifier(max_depth=3, min_samples_leaf=10, random_state=0)
    tree.fit(feature[~inside].reshape(-1, 1), churned[~inside])
    np.testing.assert_allclose(shares[inside], tree.predict_proba(feature[inside].reshape(-1, 1))[:, 1])


def test_separation_gives_the_auc_and_the_best_cut() -> None:
    churned = np.array([0, 0, 0, 1, 0, 1, 1, 1])
    scores = np.array([0.1, 0.1, 0.2, 0.2, 0.3, 0.4, 0.4, 0.9])
    auc, churners, stayers = separation(scores, make_labels(churned, 1))
    assert auc == roc_auc_score(churned, scores)
    assert (churners, stayers) == (0.75, 0.0)


# ---- single features -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.05, 0.26, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_features_without_information_are_never_named(share: float, seed: int) -> None:
    rng = np.random.default_rng(seed + 10)
    report = check(
        label(share, seed),
        normal=rng.normal(size=ROWS),
        count=rng.poisson(2, ROWS).astype(float),
        holes=np.where(rng.random(ROWS) < 0.3, np.nan, rng.random(ROWS)),
        empty=np.full(ROWS, np.nan),
        constant=np.ones(ROWS),
        level=rng.choice(["a", "b", ""], ROWS),
        name=[f"customer {row}" for row in rng.permutation(ROWS)],
        number=rng.permutation(ROWS).astype(float),
    )
    assert report.findings == ()
    assert all(abs(auc - 0.5) < 0.1 for auc in report.auc.values())


def test_a_leak_is_named_in_a_level_a_value_a_missing_cell_and_a_range() -> None:
    churned, rng = label(), np.random.default_rng(3)
    hit = (churned == 1) & (rng.random(ROWS) < 0.7)
    outside = rng.choice([0.0, 0.53], ROWS) + rng.uniform(0, 0.47, ROWS)
    leaks = {
        "level": (np.where(hit, "gone", rng.choice(["a", "b"], ROWS)), "the level is 'gone'"),
        "value": (np.where(hit, -1.0, rng.random(ROWS)), "the value is -1"),
        "missing": (np.where(hit, np.nan, rng.random(ROWS)), "the cell is missing"),
        "filled": (np.where(hit, [f"on {n}" for n in rng.permutation(ROWS)], ""), "the cell is filled"),
        "range": (np.where(hit, rng.uniform(0.48, 0.52, ROWS), outside), "found by a small tree"),
    }
    for cells, said in leaks.values():
        finding = only(check(churned, leak=cells))
        assert said in finding.evidence
        assert finding.figures["reach"] == pytest.approx(0.7, abs=0.06)
        assert finding.figures["lower"] <= finding.figures["share"] <= finding.figures["upper"]


def test_many_small_levels_count_as_one_group() -> None:
    churned, rng = label(), np.random.default_rng(3)
    hit = (churned == 1) & (rng.random(ROWS) < 0.7)
    codes = np.where(hit, rng.integers(0, 60, ROWS), rng.integers(100, 300, ROWS))
    finding = only(check(churned, leak=[f"code {code}" for code in codes]))
    assert finding.tier == "stop"


def test_an_id_like_column_is_never_quoted() -> None:
    churned, rng = label(), np.random.default_rng(3)
    numbers = np.where(churned == 1, rng.integers(900_000, 999_999, ROWS), rng.integers(100_000, 899_999, ROWS))
    report = check(churned, text=[f"SECRET{n}" for n in numbers], number=numbers.astype(float))
    assert {finding.columns for finding in report.stops} == {("text",), ("number",)}
    said = json.dumps(report.to_dict())
    assert "SECRET" not in said
    assert not any(str(number) in said for number in numbers)


@given(st.floats(0.5, 1.75), st.floats(0.03, 0.5), st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_a_gradual_feature_passes_up_to_an_auc_of_0_89(shift: float, share: float, seed: int) -> None:
    churned = label(share, seed, 6000)
    feature = np.random.default_rng(seed + 1).normal(size=6000) + shift * churned
    assert check(churned, gradual=feature, rounded=feature.round(1)).findings == ()


def test_a_level_with_few_churners_is_honest_and_one_without_any_is_not() -> None:
    churned, rng = label(0.26, rows=8000), np.random.default_rng(3)
    long_term = rng.random(8000) < np.where(churned == 1, 0.01, 0.4)
    paid_later = rng.random(8000) < np.where(churned == 1, 0.0, 0.7)
    report = check(churned, term=np.where(long_term, "two years", "month"), paid=np.where(paid_later, "yes", "no"))
    finding = only(report)
    assert finding.columns == ("paid",)
    assert "where the level is 'yes'; they include 71% of all stayers" in finding.evidence


# ---- pairs -----------------------------------------------------------------------------------------------------------


def test_two_features_that_give_the_label_away_only_together_are_named() -> None:
    churned, rng = label(), np.random.default_rng(3)
    first = rng.integers(0, 2, ROWS)
    report = check(
        churned, first=first.astype(float), second=np.where(first ^ churned, "on", "off"), third=rng.random(ROWS)
    )
    assert only(report).columns in {("first", "second"), ("second", "first")}
    assert max(report.auc.values()) < 0.6


def test_two_strong_honest_features_are_not_a_leak_together() -> None:
    churned, rng = label(), np.random.default_rng(3)
    report = check(churned, a=rng.normal(size=ROWS) + 1.7 * churned, b=rng.normal(size=ROWS) + 1.7 * churned)
    assert report.findings == ()


# ---- report ----------------------------------------------------------------------------------------------------------


def test_an_allowed_feature_only_warns() -> None:
    churned = label()
    features = pd.DataFrame({"copy": churned.astype(float)})
    assert find_leaks(features, churned, SETTINGS, 1).stops
    allowed = find_leaks(features, churned, LeakSettings(allowed=("copy",)), 1)
    assert not allowed.stops
    assert allowed.warnings[0].evidence.endswith("leaks.allowed contains `copy`")


def test_the_same_seed_gives_the_same_report_and_a_large_table_is_sampled() -> None:
    churned, rng = label(rows=4000), np.random.default_rng(3)
    features = pd.DataFrame({"a": rng.normal(size=4000), "copy": churned.astype(float)})
    small = LeakSettings(max_rows=1000)
    first, second, third = (find_leaks(features, churned, small, seed) for seed in (1, 1, 2))
    assert first == second != third
    assert "tested on 1,000 of 4,000 rows" in only(first).evidence
    assert first.to_dict()["tested"] == 1000


def test_a_table_with_one_class_has_no_findings() -> None:
    assert check(np.zeros(50, dtype=int), a=np.arange(50.0)).findings == ()


def test_limits_of_the_tiers_must_be_in_order() -> None:
    with pytest.raises(ValidationError, match="`warn_auc` must not be above `max_auc`"):
        LeakSettings(warn_auc=0.96)
    with pytest.raises(ValidationError, match="`warn_share` must not be above `stop_share`"):
        LeakSettings(warn_share=0.96)


@pytest.mark.parametrize("rows", [4, 12])
def test_a_feature_that_only_recognises_customers_is_no_leak(rows: int) -> None:
    """Each customer has several rows with one label, so a fee of its own gives the label away in the customer's other rows."""
    rng = np.random.default_rng(4)
    number, churned = 1000, label(rows=1000)
    customer = np.repeat(np.arange(number), rows)
    street = np.char.add("street ", np.arange(number).astype(str))
    features = pd.DataFrame({"fee": rng.normal(50, 10, number)[customer], "street": street[customer]})

    assert find_leaks(features, churned[customer], SETTINGS, 1).stops
    assert find_leaks(features, churned[customer], SETTINGS, 1, customer).findings == ()
    copy = features.assign(copy=np.where(churned[customer] == 1, "left", "here"))
    found = find_leaks(copy, churned[customer], SETTINGS, 1, customer)
    assert [finding.columns for finding in found.stops] == [("copy",)]


def test_folds_hold_whole_customers_and_a_sample_keeps_them() -> None:
    customer = np.random.default_rng(1).integers(0, 700, ROWS)
    churned = label()
    labels = make_labels(churned, 1, customer)

    pairs = set(zip(customer.tolist(), labels.folds.tolist(), strict=True))
    assert len(pairs) == len(np.unique(customer))
    shares = pd.Series(churned).groupby(labels.folds).mean()
    assert shares.max() - shares.min() < 0.08
    street = np.char.add("street ", customer.astype(str))
    per_customer = (customer % 5 == 0).astype(int)
    small = LeakSettings(max_rows=2000)
    assert find_leaks(pd.DataFrame({"street": street}), per_customer, small, 1, customer).findings == ()
