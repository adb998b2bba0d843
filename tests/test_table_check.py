"""`kedro table check`: what stops training, what deserves a look, and lines of the file."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner, Result

from churn_pipeline.pipelines.data_engineering.identity import stable_fraction
from churn_pipeline.table_check import TableCheck, check_table
from churn_pipeline.table_commands import table as commands
from tests.conftest import ROOT

ROWS = 600
Edit = Callable[[dict[str, Any]], None]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the project's configuration and no private tables."""
    shutil.copytree(ROOT / "conf", tmp_path / "conf", ignore=shutil.ignore_patterns("local"))
    return tmp_path


def customers(**columns: Any) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    plan = rng.choice(["monthly", "yearly"], ROWS)
    churn = rng.random(ROWS) < np.where(plan == "monthly", 0.4, 0.1)
    content = {
        "member": [f"M{number}" for number in range(ROWS)],
        "plan": plan,
        "visits": rng.poisson(9.0, ROWS),
        "fee": rng.permutation(ROWS) / 4 + 10,
        "churn": np.where(churn, "yes", "no"),
    }
    return pd.DataFrame({**content, **columns})


def run(project: Path, *words: str) -> Result:
    return CliRunner().invoke(commands, list(words), obj=SimpleNamespace(project_path=project))


def drafted(project: Path, table: pd.DataFrame, edit: Edit | None = None, **csv: Any) -> Path:
    """Write the table, draft its file, and apply `edit` to the file's content; without guesses if there is an edit."""
    file = project / "mine.csv"
    table.to_csv(file, index=False, **csv)
    assert run(project, "draft", str(file)).exit_code == 0
    path = project / "conf/local/tables/mine.yml"
    if edit is not None:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        content["label"]["meaning"] = "The member left within three months."
        edit(content)
        path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def checked(project: Path, table: pd.DataFrame, edit: Edit = lambda content: None) -> TableCheck:
    drafted(project, table, edit)
    return check_table(project, "mine")


def line_about(lines: list[str], *words: str) -> str:
    (line,) = [line for line in lines if all(word in line for word in words)]
    return line


def test_a_clean_table_is_fine(project: Path) -> None:
    check = checked(project, customers())

    assert (check.stops, check.looks) == ([], [])
    assert line_about(check.fine, "600 valid, 0 invalid")
    assert "churned 'yes'" in line_about(check.fine, "target 'churn'")


def test_an_unedited_draft_names_its_guesses_and_passes(project: Path) -> None:
    path = drafted(project, customers(branch=np.random.default_rng(1).integers(1, 30, ROWS)))

    ended = run(project, "check", "mine")

    assert ended.exit_code == 0, ended.output
    text = path.read_text(encoding="utf-8").splitlines()
    for key in ("id:", "target:", '"branch"'):
        (number,) = [at for at, line in enumerate(text, 1) if line.strip().startswith(key)]
        assert f"line {number}: {key.rstrip(':')}" in ended.output
    assert "label.meaning is empty" in ended.output
    assert "bounds from the values seen in 'visits', 'fee'" in ended.output


@pytest.mark.parametrize(("invalid", "stops"), [(6, False), (7, True)])
def test_invalid_rows_stop_the_check_at_the_share_at_which_they_stop_training(
    invalid: int, stops: bool, project: Path
) -> None:
    table = customers()
    table.loc[: invalid - 1, "visits"] = 5000  # of 600 rows, 1 % may be invalid

    check = checked(project, table, lambda content: content["columns"]["visits"]["in_range"].update(max_value=100))

    lines = check.stops if stops else check.looks
    assert "in_range(0, 100)" in line_about(lines, "column 'visits'")
    assert bool(check.stops) == stops
    if stops:
        assert "quarantine.max_share" in line_about(check.stops, "7 of 600 rows are invalid")


