"""A full disk ends a command with one line; with space, the same command ends like an uninterrupted one."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from tests.conftest import Project
from tests.faults.commands import TRAIN, run
from tests.faults.conftest import Observe
from tests.faults.state import aliases, final_state, local_store

pytestmark = pytest.mark.faults
FULL = Path("/dev/full")  # writing to it fails like writing to a full disk
FILES = {
    "disk full, table": "data/05_model_input/simulated/train_features.parquet",
    "disk full, report": "data/08_reporting/simulated/leaderboard.csv",
    "disk full, model": "data/06_models/simulated/chosen_model.skops",
}
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small file system")


@pytest.mark.skipif(not FULL.exists(), reason=f"there is no {FULL}")
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_does_not_fit_is_named(
    name: str, project: Project, uninterrupted: dict[str, Any], observe: Observe
) -> None:
    file = project.path / FILES[name]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.symlink_to(FULL)
    ended = run(project, *TRAIN)
    assert ended.code == 1, ended.output
    file.unlink(missing_ok=True)

    again = run(project, *TRAIN)

    assert again.code == 0, again.output
    assert final_state(local_store(project)) == uninterrupted
    observe(name, ended, f"ended after {ended.seconds:.0f} s; same state after {again.seconds:.0f} s")


@needs_root
def test_a_trial_that_does_not_fit(project: Project, uninterrupted: dict[str, Any], observe: Observe) -> None:
    with _small_disk(project.path / "data/06_models", kilobytes=100) as grow:
        ended = run(project, *TRAIN)
        assert ended.code == 1, ended.output
        grow()
        again = run(project, *TRAIN)
        assert again.code == 0, again.output
        assert final_state(local_store(project)) == uninterrupted
    observe("disk full, studies", ended, f"ended after {ended.seconds:.0f} s; same state after {again.seconds:.0f} s")


@needs_root
def test_a_registered_model_that_does_not_fit(
    project: Project, uninterrupted: dict[str, Any], observe: Observe
) -> None:
    with _small_disk(project.path / "mlruns/artifacts", kilobytes=400) as grow:
        ended = run(project, *TRAIN)
        assert ended.code == 1, ended.output
        assert aliases(MlflowClient(local_store(project))) == {}
        grow()
        again = run(project, *TRAIN)
        assert again.code == 0, again.output
        assert final_state(local_store(project)) == uninterrupted
    observe("disk full, runs", ended, f"ended after {ended.seconds:.0f} s; same state after {again.seconds:.0f} s")


@contextmanager
def _small_disk(folder: Path, kilobytes: int) -> "Iterator[Any]":
    """Mount a small file system in memory; calling the value makes it large."""
    folder.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this machine allows no mounts")
    try:
        yield lambda: subprocess.run(["mount", "-o", "remount,size=100m", str(folder)], check=True)
    finally:
        subprocess.run(["umount", str(folder)], check=True)
