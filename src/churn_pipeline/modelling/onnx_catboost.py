"""Reading CatBoost's trees from its JSON format."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from churn_pipeline.modelling.onnx_graph import OnnxConversionError
from churn_pipeline.modelling.trees import Boosting, Tree

LOG_ODDS = ("Logloss", "CrossEntropy")


def read_catboost(classifier: Any) -> Boosting:
    """Read the trees of a fitted CatBoostClassifier.

    Parameters
    ----------
    classifier : CatBoostClassifier
        Fitted on two classes.

    Returns
    -------
    Boosting
        Its trees.

    Raises
    ------
    OnnxConversionError
        If the trees are not symmetric, the model uses other features than numbers, or it has another loss.
    """
    with TemporaryDirectory() as folder:
        file = Path(folder) / "model.json"
        classifier.save_model(str(file), format="json")
        model = json.loads(file.read_text(encoding="utf-8"))
    if (loss := classifier.get_all_params()["loss_function"]) not in LOG_ODDS:
        raise OnnxConversionError(
            f"Step classifier has the loss {loss}, which has no conversion to ONNX: use loss_function: Logloss."
        )
    if "oblivious_trees" not in model:
        raise OnnxConversionError(
            "Step classifier has asymmetric trees, which have no conversion to ONNX: leave grow_policy at SymmetricTree."
        )
    if set(model["features_info"]) - {"float_features"}:
        raise OnnxConversionError(
            "Step classifier uses categorical, text or embedding features, which have no conversion to ONNX: leave "
            "cat_features and its like out, and use one-hot encoded columns."
        )
    features = {entry["feature_index"]: entry for entry in model["features_info"]["float_features"]}
    factor, (base,) = model["scale_and_bias"]
    return Boosting(
        trees=[_tree(tree, features) for tree in model["oblivious_trees"]],
        factor=float(factor),
        base=float(base),
        float32=True,
    )


def _tree(tree: dict[str, Any], features: dict[int, dict[str, Any]]) -> Tree:
    """Build a full binary tree: all nodes of one level ask for the same split.

    Bit i of a leaf's position is the answer to split i, so the last split is at the root. Node k has the children 2k + 1
    and 2k + 2, and a row whose value is above the border goes to the right.
    """
    splits = (tree["splits"] or [])[::-1]
    n_inner = 2 ** len(splits) - 1
    children = np.arange(n_inner, dtype=np.int64)
    no_child = np.full(n_inner + 1, -1, dtype=np.int64)

    def by_node(values: list[Any], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        levels = [np.full(2**level, value, dtype=dtype) for level, value in enumerate(values)]
        return np.concatenate([*levels, np.zeros(n_inner + 1, dtype=dtype)])

    used = [features[split["float_feature_index"]] for split in splits]
    return Tree(
        feature=by_node([feature["flat_feature_index"] for feature in used], np.int64),
        threshold=by_node([np.float32(split["border"]) for split in splits], np.float64),
        left=np.concatenate([2 * children + 1, no_child]),
        right=np.concatenate([2 * children + 2, no_child]),
        missing_left=by_node([feature["nan_value_treatment"] != "AsTrue" for feature in used], np.int64),
        value=np.concatenate([np.zeros(n_inner), np.array(tree["leaf_values"], dtype=np.float64)]),
    )
