"""A run's record: what names its code, environment, configuration, data and results, and nothing of a customer."""

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Run
from pydantic import BaseModel, ConfigDict

LOCK = Path("requirements") / "requirements.lock"
ARTIFACT = "record.json"


class Record(BaseModel):
    """What it takes to rebuild a run, and what the rebuilt run is compared with.

    Attributes
    ----------
    command
        Pipelines and other choices of ``kedro run`` that were not left at their defaults.
    runtime_params
        What ``--params`` said.
    parameters
        All parameters as they were resolved, ``--params`` included.
    table_file
        The table file's text; it may be private to the machine of the run.
    digests
        SHA-256 of data, contract, hold-out, lock and model.
    metrics
        Everything the run logged, to the last bit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str
    commit: str
    dirty: bool
    environment: str
    python: str
    command: dict[str, str]
    table: str
    table_file: str
    runtime_params: dict[str, Any]
    parameters: dict[str, Any]
    digests: dict[str, str]
    metrics: dict[str, float]


def make_record(run: Run, parameters: dict[str, Any], runtime_params: dict[str, Any], table_file: Path) -> Record:
    """The record of an MLflow run, from its tags and metrics and from the configuration that it ran with."""
    tags = run.data.tags
    digests = {name.removeprefix("digest."): value for name, value in tags.items() if name.startswith("digest.")}
    if "model_digest" in tags:
        digests["model"] = tags["model_digest"]
    choices = (
        "pipeline_names",
        "from_nodes",
        "to_nodes",
        "node_names",
        "from_inputs",
        "to_outputs",
        "namespaces",
        "tags",
    )
    return Record(
        run_id=run.info.run_id,
        commit=tags.get("git.commit", "unknown"),
        dirty=tags.get("git.dirty") != "false",
        environment=tags.get("environment", "local"),
        python=tags.get("python", ""),
        command={name: tags[name] for name in choices if tags.get(name)},
        table=tags["table"],
        table_file=table_file.read_text(encoding="utf-8"),
        runtime_params=runtime_params,
        parameters=parameters,
        digests=digests,
        metrics=run.data.metrics,
    )


def load_record(run_id: str) -> Record:
    """The record of an MLflow run, from the tracking server in use.

    Raises
    ------
    mlflow.exceptions.MlflowException
        When there is no such run, or it has no record.
    """
    return Record.model_validate(mlflow.artifacts.load_dict(f"runs:/{run_id}/{ARTIFACT}"))


def read_record(path: Path) -> Record:
    """A record from a file, such as one that was handed on from another machine."""
    return Record.model_validate(json.loads(path.read_text(encoding="utf-8")))


def code_state(project: Path) -> dict[str, str]:
    """The commit that is checked out and whether the tree differs from it, as tags; ``unknown`` without git."""
    commit = git(project, "rev-parse", "HEAD")
    changed = git(project, "status", "--porcelain")
    return {
        "git.commit": commit or "unknown",
        "git.dirty": "unknown" if changed is None else str(bool(changed)).lower(),
    }


def git(project: Path, *words: str) -> str | None:
    """What a git command prints; None where it fails, or there is no git."""
    try:
        done = subprocess.run(
            ["git", "-C", str(project), *words], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes; ``unknown`` where there is no such file."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "unknown"
