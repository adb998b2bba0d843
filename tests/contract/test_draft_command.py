"""The command `kedro table draft`: its options, and one-line errors."""

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from click.testing import CliRunner, Result
from tests.workbooks import write_workbook

from churn_pipeline.contract.schema import read_contract
from churn_pipeline.table_commands import table as commands


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "Customers.csv"
    pd.DataFrame(
        {
            "key": [f"k{number}" for number in range(40)],
            "code": [f"c{number}" for number in range(40)],
            "calls": [1, 2, 3, 4] * 10,
            "grade": (["a", "b", "c"] * 14)[:40],
            "churn": ["yes", "no", "no", "no", "yes"] * 8,
        }
    ).to_csv(path, index=False)
    return path


def run(file: Path, *options: str) -> Result:
    metadata = SimpleNamespace(project_path=file.parent)
    return CliRunner().invoke(commands, ["draft", str(file), "--name", "mine", *options], obj=metadata)


def test_options_override_the_guesses(file: Path) -> None:
    ended = run(file, "--target", "grade", "--positive", "c", "--id", "code")

    assert ended.exit_code == 0, ended.output
    roles = read_contract(file.parent / "conf/local/tables/mine.yml").roles
    assert (roles.target.column, roles.target.positive, roles.id) == ("grade", "c", "code")
    assert "Target 'grade' (churn = 'c'), id code" in ended.output.replace("Guessed: target", "Target")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--target", "chrun"), "--target chrun is not a column of the file"),
        (("--positive", "maybe"), "--positive maybe is in no column that can be the target"),
        (("--target", "churn", "--positive", "maybe"), "--positive maybe is not a value of the column 'churn'"),
        (("--id", "number"), "--id number is not a column of the file"),
    ],
)
def test_an_option_that_does_not_fit_is_a_one_line_error_and_writes_nothing(
    file: Path, options: tuple[str, ...], message: str
) -> None:
    ended = run(file, *options)

    assert ended.exit_code == 1
    (line,) = [line for line in ended.output.splitlines() if line and "CHURN_TRACEBACK" not in line]
    assert line.startswith(message)
    assert not (file.parent / "conf").exists()


def answer(file: Path, *answers: object) -> tuple[Result, Path]:
    metadata = SimpleNamespace(project_path=file.parent)
    ended = CliRunner().invoke(commands, ["new"], obj=metadata, input="\n".join(map(str, answers)) + "\n")
    return ended, file.parent / "conf/local/tables/customers.yml"


def test_new_asks_and_takes_guesses_as_defaults(file: Path) -> None:
    ended, path = answer(file, file, *[""] * 10)

    assert ended.exit_code == 0, ended.output
    contract = read_contract(path)
    assert (contract.roles.target.column, contract.roles.target.positive, contract.roles.id) == ("churn", "yes", "key")
    defaults = {"value": 500, "offer_cost": 50, "contact_cost": 5, "acceptance": 0.3, "currency": "€"}
    assert contract.costs == defaults
    assert "# costs:" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("declined", ["none", "-"])
def test_new_and_draft_accept_that_there_is_no_id(file: Path, declined: str) -> None:
    ended, path = answer(file, file, "", "", "", declined, *[""] * 6)

    assert ended.exit_code == 0, ended.output
    assert read_contract(path).roles.id is None
    assert "# id: none, as given" in path.read_text(encoding="utf-8")
    assert {"key", "code"} <= set(read_contract(path).roles.ignored)
    assert run(file, "--id", declined).exit_code == 0
    assert read_contract(path.with_name("mine.yml")).roles.id is None


def test_a_column_named_none_can_be_the_id(file: Path) -> None:
    table = pd.read_csv(file).rename(columns={"code": "none"})
    table.to_csv(file, index=False)

    assert run(file, "--id", "none").exit_code == 0
    assert read_contract(file.parent / "conf/local/tables/mine.yml").roles.id == "none"


def test_new_asks_for_the_sheet_of_a_workbook_with_several(file: Path) -> None:
    book = file.with_name("Customers.xlsx")
    write_workbook(book, {"About": pd.DataFrame({"note": ["made by", "the shop"]}), "Data": pd.read_csv(file)})

    ended, path = answer(file, book, "", "Dota", "Data", *[""] * 8)

    assert ended.exit_code == 0, ended.output
    assert "Sheet with the customers (About, Data) [About]" in ended.output
    assert "'Dota' is not one of" in ended.output
    assert read_contract(path).roles.target.column == "churn"
    assert 'sheet_name: "Data"' in path.read_text(encoding="utf-8")


def test_new_asks_again_until_an_answer_fits(file: Path) -> None:
    ended, path = answer(
        *(file, "nothing.csv", file, "mine", "chrun", "grade", "z", "c", "code", "lots", "calls", 6, 20, 1, 2, 0.5, "$")
    )

    assert ended.exit_code == 0, ended.output
    assert "target chrun is not a column of the file" in ended.output
    assert "positive z is not a value of the column 'grade'" in ended.output
    assert "lots is neither a positive number nor a numeric column" in ended.output
    contract = read_contract(path.with_name("mine.yml"))
    assert (contract.roles.target.column, contract.roles.target.positive, contract.roles.id) == ("grade", "c", "code")
    assert contract.costs == {
        "value": {"column": "calls", "months": 6},
        "offer_cost": 20,
        "contact_cost": 1,
        "acceptance": 0.5,
        "currency": "$",
    }
