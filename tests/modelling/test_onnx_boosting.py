"""LightGBM, XGBoost and CatBoost: stored without pickle, converted to ONNX, the same on any number of threads."""

import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import skops.io
from catboost import CatBoostClassifier
from hypothesis import given, settings
from hypothesis import strategies as st
from lightgbm import LGBMClassifier, early_stopping
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from threadpoolctl import threadpool_limits
from xgboost import XGBClassifier

from churn_pipeline.modelling.candidates import Candidate, build_candidate
from churn_pipeline.modelling.hard_rows import cut_points, hard_rows
from churn_pipeline.modelling.onnx_conversion import OnnxConversionError, convert_model, model_digest, predict_onnx
from churn_pipeline.modelling.onnx_trees import trees_of
from churn_pipeline.modelling.preprocessing import round_to_float32
from churn_pipeline.modelling.trusted_types import TRUSTED_TYPES

EXACT = 1e-12
# XGBoost's probabilities are float32.
SINGLE = 2e-7
TOLERANCE = {"lightgbm": EXACT, "xgboost": SINGLE, "catboost": EXACT}
LIBRARIES = {
    "lightgbm": {"class": "lightgbm.LGBMClassifier", "arguments": {"n_estimators": 40, "num_leaves": 15}},
    "xgboost": {"class": "xgboost.XGBClassifier", "arguments": {"n_estimators": 40}},
    "catboost": {"class": "catboost.CatBoostClassifier", "arguments": {"iterations": 40}},
}
COPIES = {"numeric_arguments": {"pairs": 20}, "copies": 3}


@pytest.fixture(params=list(LIBRARIES))
def library(request):
    return request.param


def fit(made, library, **changes):
    configured = {**LIBRARIES[library], **changes}
    configured["arguments"] = {**LIBRARIES[library]["arguments"], **changes.get("arguments", {})}
    model = build_candidate(Candidate.model_validate(configured), made.numeric, made.categorical, seed=0)
    return model.fit(made.X, made.y)


def difference(model, converted, X):
    return np.abs(model.predict_proba(X)[:, 1] - predict_onnx(converted, X)).max()


@pytest.mark.parametrize("changes", [{}, COPIES], ids=["one", "copies"])
def test_a_converted_candidate_is_equivalent_on_customers_and_on_hard_rows(library, changes, kind, customers):
    made = customers(kind)
    model = fit(made, library, **changes)
    converted = convert_model(model, made.numeric, made.categorical)
    hard = hard_rows(made.X, model, made.numeric, made.categorical, np.random.default_rng(0), limit=6000)
    assert difference(model, converted, made.X) <= TOLERANCE[library]
    assert difference(model, converted, hard) <= TOLERANCE[library]


COLUMNS = ["number", "whole", "rarely known", "tiny", "category", "noise"]


def plain_rows(n, rng):
    """Rows without imputation: missing values, zeros and nearly zeros reach the trees."""
    X = np.column_stack(
        [
            rng.normal(size=n),
            rng.integers(-3, 4, n),
            np.where(rng.random(n) < 0.4, np.nan, rng.normal(size=n)),
            rng.choice([0.0, -0.0, 1e-35, -1e-36, 2e-35, 1e-45, -1.0, 1.0], n),
            rng.choice([0, 1, 2, 3, 5, 8, 31, 32, 40, 64], n),
            np.where(rng.random(n) < 0.1, np.nan, rng.integers(0, 3, n)),
        ]
    )
    odds = X[:, 0] + np.isin(X[:, 4], [1, 5, 32, 64]) * 2 - np.isnan(X[:, 2]) + (X[:, 3] > 0) - 1
    y = (rng.random(n) < 1 / (1 + np.exp(-odds))).astype(int)
    return pd.DataFrame(round_to_float32(X), columns=COLUMNS), y


