import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import skops.io
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted
from tests.modelling.conftest import FITTABLE, SHIPPED, fit_shipped, make_customers
from tests.modelling.test_onnx_conversion import EXACT, PROGRAM, ROWS, difference, fit

from churn_pipeline.modelling.blending import blend
from churn_pipeline.modelling.candidates import CandidatePipeline, build_candidate
from churn_pipeline.modelling.ensemble import (
    SHRINKAGE,
    BlendedModel,
    Calibration,
    Member,
    assemble,
    log_odds,
    shrunken_logs,
)
from churn_pipeline.modelling.hard_rows import cut_points, hard_rows
from churn_pipeline.modelling.onnx_conversion import OnnxConversionError, convert_model, model_digest, predict_onnx
from churn_pipeline.modelling.trusted_types import TRUSTED_TYPES

LOGISTIC = Calibration(kind="logistic", a=1.3, b=1.3, c=-0.2)
BETA = Calibration(kind="beta", a=0.6, b=3.3, c=-1.6)
# One member with each kind of calibration, two without.
CALIBRATED = {"random_forest": BETA, "gradient_boosting": LOGISTIC}
WEIGHTS = {"logistic": 0.13, "splines": 0.37, "random_forest": 0.29, "gradient_boosting": 0.21}
MEMBERS = [Member(candidate=name, weight=weight, calibration=CALIBRATED.get(name)) for name, weight in WEIGHTS.items()]


def blended(kind="mixed", members=MEMBERS):
    return assemble({name: fit_shipped(name, kind) for name in SHIPPED}, members)


def test_a_single_uncalibrated_candidate_is_not_wrapped(shipped, fitted):
    model = fitted(shipped, "mixed")
    assert assemble({"other": None, shipped: model}, [Member(candidate=shipped, weight=1.0)]) is model


def test_a_single_candidate_is_calibrated(customers, fitted):
    made, model = customers("mixed"), fitted("random_forest", "mixed")
    calibrated = assemble(
        {"random_forest": model}, [Member(candidate="random_forest", weight=1.0, calibration=LOGISTIC)]
    )
    assert isinstance(calibrated, BlendedModel)
    p = model.predict_proba(made.X)[:, 1]
    np.testing.assert_allclose(calibrated.predict_proba(made.X)[:, 1], expit(log_odds(p, LOGISTIC)), rtol=0, atol=1e-15)


def test_a_blend_is_the_weighted_mean_of_calibrated_log_odds(customers, fitted):
    made = customers("mixed")
    p = np.column_stack([fitted(name, "mixed").predict_proba(made.X)[:, 1] for name in SHIPPED])
    expected = np.zeros(len(made.X))
    for column, name in enumerate(SHIPPED):
        q = SHRINKAGE + (1 - 2 * SHRINKAGE) * p[:, column]
        if name in CALIBRATED:
            a, b, c = CALIBRATED[name].a, CALIBRATED[name].b, CALIBRATED[name].c
            expected += WEIGHTS[name] * (a * np.log(q) - b * np.log(1 - q) + c)
        else:
            expected += WEIGHTS[name] * logit(q)
    answered = blended().predict_proba(made.X)
    np.testing.assert_allclose(answered[:, 1], expit(expected), rtol=0, atol=1e-13)
    np.testing.assert_array_equal(answered.sum(axis=1), 1.0)
    # The choice is made on the same probabilities that are served.
    np.testing.assert_allclose(answered[:, 1], blend(p, list(SHIPPED), MEMBERS), rtol=0, atol=1e-13)


def test_a_blend_is_a_scikit_learn_classifier(customers):
    made, model = customers("mixed"), blended()
    check_is_fitted(model)
    assert is_classifier(model)
    assert model.classes_.tolist() == [0, 1]
    assert model.n_features_in_ == made.X.shape[1]
    assert list(model.feature_names_in_) == list(made.X.columns)
    np.testing.assert_array_equal(model.predict(made.X), (model.predict_proba(made.X)[:, 1] > 0.5).astype(int))
    assert model.score(made.X, made.y) > 0.6


