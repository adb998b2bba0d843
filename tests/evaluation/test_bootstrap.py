"""Bootstrap: the fast way equals the plain one, and intervals hold the truth as often as they say."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from churn_pipeline.evaluation.bootstrap import TALLY_METRICS, bootstrap_metrics, paired_difference
from churn_pipeline.evaluation.metrics import METRICS, Labels, Metric, Probabilities, Tally, auc, tally

Sample = tuple[Labels, Probabilities]


def simulate(n: int, seed: int, slope: float = 1.0, decimals: int = 15) -> Sample:
    """Customers whose true log-odds are normal, of whom about 26 % churn; a slope of 1 is calibrated."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(-1.5, 1.5, n)
    y = (rng.random(n) < 1 / (1 + np.exp(-odds))).astype(np.int64)
    return y, np.round(1 / (1 + np.exp(-slope * odds)), decimals)


def plain(metric: Metric) -> Metric:
    """The same metric, as another function: one that goes the plain way."""

    def same(y: Labels, p: Probabilities) -> float:
        return metric(y, p)

    return same


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 8), st.integers(0, 4)), min_size=2, max_size=60),
    st.sampled_from([0.0, 0.05]),
)
def test_weighted_equals_materialised(rows: list[tuple[int, int, int]], lowest: float) -> None:
    y, level, times = np.array(rows).T
    p = lowest + level / 8 * (1 - lowest)
    y_drawn, p_drawn = np.repeat(y, times), np.repeat(p, times)
    assume(0 < y_drawn.sum() < y_drawn.size)
    distinct = np.unique(p)[::-1]  # those that were never drawn, too
    place = np.searchsorted(-distinct, -p)
    churned, stayed = (np.bincount(place, times * of, distinct.size).astype(np.int64) for of in (y, 1 - y))
    for metric, fast in TALLY_METRICS.items():
        assert fast(distinct)(Tally(distinct, churned, stayed)) == pytest.approx(metric(y_drawn, p_drawn), abs=1e-12)


@pytest.mark.parametrize("decimals", [15, 1])
@pytest.mark.parametrize("per_group", [None, 3])
def test_fast_and_plain_ways_draw_the_same(decimals: int, per_group: int | None) -> None:
    y, p = simulate(150, seed=1, decimals=decimals)
    groups = None if per_group is None else np.arange(y.size) // per_group
    names = [name for name in METRICS if name != "calibration_error"]
    fast = bootstrap_metrics(y, p, names, n_resamples=50, groups=groups)
    slow = bootstrap_metrics(y, p, {name: plain(METRICS[name]) for name in names}, n_resamples=50, groups=groups)
    pd.testing.assert_frame_equal(fast, slow)


def test_every_metric_has_a_fast_way() -> None:
    assert set(TALLY_METRICS) == set(METRICS.values())


def test_a_row_for_each_metric_in_order_and_the_value_inside() -> None:
    y, p = simulate(1600, seed=0)
    names = list(reversed(METRICS))
    table = bootstrap_metrics(y, p, names)
    assert table.columns.tolist() == ["metric", "value", "lower", "upper"]
    assert table["metric"].tolist() == names
    assert table["value"].tolist() == [METRICS[name](y, p) for name in names]
    assert (table["lower"] <= table["value"]).all()
    assert (table["value"] <= table["upper"]).all()


def test_same_seed_same_result_whatever_else_is_asked() -> None:
    y, p = simulate(300, seed=2)
    once = bootstrap_metrics(y, p, ["auc", "brier"], n_resamples=100, seed=7)
    pd.testing.assert_frame_equal(once, bootstrap_metrics(y, p, ["auc", "brier"], n_resamples=100, seed=7))
    alone = bootstrap_metrics(y, p, ["brier"], n_resamples=100, seed=7)
    pd.testing.assert_frame_equal(once.iloc[1:].reset_index(drop=True), alone)
    other = bootstrap_metrics(y, p, ["auc", "brier"], n_resamples=100, seed=8)
    assert (once["lower"] != other["lower"]).all()


