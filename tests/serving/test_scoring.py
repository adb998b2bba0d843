import numpy as np
import onnxruntime
import pytest
from tests.serving.conftest import customers_of

from churn_pipeline.contract.cells import model_inputs
from churn_pipeline.modelling.onnx_conversion import model_inputs as onnx_inputs
from churn_pipeline.serving.bundle import Bundle
from churn_pipeline.serving.scoring import WARM_ROWS, Scorer


def inputs_of(bundle: Bundle) -> dict[str, np.ndarray]:
    """Customers as inputs of the ONNX model."""
    contract = bundle.contract
    return onnx_inputs(model_inputs(customers_of(contract), contract), bundle.numeric, bundle.categorical)


def test_probabilities_are_those_of_the_model_and_in_the_order_of_the_customers(bundle: Bundle) -> None:
    inputs = inputs_of(bundle)
    found = Scorer(bundle).probabilities(inputs["numeric"], inputs["categorical"])
    session = onnxruntime.InferenceSession(bundle.folder / "model.onnx")
    np.testing.assert_array_equal(found, session.run(None, inputs)[0])
    one_by_one = [
        Scorer(bundle).probabilities(inputs["numeric"][[row]], inputs["categorical"][[row]])[0] for row in range(20)
    ]
    np.testing.assert_allclose(found[:20], one_by_one, rtol=0, atol=1e-12)
    assert found.std() > 0.05, "the probabilities must differ"


def test_warming_up_runs_every_size(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer, seen = Scorer(bundle), []
    scored = scorer.probabilities
    monkeypatch.setattr(scorer, "probabilities", lambda numbers, levels: seen.append(len(scored(numbers, levels))))
    scorer.warm_up()
    assert tuple(seen) == WARM_ROWS
