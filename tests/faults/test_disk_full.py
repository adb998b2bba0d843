"""A full disk ends a command with one line; with space, the same command ends like an uninterrupted one."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from tests.conftest import Project
from tests.faults.commands import TRAIN, Ended, run
from tests.faults.conftest import Observe
from tests.faults.state import aliases, final_state, local_store

pytestmark = pytest.mark.faults
FULL = Path("/dev/full")  # writing to it fails like writing to a full disk
FILES = {
    "disk full, table": "data/05_model_input/simulated/train_features.parquet",
    "disk full, report": "data/08_reporting/simulated/leaderboard.csv",
}
# Folders, each with the kilobytes of its disk.
DISKS = {
    "disk full, studies": ("data/06_models", 100),
    "disk full, runs": ("mlruns/artifacts", 400),
}
LARGE = 100_000
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small file system")


@pytest.mark.skipif(not FULL.exists(), reason=f"there is no {FULL}")
def test_a_file_that_does_not_fit_is_named(project: Project, uninterrupted: dict[str, Any], observe: Observe) -> None:
    ended: dict[str, Ended] = {}
    for name, path in FILES.items():
        file = project.path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        file.symlink_to(FULL)
        ended[name] = run(project, *TRAIN)
        assert ended[name].code == 1, ended[name].output
        assert aliases(MlflowClient(local_store(project))) == {}
        file.unlink(missing_ok=True)

    _check_again(project, uninterrupted, ended, observe)


@needs_root
def test_a_trial_or_an_artifact_that_does_not_fit(
    project: Project, uninterrupted: dict[str, Any], observe: Observe
) -> None:
    ended: dict[str, Ended] = {}
    with ExitStack() as stack:
        folders = {name: project.path / path for name, (path, _) in DISKS.items()}
        for folder in set(folders.values()):
            stack.enter_context(_disk(folder))
        for name, folder in folders.items():
            _resize(folder, DISKS[name][1])
            ended[name] = run(project, *TRAIN)
            assert ended[name].code == 1, ended[name].output
            assert aliases(MlflowClient(local_store(project))) == {}
            _resize(folder, LARGE)

        _check_again(project, uninterrupted, ended, observe)


def _check_again(project: Project, uninterrupted: dict[str, Any], ended: dict[str, Ended], observe: Observe) -> None:
    again = run(project, *TRAIN)
    assert again.code == 0, again.output
    assert final_state(local_store(project)) == uninterrupted
    for name, full in ended.items():
        observe(name, full)


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    """Mount a file system in memory."""
    folder.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(folder)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("this machine allows no mounts")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _resize(folder: Path, kilobytes: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", str(folder)], check=True)
