"""How far a run is and how long it has still to go: a line on a terminal, from what its nodes took the last time."""

import json
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path

from tqdm import tqdm  # type: ignore[import-untyped]
from tqdm.contrib.logging import logging_redirect_tqdm  # type: ignore[import-untyped]

REFRESH_SECONDS = 0.5
LAYOUT = "{desc}: {n_fmt}/{total_fmt} nodes |{bar:20}| {elapsed}{postfix}"


class RunProgress:
    """The clock of a run: which node is under way and since when, and what the rest will take.

    A node's time is all from its first input to its last output.

    Parameters
    ----------
    title
        What is run.
    nodes
        The names of the nodes to come.
    expected
        What nodes took the last time, in seconds by name; those that are not in it are taken to need none.
    """

    def __init__(self, title: str, nodes: Iterable[str], expected: Mapping[str, float]) -> None:
        self.title, self.expected = title, expected
        self.node: str | None = None
        self.seconds: dict[str, float] = {}
        self._waiting = dict.fromkeys(nodes)
        self.total = len(self._waiting)
        self._begun = time.monotonic()

    def begin(self, node: str) -> None:
        """Go on to a node, unless it is under way already."""
        if node in self._waiting:
            self.end_node()
            del self._waiting[node]
            self.node, self._begun = node, time.monotonic()

    def end_node(self) -> None:
        """Stop the clock of the node under way."""
        if self.node is not None:
            self.seconds[self.node] = self.elapsed
        self.node = None

    @property
    def done(self) -> int:
        """How many nodes have ended."""
        return len(self.seconds)

    @property
    def elapsed(self) -> float:
        """For how long the node has been under way, in seconds."""
        return time.monotonic() - self._begun

    @property
    def left(self) -> float | None:
        """How many seconds are left, if all takes what it took the last time; None where there was none."""
        # Asked from the thread that draws, while the run goes on: of copies, which stay as they are.
        node, waiting = self.node, list(self._waiting)
        known = [self.expected[name] for name in waiting if name in self.expected]
        if node is not None and node in self.expected:
            known.append(max(0.0, self.expected[node] - self.elapsed))
        return sum(known) if known else None


class Line:
    """One line on a terminal that shows a run's progress; log lines go above it. Elsewhere nothing."""

    def __init__(self, progress: RunProgress) -> None:
        self.progress = progress
        self._ended = threading.Event()
        self._stack = ExitStack()

    def open(self) -> None:
        """Show the line."""
        if not sys.stderr.isatty():
            return
        self._stack.enter_context(logging_redirect_tqdm())
        bar = self._stack.enter_context(
            tqdm(total=self.progress.total, desc=self.progress.title, bar_format=LAYOUT, leave=False, file=sys.stderr)
        )
        thread = threading.Thread(target=self._draw, args=(bar,), name="progress", daemon=True)
        self._stack.callback(thread.join)
        self._stack.callback(self._ended.set)
        thread.start()

    def close(self) -> None:
        """Take the line away."""
        self._stack.close()

    def _draw(self, bar: tqdm) -> None:
        while not self._ended.wait(REFRESH_SECONDS):
            said = []
            node, left = self.progress.node, self.progress.left
            if node is not None:
                said.append(f"{node} {bar.format_interval(self.progress.elapsed)}")
            if left is not None:
                said.append(f"about {bar.format_interval(left)} left")
            bar.set_postfix_str(", ".join(said), refresh=False)
            bar.n = self.progress.done
            bar.refresh()


class History:
    """What the nodes of each table took the last time, in a file that may be deleted at any time."""

    def __init__(self, file: Path, table: str) -> None:
        self._file, self._table = file, table

    def read(self) -> dict[str, float]:
        """The seconds that nodes took, by name; of any other table where this one has never been run."""
        tables = self._content()
        return tables.get(self._table) or next(reversed(tables.values()), {})

    def write(self, seconds: Mapping[str, float]) -> None:
        """Remember what nodes took just now."""
        tables = self._content()
        tables[self._table] = tables.pop(self._table, {}) | {name: round(took, 2) for name, took in seconds.items()}
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps(tables, indent=1), encoding="utf-8")

    def _content(self) -> dict[str, dict[str, float]]:
        try:
            content: dict[str, dict[str, float]] = json.loads(self._file.read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return content


_shown: list[Line] = []


def show(progress: RunProgress) -> None:
    """Show the progress of the run that begins, until `hide`."""
    _shown[:] = [Line(progress)]
    _shown[0].open()


def hide() -> str:
    """Take the line away; gives where the run is, in words that follow others, or nothing where none is under way."""
    if not _shown:
        return ""
    line = _shown.pop()
    line.close()
    run = line.progress
    return f" in node {run.done + 1} of {run.total}, {run.node}" if run.node else ""