def test_the_share_of_invalid_rows_comes_from_the_parameters(project: Path) -> None:
    (project / "conf/local").mkdir()
    (project / "conf/local/parameters.yml").write_text("quarantine: {max_share: 0.5}", encoding="utf-8")
    table = customers()
    table.loc[:99, "visits"] = 5000

    check = checked(project, table, lambda content: content["columns"]["visits"]["in_range"].update(max_value=100))

    assert check.stops == []


def test_rows_are_named_by_their_line_in_the_file(project: Path) -> None:
    table = customers(note=["", "two\nlines", *[f"note {number % 7}" for number in range(ROWS - 2)]])
    table.loc[[0, 1, 2], "visits"] = 5000

    check = checked(project, table, lambda content: content["columns"]["visits"]["in_range"].update(max_value=100))

    assert "(line 2, 3, 5)" in line_about(check.looks, "column 'visits'")


def test_rows_of_a_parquet_file_are_named_by_their_number(project: Path) -> None:
    table = customers()
    table.loc[4, "visits"] = 5000
    table.to_parquet(project / "mine.parquet")
    assert run(project, "draft", str(project / "mine.parquet")).exit_code == 0
    path = project / "conf/local/tables/mine.yml"
    path.write_text(path.read_text(encoding="utf-8").replace("max_value: 10000}", "max_value: 100}"), encoding="utf-8")

    assert "(row 5)" in line_about(check_table(project, "mine").looks, "column 'visits'")


def noisy_copy(table: pd.DataFrame) -> list[str]:
    flipped = np.random.default_rng(5).random(ROWS) < 0.01
    return list(np.where((table["churn"] == "yes") ^ flipped, "form", "none"))


def test_a_leak_stops_the_check_and_an_allowed_one_deserves_a_look(project: Path) -> None:
    table = customers().assign(leaving=noisy_copy)

    stopped = checked(project, table)
    (project / "conf/local/parameters.yml").write_text("leaks: {allowed: [leaving]}", encoding="utf-8")
    allowed = check_table(project, "mine")

    assert "roles.ignored" in line_about(stopped.stops, "column 'leaving'", "leak")
    assert allowed.stops == []
    assert line_about(allowed.looks, "column 'leaving'", "leak")


SUSPICIOUS: dict[str, tuple[Callable[[pd.DataFrame], Any], str]] = {
    "constant": (lambda table: ["a"] * ROWS, "has the same value in every row"),
    "free": (lambda table: [f"called about {number}" for number in range(ROWS)], "free text"),
    "number": (lambda table: np.random.default_rng(2).permutation(ROWS) + 7000, "different in every row, like an id"),
    "age": (lambda table: np.random.default_rng(2).integers(18, 90, ROWS), "protected attribute"),
    "churn score": (lambda table: np.random.default_rng(2).integers(1, 9, ROWS), "describes the churn itself"),
}


@pytest.mark.parametrize("name", SUSPICIOUS)
def test_a_suspicious_feature_is_named_with_its_fix(name: str, project: Path) -> None:
    make, words = SUSPICIOUS[name]

    def use_all(content: dict[str, Any]) -> None:
        content["roles"].pop("ignored", None)
        content["roles"].pop("protected", None)

    check = checked(project, customers().assign(**{name: make}), use_all)

    assert check.stops == []
    line = line_about(check.looks, f"column '{name}'")
    assert words in line
    assert "roles." in line


def test_a_third_level_of_the_target_is_named(project: Path) -> None:
    table = customers()
    table["churn"] = np.where(np.arange(ROWS) % 10 == 0, "joined", table["churn"].replace({"yes": "churned"}))

    line = line_about(checked(project, table).looks, "column 'churn'")

    assert "'churned'" in line.split("counts as churned")[0]
    assert "'joined' (10.0%)" in line.split("counts as churned")[1]


