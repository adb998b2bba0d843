import json

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from churn_pipeline.evaluation.metrics import log_loss
from churn_pipeline.modelling import blending
from churn_pipeline.modelling.blending import fit_calibration, fit_members, fit_weights
from churn_pipeline.modelling.choice import choose_candidate, simplest_within
from churn_pipeline.modelling.choice_report import Choice
from churn_pipeline.modelling.ensemble import Calibration, log_odds
from churn_pipeline.modelling.out_of_fold import OutOfFold, align_predictions, cross_fitted_predictions

N, FOLDS = 5000, 5


def table(probability, churned, folds=FOLDS):
    n = len(churned)
    fold = np.arange(n) % folds
    made = pd.DataFrame({"fold": [f"fold_{f}" for f in fold], "row": np.arange(n), "churned": churned})
    return made.assign(probability=probability, seconds=1.0)


@pytest.fixture
def truth():
    """True log-odds of two independent parts, and labels drawn from their sum."""
    rng = np.random.default_rng(0)
    left, right = rng.normal(-1.0, 1.0, N), rng.normal(0.0, 1.0, N)
    return left, right, (rng.random(N) < expit(left + right)).astype(int), rng


def noisy(log_odds_of_truth, noise, rng):
    """A calibrated model whose log-odds have independent noise."""
    return expit((log_odds_of_truth + rng.normal(0, noise, N)) / (1 + noise**2))


def test_a_clearly_lower_log_loss_is_chosen(truth):
    left, right, churned, _ = truth
    predictions = {"simple": table(expit(left), churned), "complex": table(expit(left + right), churned)}
    choice = choose_candidate(predictions, calibrate=False)
    assert (choice.candidate, choice.rule) == ("complex", "lowest log loss")
    assert choice.decided_by is not None
    assert (choice.decided_by.option, choice.decided_by.baseline) == ("complex", "simple")
    losses = {
        name: np.mean(
            [log_loss(part["churned"].to_numpy(), part["probability"].to_numpy()) for _, part in t.groupby("fold")]
        )
        for name, t in predictions.items()
    }
    assert choice.log_loss == pytest.approx(losses["complex"], abs=1e-12)
    assert choice.log_losses == pytest.approx(losses, abs=1e-12)
    assert choice.decided_by.advantage == pytest.approx(losses["simple"] - losses["complex"], abs=1e-12)


def test_the_simplest_within_one_standard_error_is_chosen():
    # The second is 0.002 better; the paired differences have a standard error of 0.0022.
    losses = np.array([[0.410, 0.400], [0.405, 0.405], [0.400, 0.400], [0.395, 0.400], [0.405, 0.400]])
    assert simplest_within(losses, 1.0) == (0, 1)
    assert simplest_within(losses, 0.5) == (1, 1)


def test_differences_are_paired():
    # Folds differ far more than candidates, and the second candidate is better in each fold.
    hard = np.array([0.30, 0.40, 0.50, 0.35, 0.45])
    losses = np.column_stack([hard, hard - 0.001 - np.linspace(0, 0.0001, 5)])
    assert simplest_within(losses, 1.0) == (1, 1)


def test_of_equals_the_simplest_is_chosen(truth):
    left, _, churned, _ = truth
    same = table(expit(left), churned)
    choice = choose_candidate({"first": same, "second": same.copy(), "third": same.copy()})
    assert choice.candidate == "first"
    assert len(choice.members) == 1


def test_rule_and_margin_of_the_simplest(truth):
    left, _, churned, rng = truth
    p = expit(left)
    slightly = np.clip(p + rng.normal(0, 1e-4, N), 0.001, 0.999)
    predictions = {"simple": table(p, churned), "complex": table(slightly, churned)}
    losses = {name: choose_candidate({name: found}).log_loss for name, found in predictions.items()}
    if losses["simple"] < losses["complex"]:
        predictions = {"simple": predictions["complex"], "complex": predictions["simple"]}
    choice = choose_candidate(predictions, standard_errors=5.0, blend_standard_errors=np.inf)
    assert (choice.candidate, choice.rule) == ("simple", "simplest within one standard error")
    assert choice.decided_by is not None
    assert (choice.decided_by.option, choice.decided_by.baseline) == ("simple", "complex")
    assert choice.decided_by.advantage < 0
    assert "the simplest candidate within 5 standard errors of the best" in choice.sentences[0]


def test_a_blend_of_models_with_independent_errors_is_chosen(truth):
    left, right, churned, rng = truth
    predictions = {name: table(noisy(left + right, 1.0, rng), churned) for name in ("one", "two")}
    choice = choose_candidate(predictions)
    assert (choice.candidate, choice.rule) == ("one+two", "blend")
    assert choice.decided_by == choice.blend
    assert choice.blend is not None
    assert choice.blend.exceeds(1.0)
    assert choice.log_loss < min(choice.log_losses.values())
    assert sum(member.weight for member in choice.members) == pytest.approx(1.0, abs=1e-12)
    assert {member.weight for member in choice.members} == {member.weight for member in choice.blend_members}
    assert choice.sentences[0].startswith("Chosen: a blend (")
    assert "required: more than 1 standard error)" in choice.sentences[0]


