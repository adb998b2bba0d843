"""What a candidate costs to serve: an estimate from its settings, so that the choice is the same on any machine."""

from __future__ import annotations

from churn_pipeline.modelling.candidates import Candidate

# Microseconds per customer on one core, in requests of 1,000 customers; `make benchmark-quality` measures the real ones.
BASE, SPLINES_PER_COLUMN, TREE, LANDMARK, UNIT = 0.5, 0.4, 0.03, 0.006, 0.002

# The argument with the number of trees, and its default.
TREES = {
    "LGBMClassifier": ("n_estimators", 100),
    "XGBClassifier": ("n_estimators", 100),
    "CatBoostClassifier": ("iterations", 1000),
    "HistGradientBoostingClassifier": ("max_iter", 100),
    "GradientBoostingClassifier": ("n_estimators", 100),
    "RandomForestClassifier": ("n_estimators", 100),
    "ExtraTreesClassifier": ("n_estimators", 100),
}


def microseconds_per_customer(candidate: Candidate, numeric: int) -> float:
    """Estimate the time to predict one customer with the compiled model.

    Parameters
    ----------
    candidate : Candidate
        With its number of trees.
    numeric : int
        Number of numeric columns.

    Returns
    -------
    float
        Microseconds.

    Examples
    --------
    >>> from churn_pipeline.modelling.candidates import Candidate
    >>> trees = {"class": "sklearn.ensemble.RandomForestClassifier", "arguments": {"n_estimators": 200}}
    >>> microseconds_per_customer(Candidate.model_validate(trees), numeric=10)
    6.5
    """
    name, arguments = candidate.class_path.rpartition(".")[2], candidate.arguments
    parts = [BASE]
    if candidate.numeric == "splines":
        parts.append(SPLINES_PER_COLUMN * numeric)
    if name in TREES:
        argument, default = TREES[name]
        parts.append(TREE * candidate.copies * int(arguments.get(argument, default)))
    if name == "NystroemClassifier":
        parts.append(LANDMARK * candidate.copies * int(arguments.get("n_components", 500)))
    if name in ("NetworkClassifier", "TorchNetworkClassifier"):
        members = int(arguments.get("n_members", 16)) if name == "TorchNetworkClassifier" else 1
        units = members * int(arguments.get("width", 64)) * int(arguments.get("depth", 2))
        parts.append(UNIT * candidate.copies * units)
    return round(sum(parts), 6)
