"""How each classifier is written in ONNX.

Trees and logistic regression are written here, in double: scikit-learn's converter has no missing values in trees, no
histogram gradient boosting, and rounds the rest to float32. Every other classifier is left to that converter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper
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

from churn_pipeline.modelling.onnx_columns import convert_step
from churn_pipeline.modelling.onnx_graph import ML_DOMAIN, ML_OPSET, OPSET, Graph, OnnxConversionError

CONVERTER_ML_OPSET = 3
# What version 5 of ai.onnx.ml has withdrawn, and the converter still writes.
WITHDRAWN = {"TreeEnsembleClassifier", "TreeEnsembleRegressor"}


@dataclass(frozen=True)
class Tree:
    """One tree, as arrays over its nodes; children of a leaf are -1 and what it holds besides ``value`` is not read."""

    feature: npt.NDArray[np.int64]
    threshold: npt.NDArray[np.float64]
    left: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]
    missing_left: npt.NDArray[np.int64]
    value: npt.NDArray[np.float64]


def trees_of(classifier: Any) -> list[Tree]:
    """Read the trees of a fitted classifier.

    Parameters
    ----------
    classifier : estimator
        A fitted binary classifier.

    Returns
    -------
    list of Tree
        Its trees, those of all copies; none, if it is not made of trees known here. The value of a leaf is the
        probability of class 1 for forests, and its share of the log-odds for boosting.

    Raises
    ------
    OnnxConversionError
        If a tree splits on categories.
    """
    if isinstance(classifier, HistGradientBoostingClassifier):
        return [_tree_of_histogram(predictor.nodes) for stage in classifier._predictors for predictor in stage]
    if isinstance(classifier, GradientBoostingClassifier):
        return [_tree_of_sklearn(stage.tree_, 0, classifier.learning_rate) for stage in classifier.estimators_.ravel()]
    if isinstance(classifier, RandomForestClassifier | ExtraTreesClassifier):
        return [_tree_of_sklearn(member.tree_, 1, 1.0) for member in classifier.estimators_]
    if isinstance(classifier, DecisionTreeClassifier):
        return [_tree_of_sklearn(classifier.tree_, 1, 1.0)]
    if isinstance(classifier, BaggingClassifier):
        return [tree for copy in classifier.estimators_ for tree in trees_of(copy)]
    if isinstance(classifier, Pipeline):
        return trees_of(classifier[-1])
    return []


def _tree_of_sklearn(tree: Any, output: int, factor: float) -> Tree:
    return Tree(
        feature=tree.feature.astype(np.int64),
        threshold=tree.threshold.astype(np.float64),
        left=tree.children_left.astype(np.int64),
        right=tree.children_right.astype(np.int64),
        missing_left=tree.missing_go_to_left.astype(np.int64),
        value=factor * tree.value[:, 0, output],
    )


def _tree_of_histogram(nodes: npt.NDArray[np.void]) -> Tree:
    if nodes["is_categorical"].any():
        raise OnnxConversionError(
            "Step classifier splits on categories (categorical_features); one-hot encoded columns compile."
        )
    leaf = nodes["is_leaf"].astype(bool)
    return Tree(
        feature=nodes["feature_idx"].astype(np.int64),
        threshold=nodes["num_threshold"].astype(np.float64),
        left=np.where(leaf, -1, nodes["left"].astype(np.int64)),
        right=np.where(leaf, -1, nodes["right"].astype(np.int64)),
        missing_left=nodes["missing_go_to_left"].astype(np.int64),
        value=nodes["value"].astype(np.float64),
    )


def convert_classifier(graph: Graph, classifier: Any, features: str) -> str:
    """Write a fitted classifier.

    Parameters
    ----------
    graph : Graph
        Where to add it.
    classifier : estimator
        A fitted classifier of the classes 0 and 1.
    features : str
        Its input: double, of shape (n_rows, n_features).

    Returns
    -------
    str
        The name of the probability of class 1: double, of shape (n_rows, 1).

    Raises
    ------
    OnnxConversionError
        If the classes are not 0 and 1, or the classifier cannot be converted.
    """
    if [int(label) for label in classifier.classes_] != [0, 1]:
        raise OnnxConversionError(
            f"Step classifier knows the classes {list(classifier.classes_)}; fit it on 0 (stayed) and 1 (churned)."
        )
    lower = _CONVERTERS.get(type(classifier), _convert_by_skl2onnx)
    return lower(graph, classifier, features)


def _convert_linear(graph: Graph, classifier: Any, features: str) -> str:
    """Write a classifier whose probability is the logistic function of a weighted sum."""
    product = graph.node("MatMul", features, graph.constant(np.asarray(classifier.coef_, dtype=np.float64).T))
    return graph.node("Sigmoid", graph.node("Add", product, graph.constant(classifier.intercept_)))


def _convert_histogram_boosting(graph: Graph, classifier: HistGradientBoostingClassifier, features: str) -> str:
    base = graph.constant(np.ravel(classifier._baseline_prediction))
    total = _add_trees(graph, trees_of(classifier), features) if classifier._predictors else base
    return graph.node("Sigmoid", graph.node("Add", total, base))


def _convert_boosting(graph: Graph, classifier: GradientBoostingClassifier, features: str) -> str:
    if classifier.init not in (None, "zero"):
        raise OnnxConversionError("Step classifier starts from an estimator (init); leave init out.")
    base = classifier._raw_predict_init(np.zeros((1, classifier.n_features_in_)))
    # Its trees read float32, whatever they are handed.
    rounded = graph.cast(graph.cast(features, TensorProto.FLOAT), TensorProto.DOUBLE)
    score = graph.node("Add", _add_trees(graph, trees_of(classifier), rounded), graph.constant(base.ravel()))
    if classifier.loss == "exponential":
        score = graph.node("Mul", score, graph.constant(2.0))
    return graph.node("Sigmoid", score)


def _convert_forest(graph: Graph, classifier: Any, features: str) -> str:
    trees = trees_of(classifier)
    rounded = graph.cast(graph.cast(features, TensorProto.FLOAT), TensorProto.DOUBLE)
    return graph.node("Div", _add_trees(graph, trees, rounded), graph.constant(float(len(trees))))


def _convert_copies(graph: Graph, classifier: BaggingClassifier, features: str) -> str:
    """Write the mean of what the copies say, added up in their order."""
    everything = np.arange(classifier.n_features_in_)
    if any(not np.array_equal(held, everything) for held in classifier.estimators_features_):
        raise OnnxConversionError("Step classifier shows its copies some features only; leave max_features at 1.0.")
    total, *others = (convert_classifier(graph, copy, features) for copy in classifier.estimators_)
    for other in others:
        total = graph.node("Add", total, other)
    return graph.node("Div", total, graph.constant(float(len(classifier.estimators_))))


def _convert_pipeline(graph: Graph, classifier: Pipeline, features: str) -> str:
    """Write a classifier that has steps of its own in front."""
    for name, step in classifier.steps[:-1]:
        features = convert_step(graph, step, features, f"classifier.{name}")
    return convert_classifier(graph, classifier[-1], features)


def _add_trees(graph: Graph, trees: Iterable[Tree], features: str) -> str:
    """Add an ensemble of trees as one node that sums their leaves; thresholds and leaves stay in double.

    ONNX keeps inner nodes and leaves in two lists. A tree that is one leaf becomes a node whose branches both lead to it.
    """
    columns: dict[str, list[npt.NDArray[Any]]] = {
        name: [] for name in ("feature", "threshold", "missing", "true", "false", "true_leaf", "false_leaf", "leaf")
    }
    roots: list[int] = []
    n_inner = n_leaves = 0
    for tree in trees:
        roots.append(n_inner)
        is_leaf = tree.left < 0
        # Position of every node in the list it belongs to.
        position = np.where(is_leaf, n_leaves + np.cumsum(is_leaf) - 1, n_inner + np.cumsum(~is_leaf) - 1)
        inner = np.flatnonzero(~is_leaf) if not is_leaf[0] else np.array([0])
        left, right = (tree.left[inner], tree.right[inner]) if not is_leaf[0] else (np.array([0]), np.array([0]))
        columns["feature"].append(np.maximum(tree.feature[inner], 0))
        columns["threshold"].append(tree.threshold[inner])
        columns["missing"].append(tree.missing_left[inner])
        columns["true"].append(position[left])
        columns["false"].append(position[right])
        columns["true_leaf"].append(is_leaf[left])
        columns["false_leaf"].append(is_leaf[right])
        columns["leaf"].append(tree.value[is_leaf])
        n_inner += len(inner)
        n_leaves += int(is_leaf.sum())
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    integers = {name: joined[name].astype(np.int64).tolist() for name in joined if name not in ("threshold", "leaf")}
    return graph.node(
        "TreeEnsemble",
        features,
        domain=ML_DOMAIN,
        n_targets=1,
        aggregate_function=1,  # sum
        post_transform=0,  # none
        tree_roots=roots,
        nodes_modes=numpy_helper.from_array(np.zeros(n_inner, dtype=np.uint8), "modes"),  # 0: left if x <= threshold
        nodes_splits=numpy_helper.from_array(joined["threshold"], "splits"),
        nodes_featureids=integers["feature"],
        nodes_missing_value_tracks_true=integers["missing"],
        nodes_truenodeids=integers["true"],
        nodes_falsenodeids=integers["false"],
        nodes_trueleafs=integers["true_leaf"],
        nodes_falseleafs=integers["false_leaf"],
        leaf_targetids=[0] * n_leaves,
        leaf_weights=numpy_helper.from_array(joined["leaf"], "leaves"),
    )


def _convert_by_skl2onnx(graph: Graph, classifier: Any, features: str) -> str:
    """Let scikit-learn's converter write the classifier, in double if it can, else in float32."""
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

    problem: Exception | None = None
    for tensor, kind in ((DoubleTensorType, TensorProto.DOUBLE), (FloatTensorType, TensorProto.FLOAT)):
        try:
            converted = to_onnx(
                classifier,
                initial_types=[("features", tensor([None, classifier.n_features_in_]))],
                options={id(classifier): {"zipmap": False}},
                target_opset={"": OPSET, ML_DOMAIN: CONVERTER_ML_OPSET},
            )
            _check_loads(converted)
        except Exception as error:  # the converter raises whatever it happens to meet
            problem = error
            continue
        return _embed(graph, converted, graph.cast(features, kind))
    raise OnnxConversionError(
        f"Step classifier ({type(classifier).__name__}) cannot be converted to ONNX: {problem}. Choose another class, or "
        "add a conversion to onnx_classifiers.py."
    ) from problem