def test_a_blend_must_win_by_the_configured_margin(truth):
    left, right, churned, rng = truth
    predictions = {name: table(noisy(left + right, 1.0, rng), churned) for name in ("one", "two")}
    kept = choose_candidate(predictions, blend_standard_errors=1000.0)
    assert kept.rule != "blend"
    assert kept.blend is not None
    assert kept.sentences[1].startswith("Not chosen: a blend (")
    without = choose_candidate(predictions, blend_standard_errors=np.inf)
    assert without.blend is None
    assert "No blend was compared" in without.sentences[1]


@pytest.mark.parametrize("certain", [False, True])
@pytest.mark.parametrize("size", [2, 3, 7])
def test_a_blend_of_identical_models_is_not_chosen(size, certain, truth):
    left, right, churned, _ = truth
    p = expit(left + right)
    if certain:  # some predictions are 0 and wrong: a blend must not win by shrinking them
        p = np.where(np.arange(N) % 100 == 0, 0.0, p)
    predictions = {f"model_{index}": table(p, churned) for index in range(size)}
    choice = choose_candidate(predictions, blend_standard_errors=0.0, calibrate=False)
    assert choice.candidate == "model_0"
    assert choice.rule == "lowest log loss"


def test_useless_members_get_no_weight(truth):
    left, right, churned, rng = truth
    Z = np.column_stack([rng.normal(0, 1, N), left + right, np.full(N, -1.0)])
    assert fit_weights(Z, churned).tolist() == [0.0, 1.0, 0.0]


def test_many_equal_members_do_not_leave_an_empty_blend(truth):
    left, right, churned, rng = truth
    Z = np.column_stack([logit(noisy(left + right, 1.0, rng)) for _ in range(30)])
    weights = fit_weights(Z, churned)
    assert weights.sum() == pytest.approx(1.0, abs=1e-12)
    assert weights[weights > 0].min() >= 0.05


def test_weights_minimise_the_log_loss(truth):
    left, right, churned, rng = truth
    Z = np.column_stack([logit(noisy(left + right, noise, rng)) for noise in (0.7, 1.0)])
    losses = [log_loss(churned, expit(Z @ [share, 1 - share])) for share in np.linspace(0, 1, 101)]
    assert fit_weights(Z, churned)[0] == pytest.approx(np.argmin(losses) / 100, abs=0.011)


@pytest.mark.parametrize(
    ("distort", "kind"),
    [
        (lambda odds: expit(2.0 * odds + 0.5), "logistic"),  # overconfident
        (lambda odds: 0.02 + 0.5 * expit(odds), "beta"),  # never predicts a high churn probability
    ],
)
def test_a_miscalibrated_candidate_is_calibrated(distort, kind, truth):
    left, right, churned, _ = truth
    choice = choose_candidate({"only": table(distort(left + right), churned)})
    (member,) = choice.members
    assert member.calibration is not None
    assert member.calibration.kind == choice.calibrations[0].applied == kind
    gains = {measured.option: measured.advantage for measured in choice.calibrations[0].measured}
    assert gains[kind] > 0.01
    honest = choose_candidate({"only": table(expit(left + right), churned)}).log_loss
    assert choice.log_loss == pytest.approx(honest, abs=0.01)
    assert f"only: {kind} calibration." in choice.sentences[-1]


@pytest.mark.parametrize("seed", range(8))
def test_a_calibrated_candidate_is_not_changed(seed):
    rng = np.random.default_rng(100 + seed)
    odds = rng.normal(-1, 1.5, N)
    churned = (rng.random(N) < expit(odds)).astype(int)
    report = choose_candidate({"only": table(expit(odds), churned)}, standard_errors=2.0)
    assert report.members[0].calibration is None
    assert report.calibrations[0].applied == "none"
    assert "only: not calibrated." in report.sentences[-1]


def test_calibration_can_be_disabled(truth):
    left, right, churned, _ = truth
    choice = choose_candidate({"only": table(expit(3 * (left + right)), churned)}, calibrate=False)
    assert choice.members[0].calibration is None
    assert choice.calibrations[0].measured == ()


def test_candidates_are_compared_after_calibration(truth):
    """The better ranking wins, although its log loss before calibration is worse."""
    left, right, churned, _ = truth
    predictions = {"plain": table(expit(left), churned), "sharp": table(expit(4 * (left + right)), churned)}
    assert choose_candidate(predictions, calibrate=False, blend_standard_errors=np.inf).candidate == "plain"
    assert choose_candidate(predictions, blend_standard_errors=np.inf).candidate == "sharp"


