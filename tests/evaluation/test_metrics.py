"""Metrics: equal to scikit-learn or to hand calculation, with clear errors for bad input."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score
from sklearn.metrics import log_loss as sklearn_log_loss

from churn_pipeline.evaluation.metrics import (
    BEST_AT,
    GREATER_IS_BETTER,
    METRICS,
    auc,
    average_precision,
    brier,
    calibration_error,
    greater_is_better,
    lift_top_decile,
    log_loss,
    resolve_metric,
)
from churn_pipeline.evaluation.predictions import (
    Labels,
    Probabilities,
    check_predictions,
    equal_mass_bins,
    tally,
)

BOUNDS = {
    "auc": (0, 1),
    "average_precision": (0, 1),
    "log_loss": (0, 36.1),
    "brier": (0, 1),
    "lift_top_decile": (0, 10),
    "calibration_intercept": (-50, 50),
    "calibration_slope": (-np.inf, np.inf),
    "miscalibration": (0, 36.1),
    "calibration_error": (0, 1),
}


# No deadline: a busy machine must not fail a test
property_test = settings(max_examples=40, deadline=None)


@st.composite
def predictions(draw: st.DrawFn) -> tuple[Labels, Probabilities]:
    """Both classes, with any probabilities, including 0, 1, ties and near ties."""
    n = draw(st.integers(2, 60))
    y = draw(st.lists(st.integers(0, 1), min_size=n, max_size=n))
    assume(0 < sum(y) < n)
    cells = st.one_of(st.sampled_from([0.0, 0.1, 0.5, 0.5 + 1e-12, 1.0]), st.floats(0, 1))
    return np.array(y), np.array(draw(st.lists(cells, min_size=n, max_size=n)))


def half_wrong(y: Labels, p: Probabilities) -> float:
    """A user's metric."""
    return float((np.rint(p) != y).mean()) / 2


def needs_three(y: Labels, p: Probabilities, cost: float) -> float:
    return cost


half_wrong.greater_is_better = False  # type: ignore[attr-defined]


@property_test
@given(predictions())
def test_equal_to_scikit_learn(drawn: tuple[Labels, Probabilities]) -> None:
    y, p = drawn
    assert auc(y, p) == pytest.approx(roc_auc_score(y, p))
    assert average_precision(y, p) == pytest.approx(average_precision_score(y, p))
    assert log_loss(y, p) == pytest.approx(sklearn_log_loss(y, p))
    assert brier(y, p) == pytest.approx(brier_score_loss(y, p))


@property_test
@given(predictions())
def test_within_bounds(drawn: tuple[Labels, Probabilities]) -> None:
    for name, metric in METRICS.items():
        low, high = BOUNDS[name]
        value = metric(*drawn)
        assert type(value) is float
        assert low - 1e-12 <= value <= high + 1e-12, name


@property_test
@given(predictions(), st.randoms(use_true_random=False))
def test_order_of_rows_does_not_matter(drawn: tuple[Labels, Probabilities], random: object) -> None:
    y, p = drawn
    order = list(range(y.size))
    random.shuffle(order)  # type: ignore[attr-defined]
    for name in METRICS.keys() - {"calibration_slope"}:  # its solver stops early if the classes are separated
        assert METRICS[name](y[order], p[order]) == pytest.approx(METRICS[name](y, p), abs=1e-9)


@property_test
@given(predictions())
def test_rank_metrics_ignore_monotone_transforms(drawn: tuple[Labels, Probabilities]) -> None:
    y, p = drawn
    rank = np.unique(p, return_inverse=True)[1]
    for transformed in (rank / 100, 0.9 + rank / 1000, (rank / 100) ** 2):
        for metric in (auc, average_precision, lift_top_decile):
            assert metric(y, transformed) == pytest.approx(metric(y, p))


@property_test
@given(predictions())
def test_reversed_ranking_mirrors_auc(drawn: tuple[Labels, Probabilities]) -> None:
    y, p = drawn
    p = np.unique(p, return_inverse=True)[1] / 100
    assert auc(y, 1 - p) == pytest.approx(1 - auc(y, p))


def test_perfect_predictor() -> None:
    y = np.repeat([0, 1], [80, 20])
    assert [METRICS[name](y, y.astype(float)) for name in GREATER_IS_BETTER] == pytest.approx(
        [1, 1, 0, 0, 5, 0, 0], abs=1e-12
    )