def test_intervals_shrink_with_rows() -> None:
    few, many = (bootstrap_metrics(*simulate(n, seed=3), list(METRICS), n_resamples=300) for n in (400, 6400))
    ratio = (many["upper"] - many["lower"]) / (few["upper"] - few["lower"])
    assert ratio.between(0.15, 0.4).all()  # a quarter, and luck


def test_intervals_widen_with_level() -> None:
    y, p = simulate(400, seed=4)
    narrow, wide = (bootstrap_metrics(y, p, list(METRICS), n_resamples=300, level=at) for at in (0.8, 0.99))
    assert (narrow["lower"] >= wide["lower"]).all()
    assert (narrow["upper"] <= wide["upper"]).all()


def coverage(slope: float, repeats: int) -> "pd.Series[float]":
    """How often intervals of 500 customers hold what 400,000 show, by metric."""
    truth = pd.Series({name: metric(*simulate(400_000, 99, slope)) for name, metric in METRICS.items()})
    if slope == 1:
        truth["calibration_error"] = 0.0
    held = pd.DataFrame(index=range(repeats), columns=list(METRICS), dtype=bool)
    for seed in range(repeats):
        table = bootstrap_metrics(*simulate(500, seed, slope), list(METRICS), n_resamples=200, seed=seed)
        table = table.set_index("metric")
        held.loc[seed] = (table["lower"] <= truth) & (truth <= table["upper"])
    return held.mean()


def test_coverage_of_a_calibrated_model() -> None:
    share = coverage(slope=1.0, repeats=120)
    assert share.between(0.90, 1.0).all(), share


def test_coverage_of_an_overconfident_model() -> None:
    share = coverage(slope=1.5, repeats=70)
    assert share.drop("calibration_error").between(0.89, 1.0).all(), share
    assert share["calibration_error"] >= 0.8


def test_repeated_customers_widen_intervals() -> None:
    y, p = simulate(400, seed=5)
    y, p, customer = np.repeat(y, 4), np.repeat(p, 4), np.repeat(np.arange(400), 4)
    rows, groups = (bootstrap_metrics(y, p, ["auc"], n_resamples=400, groups=of) for of in (None, customer))
    width = [float(table["upper"].iloc[0] - table["lower"].iloc[0]) for table in (rows, groups)]
    assert width[1] / width[0] == pytest.approx(2, rel=0.2)


def test_groups_are_keys_of_any_kind_in_any_order() -> None:
    y, p = simulate(200, seed=6)
    order = np.random.default_rng(0).permutation(200)
    key = np.array([f"customer {i // 2}" for i in range(200)], dtype=object)
    for groups in (key, pd.Series(key, index=order), key.tolist()):
        table = bootstrap_metrics(y, p, ["auc"], n_resamples=50, groups=groups)
        pd.testing.assert_frame_equal(
            table, bootstrap_metrics(y, p, ["auc"], n_resamples=50, groups=np.arange(200) // 2)
        )


def test_one_churner_is_in_every_resample() -> None:
    y, p = np.array([1] + [0] * 29), np.linspace(0.9, 0.1, 30)
    seen: list[int] = []

    def count(y: Labels, _: Probabilities) -> float:
        seen.append(int(y.sum()))
        return float(y.mean())

    bootstrap_metrics(y, p, {"auc": auc, "share": count}, n_resamples=200)
    assert min(seen) >= 1


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 80), st.integers(0, 10_000))
def test_a_few_rows_are_enough(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    y = np.concatenate([[0, 1], rng.integers(0, 2, n - 2)])
    table = bootstrap_metrics(y, rng.integers(0, 4, n) / 3, list(METRICS), n_resamples=40)
    assert np.isfinite(table[["value", "lower", "upper"]].to_numpy()).all()
    assert (table["lower"] <= table["upper"]).all()


def test_metrics_by_import_path() -> None:
    y, p = simulate(100, seed=7)
    table = bootstrap_metrics(y, p, ["sklearn.metrics.brier_score_loss", "brier"], n_resamples=40)
    theirs, ours = table[["lower", "upper"]].to_numpy()
    assert theirs == pytest.approx(ours)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": np.zeros(20)}, "All 20 customers stayed: there is nothing to resample"),
        ({"y": np.ones(20)}, "All 20 customers churned"),
        ({"p": np.full(20, np.nan)}, "20 of 20 churn probabilities are NaN"),
        ({"n_resamples": 39}, "39 resamples cannot give a 95% interval; take at least 40"),
        ({"level": 95}, "level is 95; it must lie between 0 and 1"),
        ({"metrics": ["acu"]}, "Did you mean 'auc'"),
        ({"metrics": {"odd": lambda y, p: np.nan}}, "Metric 'odd' gave nan"),
        ({"groups": np.arange(19)}, "19 group keys for 20 rows"),
        ({"groups": ["one"] * 20}, "All rows are of one group"),
        ({"groups": [None] + ["a", "b"] * 9 + ["c"]}, "1 of 20 group keys are missing"),
    ],
)
def test_bad_requests(change: dict[str, object], message: str) -> None:
    request = {"y": np.tile([0, 1], 10), "p": np.linspace(0, 1, 20), "metrics": ["auc"]} | change
    with pytest.raises(ValueError, match=message):
        bootstrap_metrics(**request)  # type: ignore[arg-type]


