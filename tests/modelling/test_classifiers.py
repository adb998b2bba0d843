"""Arguments and imports of classifiers."""

import logging
import subprocess
import sys

import numpy as np
import pytest
from pydantic import ValidationError

from churn_pipeline.modelling import classifiers
from churn_pipeline.modelling.candidates import Candidate, build_candidate

LIGHTGBM, XGBOOST, CATBOOST = "lightgbm.LGBMClassifier", "xgboost.XGBClassifier", "catboost.CatBoostClassifier"


def built(path, **arguments):
    return build_candidate(Candidate.model_validate({"class": path, "arguments": arguments}), ["a"], [], seed=5)[-1]


@pytest.mark.parametrize(
    ("path", "wrong", "known"),
    [
        (LIGHTGBM, "num_leafs", "num_leaves"),
        (LIGHTGBM, "num leaves", "num_leaves"),
        (XGBOOST, "num_leafs", "max_leaves"),
        (CATBOOST, "num_leafs", "max_leaves"),
    ],
)
def test_a_misspelt_argument_is_refused(path, wrong, known):
    with pytest.raises(ValidationError, match=rf"arguments \['{wrong}'\] are unknown to {path}; it accepts .*{known}"):
        Candidate.model_validate({"class": path, "arguments": {wrong: 3}})
    space = {"arguments": {wrong: {"low": 2, "high": 3}}}
    with pytest.raises(ValidationError, match=rf"space.arguments \['{wrong}'\] are unknown"):
        Candidate.model_validate({"class": path, "space": space})


def test_lightgbm_accepts_all_training_parameters_and_their_aliases():
    names = [
        "num_leaf",
        "feature_fraction_bynode",
        "path_smooth",
        "extra_trees",
        "max_bin",
        "cat_smooth",
        "bagging_seed",
    ]
    assert Candidate.model_validate({"class": LIGHTGBM, "arguments": dict.fromkeys(names, 1)})


def test_checking_the_names_leaves_no_listener_at_lightgbm(caplog, capfd):
    import lightgbm

    with pytest.raises(ValidationError):
        Candidate.model_validate({"class": LIGHTGBM, "arguments": {"num_leafs": 3}})
    with caplog.at_level(logging.INFO, logger="lightgbm"):
        lightgbm.Dataset(np.zeros((2, 1)), params={"num_leafs": 3, "verbosity": 0}).construct()
    assert "Unknown parameter: num_leafs" in caplog.text
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("path", "defaults"),
    [
        (LIGHTGBM, {"n_jobs": 0, "deterministic": True, "force_col_wise": True, "verbosity": -1, "random_state": 5}),
        (XGBOOST, {"n_jobs": 1, "random_state": 5}),
        (CATBOOST, {"thread_count": 1, "verbose": False, "allow_writing_files": False, "random_state": 5}),
    ],
)
def test_boosting_libraries_are_silent_and_reproducible_unless_configured_otherwise(path, defaults):
    assert built(path).get_params().items() >= defaults.items()
    assert built(path, random_state=9).get_params()["random_state"] == 9


@pytest.mark.parametrize(
    ("path", "error", "remedy"),
    [
        (LIGHTGBM, OSError("libgomp.so.1: cannot open shared object file"), r"libgomp\.so\.1.*apt install libgomp1"),
        (XGBOOST, ModuleNotFoundError("No module named 'xgboost'"), r"pip install 'churn-pipeline\[boosters\]'"),
        (CATBOOST, ModuleNotFoundError("No module named 'catboost'"), r"pip install 'churn-pipeline\[boosters\]'"),
    ],
)
def test_an_import_that_fails_is_refused_with_the_remedy(path, error, remedy, monkeypatch):
    def fail(name):
        raise error

    monkeypatch.setattr(classifiers, "import_module", fail)
    with pytest.raises(ValidationError, match=remedy):
        Candidate.model_validate({"class": path})


IMPORTS = """
import sys
import churn_pipeline.modelling.candidates, churn_pipeline.modelling.onnx_conversion, churn_pipeline.modelling.hard_rows
print(sorted({"lightgbm", "xgboost", "catboost"} & set(sys.modules)))
"""
THREADS = """
import numpy as np, psutil
from threadpoolctl import threadpool_limits
from churn_pipeline.modelling.candidates import Candidate, build_candidate
X = np.random.default_rng(0).normal(size=(5000, 5))
model = build_candidate(Candidate.model_validate({"class": "lightgbm.LGBMClassifier"}), ["a"], [], seed=0)[-1]
for limit in (1, 2):
    before = psutil.Process().num_threads()
    with threadpool_limits(limit, user_api="openmp"):
        model.fit(X, X[:, 0] > 0)
    print(psutil.Process().num_threads() - before)
"""


def run(program):
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()


def test_no_boosting_library_is_imported_before_it_is_used():
    assert run(IMPORTS) == ["[]"]


def test_lightgbm_follows_a_limit_of_openmp_threads():
    """`reproducible_threads` and `validate_fold` limit threads this way."""
    assert run(THREADS) == ["0", "1"]