def probes(X, model, rng):
    """Rows on split values, and values that no training row has."""
    hard = hard_rows(X, model, COLUMNS, [], rng, limit=3000)
    strange = [
        np.nan,
        0.0,
        -0.5,
        -1.0,
        0.9,
        2.7,
        4.0,
        33.0,
        63.0,
        99.0,
        1e9,
        1e30,
        -1e30,
        1e-35,
        -1e-35,
        1.1e-35,
        1e-45,
    ]
    values = X.sample(3000, replace=True, random_state=0).to_numpy(copy=True)
    changed = rng.random(values.shape) < 0.4
    values[changed] = rng.choice(strange, changed.sum())
    return pd.concat([hard, pd.DataFrame(values, columns=COLUMNS)])


def check_plain(classifier, tolerance, **fit_arguments):
    rng = np.random.default_rng(5)
    X, y = plain_rows(1500, rng)
    if "eval_set" in fit_arguments:
        later, outcomes = plain_rows(500, rng)
        fit_arguments["eval_set"] = [(later.to_numpy(), outcomes)]
    rounded = ColumnTransformer([("numeric", FunctionTransformer(round_to_float32), COLUMNS)])
    model = Pipeline([("preprocessing", rounded), ("classifier", classifier)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(X, y, **{f"classifier__{name}": value for name, value in fit_arguments.items()})
    assert difference(model, convert_model(model, COLUMNS, []), probes(X, model, rng)) <= tolerance
    return model


LIGHTGBM_SETTINGS = st.fixed_dictionaries(
    {
        "num_leaves": st.integers(2, 40),
        "n_estimators": st.integers(1, 60),
        "min_child_samples": st.sampled_from([1, 20, 2000]),
        "boosting_type": st.sampled_from(["gbdt", "dart", "rf"]),
        "data_sample_strategy": st.sampled_from(["bagging", "goss"]),
        "extra_trees": st.booleans(),
        "zero_as_missing": st.booleans(),
        "use_missing": st.booleans(),
        "sigmoid": st.sampled_from([1.0, 0.5]),
        "objective": st.sampled_from(["binary", "cross_entropy"]),
        "max_cat_to_onehot": st.sampled_from([1, 4]),
        "min_data_per_group": st.just(1),
        "cat_smooth": st.just(1.0),
    }
)


@settings(max_examples=25, deadline=None)
@given(chosen=LIGHTGBM_SETTINGS, categorical=st.booleans(), stops=st.booleans())
def test_lightgbm_is_equivalent_with_any_settings(chosen, categorical, stops):
    if chosen["boosting_type"] == "rf":
        chosen = {**chosen, "subsample": 0.6, "subsample_freq": 1, "data_sample_strategy": "bagging"}
    if chosen["objective"] == "cross_entropy":
        chosen.pop("sigmoid")
    more = {"categorical_feature": [4]} if categorical else {}
    if stops and chosen["boosting_type"] != "dart":
        more |= {"eval_set": True, "callbacks": [early_stopping(3, verbose=False)]}
    check_plain(LGBMClassifier(**chosen, n_jobs=1, verbosity=-1, random_state=0), EXACT, **more)


def test_lightgbm_splits_on_categories():
    """The property above would pass without a single categorical split."""
    model = check_plain(
        LGBMClassifier(n_estimators=20, max_cat_to_onehot=1, min_data_per_group=1, verbosity=-1, n_jobs=1),
        EXACT,
        categorical_feature=[4],
    )
    sets = [members for tree in trees_of(model[-1]) for members in tree.categories.values()]
    assert max(len(members) for members in sets) > 1
    assert {member for members in sets for member in members} >= {1, 5, 32, 64}


def test_lightgbm_predicts_with_the_trees_up_to_the_best_iteration():
    classifier = LGBMClassifier(n_estimators=500, verbosity=-1, n_jobs=1, learning_rate=0.3)
    model = check_plain(classifier, EXACT, eval_set=True, callbacks=[early_stopping(5, verbose=False)])
    assert len(trees_of(model[-1])) == model[-1].best_iteration_ < 100


@settings(max_examples=15, deadline=None)
@given(
    chosen=st.fixed_dictionaries(
        {
            "max_depth": st.integers(1, 8),
            "n_estimators": st.integers(1, 60),
            "booster": st.sampled_from(["gbtree", "dart"]),
            "tree_method": st.sampled_from(["hist", "exact", "approx"]),
            "num_parallel_tree": st.sampled_from([1, 2]),
            "base_score": st.sampled_from([None, 0.1]),
            "rate_drop": st.just(0.2),
        }
    ),
    stops=st.booleans(),
)
def test_xgboost_is_equivalent_with_any_settings(chosen, stops):
    if chosen["booster"] == "gbtree":
        chosen.pop("rate_drop")
    stops = stops and chosen["booster"] == "gbtree"
    classifier = XGBClassifier(**chosen, n_jobs=1, random_state=0, early_stopping_rounds=3 if stops else None)
    check_plain(classifier, 1e-6, **({"eval_set": True, "verbose": False} if stops else {}))


def test_a_thousand_trees_of_xgboost_are_added_in_its_order():
    """A sum in float64 differs from XGBoost's sum in float32 by more than 1e-6."""
    model = check_plain(XGBClassifier(n_estimators=1000, learning_rate=0.02, n_jobs=1), SINGLE)
    assert len(trees_of(model[-1])) == 1000


@settings(max_examples=15, deadline=None)
@given(
    chosen=st.fixed_dictionaries(
        {
            "depth": st.integers(1, 8),
            "iterations": st.integers(1, 60),
            "boosting_type": st.sampled_from(["Plain", "Ordered"]),
            "nan_mode": st.sampled_from(["Min", "Max"]),
            "loss_function": st.sampled_from(["Logloss", "CrossEntropy"]),
            "boost_from_average": st.booleans(),
        }
    ),
    stops=st.booleans(),
)
def test_catboost_is_equivalent_with_any_settings(chosen, stops):
    more = {"eval_set": True, "early_stopping_rounds": 3} if stops else {}
    check_plain(CatBoostClassifier(**chosen, thread_count=1, verbose=False, allow_writing_files=False), EXACT, **more)


def test_a_stored_model_predicts_the_same_to_the_last_bit(library, customers):
    made = customers("mixed")
    model = fit(made, library, **COPIES)
    stored = skops.io.dumps(model)
    assert set(skops.io.get_untrusted_types(data=stored)) <= set(TRUSTED_TYPES)
    loaded = skops.io.loads(stored, trusted=list(TRUSTED_TYPES))
    hard = hard_rows(made.X, model, made.numeric, made.categorical, np.random.default_rng(0), limit=2000)
    np.testing.assert_array_equal(loaded.predict_proba(hard), model.predict_proba(hard))
    digests = [model_digest(convert_model(each, made.numeric, made.categorical)) for each in (model, loaded)]
    assert digests[0] == digests[1]


def test_a_model_that_stopped_early_is_stored_with_its_best_iteration():
    classifier = LGBMClassifier(n_estimators=500, verbosity=-1, n_jobs=1, learning_rate=0.3)
    model = check_plain(classifier, EXACT, eval_set=True, callbacks=[early_stopping(5, verbose=False)])
    loaded = skops.io.loads(skops.io.dumps(model), trusted=list(TRUSTED_TYPES))
    X, _ = plain_rows(300, np.random.default_rng(1))
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))


