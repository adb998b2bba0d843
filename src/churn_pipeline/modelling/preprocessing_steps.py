"""The preprocessing in front of a classifier, built from configuration.

Every request gets an answer: missing values, unseen levels and absurd magnitudes all have a defined meaning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from sklearn.compose import ColumnTransformer
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from churn_pipeline.modelling.preprocessing import QuantileSplines, limit_scores, round_to_float32
from churn_pipeline.modelling.target_encoding import CustomerTargetEncoder

NumericKind = Literal["as_is", "scaled", "splines"]
CategoricalKind = Literal["one_hot", "target"]


def build_preprocessing(
    kind: NumericKind,
    numeric: Sequence[str],
    categorical: Sequence[str],
    numeric_arguments: Mapping[str, Any],
    categorical_arguments: Mapping[str, Any],
    categorical_kind: CategoricalKind = "one_hot",
) -> ColumnTransformer:
    """Build the step in front of the classifier.

    Parameters
    ----------
    kind : {"as_is", "scaled", "splines"}
        How numeric columns are transformed.
    numeric, categorical : Sequence of str
        Column names; at least one in total.
    numeric_arguments : Mapping
        Arguments of `QuantileSplines`; ignored for the other kinds.
    categorical_arguments : Mapping
        Arguments of ``OneHotEncoder`` or of `CustomerTargetEncoder`.
    categorical_kind : {"one_hot", "target"}, default="one_hot"
        How categorical columns are transformed.

    Returns
    -------
    ColumnTransformer
        Unfitted. Its output is dense float64: numeric columns first, then one column per level (``one_hot``) or one per
        categorical column (``target``).

    Raises
    ------
    ValueError
        If there is no column at all.
    """
    branches: list[tuple[str, Any, list[str]]] = []
    if numeric:
        branches.append(("numeric", _numeric_steps(kind, numeric_arguments), list(numeric)))
    if categorical:
        branches.append(("categorical", _encoder(categorical_kind, categorical_arguments), list(categorical)))
    if not branches:
        raise ValueError("A candidate needs at least one feature: both numeric and categorical are empty.")
    return ColumnTransformer(branches, remainder="drop", sparse_threshold=0.0)


def _encoder(kind: CategoricalKind, arguments: Mapping[str, Any]) -> OneHotEncoder | CustomerTargetEncoder:
    """Build the branch of categorical columns."""
    if kind == "target":
        return CustomerTargetEncoder(**arguments)
    return OneHotEncoder(handle_unknown="infrequent_if_exist", sparse_output=False, **arguments)


def _numeric_steps(kind: NumericKind, arguments: Mapping[str, Any]) -> Pipeline:
    """Build the branch of numeric columns.

    A missing value becomes the median, and an additional column marks it. Classifiers therefore never receive NaN: some
    support it, but fail on columns that are entirely missing, or lose the support in ONNX.
    """
    rounding = ("rounded", FunctionTransformer(round_to_float32, feature_names_out="one-to-one"))
    # A column that is entirely missing stays, as zeros: it may have values in another fold.
    steps: list[tuple[str, Any]] = [("median", SimpleImputer(strategy="median", keep_empty_features=True))]
    if kind == "scaled":
        steps.append(("scaled", StandardScaler()))
        steps.append(("limited", FunctionTransformer(limit_scores, feature_names_out="one-to-one")))
    elif kind == "splines":
        steps.append(("splines", QuantileSplines(**arguments)))
    missing = MissingIndicator(features="missing-only", error_on_new=False)
    return Pipeline([rounding, ("known", FeatureUnion([("values", Pipeline(steps)), ("missing", missing)]))])