def check_operators(graph: Graph) -> None:
    """Refuse trees in our writing beside trees in the converter's: no one version of ai.onnx.ml has both.

    Parameters
    ----------
    graph : Graph
        All that was written.

    Raises
    ------
    OnnxConversionError
        If both are there, which takes a blend.
    """
    operators = {node.op_type for node in graph.nodes}
    if "TreeEnsemble" in operators and operators & WITHDRAWN:
        raise OnnxConversionError(
            "A blend of trees that are written here with trees that are left to scikit-learn's converter does not "
            "compile: leave one of them out of the candidates, do without blends, or add a conversion to "
            "onnx_classifiers.py."
        )


def _check_loads(model: onnx.ModelProto) -> None:
    from onnxruntime import InferenceSession

    InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def _embed(graph: Graph, model: onnx.ModelProto, features: str) -> str:
    """Copy a converted classifier's nodes into the graph, under names of the graph's own."""
    names = {model.graph.input[0].name: features, "": ""}
    for constant in model.graph.initializer:
        names[constant.name] = graph.adopt(constant)
    for node in model.graph.node:
        name = f"{node.op_type}_{len(graph.nodes)}"
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        names.update({output: f"{name}_{index}" for index, output in enumerate(node.output) if output})
        copied.name = name
        copied.input[:] = [names[value] for value in node.input]
        copied.output[:] = [names[value] for value in node.output]
        graph.nodes.append(copied)
    # A model names one version per domain. The converter was asked for OPSET, and states a lower one where that would do
    # for it; of ai.onnx.ml the lower one is needed for what was withdrawn, and all else reads alike in both.
    if any(node.op_type in WITHDRAWN for node in model.graph.node):
        graph.opsets[ML_DOMAIN] = CONVERTER_ML_OPSET
    elif any(node.domain == ML_DOMAIN for node in model.graph.node):
        graph.opsets.setdefault(ML_DOMAIN, ML_OPSET)
    probabilities = graph.cast(names[model.graph.output[1].name], TensorProto.DOUBLE)
    return graph.node("Gather", probabilities, graph.constant([1], np.int64), axis=1)


_CONVERTERS: dict[type[Any], Callable[[Graph, Any, str], str]] = {
    LogisticRegression: _convert_linear,
    LinearDiscriminantAnalysis: _convert_linear,  # the converter's own answers are off by up to 0.15
    HistGradientBoostingClassifier: _convert_histogram_boosting,
    GradientBoostingClassifier: _convert_boosting,
    RandomForestClassifier: _convert_forest,
    ExtraTreesClassifier: _convert_forest,
    DecisionTreeClassifier: _convert_forest,
    BaggingClassifier: _convert_copies,
    Pipeline: _convert_pipeline,
}
