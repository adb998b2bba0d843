import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit

from churn_pipeline.evaluation.metrics import log_loss
from churn_pipeline.modelling import blending
from churn_pipeline.modelling.blending import fit_calibration, fit_members, fit_weights
from churn_pipeline.modelling.choice import _cheapest_within, _Option, choose_candidate, simplest_within
from churn_pipeline.modelling.choice_report import Choice
from churn_pipeline.modelling.ensemble import Calibration, log_odds
from churn_pipeline.modelling.out_of_fold import OutOfFold, align_predictions, cross_fitted_predictions

N, FOLDS = 5000, 5


def table(probability, churned, folds=FOLDS, microseconds=0.0):
    n = len(churned)
    fold = np.arange(n) % folds
    made = pd.DataFrame({"fold": [f"fold_{f}" for f in fold], "row": np.arange(n), "churned": churned})
    return made.assign(probability=probability, seconds=1.0, microseconds=microseconds)


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
    assert (choice.candidate, choice.rule) == ("complex", "lowest log loss plus cost of serving")
    assert choice.decided_by is not None
    assert (choice.decided_by.option, choice.decided_by.baseline) == ("complex", "simple")
    losses = {
        name: np.mean(
            [log_loss(part["churned"].to_numpy(), part["probability"].to_numpy()) for _, part in t.groupby("fold")]
        )
        for name, t in predictions.items()
    }
    # Candidates are shrunk as blends are, if that lowers their loss.
    assert choice.log_loss == pytest.approx(losses["complex"], abs=2e-5)
    assert choice.log_losses == pytest.approx(losses, abs=2e-5)
    assert choice.decided_by.advantage == pytest.approx(choice.log_losses["simple"] - choice.log_losses["complex"])


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


def test_the_cheapest_to_serve_within_the_margin_is_chosen(truth):
    left, right, churned, rng = truth
    exact = left + right
    predictions = {
        "slow": table(expit(exact), churned, microseconds=20.0),
        "fast": table(expit(exact + rng.normal(0, 0.02, N)), churned, microseconds=2.0),
    }
    settings = {"cost": 0.0, "blends": False, "calibrate": False}
    strict = choose_candidate(predictions, standard_errors=0.0, **settings)
    assert (strict.candidate, strict.rule) == ("slow", "lowest log loss plus cost of serving")
    lenient = choose_candidate(predictions, standard_errors=5.0, **settings)
    assert (lenient.candidate, lenient.rule) == ("fast", "cheapest within the margin")
    assert lenient.decided_by is not None
    assert (lenient.decided_by.option, lenient.decided_by.baseline) == ("fast", "slow")
    assert lenient.decided_by.advantage < 0
    assert "the cheapest to serve within 5 standard errors of the best" in lenient.sentences[0]
    assert "about 2.0 microseconds per customer instead of 20.0" in lenient.sentences[0]
    assert lenient.microseconds == {"slow": 20.0, "fast": 2.0}


def test_a_candidate_that_takes_longer_to_serve_must_be_better_by_its_cost(truth):
    left, right, churned, rng = truth
    slow = table(expit(left + right), churned, microseconds=30.0)
    fast = table(noisy(left + right, 0.2, rng), churned, microseconds=10.0)
    settings = {"standard_errors": 0.0, "blends": False, "calibrate": False}
    losses = choose_candidate({"fast": fast, "slow": slow}, cost=0.0, **settings).log_losses
    worth = (losses["fast"] - losses["slow"]) / 20.0
    assert worth > 0
    chosen = [choose_candidate({"fast": fast, "slow": slow}, cost=worth * part, **settings) for part in (0.99, 1.01)]
    assert [choice.candidate for choice in chosen] == ["slow", "fast"]
    assert all(choice.rule == "lowest log loss plus cost of serving" for choice in chosen)


OPTIONS = st.lists(
    st.tuples(st.lists(st.floats(0.3, 0.5), min_size=FOLDS, max_size=FOLDS), st.floats(0.0, 200.0)),
    min_size=1,
    max_size=6,
).map(lambda drawn: [_Option((place,), (1.0,), np.array(losses), cost) for place, (losses, cost) in enumerate(drawn)])


@given(options=OPTIONS, costs=st.tuples(st.floats(0.0, 0.01), st.floats(0.0, 0.01)))
def test_a_higher_cost_never_makes_a_slower_option_the_best(options, costs):
    cheap, expensive = (_cheapest_within(options, 0.0, cost)[1].microseconds for cost in sorted(costs))
    assert expensive <= cheap + 1e-6


@given(options=OPTIONS, margins=st.tuples(st.floats(0.0, 3.0), st.floats(0.0, 3.0)), cost=st.floats(0.0, 0.01))
def test_a_wider_margin_never_chooses_a_slower_option(options, margins, cost):
    narrow, wide = (_cheapest_within(options, margin, cost)[0].microseconds for margin in sorted(margins))
    assert wide <= narrow


@given(options=OPTIONS, margin=st.floats(0.0, 3.0), cost=st.floats(0.0, 0.01))
def test_the_chosen_option_is_as_fast_as_the_best_and_hardly_worse(options, margin, cost):
    chosen, best = _cheapest_within(options, margin, cost)
    totals = [option.losses.mean() + cost * option.microseconds for option in (chosen, best)]
    error = (chosen.losses - best.losses).std(ddof=1) / FOLDS**0.5
    assert chosen.microseconds <= best.microseconds
    assert totals[0] - totals[1] <= margin * error + 2e-9