def test_constant_predictor_at_the_churn_share() -> None:
    y = np.repeat([0, 1], [75, 25])
    p = np.full(100, 0.25)
    entropy = -0.25 * math.log(0.25) - 0.75 * math.log(0.75)
    expected = {
        "auc": 0.5,
        "average_precision": 0.25,
        "log_loss": entropy,
        "brier": 0.1875,
        "lift_top_decile": 1,
        "calibration_intercept": 0,
        "calibration_slope": 1,
        "miscalibration": 0,
        "calibration_error": 0,
    }
    assert {name: metric(y, p) for name, metric in METRICS.items()} == pytest.approx(expected, abs=1e-12)


def test_certain_and_wrong_costs_a_finite_loss() -> None:
    assert log_loss(np.array([1, 0]), np.array([0.0, 1.0])) == pytest.approx(36.04, abs=0.01)


def test_lift_by_hand() -> None:
    p = np.linspace(1, 0, 20)
    y = np.zeros(20, dtype=int)
    y[[0, 5, 6, 7]] = 1  # one churner among the top two of twenty, of four in all
    assert lift_top_decile(y, p) == pytest.approx((1 / 2) / (4 / 20))


def test_lift_with_a_tie_at_the_tenth_by_hand() -> None:
    # Top two of twenty: the first for certain, and one of the four at 0.8, half of whom churned
    p = np.array([0.9] + [0.8] * 4 + [0.1] * 15)
    y = np.array([1] + [1, 0, 1, 0] + [1] + [0] * 14)
    assert lift_top_decile(y, p) == pytest.approx(((1 + 0.5) / 2) / (4 / 20))


def test_lift_of_a_tie_is_the_mean_over_random_orders() -> None:
    rng = np.random.default_rng(5)
    y, p = rng.integers(0, 2, 50), rng.integers(0, 6, 50) / 10
    shuffled = [rng.permutation(50) for _ in range(4000)]
    broken = [y[order][np.argsort(-p[order], kind="stable")[:5]].mean() / y.mean() for order in shuffled]
    assert lift_top_decile(y, p) == pytest.approx(np.mean(broken), abs=0.02)


def test_lift_counts_the_last_customer_in_part() -> None:
    y, p = np.repeat([1, 0], [2, 13]), np.linspace(1, 0, 15)  # 10 % of fifteen is one and a half
    assert lift_top_decile(y, p) == pytest.approx((1.5 / 1.5) / (2 / 15))
    y[1] = 0
    assert lift_top_decile(y, p) == pytest.approx((1 / 1.5) / (1 / 15))


def test_calibration_error_by_hand() -> None:
    # Two bins of twenty: 0.2 predicted, 0.1 churned; 0.6 predicted, 0.75 churned
    p = np.repeat([0.2, 0.6], 20)
    y = np.concatenate([np.repeat([1, 0], [2, 18]), np.repeat([1, 0], [15, 5])])
    assert calibration_error(y, p) == pytest.approx((0.1 + 0.15) / 2)
    assert calibration_error(y, p, n_bins=1) == pytest.approx(0.425 - 0.4)


@pytest.mark.parametrize(("rows", "bins"), [(5, 1), (39, 1), (40, 2), (100, 5), (200, 10), (5000, 10)])
def test_bins_are_equally_large_and_fewer_for_few_rows(rows: int, bins: int) -> None:
    place = equal_mass_bins(tally(np.zeros(rows, dtype=np.int64), np.linspace(0, 1, rows)))
    sizes = np.bincount(place)
    assert sizes.size == bins
    assert np.ptp(sizes) <= 1


@property_test
@given(predictions(), st.integers(1, 12))
def test_bins_follow_the_ranking_and_never_split_a_tie(drawn: tuple[Labels, Probabilities], n_bins: int) -> None:
    counted = tally(*drawn)
    place = equal_mass_bins(counted, n_bins)
    assert place.shape == counted.p.shape
    assert (np.diff(place) >= 0).all()
    assert 0 <= place.min() <= place.max() < n_bins


@property_test
@given(predictions())
def test_tally_counts_everyone_once(drawn: tuple[Labels, Probabilities]) -> None:
    y, p = drawn
    counted = tally(y, p)
    assert (np.diff(counted.p) < 0).all()
    assert counted.churned.sum() == y.sum()
    for value, churned, stayed in zip(counted.p, counted.churned, counted.stayed, strict=True):
        assert (churned, stayed) == (y[p == value].sum(), (1 - y[p == value]).sum())


