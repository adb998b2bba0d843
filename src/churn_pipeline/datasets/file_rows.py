"""Where the rows of a table stand in their file: the line of a CSV file, or the row of a workbook."""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import fsspec

# Arguments that do not change which lines are rows
KNOWN = {"dtype", "keep_default_na", "na_values", "encoding", "sep", "quotechar", "compression", "engine", "sheet_name"}


def file_rows(
    filepath: str,
    kind: str,
    load_args: Mapping[str, Any],
    rows: Sequence[int],
    credentials: Mapping[str, Any] | None = None,
) -> dict[int, int] | None:
    """Lines of a CSV file, or rows of a workbook, in which rows of the table begin; both count from 1.

    Parameters
    ----------
    filepath
        The file, compressed or not.
    kind
        The class of the Kedro dataset that reads it, such as ``CSVDataset``.
    load_args
        The dataset's arguments for reading.
    rows
        Row numbers of the table; the row below the header is 1.
    credentials
        Arguments of fsspec's file system.

    Returns
    -------
    dict or None
        The place of each row; None if the file is neither CSV nor Excel, or an argument skips lines.
    """
    if not load_args.keys() <= KNOWN:
        return None
    if kind == "ExcelDataset":
        return {row: row + 1 for row in rows}
    if kind != "CSVDataset":
        return None
    arguments = {"encoding": load_args.get("encoding", "utf-8"), "compression": load_args.get("compression", "infer")}
    storage = credentials if "://" in filepath and credentials else {}
    try:
        with fsspec.open(filepath, "rt", newline="", **arguments, **storage) as text:
            begins = islice(_first_lines(text, load_args), max(rows, default=0) + 1)
            return {row: line for row, line in enumerate(begins) if row in set(rows)}
    except (OSError, UnicodeError, csv.Error):
        return None


def _first_lines(text: Iterable[str], load_args: Mapping[str, Any]) -> Iterator[int]:
    """The line in which each record begins, the header's first; like pandas, it skips blank lines."""
    reader = csv.reader(text, delimiter=load_args.get("sep", ","), quotechar=load_args.get("quotechar", '"'))
    begin = 1
    for record in reader:
        if len(record) > 1 or "".join(record).strip():
            yield begin
        begin = reader.line_num + 1