def test_a_metric_that_fails_on_some_resamples_is_named() -> None:
    y, p = simulate(50, seed=8)
    odd: Callable[[Labels, Probabilities], float] = lambda y, p: 1.0 if np.unique(p).size == 50 else np.inf  # noqa: E731
    with pytest.raises(ValueError, match="Metric 'odd' gave inf"):
        bootstrap_metrics(y, p, {"odd": odd}, n_resamples=40)


def test_tally_metrics_equal_the_metrics_on_the_whole() -> None:
    y, p = simulate(1600, seed=9, decimals=2)
    counted = tally(y, p)
    for metric, fast in TALLY_METRICS.items():
        assert fast(counted.p)(counted) == pytest.approx(metric(y, p))


def test_paired_difference_is_the_paired_t_test() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=30)
    b = a + rng.normal(0.1, 0.2, 30)
    found = paired_difference(a, b)
    expected = stats.ttest_rel(a, b)
    assert found.mean / found.standard_error == pytest.approx(expected.statistic)
    assert (found.lower, found.upper) == pytest.approx(tuple(expected.confidence_interval()))
    assert found.n == 30


def test_paired_difference_of_folds_that_share_training_rows() -> None:
    a, b = [0.84, 0.86, 0.83, 0.85, 0.87], [0.83, 0.86, 0.82, 0.83, 0.86]
    naive, corrected = paired_difference(a, b), paired_difference(a, b, test_to_train=1 / 4)
    assert corrected.mean == naive.mean == pytest.approx(0.01)
    assert corrected.standard_error / naive.standard_error == pytest.approx(((1 / 5 + 1 / 4) / (1 / 5)) ** 0.5)
    assert naive.standard_error == pytest.approx(np.std([0.01, 0, 0.01, 0.02, 0.01], ddof=1) / 5**0.5)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(-10, 10), st.floats(-10, 10)), min_size=2, max_size=20), st.floats(-5, 5))
def test_paired_difference_mirrors_and_shifts(pairs: list[tuple[float, float]], shift: float) -> None:
    a, b = np.array(pairs).T
    there, back = paired_difference(a, b), paired_difference(b, a)
    assert (back.mean, back.standard_error) == pytest.approx((-there.mean, there.standard_error))
    assert paired_difference(a + shift, b).mean == pytest.approx(there.mean + shift, abs=1e-9)
    assert there.lower <= there.mean <= there.upper


@pytest.mark.parametrize(
    ("a", "b", "ratio", "message"),
    [
        ([1.0, 2.0], [1.0], 0, r"shapes \(2,\) and \(1,\)"),
        ([1.0], [1.0], 0, "n at least 2"),
        ([[1.0, 2.0]], [[1.0, 2.0]], 0, r"both must be \(n,\)"),
        ([1.0, np.nan], [1.0, 2.0], 0, "NaN or infinite"),
        ([1.0, 2.0], [1.0, 2.0], -1, "must not be negative"),
    ],
)
def test_paired_difference_refuses(a: list[float], b: list[float], ratio: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        paired_difference(a, b, test_to_train=ratio)
