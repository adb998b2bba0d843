"""Gate: it refuses shuffled labels, a constant, miscalibration and any significant loss, and says when it cannot tell."""

import json
import math

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.special import expit, logit

from churn_pipeline.costs import CostModel
from churn_pipeline.evaluation.comparison import Baseline
from churn_pipeline.evaluation.gate import GateVerdict, evaluate_challenger
from churn_pipeline.evaluation.gate_settings import GateSettings
from churn_pipeline.evaluation.holdout import Holdout
from churn_pipeline.evaluation.metrics import auc, log_loss
from churn_pipeline.evaluation.predictions import Labels, Probabilities
from churn_pipeline.evaluation.profit import realised_profit

COSTS = CostModel(value=500, offer_cost=30, contact_cost=2, acceptance=0.3)
GATE = GateSettings()


def simulate(n: int, seed: int = 0, level: float = -1.7) -> tuple[Labels, Probabilities]:
    """Customers and their true churn probabilities, 24% of them churners by default."""
    rng = np.random.default_rng(seed)
    truth = expit(rng.normal(level, 1.5, n))
    return (rng.random(n) < truth).astype(np.int64), truth


def noisy(p: Probabilities, by: float, seed: int) -> Probabilities:
    return np.asarray(expit(logit(p) + np.random.default_rng(seed + 1000).normal(0, by, p.size)))


def both(p: Probabilities) -> tuple[Baseline, ...]:
    return (Baseline("champion and anchor", "1", p),)