def test_a_clone_is_unfitted_and_fits_to_the_same_model(customers):
    made = customers("mixed")
    names = ["logistic", "splines"]
    model = blended(members=[Member(candidate=name, weight=0.5) for name in names])
    copy = clone(model)
    assert [name for name, _ in copy.members] == names
    assert copy.weights == model.weights
    with pytest.raises(NotFittedError):
        copy.predict_proba(made.X)
    np.testing.assert_array_equal(copy.fit(made.X, made.y).predict_proba(made.X), model.predict_proba(made.X))


@pytest.mark.parametrize("members", [[], [Member(candidate="unknown", weight=1.0)]])
def test_a_choice_of_a_missing_model_is_refused(members):
    with pytest.raises(ValueError, match=r"there are models of \['known'\]"):
        assemble({"known": None}, members)


def test_shrinkage_keeps_ranks_and_finite_log_odds():
    p = np.array([0.0, 1e-12, 1e-6, 0.5, 1 - 1e-6, 1 - 1e-12, 1.0])
    odds = log_odds(p)
    assert (np.diff(odds) > 0).all()
    assert odds[0] == pytest.approx(-odds[-1], abs=1e-9)
    assert np.abs(odds).max() == pytest.approx(logit(1 - SHRINKAGE), abs=1e-9)
    assert all(np.isfinite(logs).all() for logs in shrunken_logs(p))


def test_a_blend_loaded_from_skops_predicts_the_same(customers, tmp_path):
    made, model = customers("mixed"), blended()
    skops.io.dump(model, tmp_path / "model.skops")
    assert set(skops.io.get_untrusted_types(file=tmp_path / "model.skops")) <= set(TRUSTED_TYPES)
    moved = skops.io.load(tmp_path / "model.skops", trusted=list(TRUSTED_TYPES))
    assert isinstance(moved, BlendedModel)
    assert all(isinstance(member, CandidatePipeline) for _, member in moved.members)
    # Not to the last bit: a forest sums its trees in the order in which its threads end.
    np.testing.assert_allclose(moved.predict_proba(made.X), model.predict_proba(made.X), rtol=0, atol=1e-13)


def test_a_converted_blend_is_equivalent_on_customers_and_on_hard_rows(kind, customers):
    made, model = customers(kind), blended(kind)
    converted = convert_model(model, made.numeric, made.categorical)
    assert difference(model, converted, made.X) <= EXACT
    hard = hard_rows(made.X, model, made.numeric, made.categorical, np.random.default_rng(0), limit=8000)
    assert difference(model, converted, hard) <= EXACT
    assert predict_onnx(converted, made.X.iloc[:0]).shape == (0,)


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(ROWS, min_size=1, max_size=20))
def test_a_converted_blend_is_equivalent_on_any_row(rows):
    made = make_customers("mixed")
    X = pd.DataFrame([[*numbers, *levels] for numbers, levels in rows], columns=[*made.numeric, *made.categorical])
    assert difference(blended(), convert_model(blended(), made.numeric, made.categorical), X) <= EXACT


def test_a_converted_calibrated_candidate_is_equivalent(shipped, customers):
    made = customers("mixed")
    model = blended(members=[Member(candidate=shipped, weight=1.0, calibration=BETA)])
    converted = convert_model(model, made.numeric, made.categorical)
    hard = hard_rows(made.X, model, made.numeric, made.categorical, np.random.default_rng(0), limit=4000)
    assert difference(model, converted, hard) <= EXACT


def test_members_share_inputs_and_common_work(customers, fitted):
    made = customers("mixed")
    converted = convert_model(blended(), made.numeric, made.categorical)
    session = onnxruntime.InferenceSession(converted.SerializeToString())
    assert [node.name for node in session.get_inputs()] == ["numeric", "categorical"]
    operators = [node.op_type for node in converted.graph.node]
    # All four encode the categories in the same way: one look-up, not four.
    assert operators.count("LabelEncoder") == 1
    # A forest is one node; boosting is one node per copy.
    assert operators.count("TreeEnsemble") == 1 + FITTABLE["gradient_boosting"].copies