def test_a_blend_of_models_with_independent_errors_is_chosen(truth):
    left, right, churned, rng = truth
    predictions = {name: table(noisy(left + right, 1.0, rng), churned, microseconds=3.0) for name in ("one", "two")}
    choice = choose_candidate(predictions)
    assert (choice.candidate, choice.rule) == ("one+two", "lowest log loss plus cost of serving")
    assert choice.blend is not None
    assert choice.blend.exceeds(1.0)
    assert choice.log_loss < min(choice.log_losses.values())
    assert [member.candidate for member in choice.members] == ["one", "two"]
    assert sum(member.weight for member in choice.members) == pytest.approx(1.0, abs=1e-12)
    assert choice.microseconds["one+two"] == 6.0
    assert choice.sentences[0].startswith("Chosen: a blend of ")
    assert choice.sentences[1].startswith("The best blend, one+two, compared with ")


def test_a_blend_pays_for_all_its_members_and_can_be_disabled(truth):
    left, right, churned, rng = truth
    predictions = {name: table(noisy(left + right, 1.0, rng), churned, microseconds=3.0) for name in ("one", "two")}
    gain = choose_candidate(predictions).blend.advantage
    costly = choose_candidate(predictions, standard_errors=0.0, cost=1.1 * gain / 3.0)
    assert len(costly.members) == 1
    assert costly.blend is not None
    without = choose_candidate(predictions, blends=False)
    assert without.blend is None
    assert len(without.members) == 1
    assert set(without.microseconds) == {"one", "two"}


def test_smaller_blends_leave_out_the_member_of_lowest_weight(truth):
    """Three independent models: the noisiest leaves first, and the smaller blend wins if a member is dear."""
    left, right, churned, rng = truth
    noises = {"fair": 1.0, "good": 0.8, "poor": 1.4}
    predictions = {
        name: table(noisy(left + right, noise, rng), churned, microseconds=5.0) for name, noise in noises.items()
    }
    whole = choose_candidate(predictions, standard_errors=0.0, cost=0.0)
    assert [option for option in whole.microseconds if "+" in option] == ["fair+good+poor", "fair+good"]
    weights = {member.candidate: member.weight for member in whole.members}
    assert min(weights, key=weights.get) == "poor"
    dear = choose_candidate(predictions, standard_errors=0.0, cost=4e-4)
    assert dear.candidate == "fair+good"


@pytest.mark.parametrize("certain", [False, True])
@pytest.mark.parametrize("size", [2, 3, 7])
def test_a_blend_of_identical_models_is_not_chosen(size, certain, truth):
    left, right, churned, _ = truth
    p = expit(left + right)
    if certain:  # some predictions are 0 and wrong: a blend must not win by shrinking them
        p = np.where(np.arange(N) % 100 == 0, 0.0, p)
    predictions = {f"model_{index}": table(p, churned) for index in range(size)}
    choice = choose_candidate(predictions, standard_errors=0.0, cost=0.0, calibrate=False)
    assert choice.candidate == "model_0"
    assert choice.rule == "lowest log loss plus cost of serving"


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
    assert choose_candidate(predictions, calibrate=False, blends=False).candidate == "plain"
    assert choose_candidate(predictions, blends=False).candidate == "sharp"


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


def test_the_choice_scores_and_weighs_by_left_out_folds(truth, monkeypatch):
    """Each fit of weights uses all folds but one; the weights of the chosen blend are the mean of such fits."""
    left, right, churned, rng = truth
    seen, original, fitted = [], blending.fit_weights, []

    def recorded(Z, y):
        seen.append(len(y))
        fitted.append(original(Z, y))
        return fitted[-1]

    monkeypatch.setattr(blending, "fit_weights", recorded)
    predictions = {name: table(noisy(left + right, noise, rng), churned) for name, noise in (("one", 1), ("two", 0.8))}
    choice = choose_candidate(predictions, calibrate=False)
    assert set(seen) == {N * 4 // 5}
    expected = blending.round_weights(np.mean(fitted[-FOLDS:], axis=0))
    assert [member.weight for member in choice.members] == expected.tolist()


@given(shares=st.lists(st.floats(0.001, 1.0), min_size=1, max_size=12))
def test_rounded_weights_are_whole_percents_with_sum_1_and_no_small_ones(shares):
    weights = blending.round_weights(np.array(shares) / np.sum(shares))
    assert weights.sum() == pytest.approx(1.0, abs=1e-12)
    assert np.abs(weights * 100 - np.round(weights * 100)).max() < 1e-9
    assert (weights[weights > 0] >= 0.05).all()
    # Rounding changes the largest by half a percent for each of the others, which are at most 20.
    assert weights[np.argmax(shares)] >= weights.max() - 0.1


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
    assert choice.sentences[0] == f"Chosen: only (log loss {choice.log_loss:.5f}), the only candidate."


def test_surplus_rows_are_thinned_evenly(monkeypatch):
    monkeypatch.setattr(blending, "MAX_ROWS", 100)
    rng = np.random.default_rng(0)
    p = rng.random(250)
    churned = (rng.random(250) < p).astype(int)
    assert fit_calibration(p, churned, "beta") == fit_calibration(p[::3], churned[::3], "beta")
