"""Tasks of an orchestrator: real processes, and what they leave in an MLflow run."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import mlflow

# What differs between two runs of one kind: ids, times and who ran them.
OWN_TAGS = ("process", "mlflow.parentRunId", "mlflow.runName", "mlflow.log-model.history", "kedro_version")
TIMES = ("seconds", "fit_seconds")


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
    """All that a run and its trials contain, without ids and times."""
    run = client.get_run(run_id)
    trials = client.search_runs([run.info.experiment_id], f"tags.mlflow.parentRunId = '{run_id}'", max_results=1000)
    record = json.loads(Path(client.download_artifacts(run_id, "record.json")).read_text(encoding="utf-8"))
    return {
        "status": run.info.status,
        "name": run.info.run_name.rpartition(" · ")[0],
        "params": run.data.params,
        "metrics": run.data.metrics,
        "tags": _tags(run),
        "artifacts": sorted(_artifacts(client, run_id, "")),  # some of them show how long a fit took
        "inputs": [(each.dataset.name, each.dataset.digest) for each in run.inputs.dataset_inputs]
        if run.inputs
        else [],
        "trials": sorted((_trial(trial) for trial in trials), key=lambda trial: trial["name"]),
        "record": {name: value for name, value in record.items() if name != "run_id"},
    }


def _trial(run: mlflow.entities.Run) -> dict[str, Any]:
    metrics = {name: value for name, value in run.data.metrics.items() if name not in TIMES}
    own = (run.info.run_name, run.info.status, run.data.params, metrics, _tags(run))
    return dict(zip(("name", "status", "params", "metrics", "tags"), own, strict=True))


def _tags(run: mlflow.entities.Run) -> dict[str, str]:
    return {name: value for name, value in run.data.tags.items() if name not in OWN_TAGS}


def _artifacts(client: mlflow.MlflowClient, run_id: str, folder: str) -> Iterator[str]:
    for each in client.list_artifacts(run_id, folder):
        yield from _artifacts(client, run_id, each.path) if each.is_dir else [each.path]
