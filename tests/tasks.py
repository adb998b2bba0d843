"""Tasks of an orchestrator: real processes, and what they leave in an MLflow run."""

import csv
import hashlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import yaml

# What differs between two runs of one kind: ids, times and who ran them.
OWN_TAGS = ("process", "mlflow.parentRunId", "mlflow.runName", "mlflow.log-model.history", "kedro_version")
TIMES = ("seconds", "fit_seconds")
# skops writes addresses in memory and the time into the file; the tag model_digest compares the model itself.
MODEL_FILE = "model.skops"
# Loading a model writes this file beside it, if the model is in a folder of this machine.
LOCAL_FILE = "registered_model_meta"
OWN_FIELDS = ("run_id", "model_id", "model_uuid", "utc_time_created", "artifact_path", "model_size_bytes")


class Task(NamedTuple):
    """A process that runs a command of a project's folder, with variables of its own."""

    folder: Path
    variables: dict[str, str]

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a command."""
        return subprocess.Popen(
            [sys.executable, "-m", "kedro", *words],
            cwd=self.folder,
            env={
                **{name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"},
                **self.variables,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        process = self.start(*words)
        stdout, stderr = process.communicate(timeout=900)
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def contents(client: mlflow.MlflowClient, run_id: str) -> dict[str, Any]:
    """All that a run, its model and its trials contain, without ids and times."""
    run = client.get_run(run_id)
    trials = client.search_runs([run.info.experiment_id], f"tags.mlflow.parentRunId = '{run_id}'", max_results=1000)
    folder = Path(client.download_artifacts(run_id, ""))
    record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    return {
        "status": run.info.status,
        "name": run.info.run_name.rpartition(" · ")[0],
        "params": run.data.params,
        "metrics": run.data.metrics,
        "tags": _tags(run),
        "artifacts": _digests(folder),
        "models": [
            _digests(_model(client, output.model_id)) for output in (run.outputs.model_outputs if run.outputs else [])
        ],
        "inputs": [(each.dataset.name, each.dataset.digest) for each in run.inputs.dataset_inputs]
        if run.inputs
        else [],
        "trials": sorted((_trial(trial) for trial in trials), key=lambda trial: trial["name"]),
        "record": {name: value for name, value in record.items() if name != "run_id"},
    }


def _model(client: mlflow.MlflowClient, model_id: str) -> Path:
    place = client.get_logged_model(model_id).artifact_location
    return Path(mlflow.artifacts.download_artifacts(place, tracking_uri=client.tracking_uri))


def _trial(run: mlflow.entities.Run) -> dict[str, Any]:
    metrics = {name: value for name, value in run.data.metrics.items() if name not in TIMES}
    own = (run.info.run_name, run.info.status, run.data.params, metrics, _tags(run))
    return dict(zip(("name", "status", "params", "metrics", "tags"), own, strict=True))


def _tags(run: mlflow.entities.Run) -> dict[str, str]:
    return {name: value for name, value in run.data.tags.items() if name not in OWN_TAGS}


def _digests(folder: Path) -> dict[str, str]:
    """The digest of each file, without what differs between two runs of one process too."""
    files = {str(file.relative_to(folder)): file for file in folder.rglob("*") if file.is_file()}
    seconds = _fit_seconds(files.get("reports/leaderboard.csv"))
    own = ("record.json", LOCAL_FILE)
    return {name: _digest(file, seconds) for name, file in sorted(files.items()) if name not in own}


def _digest(file: Path, seconds: set[str]) -> str:
    if file.name == MODEL_FILE:
        return "see model_digest"
    content = file.read_bytes()
    if file.name == "MLmodel":
        content = _without_own_fields(content)
    elif file.name == "leaderboard.csv":
        content = json.dumps([_without_times(row) for row in _rows(file)]).encode()
    elif file.name == "summary.txt":  # it shows the leaderboard
        content = re.sub(
            "|".join(rf" +{re.escape(each)}$" for each in seconds), "", content.decode(), flags=re.M
        ).encode()
    return hashlib.sha256(content).hexdigest()


def _rows(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8"))))


def _without_times(row: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in row.items() if name not in TIMES}


def _fit_seconds(leaderboard: Path | None) -> set[str]:
    """The durations as the summary shows them."""
    rows = _rows(leaderboard) if leaderboard else []
    return {f"{float(row['fit_seconds']):.4f}" for row in rows}


def _without_own_fields(content: bytes) -> bytes:
    fields = {name: value for name, value in yaml.safe_load(content).items() if name not in OWN_FIELDS}
    return json.dumps(fields, sort_keys=True, default=str).encode()
