import warnings

import numpy as np
import pandas as pd
import pytest
import skops.io
from pydantic import ValidationError
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from tests.modelling.conftest import FITTABLE, SHIPPED
from threadpoolctl import threadpool_limits

from churn_pipeline.modelling.candidates import Candidate, build_candidate
from churn_pipeline.modelling.onnx_conversion import convert_model, model_digest
from churn_pipeline.modelling.trusted_types import TRUSTED_TYPES

LOGISTIC = "sklearn.linear_model.LogisticRegression"


def test_the_shipped_candidates_begin_with_the_baseline_and_keep_a_forest():
    assert next(iter(SHIPPED)) == "logistic"
    assert "random_forest" in SHIPPED


def test_a_shipped_candidate_fits_each_kind_of_table_without_a_warning(shipped, kind, customers):
    made = customers(kind)
    model = build_candidate(FITTABLE[shipped], made.numeric, made.categorical, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        probabilities = model.fit(made.X, made.y).predict_proba(made.X)
    assert isinstance(model, Pipeline)
    assert list(model.named_steps) == ["preprocessing", "classifier"]
    assert probabilities.shape == (len(made.X), 2)
    assert np.isfinite(probabilities).all()


def test_unseen_values_get_a_finite_probability(shipped, customers, fitted):
    made = customers("mixed")
    strange = made.X.iloc[:3].copy()
    strange["town"] = "nowhere"
    strange["contract"] = ["", "nowhere", "\N{SNOWMAN}"]
    strange[made.numeric] = [[np.nan] * 7, [np.inf] * 7, [-1e300] * 7]
    assert np.isfinite(fitted(shipped, "mixed").predict_proba(strange)).all()


def test_missing_values_may_appear_after_fitting(shipped, customers):
    made = customers("mixed")
    full = made.X.assign(**{"never known": 1.0, "total  charge": made.X["total  charge"].fillna(0.0)})
    model = build_candidate(FITTABLE[shipped], made.numeric, made.categorical, seed=0)
    assert np.isfinite(model.fit(full, made.y).predict_proba(made.X)).all()


def test_rare_levels_are_encoded_as_unseen_and_a_frequent_blank_as_a_level(customers, fitted):
    encoder = fitted("logistic", "mixed").named_steps["preprocessing"].named_transformers_["categorical"]
    names = list(encoder.get_feature_names_out(["contract", "paper", "town", "only one", "rare"]))
    assert "paper_" in names
    assert [name for name in names if name.startswith("rare")] == ["rare_often", "rare_infrequent_sklearn"]
    assert len([name for name in names if name.startswith("town")]) <= 50
    a, b = (
        pd.DataFrame({"rare": ["seldom", "new"]}).reindex(columns=encoder.feature_names_in_, fill_value="").to_numpy()
    )
    assert (encoder.transform(pd.DataFrame([a, b], columns=encoder.feature_names_in_)).std(axis=0) == 0).all()


def test_fitting_changes_no_input(shipped, customers):
    made = customers("mixed")
    before = made.X.copy(deep=True)
    model = build_candidate(FITTABLE[shipped], made.numeric, made.categorical, seed=0)
    model.fit(made.X, made.y).predict_proba(made.X)
    pd.testing.assert_frame_equal(made.X, before)


def test_the_same_seed_gives_the_same_model_on_any_number_of_threads(shipped, customers):
    made = customers("mixed")
    fittable = FITTABLE[shipped]
    digests = set()
    for threads in (1, 2):
        given = {"arguments.n_jobs": threads} if "n_jobs" in fittable.arguments else {}
        candidate = fittable.with_values(given)
        with threadpool_limits(threads):
            model = build_candidate(candidate, made.numeric, made.categorical, seed=3).fit(made.X, made.y)
        digests.add(model_digest(convert_model(model, made.numeric, made.categorical)))
    assert len(digests) == 1


def test_copies_are_averaged_and_each_draws_its_own_pairs(customers):
    made = customers("mixed")
    candidate = (
        FITTABLE["gradient_boosting"].with_values({"numeric_arguments.pairs": 8}).model_copy(update={"copies": 3})
    )
    model = build_candidate(candidate, made.numeric, made.categorical, seed=0)
    model.fit(made.X, made.y)
    copies = model[-1].estimators_
    assert len(copies) == 3
    drawn = {
        copy.named_steps["pairs"].pairs_.tobytes() + copy.named_steps["pairs"].factors_.tobytes() for copy in copies
    }
    assert len(drawn) == len(copies)
    seen = model[:-1].transform(made.X)
    mean = np.mean([copy.predict_proba(seen)[:, 1] for copy in copies], axis=0)
    assert model.predict_proba(made.X)[:, 1] == pytest.approx(mean, abs=1e-15)


def test_another_seed_gives_another_forest(customers):
    made = customers("mixed")
    candidate = FITTABLE["random_forest"]
    models = [build_candidate(candidate, made.numeric, made.categorical, seed).fit(made.X, made.y) for seed in (0, 1)]
    assert not np.array_equal(*(model.predict_proba(made.X) for model in models))


def test_the_seed_is_passed_unless_the_candidate_sets_one():
    for path, arguments, expected in (
        ("sklearn.ensemble.RandomForestClassifier", {}, 5),
        ("sklearn.ensemble.RandomForestClassifier", {"random_state": 9}, 9),
        ("sklearn.neighbors.KNeighborsClassifier", {}, None),
    ):
        candidate = Candidate.model_validate({"class": path, "arguments": arguments})
        classifier = build_candidate(candidate, ["a"], [], seed=5).named_steps["classifier"]
        assert classifier.get_params().get("random_state") == expected


def test_a_candidate_can_be_cloned(shipped):
    model = build_candidate(FITTABLE[shipped], ["a"], ["b"], seed=0)
    assert type(clone(model)) is type(model)


def test_skops_needs_no_other_trusted_types_than_ours(shipped, kind, customers, fitted):
    made, model = customers(kind), fitted(shipped, kind)
    stored = skops.io.dumps(model)
    assert set(skops.io.get_untrusted_types(data=stored)) <= set(TRUSTED_TYPES)
    loaded = skops.io.loads(stored, trusted=list(TRUSTED_TYPES))
    # A forest on several threads sums its trees in any order: equal except for the last digit.
    np.testing.assert_allclose(loaded.predict_proba(made.X), model.predict_proba(made.X), rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"class": "LogisticRegression"}, "not an import path"),
        ({"class": "sklearn.linear_model.LogisticRegresion"}, "cannot be imported.*check the spelling"),
        ({"class": "not_a_package.Classifier"}, "cannot be imported.*No module named 'not_a_package'"),
        ({"class": "sklearn.base.clone"}, "not a scikit-learn estimator"),
        ({"class": "sklearn.linear_model.LinearRegression"}, "has no predict_proba"),
        ({"class": LOGISTIC, "arguments": {"c": 1}}, r"arguments \['c'\] are unknown"),
        ({"class": LOGISTIC, "numeric": "scaled", "numeric_arguments": {"n_knots": 3}}, "it accepts none"),
        ({"class": LOGISTIC, "numeric": "splines", "numeric_arguments": {"knots": 3}}, "degree"),
        ({"class": LOGISTIC, "categorical_arguments": {"drop": "first"}}, "categorical: one_hot"),
        ({"class": LOGISTIC, "numeric": "wild"}, "'as_is', 'scaled' or 'splines'"),
        ({"class": LOGISTIC, "colour": "red"}, "Extra inputs are not permitted"),
        ({"class": 3}, "valid string"),
        ({}, "class"),
    ],
)
def test_an_invalid_candidate_is_refused_with_the_reason(settings, message):
    with pytest.raises(ValidationError, match=message):
        Candidate.model_validate(settings)


def test_a_candidate_is_immutable():
    with pytest.raises(ValidationError, match="frozen"):
        Candidate.model_validate(SHIPPED["logistic"]).numeric = "as_is"


def test_a_candidate_without_columns_is_refused():
    with pytest.raises(ValueError, match="at least one feature"):
        build_candidate(Candidate.model_validate(SHIPPED["logistic"]), [], [], seed=0)


def test_an_estimator_that_is_not_a_classifier_is_refused():
    candidate = Candidate.model_validate({"class": "sklearn.mixture.GaussianMixture"})
    with pytest.raises(ValueError, match="not a classifier"):
        build_candidate(candidate, ["a"], [], seed=0)
