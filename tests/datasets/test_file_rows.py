"""Lines of CSV files, with quoted line breaks, blank lines, encodings and compression."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from churn_pipeline.datasets.file_rows import file_rows


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a,b\n1,2\n3,4\n", {1: 2, 2: 3}),
        ("a,b\r\n1,2\r\n3,4\r\n", {1: 2, 2: 3}),
        ('a,b\n"1\n1",2\n3,4\n', {1: 2, 2: 4}),
        ("a,b\n\n1,2\n   \n3,4", {1: 3, 2: 5}),
    ],
    ids=["plain", "carriage returns", "a quoted line break", "blank lines"],
)
@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.csv.zip"])
def test_rows_have_the_lines_that_an_editor_shows(
    text: str, expected: dict[int, int], name: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    with pd.io.common.get_handle(path, "wb", compression="infer", is_text=False) as opened:
        opened.handle.write(text.encode())

    assert file_rows(str(path), "CSVDataset", {"dtype": "str"}, [1, 2]) == expected


cells = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1).map(lambda cell: f"x{cell}")


@given(table=st.lists(st.tuples(cells, st.sampled_from(["y", "y\ny", 'y"y'])), min_size=1, max_size=20))
def test_a_row_begins_in_the_line_that_is_named(
    table: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    pd.DataFrame(table, columns=["a", "b"]).to_csv(path, index=False)
    places = file_rows(str(path), "CSVDataset", {}, range(1, len(table) + 1))

    lines = path.read_text(encoding="utf-8").split("\n")
    assert places is not None
    for row, (cell, _) in enumerate(table, start=1):
        assert lines[places[row] - 1].replace('""', '"').lstrip('"').startswith(cell)


@pytest.mark.parametrize(
    ("kind", "load_args"), [("ParquetDataset", {}), ("CSVDataset", {"skiprows": 3}), ("SQLTableDataset", {})]
)
def test_other_files_have_no_lines(kind: str, load_args: dict[str, Any]) -> None:
    assert file_rows("t", kind, load_args, [1]) is None


def test_a_row_of_a_workbook_is_below_its_header() -> None:
    assert file_rows("t.xlsx", "ExcelDataset", {}, [1, 5]) == {1: 2, 5: 6}
