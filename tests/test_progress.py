"""The progress of a run and its remaining time."""

import io
import json
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from churn_pipeline import progress
from churn_pipeline.progress import History, RunProgress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which a test advances."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_the_remaining_time_is_the_last_runs_durations(clock: list[float]) -> None:
    run = RunProgress("training", ["split", "search", "fit"], {"split": 1.0, "search": 10.0, "fit": 4.0})
    assert run.remaining == 15.0

    run.begin("split")
    clock[0] += 2.0
    run.begin("search")
    clock[0] += 3.0

    assert run.remaining == 7.0 + 4.0
    assert run.done == 1
    clock[0] += 60.0
    assert run.remaining == 4.0, "a node that takes longer than the last time has nothing left, and not less"


def test_the_remaining_time_of_a_first_run_is_unknown(clock: list[float]) -> None:
    run = RunProgress("training", ["split"], {})
    run.begin("split")

    assert run.remaining is None


def test_a_node_lasts_from_its_first_input_to_the_next_nodes(clock: list[float]) -> None:
    run = RunProgress("training", ["split", "fit"], {})
    for node in ("split", "split", "fit", "split"):
        run.begin(node)
        clock[0] += 1.5
    run.end_node()

    assert run.seconds == {"split": 3.0, "fit": 3.0}


def test_durations_are_kept_by_table_and_a_new_table_starts_with_the_last_tables(tmp_path: Path) -> None:
    file = tmp_path / "data" / "seconds.json"
    assert History(file, "telco").read() == {}
    History(file, "telco").write({"fit": 3.0, "search": 9.0})
    History(file, "gym").write({"fit": 1.0})
    History(file, "telco").write({"fit": 2.0})

    assert History(file, "telco").read() == {"fit": 2.0, "search": 9.0}
    assert History(file, "gym").read() == {"fit": 1.0}
    assert History(file, "new").read() == {"fit": 2.0, "search": 9.0}


def test_a_truncated_file_is_ignored(tmp_path: Path) -> None:
    file = tmp_path / "seconds.json"
    file.write_text('{"telco": {"fi', encoding="utf-8")

    assert History(file, "telco").read() == {}
    History(file, "telco").write({"fit": 2.0})
    assert json.loads(file.read_text(encoding="utf-8")) == {"telco": {"fit": 2.0}}


def test_hide_returns_the_current_node_once(capsys: pytest.CaptureFixture[str]) -> None:
    run = RunProgress("training", ["split", "fit"], {})
    progress.show(run)
    run.begin("split")
    run.begin("fit")

    assert progress.hide() == " in node 2 of 2, fit"
    assert progress.hide() == ""
    assert capsys.readouterr().err == "", "nothing is drawn without a terminal"


class Terminal(io.StringIO):
    """A fake terminal."""

    def isatty(self) -> bool:
        """Return True, like a terminal."""
        return True


def _terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Install a fake terminal with a short refresh interval; a fixture cannot, because pytest replaces stderr later."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(progress, "REFRESH_SECONDS", 0.01)
    return screen


def _until(shown: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not shown() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert shown()


def test_a_terminal_sees_one_line_until_it_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _terminal(monkeypatch)
    run = RunProgress("training", ["split", "fit"], {"split": 60.0, "fit": 120.0})
    handler = logging.StreamHandler(terminal)
    logging.getLogger().addHandler(handler)
    try:
        progress.show(run)
        run.begin("split")
        _until(lambda: "split 00:00, about 0" in terminal.getvalue())
        logging.getLogger().warning("a line of the log")
        run.begin("fit")
        _until(lambda: "training: 1/2 nodes" in terminal.getvalue())
        progress.hide()
    finally:
        logging.getLogger().removeHandler(handler)

    drawn = terminal.getvalue()
    assert "fit 00:0" in drawn
    assert drawn.count("\n") == 1, "the line is drawn over itself; only the log goes on to the next"
    assert "a line of the log\n" in drawn
    assert drawn.split("\r")[-1].strip() == "", "nothing of it stays"
    time.sleep(0.05)
    assert terminal.getvalue() == drawn, "nothing is drawn any more"


class Meanwhile(dict[str, float]):
    """Durations of the last run; every look-up advances the run first."""

    def __init__(self, seconds: dict[str, float], goes_on: Callable[[], None]) -> None:
        super().__init__(seconds)
        self._goes_on = goes_on

    def __contains__(self, name: object) -> bool:
        self._goes_on()
        return super().__contains__(name)


def test_a_run_may_advance_during_the_estimate() -> None:
    run = RunProgress("training", ["split", "search", "fit"], {})
    run.expected = Meanwhile({"split": 1.0, "search": 10.0, "fit": 4.0}, lambda: run.begin("search"))
    assert run.remaining is not None

    run = RunProgress("training", ["split"], {})
    run.begin("split")
    run.expected = Meanwhile({"split": 1.0}, run.end_node)
    assert run.remaining is not None


def test_the_line_stays_if_the_remaining_time_becomes_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _terminal(monkeypatch)
    answers = iter([5.0])
    monkeypatch.setattr(RunProgress, "remaining", property(lambda run: next(answers, None)))
    run = RunProgress("training", ["split"], {})
    progress.show(run)
    _until(lambda: "about 00:05 left" in terminal.getvalue())
    run.begin("split")
    _until(lambda: "split 00:00" in terminal.getvalue())
    progress.hide()
