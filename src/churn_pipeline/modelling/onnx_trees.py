"""Ensembles of trees: how they are read from scikit-learn and written to ONNX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import numpy_helper
from sklearn.ensemble import (
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.pipeline import Pipeline
from sklearn.tree import DecisionTreeClassifier

from churn_pipeline.modelling.onnx_catboost import read_catboost
from churn_pipeline.modelling.onnx_graph import ML_DOMAIN, Graph, OnnxConversionError
from churn_pipeline.modelling.onnx_lightgbm import read_lightgbm
from churn_pipeline.modelling.onnx_xgboost import read_xgboost
from churn_pipeline.modelling.sklearn_private import histogram_tree_nodes
from churn_pipeline.modelling.trees import Boosting, Tree

# Codes of the operator TreeEnsemble.
LESS_OR_EQUAL, MEMBER, SUM, NO_TRANSFORM = 0, 6, 1, 0

# By class name, because importing a library takes time and XGBoost and CatBoost need not be installed.
READERS: dict[str, Callable[[Any], Boosting]] = {
    "LGBMClassifier": read_lightgbm,
    "XGBClassifier": read_xgboost,
    "CatBoostClassifier": read_catboost,
}


@dataclass(frozen=True)
class _Branches:
    """Inner nodes and leaves of one tree, in the two lists in which ONNX keeps those of all trees.

    A tree that is a single leaf becomes an inner node whose branches both lead to that leaf.
    """

    feature: npt.NDArray[np.int64]
    mode: npt.NDArray[np.uint8]
    threshold: npt.NDArray[np.float64]
    members: npt.NDArray[np.float64]
    missing_left: npt.NDArray[np.int64]
    left: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]
    left_is_leaf: npt.NDArray[np.bool_]
    right_is_leaf: npt.NDArray[np.bool_]
    leaf_value: npt.NDArray[np.float64]


def trees_of(classifier: Any) -> list[Tree]:
    """Read the trees of a fitted classifier.

    Parameters
    ----------
    classifier : estimator
        A fitted binary classifier.

    Returns
    -------
    list of Tree
        Its trees, including those of all copies; empty if this module does not know the classifier. The value of a leaf
        is the probability of class 1 for forests, and a summand of the log-odds for boosting.

    Raises
    ------
    OnnxConversionError
        If a tree cannot be converted to ONNX.
    """
    if read := READERS.get(type(classifier).__name__):
        return read(classifier).trees
    if isinstance(classifier, HistGradientBoostingClassifier):
        return [_tree_of_histogram(nodes) for nodes in histogram_tree_nodes(classifier)]
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
            "Step classifier splits on categories, which has no conversion to ONNX: leave categorical_features out, and use "
            "one-hot encoded columns."
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


def add_trees(graph: Graph, trees: Sequence[Tree], features: str, summed: bool = True) -> str:
    """Add an ensemble of trees as one node, in float64.

    Parameters
    ----------
    graph : Graph
        The graph to add to.
    trees : Sequence of Tree
        At least one tree.
    features : str
        Name of the input: float64 of shape (n_rows, n_features).
    summed : bool, default=True
        Whether to return the sum of the trees, or each of them.

    Returns
    -------
    str
        Name of the output: float64 of shape (n_rows, 1) or (n_rows, len(trees)).
    """
    parts: list[_Branches] = []
    roots: list[int] = []
    n_inner = n_leaves = 0
    for tree in trees:
        roots.append(n_inner)
        parts.append(part := _branches(tree, n_inner, n_leaves))
        n_inner += len(part.feature)
        n_leaves += len(part.leaf_value)

    def joined(name: str) -> npt.NDArray[Any]:
        return np.concatenate([getattr(part, name) for part in parts])

    def integers(name: str) -> list[int]:
        return [int(value) for value in joined(name)]

    members = joined("members")
    sets = {"membership_values": numpy_helper.from_array(members, "members")} if len(members) else {}
    return graph.node(
        "TreeEnsemble",
        features,
        domain=ML_DOMAIN,
        n_targets=1 if summed else len(trees),
        aggregate_function=SUM,
        post_transform=NO_TRANSFORM,
        tree_roots=roots,
        nodes_modes=numpy_helper.from_array(joined("mode"), "modes"),
        nodes_splits=numpy_helper.from_array(joined("threshold"), "splits"),
        nodes_featureids=integers("feature"),
        nodes_missing_value_tracks_true=integers("missing_left"),
        nodes_truenodeids=integers("left"),
        nodes_falsenodeids=integers("right"),
        nodes_trueleafs=integers("left_is_leaf"),
        nodes_falseleafs=integers("right_is_leaf"),
        leaf_targetids=[0 if summed else target for target, part in enumerate(parts) for _ in part.leaf_value],
        leaf_weights=numpy_helper.from_array(joined("leaf_value"), "leaves"),
        **sets,
    )


def _branches(tree: Tree, n_inner: int, n_leaves: int) -> _Branches:
    """Lay out a tree behind `n_inner` inner nodes and `n_leaves` leaves of earlier trees."""
    is_leaf = tree.left < 0
    # Position of each node in the list that it belongs to.
    position = np.where(is_leaf, n_leaves + np.cumsum(is_leaf) - 1, n_inner + np.cumsum(~is_leaf) - 1)
    only_leaf = np.array([0])
    inner = only_leaf if is_leaf[0] else np.flatnonzero(~is_leaf)
    left, right = (only_leaf, only_leaf) if is_leaf[0] else (tree.left[inner], tree.right[inner])
    # Sets of categories are in the order of their nodes, and NaN ends each of them.
    members = [[*tree.categories[node], np.nan] for node in inner.tolist() if node in tree.categories]
    return _Branches(
        feature=np.maximum(tree.feature[inner], 0),
        mode=np.where(np.isin(inner, list(tree.categories)), MEMBER, LESS_OR_EQUAL).astype(np.uint8),
        threshold=tree.threshold[inner],
        members=np.array([value for values in members for value in values], dtype=np.float64),
        missing_left=tree.missing_left[inner],
        left=position[left],
        right=position[right],
        left_is_leaf=is_leaf[left],
        right_is_leaf=is_leaf[right],
        leaf_value=tree.value[is_leaf],
    )
