"""The digest that names a study: a change in anything that affects a trial starts a new study."""

from __future__ import annotations

import hashlib
import inspect
import json
import platform
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pandas as pd

from churn_pipeline.modelling.candidates import Candidate
from churn_pipeline.modelling.cross_validation import Task
from churn_pipeline.modelling.search.settings import SearchSettings

# Libraries that a trial's result depends on; the package of the candidate's classifier is added.
LIBRARIES: tuple[str, ...] = ("numpy", "optuna", "pandas", "scikit-learn", "scipy", "torch")
# Modules of churn_pipeline.modelling that a trial's values or result depend on.
MODULES: tuple[str, ...] = (
    "candidates",
    "classifiers",
    "cross_validation",
    "early_stopping",
    "kernels",
    "networks",
    "preprocessing",
    "preprocessing_steps",
    "probability_classifier",
    "search.digest",
    "search.pruning",
    "search.run",
    "search.sampler",
    "search.scheduler",
    "search.settings",
    "search.trial",
    "space",
    "studies",
    "target_encoding",
    "torch_network",
)


def study_digest(task: Task, candidate: Candidate, settings: SearchSettings, name: str) -> str:
    """Hash everything that affects what a trial tries and how it ends.

    These are the data, the customers and the folds, the candidate, the seed, the settings of the sampler and of pruning,
    the versions of libraries, and the code. Budgets are left out: more trials continue the same study. So is
    ``max_rows``: the rows that it leaves are hashed.

    Parameters
    ----------
    task : Task
        Data and folds for evaluation.
    candidate : Candidate
        The candidate to search.
    settings : SearchSettings
        How to search.
    name : str
        The candidate's name.

    Returns
    -------
    str
        SHA-256, in hexadecimal.
    """
    digest = hashlib.sha256(json.dumps(_configuration(task, candidate, settings, name), sort_keys=True).encode())
    for source in _sources(task, candidate):
        digest.update(source.encode())
    masks = pd.DataFrame({(fold, part): mask for fold, pair in task.folds.items() for part, mask in enumerate(pair)})
    groups = pd.DataFrame() if task.groups is None else pd.DataFrame({"groups": task.groups})
    for table in (task.features, task.churned.to_frame(), masks, groups):
        digest.update(json.dumps([[str(column), str(dtype)] for column, dtype in table.dtypes.items()]).encode())
        digest.update(pd.util.hash_pandas_object(table, index=False).to_numpy().tobytes())
    return digest.hexdigest()


def _configuration(task: Task, candidate: Candidate, settings: SearchSettings, name: str) -> dict[str, Any]:
    package = candidate.class_path.partition(".")[0].replace("sklearn", "scikit-learn")
    return {
        "candidate": [name, candidate.model_dump(mode="json", exclude={"trials", "share", "keep"})],
        "columns": [list(task.numeric), list(task.categorical)],
        "settings": settings.model_dump(mode="json", exclude={"trials", "seconds", "max_rows"}),
        "seed": task.seed,
        "versions": [platform.python_version(), *(_version(library) for library in sorted({*LIBRARIES, package}))],
    }


def _sources(task: Task, candidate: Candidate) -> Iterator[str]:
    if candidate.class_path.startswith("churn_pipeline."):
        yield inspect.getsource(import_module(candidate.class_path.rpartition(".")[0]))
    for module in MODULES:
        yield inspect.getsource(import_module(f"churn_pipeline.modelling.{module}"))
    yield inspect.getsource(task.loss)


def _version(library: str) -> str:
    try:
        return f"{library} {version(library)}"
    except PackageNotFoundError:
        return f"{library} unknown"
