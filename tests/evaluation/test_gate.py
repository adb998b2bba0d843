"""Gate: it refuses shuffled labels, a constant and miscalibration, and neither accepts nor rejects because of noise."""

import math

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.special import expit, logit

from churn_pipeline.costs import CostModel
from churn_pipeline.evaluation.gate import GateSettings, GateVerdict, calibration_line, evaluate_challenger
from churn_pipeline.evaluation.holdout import Holdout
from churn_pipeline.evaluation.metrics import auc, log_loss
from churn_pipeline.evaluation.predictions import Labels, Probabilities
from churn_pipeline.evaluation.profit import realised_profit

COSTS = CostModel(value=500, offer_cost=30, contact_cost=2, acceptance=0.3)
GATE = GateSettings(resamples=100)


def simulate(n: int, seed: int = 0) -> tuple[Labels, Probabilities]:
    """Customers and their true churn probabilities, 24% of them churners."""
    rng = np.random.default_rng(seed)
    truth = expit(rng.normal(-1.7, 1.5, n))
    return (rng.random(n) < truth).astype(np.int64), truth


def noisy(p: Probabilities, by: float, seed: int) -> Probabilities:
    return np.asarray(expit(logit(p) + np.random.default_rng(seed + 1000).normal(0, by, p.size)))


def evaluate(
    y: Labels,
    challenger: Probabilities,
    champion: Probabilities | None = None,
    settings: GateSettings = GATE,
    seed: int = 0,
) -> GateVerdict:
    return evaluate_challenger(Holdout(y, challenger, 500), champion, COSTS, settings, seed)  # type: ignore[arg-type]


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
        ("cubed", lambda p: p**3, "miscalibrated"),
        ("rooted", lambda p: p**0.5, "miscalibrated"),
        ("doubled", lambda p: np.minimum(2 * p, 1), "miscalibrated"),
        ("reweighted", lambda p: expit(logit(p) + math.log(3)), "miscalibrated"),
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


def test_a_good_model_passes() -> None:
    verdicts = [evaluate(*simulate(1600, seed), seed=seed).verdict for seed in range(25)]
    assert verdicts.count("first") == 25


def test_few_customers_do_not_refuse_a_calibrated_model() -> None:
    verdicts = [evaluate(*simulate(250, seed), seed=seed).verdict for seed in range(20)]
    assert verdicts.count("first") >= 18


def test_a_tiny_error_is_tolerated_on_many_customers() -> None:
    y, p = simulate(300_000)
    bent = expit(1.06 * logit(p) + 0.05)
    line = calibration_line(y, bent)
    assert abs(line.slope - 1) > 5 * line.slope_error  # significant but tiny
    assert evaluate(y, bent).verdict == "first"


def test_the_same_model_is_no_worse() -> None:
    for seed in range(5):
        y, p = simulate(1600, seed)
        found = evaluate(y, p, p)
        assert found.verdict == "no worse"
        assert found.passed
        assert all((row.difference, row.lower, row.upper) == (0, 0, 0) for row in found.comparisons)
        assert all("equal to the champion's" in reason and "on every resample" in reason for reason in found.reasons)


def test_a_truly_better_model_is_better() -> None:
    verdicts = []
    for seed in range(20):
        y, p = simulate(1600, seed)
        verdicts.append(evaluate(y, p, noisy(p, 0.8, seed), seed=seed).verdict)
    assert verdicts.count("better") >= 18


def test_a_truly_worse_model_never_passes() -> None:
    for seed in range(10):
        y, p = simulate(1600, seed)
        found = evaluate(y, noisy(p, 0.8, seed), p, seed=seed)
        assert found.verdict in ("worse", "unclear", "refused")
        assert not found.passed


def test_noise_is_called_better_no_more_often_than_the_level_allows() -> None:
    # Two equally good models: a two-sided 95% interval lies above zero for 2.5%. Margins let everything pass, so that
    # nothing but the interval separates chance from "better"
    lenient = GateSettings(resamples=100, log_loss_margin=1, calibration_margin=1, profit_margin=1)
    verdicts = []
    for seed in range(80):
        y, p = simulate(500, seed)
        verdicts.append(evaluate(y, noisy(p, 0.15, seed), noisy(p, 0.15, seed + 500), lenient, seed).verdict)
    assert verdicts.count("better") <= 7
    assert verdicts.count("no worse") >= 68


def test_small_differences_on_few_customers_are_unclear() -> None:
    found = []
    for seed in range(12):
        y, p = simulate(300, seed)
        found.append(evaluate(y, noisy(p, 0.3, seed), noisy(p, 0.3, seed + 500), seed=seed))
    unclear = [of for of in found if of.verdict == "unclear"]
    assert len(unclear) >= 9
    assert not any(of.passed for of in unclear)
    assert all("may be worse than tolerated" in of.reasons[0] for of in unclear)


def test_lower_log_loss_does_not_compensate_for_calibration() -> None:
    y, p = simulate(20_000)
    better_ranked_and_bent = expit(1.3 * logit(p))
    champion = noisy(p, 1.2, 0)
    champion = expit(calibration_line(y, champion).intercept + calibration_line(y, champion).slope * logit(champion))
    strict = GateSettings(
        resamples=100, max_calibration_error=0.2, calibration_slope=(0.1, 9), calibration_margin=0.005
    )
    found = evaluate(y, better_ranked_and_bent, champion, strict)
    assert found.comparisons[0].lower > 0
    assert found.verdict == "worse"
    assert "Calibration error is significantly worse than tolerated" in found.reasons[0]


