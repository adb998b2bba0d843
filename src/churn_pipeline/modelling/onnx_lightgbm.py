"""Reading LightGBM's trees from its text format, which contains every number in 17 digits and therefore exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from churn_pipeline.modelling.onnx_graph import OnnxConversionError
from churn_pipeline.modelling.trees import Boosting, Tree

# Bits of a node's decision type; the kind of missing value is in the two bits above them.
CATEGORICAL, DEFAULT_LEFT, MISSING_SHIFT = 1, 2, 2
MISSING_IS_ZERO, MISSING_IS_NAN = 1, 2
# LightGBM predicts numbers of this size and smaller like 0.
ZERO = float(np.float32(1e-35))
WORD = 32  # sets of categories are bits in words of this size


def read_lightgbm(classifier: Any) -> Boosting:
    """Read the trees that a fitted LGBMClassifier predicts with.

    Parameters
    ----------
    classifier : LGBMClassifier
        Fitted on two classes. After early stopping, only the trees up to its best iteration count.

    Returns
    -------
    Boosting
        Its trees. The average churn share is part of their leaves.

    Raises
    ------
    OnnxConversionError
        If leaves are linear models, or the sum of the trees is not the log-odds.
    """
    body = classifier.booster_.model_to_string().partition("\nend of trees")[0]
    head, *blocks = body.split("\nTree=")
    header = _entries(head)
    trees = [_entries(block) for block in blocks]
    if any(tree.get("is_linear", "0") != "0" for tree in trees):
        raise OnnxConversionError(
            "Step classifier has linear models in its leaves, which have no conversion to ONNX: leave linear_tree out."
        )
    columns = {
        column for tree in trees for column, kind in zip(*_missing_kinds(tree), strict=True) if kind == MISSING_IS_ZERO
    }
    averaged = "average_output" in head.splitlines()
    return Boosting(
        trees=[_tree(tree) for tree in trees],
        factor=_sigmoid_factor(header.get("objective", "none")) / (len(trees) if averaged else 1),
        zero_is_missing=tuple(sorted(columns)),
    )


def _entries(block: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in block.splitlines() if "=" in line)


def _numbers(tree: dict[str, str], name: str, dtype: npt.DTypeLike = np.int64) -> npt.NDArray[Any]:
    return np.array(tree.get(name, "").split(), dtype=dtype)


def _missing_kinds(tree: dict[str, str]) -> tuple[list[int], list[int]]:
    """Feature and kind of missing value of each inner node."""
    return _numbers(tree, "split_feature").tolist(), (_numbers(tree, "decision_type") >> MISSING_SHIFT).tolist()


def _sigmoid_factor(objective: str) -> float:
    """Return the factor that the sum of the trees is multiplied by in front of the logistic function."""
    name, *settings = objective.split()
    if name == "binary":
        return float(dict(setting.partition(":")[::2] for setting in settings).get("sigmoid", "1"))
    if name == "cross_entropy":
        return 1.0
    raise OnnxConversionError(
        f"Step classifier has the objective {name}, which has no conversion to ONNX: leave objective out."
    )


def _tree(tree: dict[str, str]) -> Tree:
    """Put a tree's leaves behind its inner nodes; LightGBM refers to leaf i as -1 - i."""
    leaves = _numbers(tree, "leaf_value", np.float64)
    feature, decision = _numbers(tree, "split_feature"), _numbers(tree, "decision_type")
    threshold = _numbers(tree, "threshold", np.float64)
    n_inner, n_leaves = len(feature), len(leaves)
    categories = _categories(tree, decision, threshold)
    for node, members in categories.items():
        threshold[node] = members[0]  # the rows of the equivalence check try this value
    # Where training saw no missing value, LightGBM predicts a missing value like 0.
    as_missing = (decision >> MISSING_SHIFT) > 0
    missing_left = np.where(as_missing, (decision & DEFAULT_LEFT) > 0, threshold >= 0.0) & ~(decision & CATEGORICAL > 0)
    # No split separates a tiny number from 0.
    threshold = np.where((threshold >= 0.0) & (threshold < ZERO), ZERO, threshold)
    threshold = np.where((threshold < 0.0) & (threshold >= -ZERO), np.nextafter(-ZERO, -1.0), threshold)
    no_child = np.full(n_leaves, -1)

    def children(name: str) -> npt.NDArray[np.int64]:
        child = _numbers(tree, name)
        return np.concatenate([np.where(child < 0, n_inner - 1 - child, child), no_child])

    return Tree(
        feature=np.concatenate([feature, no_child]),
        threshold=np.concatenate([threshold, np.zeros(n_leaves)]),
        left=children("left_child"),
        right=children("right_child"),
        missing_left=np.concatenate([missing_left.astype(np.int64), np.zeros(n_leaves, np.int64)]),
        value=np.concatenate([np.zeros(n_inner), leaves]),
        categories=categories,
    )


def _categories(
    tree: dict[str, str], decision: npt.NDArray[np.int64], threshold: npt.NDArray[np.float64]
) -> dict[int, tuple[int, ...]]:
    """Read the categories that go to the left; a categorical node's threshold is the position of its set."""
    bounds, words = _numbers(tree, "cat_boundaries"), _numbers(tree, "cat_threshold")
    found = {}
    for node in np.flatnonzero(decision & CATEGORICAL):
        which = int(threshold[node])
        bits = enumerate(words[bounds[which] : bounds[which + 1]].tolist())
        found[int(node)] = tuple(WORD * place + bit for place, word in bits for bit in range(WORD) if word >> bit & 1)
    return found