@property_test
@given(predictions())
def test_inputs_are_not_modified(drawn: tuple[Labels, Probabilities]) -> None:
    y, p = drawn
    before = y.copy(), p.copy()
    for metric in METRICS.values():
        metric(y, p)
    assert np.array_equal(y, before[0])
    assert np.array_equal(p, before[1])


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize(
    ("y", "p", "message"),
    [
        ([0, 1, 1], [0.1, math.nan, 0.3], r"1 of 3 churn probabilities are NaN \(first at position 1\)"),
        ([0, 1, 1], [0.1, 0.2, 1.1], r"1 of 3 churn probabilities lie outside \[0, 1\] \(first at position 2\)"),
        ([0, 1, 1], [-0.1, 0.2, 1], "not scores or log-odds"),
        ([0, 1, 2], [0.1, 0.2, 0.3], "1 of 3 labels are neither 0 nor 1"),
        ([0, 1, math.nan], [0.1, 0.2, 0.3], "1 of 3 labels are neither 0 nor 1"),
        (["No", "Yes", "Yes"], [0.1, 0.2, 0.3], "3 of 3 labels are neither 0 nor 1"),
        ([0, 1], [0.1, 0.2, 0.3], r"shape \(2,\) and p has shape \(3,\)"),
        ([0, 1], [[0.9, 0.1], [0.2, 0.8]], r"predict_proba\(x\)\[:, 1\]"),
        ([], [], "no rows"),
    ],
)
def test_errors_say_what_is_wrong_and_how_to_fix_it(name: str, y: list[object], p: list[object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        METRICS[name](np.array(y), np.array(p))


def test_booleans_are_labels() -> None:
    y, _ = check_predictions([True, False], [0.1, 0.2])
    assert y.dtype == np.int64
    assert y.tolist() == [1, 0]


@pytest.mark.parametrize("name", ["auc", "average_precision", "lift_top_decile", "calibration_intercept"])
def test_no_customer_churned(name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}' is not defined here: none of the 3 customers churned"):
        METRICS[name](np.zeros(3, dtype=np.int64), np.array([0.1, 0.2, 0.3]))


def test_no_customer_stayed() -> None:
    y, p = np.ones(3, dtype=np.int64), np.array([0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="none of the 3 customers stayed"):
        auc(y, p)
    assert average_precision(y, p) == 1
    assert lift_top_decile(y, p) == pytest.approx(1)


@pytest.mark.parametrize("name", ["log_loss", "brier", "calibration_error", "miscalibration"])
def test_a_single_class_still_has_a_loss(name: str) -> None:
    assert METRICS[name](np.zeros(30, dtype=np.int64), np.full(30, 0.5)) > 0


def test_bins_are_at_least_one() -> None:
    with pytest.raises(ValueError, match="n_bins is 0"):
        calibration_error(np.array([0, 1]), np.array([0.1, 0.9]), n_bins=0)


def test_resolve_by_name_and_by_import_path() -> None:
    assert resolve_metric("auc") is auc
    assert resolve_metric("sklearn.metrics.d2_brier_score")(np.array([0, 1]), np.array([0.0, 1.0])) == 1
    assert resolve_metric("math.pow") is math.pow
    assert resolve_metric("builtins.max") is max  # has no signature


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("acu", "There is no metric 'acu'. Did you mean 'auc'?"),
        ("profit", "There is no metric 'profit'. Use one of auc, "),
        ("no_such_package.metric", "cannot be imported: No module named 'no_such_package'"),
        ("sklearn.metrics.nothing", "cannot be imported: .* has no attribute 'nothing'"),
        (".auc", "There is no metric"),
        ("..auc", "cannot be imported"),
        ("math.pi", r"cannot be called as pi\(y, p\)"),
        (f"{__name__}.needs_three", r"cannot be called as needs_three\(y, p\)"),
    ],
)
def test_resolve_says_what_is_wrong(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve_metric(name)


def test_every_metric_has_a_direction_or_a_best_value() -> None:
    assert METRICS.keys() == GREATER_IS_BETTER.keys() | BEST_AT.keys()
    with pytest.raises(ValueError, match="'calibration_slope' has no direction: it is best at 1"):
        greater_is_better("calibration_slope")
    y = np.repeat([0, 1], 50)
    good, poor = np.repeat([0.1, 0.9], 50), np.tile([0.1, 0.9], 50)
    for name in GREATER_IS_BETTER:
        assert (METRICS[name](y, good) > METRICS[name](y, poor)) == greater_is_better(name)


def test_a_users_metric_has_its_direction_as_attribute() -> None:
    assert greater_is_better(f"{__name__}.half_wrong") is False
    with pytest.raises(ValueError, match=r"d2_brier_score\.greater_is_better = True"):
        greater_is_better("sklearn.metrics.d2_brier_score")