def test_a_calibration_keeps_ranks_and_reverts_a_known_distortion(truth):
    left, right, churned, _ = truth
    distorted = expit((left + right) * 2 + 0.5)
    found = fit_calibration(distorted, churned, "logistic")
    assert found is not None
    assert (found.a, found.b, found.c) == pytest.approx((0.5, 0.5, -0.25), abs=0.06)
    rng = np.random.default_rng(0)
    beta = fit_calibration(rng.random(300), rng.integers(0, 2, 300), "beta")
    p = np.linspace(0, 1, 1001)
    assert (np.diff(log_odds(p, beta)) >= 0).all()


def outcomes_changed_in_one_fold(found, fold):
    y = found.y.copy()
    y[found.fold == fold] = 1 - y[found.fold == fold]
    return OutOfFold(found.names, y, found.fold, found.p)


@pytest.mark.parametrize("learns", ["calibration", "blend"])
def test_nothing_is_scored_on_a_fold_that_it_was_fitted_on(learns, truth):
    """Flipping all labels of a fold must not change predictions for that fold, but must change the others."""
    left, right, churned, rng = truth
    found = align_predictions({name: table(noisy(left + right, 1.0, rng), churned) for name in ("one", "two")})

    def fit(p, y):
        if learns == "calibration":
            calibration = fit_calibration(p[:, 0], y, "beta")
            return lambda given: expit(log_odds(given[:, 0], calibration))
        members = fit_members(p, y, found.names, ["logistic", "beta"])
        return lambda given: blending.blend(given, found.names, members)

    before = cross_fitted_predictions(found, fit)
    after = cross_fitted_predictions(outcomes_changed_in_one_fold(found, 2), fit)
    scored = found.fold == 2
    np.testing.assert_array_equal(before[scored], after[scored])
    assert np.abs(before - after)[~scored].max() > 0.01


def test_the_choice_scores_by_left_out_folds(truth, monkeypatch):
    """Each fit for a score uses all folds but one; only the final fit uses all."""
    left, right, churned, rng = truth
    seen = []
    original = blending.fit_weights
    monkeypatch.setattr(blending, "fit_weights", lambda Z, y: (seen.append(len(y)), original(Z, y))[1])
    choose_candidate({name: table(noisy(left + right, 1.0, rng), churned) for name in ("one", "two")})
    assert sorted(seen) == [N * 4 // 5] * FOLDS + [N]


def test_a_calibration_fitted_to_noise_gains_in_sample_and_loses_out_of_fold():
    rng = np.random.default_rng(3)
    p, churned = rng.uniform(0.4, 0.6, 100), rng.permutation(np.tile([0, 1], 50))
    report = choose_candidate({"only": table(p, churned)}).calibrations[0]
    for measured in report.measured:
        in_sample = expit(log_odds(p, fit_calibration(p, churned, measured.option)))
        assert log_loss(churned, in_sample) < log_loss(churned, p)
        assert measured.advantage < 0
    assert report.applied == "none"


def test_a_choice_survives_json(truth):
    left, right, churned, rng = truth
    predictions = {
        "one": table(noisy(left + right, 1.0, rng), churned),
        "two": table(expit(2 * logit(noisy(left + right, 1.0, rng))), churned),
    }
    choice = choose_candidate(predictions)
    assert any(isinstance(member.calibration, Calibration) for member in choice.members)
    assert Choice.model_validate(json.loads(json.dumps(choice.to_dict()))) == choice
    assert choose_candidate(predictions) == choice


def test_the_order_of_rows_does_not_matter(truth):
    left, right, churned, rng = truth
    predictions = {name: table(noisy(left + right, 1.0, rng), churned) for name in ("one", "two")}
    shuffled = {name: found.sample(frac=1, random_state=1) for name, found in predictions.items()}
    assert choose_candidate(shuffled) == choose_candidate(predictions)


def test_a_choice_needs_two_folds(truth):
    left, right, churned, rng = truth
    p = [noisy(left + right, 1.0, rng) for _ in range(2)]
    assert choose_candidate({str(i): table(each, churned, folds=2) for i, each in enumerate(p)}).candidate
    with pytest.raises(ValueError, match="at least two folds"):
        choose_candidate({"one": table(p[0], churned, folds=1)})


def test_predictions_that_cannot_be_compared_are_refused(truth):
    left, _, churned, _ = truth
    with pytest.raises(ValueError, match="no candidate to choose from"):
        choose_candidate({})
    other = table(expit(left), churned).iloc[1:]
    with pytest.raises(ValueError, match="'two' and 'one' were not validated on the same rows: column 'fold'"):
        choose_candidate({"one": table(expit(left), churned), "two": other})


def test_an_only_candidate_is_chosen(truth):
    left, _, churned, _ = truth
    choice = choose_candidate({"only": table(expit(left), churned)}, calibrate=False)
    assert choice.decided_by is None
    assert choice.sentences[0].startswith("Chosen: only, the only candidate")


def test_surplus_rows_are_thinned_evenly(monkeypatch):
    monkeypatch.setattr(blending, "MAX_ROWS", 100)
    rng = np.random.default_rng(0)
    p = rng.random(250)
    churned = (rng.random(250) < p).astype(int)
    assert fit_calibration(p, churned, "beta") == fit_calibration(p[::3], churned[::3], "beta")
