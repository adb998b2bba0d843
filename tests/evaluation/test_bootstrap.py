"""Bootstrap: tallied metrics equal the plain ones, and intervals have their coverage."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from churn_pipeline.evaluation.bootstrap import STANDARD_ERRORS, WITHOUT_INTERVAL, Resampling, bootstrap_metrics
from churn_pipeline.evaluation.metrics import METRICS, Metric, auc
from churn_pipeline.evaluation.predictions import Labels, Probabilities, Tally, tally
from churn_pipeline.evaluation.tally_metrics import TALLY_METRICS

Sample = tuple[Labels, Probabilities]
RESAMPLED = [name for name, metric in METRICS.items() if metric in TALLY_METRICS]
WITH_INTERVAL = [name for name, metric in METRICS.items() if metric not in WITHOUT_INTERVAL]


def simulate(n: int, seed: int, slope: float = 1.0, decimals: int = 15) -> Sample:
    """Customers whose true log-odds are normal, of whom about 26 % churn; a slope of 1 is calibrated."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(-1.5, 1.5, n)
    y = (rng.random(n) < 1 / (1 + np.exp(-odds))).astype(np.int64)
    return y, np.round(1 / (1 + np.exp(-slope * odds)), decimals)


def plain(metric: Metric) -> Metric:
    """The same metric as another function, so that it is computed on rows and not from a tally."""

    def same(y: Labels, p: Probabilities) -> float:
        return metric(y, p)

    return same


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 8), st.integers(0, 4)), min_size=2, max_size=60),
    st.sampled_from([0.0, 0.05]),
)
def test_tallied_metrics_equal_metrics_on_repeated_rows(rows: list[tuple[int, int, int]], lowest: float) -> None:
    y, level, times = np.array(rows).T
    p = lowest + level / 8 * (1 - lowest)
    y_drawn, p_drawn = np.repeat(y, times), np.repeat(p, times)
    assume(0 < y_drawn.sum() < y_drawn.size)
    distinct = np.unique(p)[::-1]  # including those that were never drawn
    place = np.searchsorted(-distinct, -p)
    churned, stayed = (np.bincount(place, times * of, distinct.size).astype(np.int64) for of in (y, 1 - y))
    for metric, fast in TALLY_METRICS.items():
        assert fast(distinct)(Tally(distinct, churned, stayed)) == pytest.approx(metric(y_drawn, p_drawn), abs=1e-12)


@pytest.mark.parametrize("decimals", [15, 1])
@pytest.mark.parametrize("per_group", [None, 3])
def test_tallied_and_plain_metrics_have_the_same_intervals(decimals: int, per_group: int | None) -> None:
    y, p = simulate(150, seed=1, decimals=decimals)
    groups = None if per_group is None else np.arange(y.size) // per_group
    names = RESAMPLED
    fast = bootstrap_metrics(y, p, names, groups=groups, resampling=Resampling(50))
    slow = bootstrap_metrics(
        y, p, {name: plain(METRICS[name]) for name in names}, groups=groups, resampling=Resampling(50)
    )
    pd.testing.assert_frame_equal(fast, slow)


def test_every_metric_has_a_tallied_form_a_standard_error_or_no_interval() -> None:
    assert {*TALLY_METRICS, *STANDARD_ERRORS, *WITHOUT_INTERVAL} == set(METRICS.values())


@pytest.mark.parametrize("name", ["miscalibration", "calibration_error"])
def test_metrics_that_are_biased_upwards_have_no_interval(name: str) -> None:
    y, p = simulate(300, seed=0)
    row = bootstrap_metrics(y, p, [name], Resampling(40)).iloc[0]
    assert row["value"] == METRICS[name](y, p)
    assert np.isnan([row["lower"], row["upper"]]).all()


def test_a_row_for_each_metric_in_order_and_the_value_inside() -> None:
    y, p = simulate(1600, seed=0)
    names = list(reversed(WITH_INTERVAL))
    table = bootstrap_metrics(y, p, names)
    assert table.columns.tolist() == ["metric", "value", "lower", "upper"]
    assert table["metric"].tolist() == names
    assert table["value"].tolist() == [METRICS[name](y, p) for name in names]
    assert (table["lower"] <= table["value"]).all()
    assert (table["value"] <= table["upper"]).all()


def test_same_seed_same_result_regardless_of_other_metrics() -> None:
    y, p = simulate(300, seed=2)
    once = bootstrap_metrics(y, p, ["auc", "brier"], resampling=Resampling(100, seed=7))
    pd.testing.assert_frame_equal(once, bootstrap_metrics(y, p, ["auc", "brier"], resampling=Resampling(100, seed=7)))
    alone = bootstrap_metrics(y, p, ["brier"], resampling=Resampling(100, seed=7))
    pd.testing.assert_frame_equal(once.iloc[1:].reset_index(drop=True), alone)
    other = bootstrap_metrics(y, p, ["auc", "brier"], resampling=Resampling(100, seed=8))
    assert (once["lower"] != other["lower"]).all()


