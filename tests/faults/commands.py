"""Commands of a project as processes of their own, with a fault."""

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.conftest import ROOT, Project
from tests.faults.plugin import HOST, install

TRAIN = ("run", "--pipelines", "training")
KILLED = -9
SECONDS = 900
HINT = "(Set CHURN_TRACEBACK=1"
# What differs between runs and machines in a message.
VARIABLE = (
    (r"\btest_[0-9a-f]{12}\b", "…"),
    (r"127\.0\.0\.1:\d+|port=\d+|port \d+", "…"),
    (r"\b[0-9a-f]{32}\b", "…"),
    (r"0x[0-9a-f]+", "…"),
)


class Ended(NamedTuple):
    """How a command ended.

    Attributes
    ----------
    code
        Its exit code; -9 after a kill.
    output
        What it printed.
    message
        Its last message, in one line.
    seconds
        How long it took.
    """

    code: int
    output: str
    message: str
    seconds: float


def run(project: Project, *words: str, fault: str = "", environment: Mapping[str, str] | None = None) -> Ended:
    """Run a command to its end, with a fault as in `plugin`."""
    begin = time.monotonic()
    process = start(project, *words, environment={**(environment or {}), "FAULT": fault})
    return wait(project, process, begin)


def start(project: Project, *words: str, environment: Mapping[str, str]) -> "subprocess.Popen[str]":
    """Start a command."""
    plugin = Path(tempfile.mkdtemp(dir=project.path.parent))
    install(plugin)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("KEDRO_", "MLFLOW_", "COV_"))}
    path = os.pathsep.join(map(str, (ROOT / "src", ROOT, plugin)))
    return subprocess.Popen(
        [str(Path(sys.executable).parent / "kedro"), *words],
        cwd=project.path,
        env={**kept, "PYTHONPATH": path, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait(project: Project, process: "subprocess.Popen[str]", begin: float) -> Ended:
    """Wait until a command ends."""
    output, _ = process.communicate(timeout=SECONDS)
    return Ended(process.returncode, output, _message(output, project), time.monotonic() - begin)


@contextmanager
def paused(project: Project, *words: str, at: str, environment: Mapping[str, str] | None = None) -> "Iterator[Paused]":
    """Start a command, and wait until it pauses at a point."""
    begin = time.monotonic()
    with socket.create_server((HOST, 0)) as listener:
        listener.settimeout(1)
        port = {"FAULT": f"pause: {at}", "FAULT_PORT": str(listener.getsockname()[1])}
        process = start(project, *words, environment={**(environment or {}), **port})
        while True:
            try:
                connection, _ = listener.accept()
                break
            except TimeoutError:
                assert process.poll() is None, process.communicate()[0]
                assert time.monotonic() - begin < SECONDS, "the point was not reached"
    with connection:
        try:
            yield Paused(project, process, connection, begin)
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()


class Paused(NamedTuple):
    """A command that waits at a point."""

    project: Project
    process: "subprocess.Popen[str]"
    connection: socket.socket
    begin: float

    def resume(self) -> Ended:
        """Let the command continue, and wait until it ends."""
        self.connection.close()
        return wait(self.project, self.process, self.begin)


def _message(output: str, project: Project) -> str:
    before, found, _ = output.rpartition(HINT)
    text = before.rstrip().rpartition("\n\n")[2] if found else ""
    for pattern, replacement in (*VARIABLE, (re.escape(f"{project.path}/"), "")):
        text = re.sub(pattern, replacement, text)
    return " ".join(line.strip().removeprefix("- ") for line in text.strip().splitlines())
