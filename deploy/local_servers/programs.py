"""Programs that run in the background: find, start, wait for and stop them."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

HOST = "127.0.0.1"
START_SECONDS = 300
STOP_SECONDS = 30


class ServerError(Exception):
    """A server cannot be started or stopped; the message says why and how to fix it."""


def find_program(name: str, package: str, folders: Sequence[Path] = ()) -> Path:
    """Return the path of a program: beside this Python, on PATH, or in one of the folders.

    Raises
    ------
    ServerError
        If it is missing. The message names the package that provides it.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath), *map(str, folders)])
    found = shutil.which(name, path=path)
    if found is None:
        raise ServerError(f"The program {name} is missing: install {package}")
    return Path(found)


def free_port() -> int:
    """Return a free port on loopback."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def check_port(port: int, server: str, variable: str) -> None:
    """Check that a port is free.

    Raises
    ------
    ServerError
        If another program listens on it.
    """
    with socket.socket() as probe:
        if probe.connect_ex((HOST, port)) == 0:
            raise ServerError(
                f"Port {port} of {server} is in use: stop that program, or choose another port: {variable}=…"
            )


def write_private(file: Path, text: str) -> None:
    """Write a file that only this user may read: whole or, if this process is killed, not at all."""
    unfinished = file.with_name(f"{file.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    unfinished.touch(mode=0o600)
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(file)


class Background:
    """A program in the background, found again by its process id and start time in ``<name>.pid``.

    Parameters
    ----------
    name
        Names the files for the process id and the log.
    folder
        The folder of these files.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self._folder = name, folder
        self._pid_file = folder / f"{name}.pid"
        self.log = folder / f"{name}.log"

    def start(self, command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> None:
        """Start the program in a session of its own; its output goes to the log."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        write_private(self._pid_file, f"{process.pid} {psutil.Process(process.pid).create_time()}")

    def process(self) -> psutil.Process | None:
        """Return the running process; None if it has ended, or its id belongs to another process now."""
        if not self._pid_file.is_file():
            return None
        pid, created = self._pid_file.read_text(encoding="utf-8").split()
        try:
            process = psutil.Process(int(pid))
            same = abs(process.create_time() - float(created)) < 1 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return None
        return process if same else None

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Wait until the server answers.

        Raises
        ------
        ServerError
            If the program ends or does not answer in time. The message names its log.
        """
        end = time.monotonic() + START_SECONDS
        while not ready():
            if self.process() is None:
                raise ServerError(f"{self.name} ended while it started: read {self.log}")
            if time.monotonic() > end:
                raise ServerError(f"{self.name} did not answer within {START_SECONDS} seconds: read {self.log}")
            time.sleep(0.1)

    def stop(self, signal_number: int = signal.SIGTERM) -> None:
        """Stop the program and its children, by force if they take longer than `STOP_SECONDS`."""
        process = self.process()
        if process is not None:
            family = [process, *process.children(recursive=True)]
            process.send_signal(signal_number)
            _, alive = psutil.wait_procs(family, timeout=STOP_SECONDS)
            for one in alive:
                one.kill()
            psutil.wait_procs(alive, timeout=STOP_SECONDS)
        self._pid_file.unlink(missing_ok=True)
