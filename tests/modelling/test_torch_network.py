"""The network that PyTorch trains. Without PyTorch these tests are skipped, except for those of what needs none."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
import skops.io
from tests.modelling.conftest import make_customers

from churn_pipeline.modelling.candidates import Candidate, CandidatePipeline, build_candidate
from churn_pipeline.modelling.hard_rows import hard_rows
from churn_pipeline.modelling.onnx_conversion import convert_model, model_digest, predict_onnx
from churn_pipeline.modelling.torch_network import TorchNetworkClassifier
from churn_pipeline.modelling.trusted_types import TRUSTED_TYPES

needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")


def fit(kind: str = "mixed", seed: int = 0, copies: int = 1) -> CandidatePipeline:
    made = make_customers(kind)
    candidate = Candidate.model_validate(
        {
            "class": "churn_pipeline.modelling.torch_network.TorchNetworkClassifier",
            "numeric": "scaled",
            "arguments": {"n_members": 4, "width": 16, "max_iter": 20},
            "copies": copies,
        }
    )
    return build_candidate(candidate, made.numeric, made.categorical, seed).fit(made.X, made.y)


@needs_torch
@pytest.mark.parametrize("copies", [1, 2])
def test_it_is_equivalent_in_onnx_on_customers_and_on_hard_rows(kind: str, copies: int) -> None:
    made, model = make_customers(kind), fit(kind, copies=copies)
    converted = convert_model(model, made.numeric, made.categorical)
    hard = hard_rows(made.X, model, made.numeric, made.categorical, np.random.default_rng(0), limit=4000)
    for X in (made.X, hard):
        probability = model.predict_proba(X)[:, 1]
        assert np.ptp(probability) > 0.02
        assert np.abs(probability - predict_onnx(converted, X)).max() <= 1e-12


@needs_torch
def test_the_same_seed_gives_the_same_digest_and_another_seed_another() -> None:
    made = make_customers("mixed")
    digests = [model_digest(convert_model(fit(seed=seed), made.numeric, made.categorical)) for seed in (1, 1, 2)]
    assert digests[0] == digests[1] != digests[2]


@needs_torch
def test_numpy_predicts_what_torch_trained() -> None:
    """The stored weights of each member are the shared weights times the member's factors."""
    import torch

    from churn_pipeline.modelling.torch_network import _TorchTrainer

    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(300, 5)), rng.integers(0, 2, 300)
    trainer = _TorchTrainer(X, y, [5, 8, 8], 3, 0.01, 0)
    for _ in range(3):
        weights, biases = trainer.train_epoch()
    model = TorchNetworkClassifier()
    model.classes_, model.n_features_in_, model.weights_, model.biases_ = np.array([0, 1]), 5, weights, biases
    value = trainer.X
    with torch.no_grad():
        for shared, factors_in, factors_out, bias in trainer.layers:
            value = torch.relu(((value * factors_in) @ shared) * factors_out + bias)
        by_torch = torch.sigmoid(value @ trainer.head + trainer.head_bias).mean(dim=0).numpy().ravel()
    np.testing.assert_allclose(model.predict_proba(X)[:, 1], by_torch, atol=1e-6)


@needs_torch
def test_members_differ_and_learn() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3000, 4))
    y = (X[:, 0] * X[:, 1] + 0.3 * rng.normal(size=3000) > 0).astype(int)
    model = TorchNetworkClassifier(n_members=4, width=16, random_state=0).fit(X[:2000], y[:2000])
    assert (model.predict(X[2000:]) == y[2000:]).mean() > 0.8
    first = model.weights_[0]
    assert all(np.abs(first[0] - other).max() > 0.1 for other in first[1:])


@needs_torch
def test_a_stored_model_predicts_and_converts_without_torch(tmp_path) -> None:
    made, model = make_customers("mixed"), fit()
    (tmp_path / "model").write_bytes(skops.io.dumps(model))
    program = (
        "import sys, importlib.abc\n"
        "class NoTorch(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'torch': raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, NoTorch())\n"
        "import skops.io, numpy as np\n"
        "from tests.modelling.conftest import make_customers\n"
        "from churn_pipeline.modelling.trusted_types import TRUSTED_TYPES\n"
        "from churn_pipeline.modelling.onnx_conversion import convert_model, model_digest\n"
        "made = make_customers('mixed')\n"
        "model = skops.io.load(sys.argv[1], trusted=list(TRUSTED_TYPES))\n"
        "np.save(sys.argv[2], model.predict_proba(made.X))\n"
        "print(model_digest(convert_model(model, made.numeric, made.categorical)))\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "model"), str(tmp_path / "predicted.npy")]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "predicted.npy"), model.predict_proba(made.X))
    digest = model_digest(convert_model(model, made.numeric, made.categorical))
    assert answer.stdout.split() == [digest]


def test_without_torch_fitting_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    rng = np.random.default_rng(0)
    with pytest.raises(ImportError, match=r"install the extra torch.*or remove the candidate"):
        TorchNetworkClassifier().fit(rng.normal(size=(50, 2)), rng.integers(0, 2, 50))


def test_its_types_are_trusted() -> None:
    model = TorchNetworkClassifier()
    model.weights_, model.biases_ = [np.zeros((1, 2, 1))], [np.zeros((1, 1, 1))]
    assert set(skops.io.get_untrusted_types(data=skops.io.dumps(model))) <= set(TRUSTED_TYPES)
