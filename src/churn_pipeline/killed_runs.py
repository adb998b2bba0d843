"""Runs whose process was killed: MLflow would show them as running for ever."""

import logging
import os
import platform
from pathlib import Path

import mlflow

logger = logging.getLogger(__name__)

TAG = "process"
# Containers with the same host name have process ids of their own.
NAMESPACE = Path("/proc/self/ns/pid")


def tag_process() -> None:
    """Tag the active run with this process."""
    mlflow.set_tag(TAG, f"{_machine()} {os.getpid()}")


def end_killed_runs(experiment_id: str) -> None:
    """Mark running runs as killed, with their trials, if their process was on this machine and has ended.

    Runs of other machines and runs without the tag stay as they are.
    """
    client = mlflow.MlflowClient()
    running = client.search_runs([experiment_id], "attributes.status = 'RUNNING'")
    killed = {run.info.run_id for run in running if _has_ended(run.data.tags.get(TAG, ""))}
    for run in running:
        if killed & {run.info.run_id, run.data.tags.get("mlflow.parentRunId")}:
            client.set_terminated(run.info.run_id, "KILLED")
    for run_id in killed:
        logger.info("MLflow run %s is now marked as killed: its process has ended", run_id)


def _has_ended(process: str) -> bool:
    machine, _, number = process.rpartition(" ")
    if machine != _machine() or not number.isdigit():
        return False
    try:
        os.kill(int(number), 0)  # signal 0 only asks whether the process exists
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _machine() -> str:
    return f"{platform.node()} {NAMESPACE.readlink() if NAMESPACE.exists() else ''}".strip()
