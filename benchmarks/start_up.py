"""What our own code adds to `kedro run --help`: `make benchmark-start`. The same command with and without this package."""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from benchmarks.common import ROOT, write

KEDRO = ["-m", "kedro", "run", "--help"]


def _empty_project(folder: Path) -> Path:
    """A Kedro project of the same plugins and no code."""
    package = folder / "src" / "empty_project"
    package.mkdir(parents=True)
    (folder / "conf" / "base").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "settings.py").touch()
    (package / "pipeline_registry.py").write_text("def register_pipelines():\n    return {}\n", encoding="utf-8")
    (folder / "pyproject.toml").write_text(
        '[tool.kedro]\npackage_name = "empty_project"\nproject_name = "empty"\nkedro_init_version = "1.7.0"\n',
        encoding="utf-8",
    )
    return folder


def _seconds(folder: Path) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, *KEDRO], cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - begin


def main(pairs: int = 7) -> None:
    with tempfile.TemporaryDirectory() as folder:
        empty = _empty_project(Path(folder))
        _seconds(ROOT), _seconds(empty)
        runs = [(_seconds(ROOT), _seconds(empty)) for _ in range(pairs)]
    ours, bare = (statistics.median(side) for side in zip(*runs, strict=True))
    added = statistics.median(mine - theirs for mine, theirs in runs)
    table = pd.DataFrame(
        {
            "`kedro run --help` in": ["this project", "an empty project", "added by our code (median of pairs)"],
            "seconds": [f"{ours:.2f}", f"{bare:.2f}", f"{added:.2f}"],
        }
    )
    how = f"Medians of {pairs} pairs, taken in turn, same environment and plugins. Made by `make benchmark-start`."
    write("start_up", "Start-up of a command", how, table)


if __name__ == "__main__":
    main()
