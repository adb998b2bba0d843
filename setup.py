"""Adds to a wheel the repository's files that a run needs, and a note of the wheel's origin. The rest is in pyproject.toml."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
FOLDER = Path("churn_pipeline", "project_files")
COPIED = ("bentos/Dockerfile.j2", "conf/logging.yml", "requirements/model.txt", "requirements/serving.txt")
LOCK = ROOT / "requirements" / "requirements.lock"


class BuildWithProjectFiles(build_py):
    """Builds the package; an editable installation reads the files in the checkout instead."""

    def run(self) -> None:
        """Build the package, then add the files."""
        super().run()
        if self.editable_mode:
            return
        folder = Path(self.build_lib, FOLDER)
        shutil.rmtree(folder, ignore_errors=True)
        for name in COPIED:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
        (folder / "origin.json").write_text(json.dumps(origin(), indent=2) + "\n", encoding="utf-8")

    def get_source_files(self) -> list[str]:
        """List the files that a source distribution needs."""
        return [*super().get_source_files(), *COPIED]


def origin() -> dict[str, str]:
    """Return commit, whether tracked files had changed, and the lock's SHA-256, as churn_pipeline.installation reads them."""
    changed = git("status", "--porcelain")
    return {
        "commit": git("rev-parse", "HEAD") or "unknown",
        "dirty": "unknown" if changed is None else str(bool(changed)).lower(),
        "lock": hashlib.sha256(LOCK.read_bytes()).hexdigest() if LOCK.is_file() else "unknown",
    }


def git(*words: str) -> str | None:
    """Return the output of a git command; None if it fails or git is missing."""
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


setup(cmdclass={"build_py": BuildWithProjectFiles})