def evaluate(
    y: Labels, challenger: Probabilities, champion: Probabilities | None = None, settings: GateSettings = GATE
) -> GateVerdict:
    baselines = () if champion is None else both(champion)
    return evaluate_challenger(Holdout(y, challenger, 500), baselines, COSTS, settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("n", [500, 1600, 20_000])
def test_shuffled_labels_are_refused(n: int) -> None:
    y, p = simulate(n)
    for seed in range(5):
        shuffled = np.random.default_rng(seed).permutation(y)
        found = evaluate(shuffled, p)
        assert found.verdict == "refused"
        assert not found.passed
        assert any("does not significantly beat a constant prediction" in reason for reason in found.reasons)
        assert any("AUC" in reason for reason in found.reasons)


def test_a_model_trained_on_shuffled_labels_is_refused() -> None:
    # Such a model learns the churn share plus noise: calibrated, but useless
    for seed in range(5):
        y, _ = simulate(1600, seed)
        p = noisy(np.full(y.size, y.mean()), 0.15, seed)
        assert evaluate(y, p).verdict == "refused"


@pytest.mark.parametrize("n", [100, 1600])
@pytest.mark.parametrize("at", [None, 0.1, 0.0, 1.0])
def test_a_constant_model_is_refused(n: int, at: float | None) -> None:
    y, _ = simulate(n)
    found = evaluate(y, np.full(n, y.mean() if at is None else at))
    assert found.verdict == "refused"
    assert "The model gives every customer the same churn probability." in found.reasons
    assert found.standalone["auc"] == 0.5


@pytest.mark.parametrize(
    ("name", "bend", "said"),
    [
        ("cubed", lambda p: p**3, "too low"),
        ("rooted", lambda p: p**0.5, "too high"),
        ("doubled", lambda p: np.minimum(2 * p, 1), "too high"),
        ("reweighted", lambda p: expit(logit(p) + math.log(3)), "too high"),
        ("too sure", lambda p: expit(1.7 * logit(p)), "overconfident"),
        ("not sure enough", lambda p: expit(0.5 * logit(p)), "underconfident"),
        ("turned round", lambda p: 1 - p, "does not significantly beat a constant"),
    ],
)
def test_a_miscalibrated_model_is_refused(name: str, bend: object, said: str) -> None:
    for seed in range(3):
        y, p = simulate(1600, seed)
        found = evaluate(y, bend(p))  # type: ignore[operator]
        assert found.verdict == "refused", name
        assert any(said in reason for reason in found.reasons), found.reasons


def test_odds_that_are_half_too_high_are_refused_at_rare_churn() -> None:
    # 1.8% churn, about 250 churners
    found = []
    for seed in range(20):
        y, p = simulate(14_000, seed, -5.0)
        found.append(evaluate(y, expit(logit(p) + math.log(1.5)), p))
    assert sum(of.verdict in ("refused", "worse") for of in found) >= 17
    assert not any(of.passed for of in found)


def test_a_good_model_passes() -> None:
    verdicts = [evaluate(*simulate(1600, seed)).verdict for seed in range(25)]
    assert verdicts.count("first") == 25


def test_few_customers_do_not_refuse_a_calibrated_model() -> None:
    verdicts = [evaluate(*simulate(250, seed)).verdict for seed in range(20)]
    assert verdicts.count("first") >= 18


def test_a_first_model_says_what_its_hold_out_detects() -> None:
    few, many = (evaluate(*simulate(n)) for n in (120, 20_000))
    assert few.standalone["detectable_odds"] > 2
    assert many.standalone["detectable_odds"] < 1.4
    assert f"With {few.standalone['churners']:.0f} held-out churners" in few.notes[0]
    assert f"odds are {few.standalone['detectable_odds']:.2f} times too high or too low" in few.notes[0]
    assert few.power is None


def test_the_detectable_odds_are_detected_at_the_stated_rate() -> None:
    y, p = simulate(1600)
    odds = evaluate(y, p).standalone["detectable_odds"]
    refused = 0
    for seed in range(200):
        drawn = (np.random.default_rng(seed).random(p.size) < p).astype(int)
        found = evaluate(drawn, expit(logit(p) + math.log(odds)))
        refused += any("odds" in reason for reason in found.reasons)
    assert 0.91 <= refused / 200 <= 0.99


def test_a_tiny_error_is_tolerated_on_many_customers() -> None:
    y, p = simulate(300_000)
    assert evaluate(y, expit(1.06 * logit(p) + 0.05)).verdict == "first"


def test_the_same_model_is_no_worse() -> None:
    for seed in range(5):
        y, p = simulate(1600, seed)
        found = evaluate(y, p, p)
        assert found.verdict == "no worse"
        assert found.passed
        assert not found.beats_anchor
        assert found.power == 1
        assert all((row.difference, row.lower, row.upper) == (0, 0, 0) for row in found.comparisons)
        assert all("equal to the champion and anchor's for every customer" in reason for reason in found.reasons)
        assert not any("suffice" in note for note in found.notes)  # it says nothing about other models


def test_a_truly_better_model_is_better_and_beats_the_anchor() -> None:
    found = []
    for seed in range(20):
        y, p = simulate(1600, seed)
        found.append(evaluate(y, p, noisy(p, 0.8, seed)))
    better = [of for of in found if of.verdict == "better"]
    assert len(better) >= 18
    assert all(of.beats_anchor for of in better)


def test_a_truly_worse_model_never_passes() -> None:
    for seed in range(10):
        y, p = simulate(1600, seed)
        found = evaluate(y, noisy(p, 0.8, seed), p)
        assert found.verdict in ("worse", "refused")
        assert not found.passed


def test_a_significant_loss_within_the_margin_is_refused() -> None:
    y, p = simulate(40_000)
    found = evaluate(y, noisy(p, 0.25, 0), p)
    row = found.comparisons[0]
    assert row.metric == "log_loss"
    assert -row.margin < row.lower < row.upper < 0  # within the margin, but worse
    assert found.verdict == "worse"
    assert "Log loss is significantly worse" in found.reasons[0]


def test_equal_models_are_called_worse_no_more_often_than_the_error_rate() -> None:
    verdicts = []
    for seed in range(200):
        y, p = simulate(500, seed)
        verdicts.append(evaluate(y, noisy(p, 0.15, seed), noisy(p, 0.15, seed + 500)).verdict)
    # 2.5% of 200, and two and a half standard errors
    assert verdicts.count("worse") <= 11
    assert verdicts.count("better") <= 16


def test_few_customers_cannot_tell() -> None:
    found = []
    for seed in range(30):
        y, p = simulate(300, seed)
        found.append(evaluate(y, noisy(p, 0.4, seed), noisy(p, 0.4, seed + 500)))
    unclear = [of for of in found if of.verdict == "cannot tell"]
    assert len(unclear) >= 18
    for of in unclear:
        assert not of.passed
        assert of.power is not None
        assert of.power < 0.95
        assert "may be worse than tolerated" in of.reasons[0]
        churners = f"{of.standalone['churners']:.0f} churners"
        assert of.notes[0].startswith(
            f"The hold-out with {churners} does not suffice: an equally good challenger passes"
        )


def test_the_stated_power_is_the_share_of_equal_models_that_pass() -> None:
    passed, stated = 0, []
    for seed in range(200):
        y, p = simulate(2000, seed)
        row = evaluate(y, noisy(p, 0.3, seed), noisy(p, 0.3, seed + 500)).comparisons[0]
        passed += row.within_margin
        stated.append(row.power)
    assert 0.2 < np.mean(stated) < 0.98
    assert passed / 200 == pytest.approx(np.mean(stated), abs=0.1)


def test_the_anchor_refuses_what_the_champion_would_let_pass() -> None:
    y, p = simulate(20_000)
    worn = noisy(p, 0.25, 0)
    challenger = noisy(worn, 0.01, 1)
    champion = Baseline("champion", "7", worn)
    alone = evaluate_challenger(Holdout(y, challenger, 500), [champion], COSTS, GATE)  # type: ignore[arg-type]
    assert alone.passed
    anchored = evaluate_challenger(Holdout(y, challenger, 500), [champion, Baseline("anchor", "2", p)], COSTS, GATE)  # type: ignore[arg-type]
    assert anchored.verdict == "worse"
    assert "than the anchor's" in anchored.reasons[0]
    logged = anchored.numbers()
    assert {"log_loss_champion", "log_loss_anchor", "log_loss_difference", "log_loss_anchor_difference"} <= set(logged)
    assert logged["log_loss_anchor_difference"] < -0.001 < logged["log_loss_difference"]


def test_beating_the_champion_alone_does_not_beat_the_anchor() -> None:
    y, p = simulate(20_000)
    baselines = [Baseline("champion", "7", noisy(p, 0.5, 0)), Baseline("anchor", "2", p)]
    found = evaluate_challenger(Holdout(y, p, 500), baselines, COSTS, GATE)  # type: ignore[arg-type]
    assert (found.verdict, found.beats_anchor) == ("better", False)


def test_a_baseline_that_cannot_be_compared_leaves_the_verdict_open() -> None:
    y, p = simulate(1600)
    lost = Baseline("anchor", "2", problem="The anchor was trained under another rule.")
    found = evaluate_challenger(Holdout(y, p, 500), [*both(p), lost], COSTS, GATE)  # type: ignore[arg-type]
    assert (found.verdict, found.reasons) == ("cannot tell", (lost.problem,))
    worse = evaluate_challenger(Holdout(y, noisy(p, 0.8, 0), 500), [*both(p), lost], COSTS, GATE)  # type: ignore[arg-type]
    assert worse.verdict == "worse"


def test_numbers_are_those_of_the_metrics() -> None:
    y, p = simulate(600)
    other = noisy(p, 0.3, 0)
    found = evaluate(y, p, other)
    assert found.standalone["auc"] == auc(y, p)
    losses, profit = found.comparisons
    assert (losses.challenger, losses.baseline_value) == pytest.approx((log_loss(y, p), log_loss(y, other)))
    assert losses.difference == pytest.approx(log_loss(y, other) - log_loss(y, p))
    assert losses.margin == pytest.approx(0.1 * (log_loss(y, np.full(600, y.mean())) - log_loss(y, other)))
    assert profit.challenger == pytest.approx(realised_profit(y, p, 500, COSTS))
    assert profit.margin == pytest.approx(0.2 * realised_profit(y, other, 500, COSTS))
    logged = found.numbers()
    assert logged["log_loss_difference"] == losses.difference
    assert (logged["log_loss_difference_lower"], logged["log_loss_difference_upper"]) == (losses.lower, losses.upper)
    assert "auc" not in logged  # logged with the hold-out's metrics
    assert logged["power"] == found.power == min(losses.power, profit.power)
    assert logged["passed"] == float(found.passed)
    assert all(isinstance(number, float) for number in logged.values())
    assert json.loads(json.dumps(found.report()))["verdict"] == found.verdict


def test_further_attempts_need_wider_limits() -> None:
    y, p = simulate(1600)
    other = noisy(p, 0.3, 0)
    rows = [
        evaluate_challenger(
            Holdout(y, p, 500), [Baseline("anchor", "1", other, attempt=attempt)], COSTS, GATE
        ).comparisons[0]  # type: ignore[arg-type]
        for attempt in (1, 2, 20)
    ]
    assert [row.level for row in rows] == pytest.approx([0.05, 0.025, 0.0025])
    assert rows[0].lower > rows[1].lower > rows[2].lower
    assert rows[0].power > rows[2].power


def test_pairs_are_kept_together() -> None:
    # Models that differ in a few rows have a narrow interval of the difference, even if each one varies a lot
    y, p = simulate(1600)
    other = p.copy()
    other[:40] = np.clip(other[:40] + 0.02, 0, 1)
    row = evaluate(y, p, other).comparisons[0]
    assert row.upper - row.lower < 0.002


def test_repeated_customers_widen_intervals() -> None:
    y, p = simulate(400)
    many, often, other = np.repeat(y, 5), np.repeat(p, 5), np.repeat(noisy(p, 0.5, 0), 5)
    keys = np.repeat(np.arange(400), 5)
    alone, together = (
        evaluate_challenger(Holdout(many, often, np.full(2000, 500.0), groups), both(other), COSTS, GATE)
        for groups in (None, keys)
    )
    for one, other_row in zip(alone.comparisons, together.comparisons, strict=True):
        assert other_row.standard_error / one.standard_error == pytest.approx(5**0.5, rel=0.01)
    slopes = [of.standalone["calibration_slope_upper"] - of.standalone["calibration_slope"] for of in (alone, together)]
    assert slopes[1] / slopes[0] == pytest.approx(5**0.5, rel=0.05)


def test_a_constant_of_the_training_rows_can_be_given() -> None:
    y, p = simulate(1600)
    own, poor = (
        evaluate_challenger(Holdout(y, p, np.full(1600, 500.0)), (), COSTS, GATE, constant=share)
        for share in (None, 0.6)
    )
    assert poor.standalone["saved_log_loss"] > own.standalone["saved_log_loss"] + 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": np.zeros(50, dtype=int)}, "All 50 customers stayed"),
        ({"p_champion": np.full(49, 0.5)}, "shape"),
        ({"p": np.full(50, np.nan)}, "NaN"),
    ],
)
def test_bad_requests(change: dict[str, object], message: str) -> None:
    y, p = simulate(50)
    request = {"y": y, "p": p, "p_champion": p} | change
    with pytest.raises(ValueError, match=message):
        evaluate_challenger(Holdout(request["y"], request["p"], 1), both(request["p_champion"]), COSTS, GATE)  # type: ignore[arg-type]


def test_reasons_say_better_and_worse_without_signs() -> None:
    y, p = simulate(1600)
    found = evaluate(y, noisy(p, 0.8, 0), p)
    row = found.comparisons[0]
    assert row.difference < 0
    assert found.reasons[0] == (
        f"Log loss is significantly worse: {-row.difference:.4f} worse than the champion and anchor's ({row.challenger:.4f} vs "
        f"{row.baseline_value:.4f}), 90% limits {-row.lower:.4f} worse and {-row.upper:.4f} worse; "
        f"up to {row.margin:.4f} worse is tolerated."
    )


def test_settings_are_checked() -> None:
    with pytest.raises(ValidationError):
        GateSettings(confidence_level=1.2)
    with pytest.raises(ValidationError):
        GateSettings.model_validate({"max_auc": 1})