def test_repeated_rows_and_columns_missing_from_the_contract_are_named(project: Path) -> None:
    table = pd.concat([customers(), customers().head(5).assign(member=[f"N{number}" for number in range(5)])])

    check = checked(project, table, lambda content: content["columns"].pop("fee"))

    assert "missing from the contract" in line_about(check.looks, "column 'fee'")
    assert line_about(check.looks, "repeat the features of an earlier row")


COSTS = {"value": 100, "offer_cost": 5, "contact_cost": 1, "acceptance": 0.2}


@pytest.mark.parametrize(
    ("costs", "words"),
    [
        ({"acceptance": 2}, ("The costs of table 'mine': acceptance", "less than or equal to 1")),
        ({"offer_costs": 5}, ("The costs of table 'mine': offer_costs", "did you mean 'offer_cost'")),
        ({"value": {"column": "fee"}}, ("column 'fee'", "3 of ", "customer values are missing or negative")),
    ],
    ids=["a share above 1", "an unknown key", "customers without a value"],
)
def test_costs_that_stop_the_evaluation_stop_the_check(
    costs: dict[str, Any], words: tuple[str, ...], project: Path
) -> None:
    table = customers()
    table["fee"] = table["fee"].mask((table["churn"] == "no") & (table["churn"] == "no").cumsum().le(3))

    check = checked(project, table, lambda content: content.update(costs={**COSTS, **costs}))

    assert check.stops == [line_about(check.stops, *words)]


def test_costs_of_the_parameters_that_name_a_missing_column_stop_the_check(project: Path) -> None:
    (project / "conf/local").mkdir()
    text = "costs: {value: {column: salary, months: 12}}"
    (project / "conf/local/parameters.yml").write_text(text, encoding="utf-8")

    assert line_about(checked(project, customers()).stops, "'salary', which is missing from columns")


def test_a_churner_in_training_needs_no_value(project: Path) -> None:
    table = customers()
    missing = table["churn"].eq("yes") & (stable_fraction(table[["member"]]) >= 0.2)
    table["fee"] = table["fee"].mask(missing)

    check = checked(project, table, lambda content: content.update(costs={**COSTS, "value": {"column": "fee"}}))

    assert missing.sum() > 50
    assert not [line for line in check.stops if "customer values" in line]


def test_a_table_is_checked_from_any_folder(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = drafted(project, customers(), lambda content: None)
    path.write_text(path.read_text(encoding="utf-8").replace(f"{project}/mine.csv", "mine.csv"), encoding="utf-8")
    monkeypatch.chdir(elsewhere := tmp_path_factory.mktemp("elsewhere"))

    assert "filepath: mine.csv" in path.read_text(encoding="utf-8")
    assert check_table(project, "mine").stops == []
    assert Path.cwd() == elsewhere


def test_invalid_rows_below_the_limit_deserve_a_look_even_if_something_else_stops_training(project: Path) -> None:
    drafted(project, customers(), lambda content: content["columns"]["visits"]["in_range"].update(max_value=100))
    table = customers(churn="no")
    table.loc[0, "visits"] = 5000
    table.to_csv(project / "mine.csv", index=False)

    check = check_table(project, "mine")

    assert line_about(check.stops, "no customer churned")
    assert line_about(check.looks, "column 'visits'", "line 2")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (customers().drop(columns="fee"), ("column 'fee'", "is missing")),
        (customers(churn="no"), ("column 'churn'", "no customer churned", "roles.target.positive")),
        (customers().head(20).assign(churn=["yes"] + ["no"] * 19), ("lacks a class", "provide more data")),
    ],
    ids=["a missing column", "one class", "too few rows"],
)
def test_what_training_refuses_stops_the_check(table: pd.DataFrame, words: tuple[str, ...], project: Path) -> None:
    drafted(project, customers(), lambda content: None)
    table.to_csv(project / "mine.csv", index=False)

    ended = run(project, "check", "mine")

    assert ended.exit_code == 1
    for word in words:
        assert word in ended.output
    assert "Stops training" in ended.output