def test_the_digest_is_the_same_on_one_and_two_threads(library, customers):
    made = customers("mixed")
    rng = np.random.default_rng(0)
    rows = rng.integers(len(made.X), size=20_000)
    made = made._replace(X=made.X.iloc[rows].assign(months=rng.uniform(0, 70, len(rows))), y=made.y[rows])
    digests = set()
    for threads in (1, 2):
        with threadpool_limits(threads):
            model = fit(made, library)
        digests.add(model_digest(convert_model(model, made.numeric, made.categorical)))
    assert len(digests) == 1


PROGRAM = """
from tests.modelling.conftest import make_customers
from tests.modelling.test_onnx_boosting import COPIES, LIBRARIES, fit
from churn_pipeline.modelling.onnx_conversion import convert_model, model_digest

made = make_customers("mixed")
for library in LIBRARIES:
    print(model_digest(convert_model(fit(made, library, **COPIES), made.numeric, made.categorical)))
"""


def test_a_fit_in_another_process_with_two_threads_gives_the_same_digest(customers, monkeypatch):
    made = customers("mixed")
    here = [
        model_digest(convert_model(fit(made, each, **COPIES), made.numeric, made.categorical)) for each in LIBRARIES
    ]
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    there = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert there.stdout.split() == here


def test_hard_rows_reveal_splits_that_are_off_by_the_rounding_to_float32(library, customers):
    made = customers("mixed")
    model = fit(made, library)
    converted = convert_model(model, made.numeric, made.categorical)
    (trees,) = (node for node in converted.graph.node if node.op_type == "TreeEnsemble")
    (splits,) = (attribute for attribute in trees.attribute if attribute.name == "nodes_splits")
    exact = np.frombuffer(splits.t.raw_data)
    splits.t.raw_data = np.nextafter(exact.astype(np.float32), np.float32(np.inf)).astype(np.float64).tobytes()
    hard = hard_rows(made.X, model, made.numeric, made.categorical, np.random.default_rng(0), limit=4000)
    assert difference(model, converted, hard) > 0.001


