"""A progress line on the terminal, with the remaining time estimated from the last run's node durations."""

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
    """The progress of a run: the current node, finished nodes' durations, and the remaining time.

    A node's duration lasts from its first input to its last output.

    Parameters
    ----------
    title
        The name of the run.
    nodes
        The names of all nodes of the run.
    expected
        Seconds by node of the last run; a node without an entry counts as 0 s.
    """

    def __init__(self, title: str, nodes: Iterable[str], expected: Mapping[str, float]) -> None:
        self.title, self.expected = title, expected
        self.node: str | None = None
        self.seconds: dict[str, float] = {}
        self._waiting = dict.fromkeys(nodes)
        self.total = len(self._waiting)
        self._begun = time.monotonic()

    def begin(self, node: str) -> None:
        """Advance to a node, unless it has already begun."""
        if node in self._waiting:
            self.end_node()
            del self._waiting[node]
            self.node, self._begun = node, time.monotonic()

    def end_node(self) -> None:
        """End the current node."""
        if self.node is not None:
            self.seconds[self.node] = self.elapsed
        self.node = None

    @property
    def done(self) -> int:
        """Number of finished nodes."""
        return len(self.seconds)

    @property
    def elapsed(self) -> float:
        """Seconds since the current node began."""
        return time.monotonic() - self._begun

    @property
    def remaining(self) -> float | None:
        """Estimated remaining seconds; None if no remaining node ran before."""
        # The drawing thread calls this during the run, so it reads copies.
        node, waiting = self.node, list(self._waiting)
        known = [self.expected[name] for name in waiting if name in self.expected]
        if node is not None and node in self.expected:
            known.append(max(0.0, self.expected[node] - self.elapsed))
        return sum(known) if known else None


class ProgressLine:
    """A progress line on a terminal, below the log; without a terminal, nothing is shown."""

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
        """Remove the line."""
        self._stack.close()

    def _draw(self, bar: tqdm) -> None:
        while not self._ended.wait(REFRESH_SECONDS):
            parts = []
            node, remaining = self.progress.node, self.progress.remaining
            if node is not None:
                parts.append(f"{node} {bar.format_interval(self.progress.elapsed)}")
            if remaining is not None:
                parts.append(f"about {bar.format_interval(remaining)} left")
            bar.set_postfix_str(", ".join(parts), refresh=False)
            bar.n = self.progress.done
            bar.refresh()


class History:
    """Node durations of each table's last run, in a file that may be deleted at any time; without a file, none are kept."""

    def __init__(self, file: Path | None, table: str) -> None:
        self._file, self._table = file, table

    def read(self) -> dict[str, float]:
        """Return the seconds by node; those of another table if this one was never run."""
        tables = self._content()
        return tables.get(self._table) or next(reversed(tables.values()), {})

    def write(self, seconds: Mapping[str, float]) -> None:
        """Save the durations of the run that has just ended."""
        if self._file is None:
            return
        tables = self._content()
        tables[self._table] = tables.pop(self._table, {}) | {name: round(took, 2) for name, took in seconds.items()}
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps(tables, indent=1), encoding="utf-8")

    def _content(self) -> dict[str, dict[str, float]]:
        if self._file is None:
            return {}
        try:
            content: dict[str, dict[str, float]] = json.loads(self._file.read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return content


shown_lines: list[ProgressLine] = []


def show(progress: RunProgress) -> None:
    """Show the progress of a run until `hide`."""
    shown_lines[:] = [ProgressLine(progress)]
    shown_lines[0].open()


def hide() -> str:
    """Remove the line; return the current node as the end of a sentence, or an empty text."""
    if not shown_lines:
        return ""
    line = shown_lines.pop()
    line.close()
    run = line.progress
    return f" in node {run.done + 1} of {run.total}, {run.node}" if run.node else ""
