"""The command `kedro table draft`: its options, and one-line errors."""

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from click.testing import CliRunner, Result

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
            "grade": ["a", "b", "c", "b"] * 10,
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
