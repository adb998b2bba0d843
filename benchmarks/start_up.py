"""Start-up time of commands, and the share of each plugin: `make benchmark-start`.

It runs the same commands in this project and in a project with the same plugins and no code, and then loads each installed
entry point of Kedro in a separate process. It measures processor time, so other programs have little influence.
"""

import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path

import pandas as pd
from kedro.framework.cli.utils import ENTRY_POINT_GROUPS

from benchmarks.common import ROOT, write

COMMANDS = {
    "kedro --help": ["-m", "kedro", "--help"],
    "kedro run --help": ["-m", "kedro", "run", "--help"],
    "kedro registry --help": ["-m", "kedro", "registry", "--help"],
}
OURS_ALONE = {
    "kedro table page simulated": ["-m", "kedro", "table", "page", "simulated"],
    "python -m churn_pipeline --help": ["-m", "churn_pipeline", "--help"],
}
# Every Kedro command imports these two modules, so they do not count.
LOAD = """
import sys, time
import kedro.framework.cli.cli, kedro.framework.cli.project
from importlib.metadata import EntryPoint
begin = time.process_time()
EntryPoint(*sys.argv[1:]).load()
print(time.process_time() - begin)
"""


def _empty_project(folder: Path) -> Path:
    """A Kedro project with the same plugins, no code and our logging configuration, because Kedro's would import rich."""
    package = folder / "src" / "empty_project"
    package.mkdir(parents=True)
    (folder / "conf" / "base").mkdir(parents=True)
    shutil.copy(ROOT / "conf" / "logging.yml", folder / "conf")
    (package / "__init__.py").touch()
    (package / "settings.py").touch()
    (package / "pipeline_registry.py").write_text("def register_pipelines():\n    return {}\n", encoding="utf-8")
    (folder / "pyproject.toml").write_text(
        '[tool.kedro]\npackage_name = "empty_project"\nproject_name = "empty"\nkedro_init_version = "1.7.0"\n',
        encoding="utf-8",
    )
    return folder


def _seconds(command: Sequence[str], folder: Path) -> float:
    """Processor time of a command, including its child processes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *command], cwd=folder, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _commands(pairs: int) -> pd.DataFrame:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        empty = _empty_project(Path(folder))
        for name, command in COMMANDS.items():
            _seconds(command, ROOT), _seconds(command, empty)
            runs = [(_seconds(command, ROOT), _seconds(command, empty)) for _ in range(pairs)]
            ours, bare = (statistics.median(side) for side in zip(*runs, strict=True))
            added = statistics.median(mine - theirs for mine, theirs in runs)
            rows.append((f"`{name}`", f"{ours:.2f}", f"{bare:.2f}", f"{added:+.2f}"))
    for name, command in OURS_ALONE.items():
        ours = statistics.median(_seconds(command, ROOT) for _ in range(pairs))
        rows.append((f"`{name}`", f"{ours:.2f}", "", ""))
    return pd.DataFrame(rows, columns=["command", "here", "in an empty project", "added by our code"])


def _plugins(times: int) -> pd.DataFrame:
    rows = []
    for group in sorted(ENTRY_POINT_GROUPS.values()):
        for point in sorted(entry_points(group=group)):
            command = [sys.executable, "-c", LOAD, point.name, point.value, point.group]
            done = [subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True) for _ in range(times)]
            seconds = statistics.median(float(one.stdout) for one in done)
            rows.append((f"`{point.group}`", f"`{point.value}`", f"{seconds:.2f}"))
    return pd.DataFrame(rows, columns=["group", "entry point", "seconds"])


def main(pairs: int = 7) -> None:
    how = (
        f"Processor seconds, medians of {pairs} runs. The time added by our code is the median difference of paired runs with the "
        "same environment and plugins. Made by `make benchmark-start`."
    )
    write("start_up", "Command start-up time", how, _commands(pairs))
    how = f"Processor seconds to load each entry point in a separate process, after Kedro's own commands; medians of {pairs}."
    write("start_up_plugins", "Start-up time of Kedro plugins", how, _plugins(pairs))


if __name__ == "__main__":
    main()
