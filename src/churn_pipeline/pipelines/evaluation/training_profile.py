"""Training profile: what the training customers looked like, summed up so that no customer can be told from it."""

from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import ClassifierMixin

from churn_pipeline.contract.table import Contract

# A level that fewer customers share could name one of them.
RARE = 20
STEPS = np.linspace(0, 1, 101)


def profile_training(model: ClassifierMixin, features: pd.DataFrame, contract: Contract) -> dict[str, Any]:
    """Sum up the training customers and what the chosen model says of them: what later customers are held against.

    Parameters
    ----------
    model
        The chosen model, fitted.
    features
        The training customers as the model takes them: float64 with NaN for missing, str with '' for missing.
    contract
        Tells numbers and levels apart.

    Returns
    -------
    dict
        ``rows``; ``numeric``: by feature 101 ``quantiles`` of the known values, from the least to the largest (none where
        no value is known), and the share that is ``missing``; ``categorical``: by feature the share of each of its
        ``levels``, '' for missing, without those of fewer than 20 customers; ``probability``: 101 ``quantiles``.
    """
    return {
        "rows": len(features),
        "numeric": {
            name: {
                "quantiles": _quantiles(features[name].dropna().to_numpy()),
                "missing": float(features[name].isna().mean()),
            }
            for name in contract.numeric
        },
        "categorical": {name: {"levels": _levels(features[name])} for name in contract.categorical},
        "probability": {"quantiles": _quantiles(model.predict_proba(features)[:, 1])},
    }


def _quantiles(known: np.ndarray) -> list[float]:
    # A value that was seen, not one between two: those of the widest float64 have no finite middle.
    return [float(value) for value in np.quantile(known, STEPS, method="inverted_cdf")] if len(known) else []


def _levels(feature: pd.Series) -> dict[str, float]:
    counts = feature.value_counts()
    return {str(level): count / len(feature) for level, count in sorted(counts.items()) if count >= RARE or level == ""}
