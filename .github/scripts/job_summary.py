"""A training's results compared with main's: Markdown for a job summary, from the reports of both.

``python .github/scripts/job_summary.py data/08_reporting --main main_reports`` prints it. Reports of main may be missing or
incomplete; then the summary shows what exists.
"""

import argparse
import csv
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = Mapping[str, str]
NOT_COMPARED = ("fit_seconds", "log_loss_se")
SAME_OR_NOT = ("data", "contract", "holdout")


@dataclass(frozen=True)
class Reports:
    """The reports of one table's training; empty if a report is missing.

    Attributes
    ----------
    leaderboard
        Metrics by candidate, best first.
    evaluated
        Value, interval and best possible value of each hold-out metric, profit included.
    choice, gate, data
        The saved choice, gate verdict and data report.
    """

    leaderboard: Mapping[str, Row]
    evaluated: Mapping[str, Row]
    choice: Mapping[str, Any]
    gate: Mapping[str, Any]
    data: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> "Reports":
        """Read the reports in a table's folder."""
        return cls(
            leaderboard=_rows(folder / "leaderboard.csv"),
            evaluated={**_rows(folder / "metrics.csv"), **_rows(folder / "profit.csv")},
            choice=_document(folder / "choice.json"),
            gate=_document(folder / "gate.json"),
            data=_document(folder / "data_report.json"),
        )


def job_summary(reports: Path, main_reports: Path) -> str:
    """Return the Markdown for every trained table.

    Parameters
    ----------
    reports, main_reports
        Folders with one folder for each table, as in ``data/08_reporting``; main's may be missing.

    Raises
    ------
    FileNotFoundError
        If no table was trained.
    """
    tables = sorted(file.parent.name for file in reports.glob("*/leaderboard.csv"))
    if not tables:
        raise FileNotFoundError(f"{reports} contains no leaderboard: train first (make train)")
    pairs = ((table, Reports.read(reports / table), Reports.read(main_reports / table)) for table in tables)
    return "\n\n".join(part for table, ours, mains in pairs for part in _parts(table, ours, mains)) + "\n"


def _parts(table: str, ours: Reports, mains: Reports) -> Iterator[str]:
    yield f"## Training of `{table}`"
    yield " ".join(_chosen(ours, mains))
    yield " ".join(_customers(ours, mains))
    yield "### Leaderboard, cross-validated"
    yield _leaderboard(ours, mains)
    yield "### The chosen model on the hold-out"
    yield _holdout(ours, mains)
    yield f"### Gate: {_cell(ours.gate.get('verdict', 'not run'))}"
    yield "\n".join(f"- {_cell(reason)}" for reason in ours.gate.get("reasons", ()))


def _chosen(ours: Reports, mains: Reports) -> Iterator[str]:
    yield f"Chosen: **{_cell(ours.choice.get('candidate', 'unknown'))}**."
    yield from map(_cell, ours.choice.get("sentences", ())[:1])
    if not mains.leaderboard:
        yield "There are no reports of main to compare with."
    elif mains.choice.get("candidate") != ours.choice.get("candidate"):
        yield f"Main chose **{_cell(mains.choice.get('candidate', 'unknown'))}**."


def _customers(ours: Reports, mains: Reports) -> Iterator[str]:
    for part, known in ours.data.get("split", {}).items():
        if "churn_share" in known:
            yield f"{part.capitalize()}: {known['rows']:,} customers, {known['churn_share']:.1%} churn."
    digests, theirs = ours.data.get("digests", {}), mains.data.get("digests", {})
    if differing := [name for name in SAME_OR_NOT if theirs and digests.get(name) != theirs.get(name)]:
        yield f"**Different from main: {', '.join(differing)}. The metrics may differ because the customers do.**"


def _leaderboard(ours: Reports, mains: Reports) -> str:
    columns = list(next(iter(ours.leaderboard.values())))[1:]
    rows = [
        [
            candidate,
            *(_with_difference(row, mains.leaderboard.get(candidate, {}), column) for column in columns),
        ]
        for candidate, row in ours.leaderboard.items()
    ]
    gone = [name for name in mains.leaderboard if name not in ours.leaderboard]
    notes = ["In brackets: difference from main."] if mains.leaderboard else []
    notes += [f"Only on main: {', '.join(map(_cell, gone))}."] if gone else []
    return "\n\n".join([_markdown_table(["candidate", *columns], rows), *notes])


def _with_difference(row: Row, main: Row, column: str) -> str:
    value, other = _number(row, column), _number(main, column)
    if value is None or other is None or column in NOT_COMPARED:
        return _shown(value)
    return f"{value:.4f} ({value - other:+.4f})"


def _holdout(ours: Reports, mains: Reports) -> str:
    header, rows = ["metric", "value", "interval", "best possible"], []
    if mains.evaluated:
        header += ["main", "difference"]
    for metric, row in ours.evaluated.items():
        value, lower, upper = (_number(row, column) for column in ("value", "lower", "upper"))
        cells = [metric, _shown(value), f"[{_shown(lower)}, {_shown(upper)}]", _shown(_number(row, "best_possible"))]
        if mains.evaluated:
            main = _number(mains.evaluated.get(metric, {}), "value")
            cells += [_shown(main), _difference(value, main, lower, upper)]
        rows.append(cells)
    note = ["Bold: main's value is outside the interval."] if mains.evaluated else []
    return "\n\n".join([_markdown_table(header, rows), *note])


def _difference(value: float | None, main: float | None, lower: float | None, upper: float | None) -> str:
    if value is None or main is None:
        return ""
    outside = lower is not None and upper is not None and not lower <= main <= upper
    return f"**{value - main:+.4f}**" if outside else f"{value - main:+.4f}"


def _markdown_table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    names = [_cell(name) for name in header]
    lines = [names, ["---", *["---:"] * (len(names) - 1)], *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: object) -> str:
    """Escape text for a table cell; names come from configuration."""
    return str(text).replace("\n", " ").replace("|", "\\|").replace("<", "&lt;")


def _shown(number: float | None) -> str:
    return "" if number is None else f"{number:.4f}"


def _number(row: Row, column: str) -> float | None:
    return float(row[column]) if row.get(column) else None


def _rows(file: Path) -> dict[str, Row]:
    """Return a table's rows by its first column; none if there is no file."""
    if not file.is_file():
        return {}
    with file.open(encoding="utf-8", newline="") as opened:
        return {next(iter(row.values())): row for row in csv.DictReader(opened)}


def _document(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def main() -> None:
    """Print the Markdown, for ``>> "$GITHUB_STEP_SUMMARY"``."""
    parser = argparse.ArgumentParser(description="Print a training's results, compared with main's, in Markdown.")
    parser.add_argument("reports", type=Path, help="folder with one folder for each table: data/08_reporting")
    parser.add_argument("--main", type=Path, required=True, help="the same folder of main; may be missing")
    given = parser.parse_args()
    try:
        sys.stdout.write(job_summary(given.reports, given.main))
    except FileNotFoundError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