def test_intervals_shrink_with_rows() -> None:
    few, many = (
        bootstrap_metrics(*simulate(n, seed=3), WITH_INTERVAL, resampling=Resampling(300)) for n in (400, 6400)
    )
    ratio = (many["upper"] - many["lower"]) / (few["upper"] - few["lower"])
    assert ratio.between(0.15, 0.4).all()  # a quarter, up to sampling noise


def test_intervals_widen_with_level() -> None:
    y, p = simulate(400, seed=4)
    narrow, wide = (
        bootstrap_metrics(y, p, WITH_INTERVAL, resampling=Resampling(300, confidence_level=at)) for at in (0.8, 0.99)
    )
    assert (narrow["lower"] >= wide["lower"]).all()
    assert (narrow["upper"] <= wide["upper"]).all()


@pytest.mark.parametrize("slope", [1.0, 1.5])
def test_intervals_have_their_coverage(slope: float) -> None:
    """On 500 customers, by metric; the truth is taken from 400,000."""
    truth = pd.Series({name: METRICS[name](*simulate(400_000, 99, slope)) for name in WITH_INTERVAL})
    held = pd.DataFrame(index=range(120), columns=WITH_INTERVAL, dtype=bool)
    for seed in held.index:
        table = bootstrap_metrics(*simulate(500, seed, slope), WITH_INTERVAL, resampling=Resampling(200, seed=seed))
        table = table.set_index("metric")
        held.loc[seed] = (table["lower"] <= truth) & (truth <= table["upper"])
    assert held.mean().between(0.90, 1.0).all(), held.mean()


def test_repeated_customers_widen_intervals() -> None:
    y, p = simulate(400, seed=5)
    y, p, customer = np.repeat(y, 4), np.repeat(p, 4), np.repeat(np.arange(400), 4)
    rows, groups = (bootstrap_metrics(y, p, ["auc"], groups=of, resampling=Resampling(400)) for of in (None, customer))
    width = [float(table["upper"].iloc[0] - table["lower"].iloc[0]) for table in (rows, groups)]
    assert width[1] / width[0] == pytest.approx(2, rel=0.2)


def test_groups_are_keys_of_any_kind_in_any_order() -> None:
    y, p = simulate(200, seed=6)
    order = np.random.default_rng(0).permutation(200)
    key = np.array([f"customer {i // 2}" for i in range(200)], dtype=object)
    for groups in (key, pd.Series(key, index=order), key.tolist()):
        table = bootstrap_metrics(y, p, ["auc"], groups=groups, resampling=Resampling(50))
        pd.testing.assert_frame_equal(
            table, bootstrap_metrics(y, p, ["auc"], groups=np.arange(200) // 2, resampling=Resampling(50))
        )


def test_one_churner_is_in_every_resample() -> None:
    y, p = np.array([1] + [0] * 29), np.linspace(0.9, 0.1, 30)
    seen: list[int] = []

    def count(y: Labels, _: Probabilities) -> float:
        seen.append(int(y.sum()))
        return float(y.mean())

    bootstrap_metrics(y, p, {"auc": auc, "share": count}, resampling=Resampling(200))
    assert min(seen) >= 1


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 80), st.integers(0, 10_000))
def test_a_few_rows_are_enough(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    y = np.concatenate([[0, 1], rng.integers(0, 2, n - 2)])
    table = bootstrap_metrics(y, rng.integers(0, 4, n) / 3, RESAMPLED, resampling=Resampling(40))
    assert np.isfinite(table[["value", "lower", "upper"]].to_numpy()).all()
    assert (table["lower"] <= table["upper"]).all()


def test_metrics_by_import_path() -> None:
    y, p = simulate(100, seed=7)
    table = bootstrap_metrics(y, p, ["sklearn.metrics.brier_score_loss", "brier"], resampling=Resampling(40))
    theirs, ours = table[["lower", "upper"]].to_numpy()
    assert theirs == pytest.approx(ours)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": np.zeros(20)}, "All 20 customers stayed: there is nothing to resample"),
        ({"y": np.ones(20)}, "All 20 customers churned"),
        ({"p": np.full(20, np.nan)}, "20 of 20 churn probabilities are NaN"),
        ({"resampling": Resampling(39)}, "39 resamples are too few for a 95% interval; use at least 40"),
        ({"resampling": Resampling(confidence_level=95)}, "confidence_level is 95; it must lie between 0 and 1"),
        ({"metrics": ["acu"]}, "Did you mean 'auc'"),
        ({"metrics": {"odd": lambda y, p: np.nan}}, "Metric 'odd' returned nan"),
        ({"groups": np.arange(19)}, "19 group keys for 20 rows"),
        ({"groups": ["one"] * 20}, "All rows belong to one group"),
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
    with pytest.raises(ValueError, match="Metric 'odd' returned inf"):
        bootstrap_metrics(y, p, {"odd": odd}, resampling=Resampling(40))


def test_tally_metrics_equal_the_metrics_on_the_whole() -> None:
    y, p = simulate(1600, seed=9, decimals=2)
    counted = tally(y, p)
    for metric, fast in TALLY_METRICS.items():
        assert fast(counted.p)(counted) == pytest.approx(metric(y, p))