def test_split_values_are_among_the_hard_rows(library, customers):
    made = customers("numeric")
    model = fit(made, library)
    assert all(len(cut_points(model, made.numeric)[column]) > 5 for column in ("months", "monthly charge"))


@pytest.mark.parametrize(
    ("library", "arguments", "message"),
    [
        ("lightgbm", {"linear_tree": True}, "leave linear_tree out"),
        ("lightgbm", {"objective": "regression"}, "objective regression.*leave objective out"),
        ("xgboost", {"booster": "gblinear"}, "has no trees"),
        ("xgboost", {"objective": "binary:hinge"}, "use binary:logistic"),
        ("catboost", {"grow_policy": "Depthwise"}, "leave grow_policy at SymmetricTree"),
        ("catboost", {"loss_function": "Focal:focal_alpha=0.5;focal_gamma=0.1"}, "use loss_function: Logloss"),
    ],
)
def test_a_model_without_a_conversion_is_refused_with_the_remedy(library, arguments, message, customers):
    made = customers("numeric")
    with pytest.raises(OnnxConversionError, match=message):
        convert_model(fit(made, library, arguments=arguments), made.numeric, [])


@pytest.mark.parametrize(
    ("classifier", "fit_arguments", "message"),
    [
        (
            XGBClassifier(
                enable_categorical=True, feature_types=["q"] * 5 + ["c"], n_estimators=5, max_cat_to_onehot=1
            ),
            {},
            "leave enable_categorical out",
        ),
        (
            CatBoostClassifier(iterations=5, verbose=False, allow_writing_files=False, one_hot_max_size=1),
            {"cat_features": [1]},
            "leave cat_features",
        ),
    ],
)
def test_splits_on_categories_of_other_libraries_are_refused(classifier, fit_arguments, message):
    X, y = plain_rows(500, np.random.default_rng(0))
    X = X.fillna(0.0)
    whole = FunctionTransformer(lambda frame: frame.astype({"whole": int, "noise": int}))
    model = Pipeline([("preprocessing", ColumnTransformer([("some", whole, COLUMNS)])), ("classifier", classifier)])
    model.set_output(transform="pandas")
    model.fit(X.abs(), y, **{f"classifier__{name}": value for name, value in fit_arguments.items()})
    with pytest.raises(OnnxConversionError, match=message):
        trees_of(model[-1])
