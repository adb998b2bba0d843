"""The leak check."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import TargetEncoder

from churn_pipeline.leaks.report import LeakFinding, LeakReport
from churn_pipeline.leaks.settings import LeakSettings


def find_leaks(features: pd.DataFrame, churned: np.ndarray, settings: LeakSettings, seed: int) -> LeakReport:
    """Find features that separate the classes implausibly well on their own.

    Each feature is cut into levels, and each level is replaced by its churn share in the other folds
    (`sklearn.preprocessing.TargetEncoder`). The AUC of the result is the feature's AUC.

    Parameters
    ----------
    features : DataFrame of shape (n, columns)
        Model inputs: numeric features as float64 (missing: NaN), others as str (missing: ``""``).
    churned : int array of shape (n,)
        1 for churned, 0 for stayed.
    settings
        Limits, and the features that may not stop a run.
    seed
        Decides the folds.
    """
    levels = pd.DataFrame({name: _levels(features[name], settings.bins) for name in features})
    encoder = TargetEncoder(target_type="binary", cv=StratifiedKFold(5, shuffle=True, random_state=seed))
    encoded = encoder.fit_transform(levels.to_numpy(), churned)
    aucs = {str(name): float(roc_auc_score(churned, encoded[:, place])) for place, name in enumerate(features)}
    aucs = dict(sorted(aucs.items(), key=lambda item: -item[1]))
    return LeakReport(tuple(_findings(aucs, settings)), aucs)


def _findings(aucs: dict[str, float], settings: LeakSettings) -> Iterator[LeakFinding]:
    for name, auc in aucs.items():
        if auc > settings.max_auc:
            tier = "warn" if name in settings.allowed else "stop"
            yield LeakFinding((name,), tier, f"it alone reaches AUC {auc:.3f}", {"auc": auc})


def _levels(feature: pd.Series, bins: int) -> np.ndarray:
    if feature.dtype.kind == "f":
        edges = np.unique(feature.quantile(np.linspace(0, 1, bins + 1)[1:-1]).dropna())
        return np.where(feature.isna(), -1, np.searchsorted(edges, feature.to_numpy(), side="right"))
    return pd.factorize(feature)[0]
