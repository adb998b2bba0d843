"""A service in its own processes, started by ``bentoml serve``."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

ROOT = Path(__file__).parents[2]
BARE = "tests.serving.bare_service:Bare"


@dataclass
class Running:
    """A running service; its output is in the file `output`."""

    url: str
    port: int
    process: subprocess.Popen[bytes]
    output: Path

    def printed(self) -> str:
        """The output so far."""
        return self.output.read_text(encoding="utf-8", errors="replace")

    def workers(self) -> list[psutil.Process]:
        """The worker processes that are alive."""
        return [child for child in psutil.Process(self.process.pid).children() if _is_worker(child)]

    def stop(self) -> int:
        """Send SIGTERM and return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "_bentoml_impl.worker.service" in process.cmdline()
    except psutil.Error:  # it has ended
        return False


def free_port() -> int:
    """A free port on loopback."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def serving(
    folder: Path, environment: Mapping[str, str], *words: str, service: str = BARE, python: Path | None = None
) -> Iterator[Running]:
    """Start a service, wait until it is ready, and stop it at the end; with another environment's Python, in `folder`."""
    port = free_port()
    output = folder / "output.txt"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CHURN_")}
    own = {
        "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_HOME": str(folder / "bentoml"),
        "PROMETHEUS_MULTIPROC_DIR": str(folder / "prometheus"),
    }
    program = [str(python or sys.executable), "-m", "bentoml", "serve", service]
    command = [*program, "--host", "127.0.0.1", "--port", str(port), *words]
    with output.open("wb") as stream:
        process = subprocess.Popen(
            command,
            cwd=folder if python else ROOT,
            env={**kept, **own, **environment},
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    scheme = "https" if "--ssl-certfile" in words else "http"
    running = Running(f"{scheme}://127.0.0.1:{port}", port, process, output)
    try:
        _wait_until_ready(running)
        yield running
    finally:
        if process.poll() is None:
            running.stop()


def _wait_until_ready(running: Running) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until and running.process.poll() is None:
        try:
            if httpx.get(f"{running.url}/readyz", verify=False).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError(f"The service did not become ready:\n{running.printed()}")
