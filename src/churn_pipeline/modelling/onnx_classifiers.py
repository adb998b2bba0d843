"""Conversion of each classifier to ONNX.

Trees and logistic regression are converted here, in float64. skl2onnx ignores missing values in trees, fails on histogram
gradient boosting, and rounds the others to float32. It converts every other classifier.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto
from scipy.special import logit
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.tree import DecisionTreeClassifier

from churn_pipeline.modelling.kernels import NystroemClassifier
from churn_pipeline.modelling.networks import NetworkClassifier
from churn_pipeline.modelling.onnx_boosting import convert_boosting
from churn_pipeline.modelling.onnx_columns import convert_step
from churn_pipeline.modelling.onnx_graph import Graph, OnnxConversionError
from churn_pipeline.modelling.onnx_members import convert_network, convert_nystroem
from churn_pipeline.modelling.onnx_skl2onnx import convert_by_skl2onnx
from churn_pipeline.modelling.onnx_trees import READERS, add_trees, trees_of
from churn_pipeline.modelling.sklearn_private import histogram_baseline
from churn_pipeline.modelling.torch_network import TorchNetworkClassifier


def convert_classifier(graph: Graph, classifier: Any, features: str) -> str:
    """Convert a fitted classifier.

    Parameters
    ----------
    graph : Graph
        The graph to add to.
    classifier : estimator
        A fitted classifier of the classes 0 and 1.
    features : str
        Name of the input: float64 of shape (n_rows, n_features).

    Returns
    -------
    str
        Name of the probability of class 1: float64 of shape (n_rows, 1).

    Raises
    ------
    OnnxConversionError
        If the classes are not 0 and 1, or the classifier cannot be converted.
    """
    if [int(label) for label in classifier.classes_] != [0, 1]:
        raise OnnxConversionError(
            f"Step classifier was fitted on the classes {list(classifier.classes_)}: fit it on 0 (stayed) and 1 (churned)."
        )
    if type(classifier).__name__ in READERS:
        return convert_boosting(graph, classifier, features)
    convert = _CONVERTERS.get(type(classifier), convert_by_skl2onnx)
    return convert(graph, classifier, features)


def _convert_linear(graph: Graph, classifier: Any, features: str) -> str:
    """Convert a classifier whose probability is the logistic function of a weighted sum."""
    product = graph.node("MatMul", features, graph.constant(np.asarray(classifier.coef_, dtype=np.float64).T))
    return graph.node("Sigmoid", graph.node("Add", product, graph.constant(classifier.intercept_)))


def _convert_histogram_boosting(graph: Graph, classifier: HistGradientBoostingClassifier, features: str) -> str:
    base = graph.constant(histogram_baseline(classifier))
    total = add_trees(graph, trees_of(classifier), features) if classifier.n_iter_ else base
    return graph.node("Sigmoid", graph.node("Add", total, base))


def _convert_boosting(graph: Graph, classifier: GradientBoostingClassifier, features: str) -> str:
    if classifier.init not in (None, "zero"):
        raise OnnxConversionError(
            "Step classifier starts from an estimator (init), which has no conversion to ONNX: leave init out."
        )
    trees = add_trees(graph, trees_of(classifier), _as_float32(graph, features))
    score = graph.node("Add", trees, graph.constant(initial_score(classifier)))
    if classifier.loss == "exponential":
        score = graph.node("Mul", score, graph.constant(2.0))
    return graph.node("Sigmoid", score)


def initial_score(classifier: GradientBoostingClassifier) -> npt.NDArray[np.float64]:
    """Return the score to which the trees are added, of shape (1,), computed as scikit-learn computes it."""
    if classifier.init == "zero":
        return np.zeros(1)
    eps = np.finfo(np.float64).eps
    prior = classifier.init_.predict_proba(np.zeros((1, classifier.n_features_in_)))[:, 1]
    score: npt.NDArray[np.float64] = logit(np.clip(prior, eps, 1 - eps))
    return 0.5 * score if classifier.loss == "exponential" else score


def _convert_forest(graph: Graph, classifier: Any, features: str) -> str:
    trees = trees_of(classifier)
    total = add_trees(graph, trees, _as_float32(graph, features))
    return graph.node("Div", total, graph.constant(float(len(trees))))


def _as_float32(graph: Graph, features: str) -> str:
    """Round features to float32, which these trees convert every input to, and return them as float64."""
    return graph.cast(graph.cast(features, TensorProto.FLOAT), TensorProto.DOUBLE)


def _convert_copies(graph: Graph, classifier: BaggingClassifier, features: str) -> str:
    """Convert the mean of the copies' probabilities, summed in the order of the copies."""
    all_features = np.arange(classifier.n_features_in_)
    if any(not np.array_equal(used, all_features) for used in classifier.estimators_features_):
        raise OnnxConversionError(
            "Step classifier gives its copies only some features, which has no conversion to ONNX: leave max_features at 1.0."
        )
    total, *others = (convert_classifier(graph, copy, features) for copy in classifier.estimators_)
    for other in others:
        total = graph.node("Add", total, other)
    return graph.node("Div", total, graph.constant(float(len(classifier.estimators_))))


def _convert_pipeline(graph: Graph, classifier: Pipeline, features: str) -> str:
    """Convert a classifier that has its own preprocessing steps."""
    for name, step in classifier.steps[:-1]:
        features = convert_step(graph, step, features, f"classifier.{name}")
    return convert_classifier(graph, classifier[-1], features)


_CONVERTERS: dict[type[Any], Callable[[Graph, Any, str], str]] = {
    LogisticRegression: _convert_linear,
    LinearDiscriminantAnalysis: _convert_linear,  # skl2onnx's probabilities are off by up to 0.15
    HistGradientBoostingClassifier: _convert_histogram_boosting,
    GradientBoostingClassifier: _convert_boosting,
    RandomForestClassifier: _convert_forest,
    ExtraTreesClassifier: _convert_forest,
    DecisionTreeClassifier: _convert_forest,
    BaggingClassifier: _convert_copies,
    Pipeline: _convert_pipeline,
    NetworkClassifier: convert_network,
    TorchNetworkClassifier: convert_network,
    NystroemClassifier: convert_nystroem,
}
