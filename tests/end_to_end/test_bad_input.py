"""Every fault of an input table ends the run with one message that says what to do, never with a traceback."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from tests.conftest import ROWS, Project

SOURCE = "data/01_raw/simulated_customers.csv"
Break = Callable[[Path], None]


def _edit(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Break:
    def apply(path: Path) -> None:
        change(pd.read_csv(path, dtype=str, keep_default_na=False)).to_csv(path, index=False)

    return apply


def _set(column: str, value: str, rows: int = 200) -> Break:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        table.loc[: rows - 1, column] = value
        return table

    return _edit(change)


def _bytes(change: Callable[[bytes], bytes]) -> Break:
    def apply(path: Path) -> None:
        path.write_bytes(change(path.read_bytes()))

    return apply


def _both(first: Break, second: Break) -> Break:
    def apply(path: Path) -> None:
        first(path)
        second(path)

    return apply


FAULTS: dict[str, tuple[Break, tuple[str, ...]]] = {
    "a column is missing": (
        _edit(lambda table: table.drop(columns=["tenure", "Contract"])),
        ("column 'tenure': is missing", "column 'Contract': is missing"),
    ),
    "a wrong type": (_set("tenure", "SECRET"), ("column 'tenure': is not int64 — 200 rows (row 1, 2, 3, 4, 5, …)",)),
    "an unknown level": (_set("Contract", "SECRET"), ("column 'Contract': isin", "200 rows")),
    "an impossible value": (_set("MonthlyCharges", "-7771.5"), ("column 'MonthlyCharges': in_range", "200 rows")),
    "several faults at once": (
        _both(_set("tenure", "SECRET"), _set("Contract", "SECRET", 100)),
        ("column 'tenure': is not int64 — 200 rows", "column 'Contract': isin", "100 rows"),
    ),
    "no bytes": (_bytes(lambda content: b""), ("is empty",)),
    "no rows": (_bytes(lambda content: content.split(b"\n")[0] + b"\n"), ("a header but no rows",)),
    "truncated in a row": (_bytes(lambda content: content[: content.rstrip(b"\n").rfind(b"\n") + 30]), ("truncated",)),
    "truncated in quotes": (_bytes(lambda content: content[:100_000] + b'\n"SECRET,1'), ("cannot be read", "cut off")),
    "not CSV": (_bytes(lambda content: b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40), ("cannot be read",)),
    "another separator": (_bytes(lambda content: content.replace(b",", b";")), ("none of the contract's columns",)),
    "another encoding": (
        _bytes(lambda content: content.replace(b"Month-to-month", "Müller".encode("latin-1"))),
        ("is not utf-8 text", "source.load_args.encoding"),
    ),
    "UTF-16": (_bytes(lambda content: content.decode().encode("utf-16")), ("is not utf-8 text",)),
    "duplicated ids": (
        _edit(lambda table: pd.concat([table, table.head(100)])),
        ("column 'customerID': is not unique — 200 rows",),
    ),
    "no positive case": (_set("Churn", "No", 10_000), ("no customer churned", "roles.target.positive")),
    "missing targets": (_set("Churn", " "), ("column 'Churn': is missing — 200 rows",)),
    "no file": (lambda path: path.unlink(), ("does not exist",)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_ends_the_run_with_a_message(fault: str, project: Project) -> None:
    damage, expected = FAULTS[fault]
    damage(project.path / SOURCE)

    ended = project.kedro("run", "--pipelines", "data_engineering")

    assert ended.code == 1
    for words in expected:
        assert words in ended.output
    assert "Traceback" not in ended.output
    assert "SECRET" not in ended.output
    assert "7771" not in ended.output


def test_few_broken_rows_go_to_quarantine_and_the_run_continues(project: Project) -> None:
    _set("Contract", "SECRET", 3)(project.path / SOURCE)

    ended = project.kedro("run", "--pipelines", "data_engineering")

    assert ended.code == 0, ended.output
    quarantine = pd.read_csv(project.path / "data/02_intermediate/simulated/quarantine.csv")
    customers = pd.read_parquet(project.path / "data/03_primary/simulated/customers.parquet")
    assert quarantine["row"].tolist() == [1, 2, 3]
    assert quarantine["reasons"].str.startswith("Contract: isin").all()
    assert len(quarantine) + len(customers) == ROWS
    assert quarantine["Contract"].tolist() == ["SECRET"] * 3


def test_the_quarantine_file_is_written_also_when_the_run_stops(project: Project) -> None:
    _set("tenure", "SECRET")(project.path / SOURCE)

    assert project.kedro("run", "--pipelines", "data_engineering").code == 1

    assert len(pd.read_csv(project.path / "data/02_intermediate/simulated/quarantine.csv")) == 200


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--params", "table=nowhere"), ("There is no table 'nowhere'", "telco")),
        (("--params", "split.folds=1"), ("configuration has mistakes", "split")),
        (("--params", "candidates.logistic.class=sklearn.Nothing"), ("configuration has mistakes", "sklearn.Nothing")),
    ],
)
def test_a_mistake_in_the_configuration_ends_with_a_message(
    words: tuple[str, ...], expected: tuple[str, ...], project: Project
) -> None:
    ended = project.kedro("run", "--pipelines", "training", *words)

    assert ended.code == 1
    for part in expected:
        assert part in ended.output
    assert "Traceback" not in ended.output
