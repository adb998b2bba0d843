"""Reading XGBoost's trees from its JSON format."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from churn_pipeline.modelling.onnx_graph import OnnxConversionError
from churn_pipeline.modelling.trees import Boosting, Tree


def read_xgboost(classifier: Any) -> Boosting:
    """Read the trees that a fitted XGBClassifier predicts with.

    Parameters
    ----------
    classifier : XGBClassifier
        Fitted on two classes. After early stopping, only the trees up to its best iteration count.

    Returns
    -------
    Boosting
        Its trees.

    Raises
    ------
    OnnxConversionError
        If the model does not consist of trees, splits on categories, or has another objective.
    """
    learner = json.loads(classifier.get_booster().save_raw("json"))["learner"]
    booster = learner["gradient_booster"]
    if booster["name"] not in ("gbtree", "dart"):
        raise OnnxConversionError(
            f"Step classifier has no trees (booster: {booster['name']}), and no conversion to ONNX: use gbtree."
        )
    if (objective := learner["objective"]["name"]) != "binary:logistic":
        raise OnnxConversionError(
            f"Step classifier has the objective {objective}, which has no conversion to ONNX: use binary:logistic."
        )
    model = booster["gbtree"]["model"] if booster["name"] == "dart" else booster["model"]
    trees = model["trees"]
    if any(any(tree["split_type"]) for tree in trees):
        raise OnnxConversionError(
            "Step classifier splits on categories, which has no conversion to ONNX: leave enable_categorical out, and use "
            "one-hot encoded columns."
        )
    weights = booster.get("weight_drop", [1.0] * len(trees))
    best = getattr(classifier, "best_iteration", None)
    counted = len(trees) if best is None else model["iteration_indptr"][best + 1]
    share = float(learner["learner_model_param"]["base_score"].strip("[]"))
    return Boosting(
        trees=[_tree(tree, weight) for tree, weight in zip(trees[:counted], weights[:counted], strict=True)],
        base=float(np.log(share) - np.log1p(-share)),
        float32=True,
        float32_sum=True,
    )


def _tree(tree: dict[str, Any], weight: float) -> Tree:
    numbers = np.array(tree["split_conditions"], dtype=np.float32)
    left = np.array(tree["left_children"], dtype=np.int64)
    # XGBoost asks for x < t. For float32 numbers, that is the same as x <= the number before t.
    before = np.nextafter(numbers, np.float32(-np.inf))
    return Tree(
        feature=np.array(tree["split_indices"], dtype=np.int64),
        threshold=before.astype(np.float64),
        left=left,
        right=np.array(tree["right_children"], dtype=np.int64),
        missing_left=np.array(tree["default_left"], dtype=np.int64),
        value=np.where(left < 0, numbers * np.float32(weight), 0.0).astype(np.float64),
    )
