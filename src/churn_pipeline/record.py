"""A run's record: its code, environment, configuration, data digests and results, without customer data."""

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Run
from pydantic import BaseModel, ConfigDict

from churn_pipeline.installation import origin

LOCK_FILE = Path("requirements") / "requirements.lock"
ARTIFACT = "record.json"
RUN_OPTIONS = (
    "pipeline_names",
    "from_nodes",
    "to_nodes",
    "node_names",
    "from_inputs",
    "to_outputs",
    "namespaces",
    "tags",
)


class Record(BaseModel):
    """Everything needed to rebuild a run and to compare the result.

    Attributes
    ----------
    command
        Pipelines and other options of ``kedro run`` that differ from their defaults.
    runtime_params
        The values of ``--params``.
    parameters
        All resolved parameters, ``--params`` included.
    table_file
        The table file's text; the file may exist only on the machine of the run.
    digests
        SHA-256 of data, contract, hold-out, lock and model.
    metrics
        All logged metrics, unrounded.
    trials
        Number of trials of each candidate's search, which may depend on the time that they took.
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
    trials: dict[str, int] = {}


def make_record(run: Run, parameters: dict[str, Any], runtime_params: dict[str, Any], table_file: str) -> Record:
    """Make the record of an MLflow run from its tags, metrics, configuration and the text of its table's file."""
    tags = run.data.tags
    digests = {name.removeprefix("digest."): value for name, value in tags.items() if name.startswith("digest.")}
    if "model_digest" in tags:
        digests["model"] = tags["model_digest"]
    return Record(
        run_id=run.info.run_id,
        commit=tags.get("git.commit", "unknown"),
        dirty=tags.get("git.dirty") != "false",
        environment=tags.get("environment", "local"),
        python=tags.get("python", ""),
        command={name: tags[name] for name in RUN_OPTIONS if tags.get(name)},
        table=tags["table"],
        table_file=table_file,
        runtime_params=runtime_params,
        parameters=parameters,
        digests=digests,
        metrics=run.data.metrics,
        trials={
            name.removeprefix("tuned.").removesuffix(".trials"): int(value)
            for name, value in run.data.params.items()
            if name.startswith("tuned.") and name.endswith(".trials")
        },
    )


def load_record(run_id: str) -> Record:
    """Load the record of an MLflow run from the current tracking store.

    Raises
    ------
    mlflow.exceptions.MlflowException
        If there is no such run, or it has no record.
    """
    return Record.model_validate(mlflow.artifacts.load_dict(f"runs:/{run_id}/{ARTIFACT}"))


def read_record(path: Path) -> Record:
    """Read a record from a file, such as one from another machine."""
    return Record.model_validate(json.loads(path.read_text(encoding="utf-8")))


def code_state(project: Path) -> dict[str, str]:
    """Return the code's commit, whether files have uncommitted changes, and the lock's digest, as tags.

    An installed wheel names the commit that it was built from. In a checkout without git, commit and changes are ``unknown``.
    """
    built = origin()
    if built is not None:
        return {"git.commit": built.commit, "git.dirty": built.dirty, "digest.lock": built.lock}
    commit = git(project, "rev-parse", "HEAD")
    changed = git(project, "status", "--porcelain")
    return {
        "git.commit": commit or "unknown",
        "git.dirty": "unknown" if changed is None else str(bool(changed)).lower(),
        "digest.lock": file_digest(project / LOCK_FILE),
    }


def git(project: Path, *words: str) -> str | None:
    """Return the output of a git command; None if it fails or git is missing."""
    try:
        done = subprocess.run(
            ["git", "-C", str(project), *words], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes; ``unknown`` if there is no such file."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "unknown"