def test_hard_rows_reveal_an_error_in_one_member(customers):
    made, model = customers("mixed"), blended()
    converted = convert_model(model, made.numeric, made.categorical)
    trees = [node for node in converted.graph.node if node.op_type == "TreeEnsemble"]
    (modes,) = (attribute for attribute in trees[0].attribute if attribute.name == "nodes_modes")
    modes.t.raw_data = bytes([1]) * len(modes.t.raw_data)  # x < threshold instead of x <= threshold
    hard = hard_rows(made.X, model, made.numeric, made.categorical, np.random.default_rng(0), limit=4000)
    assert difference(model, converted, hard) > 1e-4


def test_cut_points_are_those_of_all_members(customers, fitted):
    made = customers("mixed")
    cuts = cut_points(blended(), made.numeric)
    for name in WEIGHTS:
        for column, of_member in cut_points(fitted(name, "mixed"), made.numeric).items():
            assert set(of_member) <= set(cuts[column])


def test_the_digest_is_the_same_in_another_process(customers, tmp_path):
    made, model = customers("mixed"), blended()
    skops.io.dump(model, tmp_path / "model")
    command = [
        sys.executable,
        "-c",
        PROGRAM,
        str(tmp_path / "model"),
        "|".join(made.numeric),
        "|".join(made.categorical),
    ]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert answer.stdout.split() == [model_digest(convert_model(model, made.numeric, made.categorical))]


def test_other_weights_give_another_digest(customers):
    made = customers("mixed")
    weights = [[0.5, 0.5], [0.51, 0.49]]
    digests = {
        model_digest(
            convert_model(
                blended(
                    members=[Member(candidate=n, weight=w) for n, w in zip(["logistic", "splines"], pair, strict=True)]
                ),
                made.numeric,
                made.categorical,
            )
        )
        for pair in weights
    }
    assert len(digests) == 2


def test_a_member_converted_by_skl2onnx_and_trees_are_converted_together(customers, fitted):
    made = customers("mixed")
    own = fit(made, "sklearn.neural_network.MLPClassifier", "scaled", hidden_layer_sizes=[8], max_iter=2000)
    models = {"own": own, "trees": fitted("gradient_boosting", "mixed")}
    model = assemble(models, [Member(candidate="own", weight=0.4), Member(candidate="trees", weight=0.6)])
    converted = convert_model(model, made.numeric, made.categorical)
    hard = hard_rows(made.X, model, made.numeric, made.categorical, np.random.default_rng(0), limit=4000)
    assert difference(model, converted, hard) <= 1e-9


def test_trees_of_both_conversions_in_one_blend_are_refused(customers, fitted):
    made = customers("mixed")
    models = {
        "own": fit(made, "sklearn.ensemble.AdaBoostClassifier", n_estimators=5),
        "trees": fitted("gradient_boosting", "mixed"),
    }
    model = assemble(models, [Member(candidate=name, weight=0.5) for name in models])
    with pytest.raises(OnnxConversionError, match="Remove one of these candidates"):
        convert_model(model, made.numeric, made.categorical)


def test_an_unfitted_blend_is_refused():
    candidate = build_candidate(FITTABLE["logistic"], ["a"], [], seed=0)
    model = BlendedModel([("logistic", candidate)], [1.0], [(1.0, 1.0, 0.5)])
    with pytest.raises(OnnxConversionError, match="not fitted"):
        convert_model(model, ["a"], [])
    with pytest.raises(OnnxConversionError, match="no members"):
        convert_model(BlendedModel([], [], []), ["a"], [])


def test_the_converted_blend_is_valid_onnx(customers):
    made = customers("mixed")
    onnx.checker.check_model(convert_model(blended(), made.numeric, made.categorical), full_check=True)
