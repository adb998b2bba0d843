"""The CSV file of the simulation: complete or absent, and without quotes."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from kedro.io import DatasetError

from churn_pipeline.datasets.chunked_csv import ChunkedCSVDataset


@pytest.fixture
def dataset(tmp_path: Path) -> ChunkedCSVDataset:
    return ChunkedCSVDataset(filepath=str(tmp_path / "new" / "table.csv"), load_args={"dtype": str})


def test_chunks_become_one_file(dataset: ChunkedCSVDataset, tmp_path: Path) -> None:
    dataset.save(pd.DataFrame({"a": ["x", " "], "b": [29.85, 70.0], "c": pd.Categorical(["No", "Yes"])}))
    dataset.save(pd.DataFrame({"a": ["Bank (automatic)"], "b": [0.000001], "c": ["No"]}))
    dataset.confirm()
    assert (
        tmp_path / "new" / "table.csv"
    ).read_bytes() == b"a,b,c\nx,29.85,No\n ,70,Yes\nBank (automatic),0.000001,No\n"
    assert dataset.load()["b"].tolist() == ["29.85", "70", "0.000001"]
    assert not (tmp_path / "new" / "table.csv.part").exists()
    assert dataset.exists()
    assert "table.csv" in str(dataset)


def test_the_log_says_how_many_rows_were_written_where(
    dataset: ChunkedCSVDataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        for rows in (1_000, 500):
            dataset.save(pd.DataFrame({"a": range(rows)}))
        dataset.confirm()
    assert caplog.messages == [f"Wrote 1,500 rows to {tmp_path}/new/table.csv"]


def test_a_second_run_replaces_the_first(dataset: ChunkedCSVDataset) -> None:
    for value in (1, 2):
        dataset.save(pd.DataFrame({"a": [value]}))
        dataset.confirm()
    assert dataset.load()["a"].tolist() == ["2"]


def test_an_unfinished_file_cannot_be_loaded(dataset: ChunkedCSVDataset) -> None:
    dataset.save(pd.DataFrame({"a": [1]}))
    assert not dataset.exists()
    with pytest.raises(DatasetError, match="is incomplete"):
        dataset.load()


def test_confirming_without_chunks(dataset: ChunkedCSVDataset) -> None:
    with pytest.raises(DatasetError, match="Nothing was written"):
        dataset.confirm()


def test_chunks_must_have_the_same_columns(dataset: ChunkedCSVDataset) -> None:
    dataset.save(pd.DataFrame({"a": [1], "b": [2]}))
    with pytest.raises(DatasetError, match="earlier ones"):
        dataset.save(pd.DataFrame({"b": [2], "a": [1]}))


@pytest.mark.parametrize("text", ["a,b", 'say "x"', "two\nlines"])
def test_text_that_needs_quotes_is_an_error(dataset: ChunkedCSVDataset, text: str) -> None:
    with pytest.raises((DatasetError, pa.ArrowInvalid), match="quote"):
        dataset.save(pd.DataFrame({"a": [text]}))
