"""Training profile: a summary of the training customers that reveals no single customer."""

from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import ClassifierMixin

from churn_pipeline.contract.table import Contract

# Levels with fewer customers are left out, because they could identify a person
MIN_CUSTOMERS = 20
QUANTILES = np.linspace(0, 1, 101)


def profile_training(model: ClassifierMixin, features: pd.DataFrame, contract: Contract) -> dict[str, Any]:
    """Summarise the training customers and their churn probabilities; later customers are compared with this profile.

    Parameters
    ----------
    model
        The chosen model, fitted.
    features
        The model's inputs on the training customers: float64 with NaN for missing, str with '' for missing.
    contract
        Says which features are numeric and which categorical.

    Returns
    -------
    dict
        ``rows``; ``numeric``: for each feature 101 ``quantiles`` of the known values, from minimum to maximum (none if no
        value is known), and the ``missing`` share; ``categorical``: for each feature the share of each of its ``levels``
        ('' for missing), without levels of fewer than 20 customers; ``probability``: 101 ``quantiles``.
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
    # Observed values without interpolation, which would overflow between the largest float64 values
    return [float(value) for value in np.quantile(known, QUANTILES, method="inverted_cdf")] if len(known) else []


def _levels(feature: pd.Series) -> dict[str, float]:
    counts = feature.value_counts()
    return {
        str(level): count / len(feature)
        for level, count in sorted(counts.items())
        if count >= MIN_CUSTOMERS or level == ""
    }
