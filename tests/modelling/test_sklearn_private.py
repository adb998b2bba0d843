"""scikit-learn's private attributes still mean what the conversion to ONNX assumes."""

import numpy as np
import pytest
from scipy.special import logit
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier

from churn_pipeline.modelling.onnx_classifiers import initial_score
from churn_pipeline.modelling.onnx_trees import trees_of
from churn_pipeline.modelling.sklearn_private import histogram_baseline, histogram_tree_nodes
from churn_pipeline.modelling.trees import Tree

X = np.random.default_rng(0).normal(size=(400, 3))
X[::7, 1] = np.nan
Y = (np.nan_to_num(X[:, 1]) + X[:, 0] > 0.8).astype(int)
CLASSIFIER = HistGradientBoostingClassifier(max_iter=20).fit(X, Y)
FIELDS = {"value", "feature_idx", "num_threshold", "missing_go_to_left", "left", "right", "is_leaf", "is_categorical"}


def predict(tree: Tree, row: np.ndarray) -> float:
    node = 0
    while tree.left[node] >= 0:
        value = row[tree.feature[node]]
        goes_left = tree.missing_left[node] if np.isnan(value) else value <= tree.threshold[node]
        node = tree.left[node] if goes_left else tree.right[node]
    return float(tree.value[node])


def test_the_trees_are_those_of_all_iterations() -> None:
    nodes = histogram_tree_nodes(CLASSIFIER)
    assert len(nodes) == CLASSIFIER.n_iter_ == 20
    assert set(nodes[0].dtype.names or ()) >= FIELDS


def test_baseline_and_trees_add_up_to_the_decision_function() -> None:
    baseline = histogram_baseline(CLASSIFIER)
    assert baseline.shape == (1,)
    assert baseline.dtype == np.float64
    scores = [baseline[0] + sum(predict(tree, row) for tree in trees_of(CLASSIFIER)) for row in X[:50]]
    np.testing.assert_allclose(scores, CLASSIFIER.decision_function(X[:50]), rtol=0, atol=1e-12)


def test_the_baseline_is_the_log_odds_of_the_churn_share() -> None:
    assert histogram_baseline(CLASSIFIER)[0] == pytest.approx(logit(Y.mean()), abs=1e-12)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.999])
@pytest.mark.parametrize("loss", ["log_loss", "exponential"])
@pytest.mark.parametrize("init", [None, "zero"])
def test_the_initial_score_of_exact_boosting_is_bit_equal_to_scikit_learns(
    share: float, loss: str, init: str | None
) -> None:
    """It is computed from public attributes; a difference in the last bit would change the model's digest."""
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(200, 3))
    churned = (rng.random(200) < share).astype(int)
    churned[:2] = [0, 1]
    classifier = GradientBoostingClassifier(n_estimators=3, loss=loss, init=init).fit(numbers, churned)
    expected = classifier._raw_predict_init(np.zeros((1, 3)))
    np.testing.assert_array_equal(initial_score(classifier), expected.ravel())
