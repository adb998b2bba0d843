"""The page of faults lists everything that is tried, and a partial run keeps the other rows."""

from pathlib import Path

from tests.conftest import ROOT
from tests.faults.cases import CASES
from tests.faults.page import HEAD, read, write

PAGE = ROOT / "docs/explanation/faults.md"


def test_the_page_has_a_row_for_each_case() -> None:
    assert list(read(PAGE.read_text(encoding="utf-8"))) == list(CASES)


def test_a_partial_run_keeps_the_other_rows(tmp_path: Path) -> None:
    page = tmp_path / "faults.md"
    page.write_text(f"# Faults\n\n{HEAD}\nThe end.\n", encoding="utf-8")
    first, second, *_ = CASES
    write(page, {first: (CASES[first].where, "one | line")})

    write(page, {second: (f"{CASES[second].where} (`node`)", "")})

    rows = read(page.read_text(encoding="utf-8"))
    assert rows[first] == (CASES[first].where, "one | line")
    assert rows[second] == (f"{CASES[second].where} (`node`)", "–")
    assert page.read_text(encoding="utf-8").endswith("\n\nThe end.\n")