def test_numbers_are_those_of_the_metrics() -> None:
    y, p = simulate(600)
    other = noisy(p, 0.3, 0)
    found = evaluate(y, p, other)
    assert found.standalone["auc"] == auc(y, p)
    losses = found.comparisons[0]
    assert (losses.challenger, losses.champion) == pytest.approx((log_loss(y, p), log_loss(y, other)))
    assert losses.difference == pytest.approx(log_loss(y, other) - log_loss(y, p))
    assert found.comparisons[2].challenger == pytest.approx(realised_profit(y, p, 500, COSTS))
    assert found.comparisons[2].margin == 0.0025 * 500
    logged = found.numbers()
    assert logged["log_loss_difference"] == losses.difference
    assert (logged["log_loss_difference_lower"], logged["log_loss_difference_upper"]) == (losses.lower, losses.upper)
    assert (
        logged["calibration_error_lower"] == found.standalone["calibration_error_lower"]
    )  # of the challenger, not of the difference
    # Hold-out metrics are logged elsewhere, margins as parameters
    assert not [
        name for name in logged if name in ("auc", "calibration_error") or name.endswith(("challenger", "margin"))
    ]
    assert logged["passed"] == float(found.passed)
    assert all(isinstance(number, float) for number in logged.values())
    assert found.report()["verdict"] == found.verdict


def test_pairs_are_kept_together() -> None:
    # Models that differ in a few rows have a narrow interval of the difference, even if each one varies a lot
    y, p = simulate(1600)
    other = p.copy()
    other[:40] = np.clip(other[:40] + 0.02, 0, 1)
    row = evaluate(y, p, other).comparisons[0]
    assert row.upper - row.lower < 0.002


def test_same_seed_same_verdict() -> None:
    y, p = simulate(400)
    other = noisy(p, 0.3, 0)
    assert evaluate(y, p, other, seed=1) == evaluate(y, p, other, seed=1)
    assert evaluate(y, p, other, seed=1) != evaluate(y, p, other, seed=2)


def test_repeated_customers_widen_intervals() -> None:
    y, p = simulate(400)
    many, often, other = np.repeat(y, 5), np.repeat(p, 5), np.repeat(noisy(p, 0.5, 0), 5)
    keys = np.repeat(np.arange(400), 5)
    alone, together = (
        evaluate_challenger(Holdout(many, often, np.full(2000, 500.0), groups), other, COSTS, GATE)
        for groups in (None, keys)
    )
    width = [of.comparisons[0].upper - of.comparisons[0].lower for of in (alone, together)]
    assert width[1] / width[0] == pytest.approx(5**0.5, rel=0.3)
    slopes = [of.standalone["calibration_slope_upper"] - of.standalone["calibration_slope"] for of in (alone, together)]
    assert slopes[1] / slopes[0] == pytest.approx(5**0.5, rel=0.05)


def test_the_calibration_line_finds_the_distortion() -> None:
    y, p = simulate(100_000)
    line = calibration_line(y, expit((logit(p) - 0.4) / 1.5))
    assert line.slope == pytest.approx(1.5, abs=4 * line.slope_error)
    assert line.intercept == pytest.approx(0.4, abs=4 * line.intercept_error)
    assert line.slope_error < 0.02


def test_standard_errors_of_the_calibration_line_match_its_spread() -> None:
    lines = [calibration_line(*simulate(500, seed)) for seed in range(60)]
    assert np.std([line.slope for line in lines]) == pytest.approx(np.mean([of.slope_error for of in lines]), rel=0.3)


def test_odd_probabilities_have_a_line() -> None:
    separated = calibration_line([0, 0, 1, 1], [0.0, 0.1, 0.9, 1.0])
    assert separated.slope > 1
    constant = calibration_line([0, 1, 0, 0], np.full(4, 0.5))
    assert (constant.slope, constant.slope_error) == (1, math.inf)
    assert constant.intercept == pytest.approx(logit(0.25))


def test_a_constant_of_the_training_rows_can_be_given() -> None:
    y, p = simulate(1600)
    own, poor = (
        evaluate_challenger(Holdout(y, p, np.full(1600, 500.0)), None, COSTS, GATE, constant=share)
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
        evaluate_challenger(Holdout(request["y"], request["p"], 1), request["p_champion"], COSTS, GATE)  # type: ignore[arg-type]


def test_reasons_say_better_and_worse_without_signs() -> None:
    y, p = simulate(1600)
    settings = GateSettings(resamples=100, log_loss_margin=1, calibration_margin=1, profit_margin=1)
    found = evaluate(y, noisy(p, 0.4, 0), p, settings)
    row = found.comparisons[0]
    assert row.difference < 0
    assert found.reasons[0] == (
        f"Log loss is within the margin: {-row.difference:.4f} worse than the champion's ({row.challenger:.4f} vs "
        f"{row.champion:.4f}), interval {-row.lower:.4f} worse to {abs(row.upper):.4f} "
        f"{'better' if row.upper >= 0 else 'worse'}; up to 1.0000 worse is tolerated."
    )
    same = evaluate(y, p, p, settings)
    assert "equal to the champion's" in same.reasons[0]


def test_settings_are_checked() -> None:
    with pytest.raises(ValidationError):
        GateSettings(confidence_level=1.2)
    with pytest.raises(ValidationError):
        GateSettings.model_validate({"max_auc": 1})
