"""What a run looks like in MLflow: how it is called and how its parameters are written."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import mlflow
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from pydantic import BaseModel

# Of kedro-mlflow's tags those that say nothing of a run: a path, an address in memory, the time once more.
NOISE = ("project_path", "run_id", "runner")
# Tags of kedro-mlflow's that say that not all of a pipeline was run.
PARTIAL = ("from_nodes", "to_nodes", "node_names", "from_inputs", "to_outputs", "namespaces", "tags")
# A candidate as it was declared; what a search made of it is written by the search, under tuned.<candidate>.
DECLARED = "candidates."


def run_name(table: str, pipelines: str, began: datetime, tags: Mapping[str, str]) -> str:
    """A name to find a run by: what came of it, first as lists cut names short; table, pipelines, and when it began.

    Examples
    --------
    >>> tags = {"candidate": "splines+logistic", "packaged.version": "3"}
    >>> run_name("telco", "['__default__']", datetime(2026, 5, 4, 13, 7), tags)
    'blend of 2 · telco training+packaging of version 3 · 2026-05-04 13:07'
    """
    part = any(tags.get(choice) for choice in PARTIAL)
    words = (
        "a part"
        if part
        else pipelines.strip("[]").replace("'", "").replace(", ", "+").replace("__default__", "training+packaging")
    )
    members = tags.get("candidate", "").split("+")
    candidate = members[0] if len(members) == 1 else f"blend of {len(members)}"
    version = f" of version {tags['packaged.version']}" if "packaged.version" in tags else ""
    parts = (candidate, f"{table} {words or 'training+packaging'}{version}", f"{began:%Y-%m-%d %H:%M}")
    return " · ".join(part for part in parts if part)


def log_table(table: str, digest: str) -> None:
    """Name the customer table that the active run read, by its digest; no row of it is read."""
    named = MetaDataset(CodeDatasetSource(tags={}), name=table, digest=digest[:12])  # type: ignore[abstract]
    mlflow.log_input(named, context="training")


def log_parameter(name: str, value: Any) -> None:
    """Write a parameter of a node to the active run, a settings model as one parameter a setting."""
    if not name.startswith(DECLARED):
        mlflow.log_params(dict(flat(name, value)))


def flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """A parameter as names with dots and their values; what is not set is left out.

    Examples
    --------
    >>> dict(flat("choice", {"metrics": ["auc", "brier"], "margin": {"low": 0.1, "high": None}}))
    {'choice.metrics': 'auc, brier', 'choice.margin.low': '0.1'}
    """
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from flat(f"{name}.{key}", inner)
    elif isinstance(value, list | tuple):
        yield from flat(name, ", ".join(map(str, value)))
    elif value not in (None, ""):
        yield name, str(value)
