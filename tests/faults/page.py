"""The table of `docs/explanation/faults.md`."""

import re
from collections.abc import Mapping
from pathlib import Path

from tests.faults.cases import CASES

HEAD = "| fault | where | what the user sees | what is kept | what to do |\n|---|---|---|---|---|\n"
NOT_RUN = "not run yet"


def read(page: str) -> dict[str, tuple[str, str]]:
    """Where, and what the user saw, for each case with a row."""
    rows = [
        [cell.strip().replace("\\|", "|") for cell in line.strip("|").split(" | ")]
        for line in page.splitlines()
        if line[:2] == "| "
    ]
    found = {}
    for (name, case), cells in ((item, cells) for item in CASES.items() for cells in rows):
        if (cells[0], cells[3], cells[4]) == (case.fault, case.kept, case.fix) and cells[1].startswith(case.where):
            found[name] = (cells[1], cells[2])
    return found


def write(file: Path, seen: Mapping[str, tuple[str, str]]) -> None:
    """Write the rows of these cases: where, and what the user saw. The other cases keep their rows."""
    page = file.read_text(encoding="utf-8")
    known = {**read(page), **seen}
    lines = []
    for name, case in CASES.items():
        where, message = known.get(name, (case.where, NOT_RUN))
        cells = (case.fault, where, message, case.kept, case.fix)
        lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |\n")
    table = re.compile(rf"{re.escape(HEAD)}(\|.*\n)*")
    file.write_text(table.sub(lambda _: HEAD + "".join(lines), page), encoding="utf-8")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ") or "–"
