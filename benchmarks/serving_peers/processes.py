"""Services as processes. Each runs in its own process group, which is used to stop it."""

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.common import ROOT

READY_SECONDS = 120


@dataclass(frozen=True)
class Service:
    """How to start a service and send requests to it.

    Attributes
    ----------
    command
        Command line; ``{port}`` is replaced by the port.
    environment
        Additional environment variables.
    ready
        Path that answers 200 as soon as the service is ready.
    path
        Path of the prediction endpoint.
    wrapped
        Name of the request field with the customers.
    key
        API key, if the service needs one.
    """

    command: Sequence[str]
    environment: Mapping[str, str]
    ready: str
    path: str = "/predict"
    wrapped: str = "customers"
    key: str | None = None


@dataclass(frozen=True)
class Running:
    """A service that is ready."""

    service: Service
    port: int
    process: subprocess.Popen[bytes]
    seconds: float
    output: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.service.path}"

    def workers(self) -> list[psutil.Process]:
        """The worker processes of a BentoML service."""
        children = psutil.Process(self.process.pid).children()
        return [child for child in children if "_bentoml_impl.worker.service" in " ".join(child.cmdline())]

    def resident(self) -> float:
        """Resident MiB of the largest process in the group, which is the worker."""
        parent = psutil.Process(self.process.pid)
        return max(one.memory_info().rss for one in [parent, *parent.children(recursive=True)]) / 2**20


@contextmanager
def running(service: Service, folder: Path) -> Iterator[Running]:
    """Start a service, wait until it is ready, and stop it at the end. Its output goes to a file."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    output = folder / "output.txt"
    begin = time.perf_counter()
    with output.open("wb") as stream:
        process = subprocess.Popen(
            [word.format(port=port) for word in service.command],
            cwd=ROOT,
            env={**os.environ, **service.environment},
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        while not _is_ready(f"http://127.0.0.1:{port}{service.ready}"):
            if process.poll() is not None or time.perf_counter() - begin > READY_SECONDS:
                raise RuntimeError(f"{service.command} did not start:\n{output.read_text(errors='replace')[-4000:]}")
            time.sleep(0.02)
        yield Running(service, port, process, time.perf_counter() - begin, output)
    finally:
        _end(process)


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    except ProcessLookupError:  # it has already ended
        process.wait()
