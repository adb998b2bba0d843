"""Node that fits a registered version again."""

import io
import json
from typing import Any

import joblib
import pandas as pd
from sklearn.base import ClassifierMixin, clone

from churn_pipeline.contract.errors import ProjectError
from churn_pipeline.evaluation.model_record import RegisteredVersion


def refit(
    version: RegisteredVersion, features: pd.DataFrame, label: pd.DataFrame, groups: pd.DataFrame
) -> tuple[ClassifierMixin, pd.DataFrame, dict[str, Any]]:
    """Fit a registered version on other training customers, with its hyperparameters, weights, calibration and seeds.

    Parameters
    ----------
    version
        The version, with the reports ``leaderboard.csv`` and ``choice.json`` of its training as documents.
    features, label
        Inputs and labels of the training customers, of n rows each.
    groups
        The customer of each row.

    Returns
    -------
    model : ClassifierMixin
        The fitted model.
    leaderboard : pandas.DataFrame
    choice : dict
        Those of the version's own training.

    Raises
    ------
    ProjectError
        If the contract's features are no longer those of the version.
    """
    theirs, ours = [str(name) for name in version.model.feature_names_in_], [str(name) for name in features]
    if sorted(theirs) != sorted(ours):
        raise ProjectError(
            f"Version {version.version} of {version.name} cannot be refitted",
            f"it has other features than the contract ({', '.join(sorted(set(theirs) ^ set(ours)))} differ). Train again",
        )
    with joblib.parallel_config("threading", n_jobs=joblib.cpu_count()):
        model = clone(version.model)
        model.fit(features[theirs], label["churned"], groups=groups["customer"].to_numpy())
    leaderboard = pd.read_csv(io.StringIO(version.documents["leaderboard.csv"]))
    choice = json.loads(version.documents["choice.json"])
    choice["sentences"] = [
        f"Version {version.version} was refitted with its settings; the leaderboard is that of its training."
    ]
    return model, leaderboard, choice
