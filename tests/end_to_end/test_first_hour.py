"""Follows docs/first_hour.md as a reader does: in a clone, block by block, without changes.

The fence of a block says what it is:

- A ``console`` block is run by bash. One titled "Another terminal: <address>" runs until the end; the test waits until the
  address answers. One titled "This ends with code 1" must do so.
- A block whose title is a path writes that file; a ``diff`` changes it.
- A ``text`` block shows what the command before it printed. Numbers may differ, and … stands for anything.
"""

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.conftest import ROOT

PAGE = ROOT / "docs" / "first_hour.md"
FENCE = re.compile(r'^```(\w+)(?: title="([^"]*)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
ADDRESS = re.compile(r"Another terminal: (http\S+)")
PORTS = {"VIZ_PORT": "4141", "MLFLOW_PORT": "5000", "PORT": "3000"}
# The log shows a node's time from half a second on: which nodes those are depends on the machine.
NODE_TIME = re.compile(r"^[\d:]+ INFO +\S+ +[\d.]+ s\n", re.MULTILINE)
NUMBER = re.compile(r"\d[\d.,:]*|[0-9a-f]{16}")


class Block(NamedTuple):
    kind: str
    title: str
    text: str


def _free_port() -> str:
    """A free port below 49152: kedro-viz accepts none of the ports that systems assign themselves."""
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return str(port)
    raise AssertionError("there is no free port")


def blocks(text: str) -> list[Block]:
    """The page's fenced blocks, in order."""
    return [Block(*found.groups(default="")) for found in FENCE.finditer(text)]


def patched(text: str, diff: str) -> str:
    """Apply a diff to the text; its unchanged and removed lines must be in the text exactly once."""
    lines = [(line[:1], line[1:]) for line in diff.splitlines(keepends=True)]
    old = "".join(line for sign, line in lines if sign in " -")
    new = "".join(line for sign, line in lines if sign in " +")
    assert text.count(old) == 1, f"The page changes lines that are not there:\n{old}\nin\n{text}"
    return text.replace(old, new)


def matches(shown: str, printed: str) -> bool:
    """Whether a command printed what the page shows: the same lines in the same order; numbers may differ."""

    def pattern(line: str) -> str:
        parts = [re.escape(part) for part in re.split(f"(?:{NUMBER.pattern})", line)]
        return r"[\da-f.,:]+".join(parts).replace("…", ".*").replace(r"\ ", " ").replace("  ", r"\s+")

    printed = NODE_TIME.sub("", printed)
    lines = [pattern(line) for line in shown.splitlines()]
    return (
        re.search("^" + r"\n".join(".*(?:\n.*)*?" if line == ".*" else line for line in lines), printed, re.MULTILINE)
        is not None
    )


class Reader:
    """A clone, an environment, and the terminals that the page opens."""

    def __init__(self, clone: Path, environment: dict[str, str], terminals: ExitStack) -> None:
        self.clone, self.environment, self._terminals = clone, environment, terminals
        self.printed = ""

    def do(self, block: Block) -> None:
        """Do what the block says."""
        if block.kind == "text":
            assert matches(block.text, self.printed), (
                f"The page shows\n{block.text}\nbut this was printed:\n{self.printed}"
            )
        elif block.kind != "console":
            self._write(self.clone / block.title, block)
        elif found := ADDRESS.fullmatch(block.title):
            self.printed = self._terminals.enter_context(self._terminal(block.text, found[1]))
            if key := re.search(r"until the service stops: (\S+)", self.printed):
                self.environment["KEY"] = key[1]
        else:
            done = subprocess.run(
                ["bash", "-ec", block.text],
                cwd=self.clone,
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=300,
                check=False,
            )
            self.printed = done.stdout
            assert done.returncode == (1 if block.title else 0), f"{block.text}\n{self.printed}"
            assert "Traceback" not in self.printed

    @staticmethod
    def _write(file: Path, block: Block) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        text = patched(file.read_text(encoding="utf-8"), block.text) if block.kind == "diff" else block.text
        file.write_text(text, encoding="utf-8")

    @contextmanager
    def _terminal(self, command: str, address: str) -> Iterator[str]:
        """Run a command until the end of the block, then end its process group."""
        log = self.clone.parent / "terminal.log"
        with log.open("w") as file:
            running = subprocess.Popen(
                ["bash", "-c", command],
                cwd=self.clone,
                env=self.environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            deadline = time.monotonic() + 120
            while not _answers(address):
                assert running.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
            yield log.read_text()
        finally:
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGTERM)
                running.wait(timeout=60)


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(address, timeout=5).close()
    except OSError:
        return False
    return True


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """A reader with a clone of the working tree, in which this environment is already set up."""
    clone = tmp_path / "clone"
    git = ["git", "-C", str(clone), "-c", "user.name=reader", "-c", "user.email=reader@localhost"]
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    listed = subprocess.run(
        [
            "git",
            "ls-files",
            "-cmo",
            "--exclude-standard",
            "-z",
            "src",
            "conf",
            "Makefile",
            "pyproject.toml",
            "requirements",
            "bentos",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, clone / name)
    subprocess.run([*git, "add", "--all"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "-m", "The tree as it is"], check=True)
    (clone / ".venv").mkdir()
    for part in Path(sys.prefix).iterdir():
        (clone / ".venv" / part.name).symlink_to(part)
    (clone / ".venv" / ".ready").unlink(missing_ok=True)
    (clone / ".venv" / ".ready").touch()
    ours = ("KEDRO_", "MLFLOW_", "CHURN_", "COV_", "PYTEST_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environment |= {"PATH": f"{clone}/.venv/bin:{environment['PATH']}", "BROWSER": "true"}
    environment |= {name: _free_port() for name in PORTS}
    with ExitStack() as terminals:
        yield Reader(clone, environment, terminals)


@pytest.mark.slow
def test_the_first_hour_works_as_the_page_shows(reader: Reader) -> None:
    text = PAGE.read_text(encoding="utf-8")
    # Other tests or programs may use the ports of the page.
    for name, port in PORTS.items():
        text = re.sub(rf"(localhost|127\.0\.0\.1):{port}\b", rf"\1:{reader.environment[name]}", text)

    for block in blocks(text):
        reader.do(block)


def test_shown_text_is_compared_with_printed_text() -> None:
    printed = "10:01:02 INFO    a\n10:01:03 INFO    fit      0.7 s\nrow 3: 0.25\nsomething\nthe end\n"

    assert matches("… INFO    a\n…\nthe end\n", printed)
    assert matches("… INFO    a\nrow 7: 0.9\n", printed)
    assert not matches("row 7: 0.9\nthe end\n", printed)
    assert not matches("row: 0.9\n", printed)


def test_a_diff_must_fit() -> None:
    assert patched("a\nb\nc\n", " a\n-b\n+B\n") == "a\nB\nc\n"
    with pytest.raises(AssertionError, match="not there"):
        patched("a\nb\nc\n", " a\n-x\n")
