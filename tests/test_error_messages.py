"""Mistakes in table files, parameters and catalogs: the message names the key and the fix, in the words of the file."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from kedro.io import DataCatalog

from churn_pipeline.command_errors import actionable
from churn_pipeline.error_messages import RESOLVERS
from tests.conftest import ROOT
from tests.test_table_check import customers, drafted, project, run

__all__ = ["project"]
INTERNAL = ("raised while resolving", "full_key", "object_type", "Input should", "valid tuple", "pydantic", "NoneType")
INTERNAL += ("Extra inputs", "Field required", "instance of", "Failed to instantiate", "input_value", "Traceback")
Edit = Callable[[dict[str, Any]], Any]

TABLE_FILES: dict[str, tuple[Edit, tuple[str, ...]]] = {
    "no source": (lambda c: c.pop("source"), ("source: needs a type and a file",)),
    "a path as source": (lambda c: c.update(source="mine.csv"), ("source: needs a type and a file",)),
    "no type": (lambda c: c["source"].pop("type"), ("source: needs a type and a file",)),
    "another type": (lambda c: c["source"].update(type="pandas.CSVDatset"), ("unknown type, 'pandas.CSVDatset'",)),
    "another argument": (lambda c: c["source"].update(filpath="x"), ("argument, 'filpath'",)),
    "another reading argument": (
        lambda c: c["source"]["load_args"].update(seperator=";"),
        ("source.load_args", "'seperator'"),
    ),
    "no file": (lambda c: c["source"].update(filepath="nothing.csv"), ("nothing.csv", "does not exist")),
    "an unset variable": (
        lambda c: c["source"].update(filepath="${oc.env:NOWHERE}/x.csv"),
        ("source.filepath", "'NOWHERE' is not set", "export it"),
    ),
    "another resolver": (
        lambda c: c["source"].update(filepath="${projct:}/x.csv"),
        (
            "source.filepath",
            "did you mean '${project:…}'",
        ),
    ),
    "another reference": (lambda c: c["source"].update(filepath="${folder}/x"), ("source.filepath", "'folder'", "add")),
    "no roles": (lambda c: c.pop("roles"), ("roles: is missing: add it",)),
    "a name as target": (lambda c: c["roles"].update(target="churn"), ("roles.target: must have keys",)),
    "a name as protected": (lambda c: c["roles"].update(protected="plan"), ("roles.protected: must be a list",)),
    "another role": (lambda c: c["roles"].update(protectd=["plan"]), ("roles.protectd", "did you mean 'protected'")),
    "another key of a column": (
        lambda c: c["columns"]["fee"].update(nulable=True),
        ("columns.fee.nulable", "did you mean 'nullable'"),
    ),
    "another dtype": (lambda c: c["columns"]["fee"].update(dtype="float"), ("columns.fee.dtype: must be 'str'",)),
    "a level as levels": (
        lambda c: c["columns"]["plan"].update(isin="monthly"),
        ("columns.plan.isin: must be a list",),
    ),
    "a list as bounds": (
        lambda c: c["columns"]["fee"].update(in_range=[0, 9]),
        ("columns.fee.in_range: must have keys",),
    ),
    "a type as column": (lambda c: c["columns"].update(fee="float64"), ("columns.fee: must have keys",)),
    "another top-level key": (lambda c: c.update(colums={}), ("colums", "did you mean 'columns'")),
}


@pytest.mark.parametrize("mistake", TABLE_FILES)
def test_a_mistake_in_a_table_file_is_named_in_its_own_words(mistake: str, project: Path) -> None:
    edit, expected = TABLE_FILES[mistake]
    drafted(project, customers(), edit)

    ended = run(project, "check", "mine")

    assert ended.exit_code == 1
    assert_plain(ended.output, expected)


def assert_plain(output: str, expected: tuple[str, ...]) -> None:
    for words in expected:
        assert words in output
    for words in INTERNAL:
        assert words not in output


TEXTS = {
    "tables/mine.yml: a tab": ("roles:\n\tid: x\n", ("mine.yml", "line 2")),
    "tables/mine.yml: a key twice": ("roles: {}\nroles: {}\n", ("mine.yml", "line 2")),
    "tables/mine.yml: a list": ("- roles\n", ("mine.yml", "kedro table draft")),
    "parameters.yml: a name as list": ("leaks: {allowed: plan}", ("leaks.allowed: must be a list",)),
    "parameters.yml: another key": ("split: {holdout_shar: 0.3}", ("split.holdout_shar: is not a known key",)),
    "parameters.yml: another type": ("split: {folds: five}", ("split.folds: must be an integer",)),
    "parameters.yml: a share above 1": ("split: {holdout_share: 2}", ("split.holdout_share: must be less than 1",)),
    "parameters.yml: an empty block": ("split:\n", ("split: is empty",)),
    "parameters.yml: another reference": ("seed: ${sed}", ("seed", "'sed'", "add or correct it")),
    "parameters.yml: another global": ("seed: ${globals:sed}", ("seed", "globals:sed", "globals.yml")),
    "parameters.yml: broken": ("split: {a\n", ("parameters.yml", "not valid YAML")),
    "parameters.yml: a list for keys": ("split: [1]\n", ("gives a list where base has keys",)),
}


@pytest.mark.parametrize("mistake", TEXTS)
def test_a_mistake_in_another_file_is_named_in_its_own_words(mistake: str, project: Path) -> None:
    text, expected = TEXTS[mistake]
    drafted(project, customers(), lambda content: None)
    (project / "conf/local" / mistake.split(":", maxsplit=1)[0]).write_text(text, encoding="utf-8")

    ended = run(project, "check", "mine")

    assert ended.exit_code == 1
    assert_plain(ended.output, expected)


CATALOGS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "no type": ({"filepath": "x.csv"}, ("'mine'", "has no type")),
    "another type": (
        {"type": "pandas.CVSDataset", "filepath": "x.csv"},
        ("'CVSDataset' was not found", "kedro-datasets"),
    ),
    "no file": ({"type": "pandas.CSVDataset"}, ("'mine'", "CSVDataset needs 'filepath'")),
    "another argument": (
        {"type": "pandas.CSVDataset", "filepath": "x.csv", "sep": ","},
        ("'mine'", "no argument 'sep'", "correct or remove it"),
    ),
    "a path": ("x.csv", ("'mine'", "must have keys")),
    "other credentials": (
        {"type": "pandas.CSVDataset", "filepath": "x.csv", "credentials": "db"},
        ("'db'", "conf/local/credentials.yml"),
    ),
}


@pytest.mark.parametrize("mistake", CATALOGS)
def test_a_mistake_in_the_catalog_names_the_entry(mistake: str) -> None:
    entry, expected = CATALOGS[mistake]
    with pytest.raises(Exception) as caught:  # noqa: PT011
        DataCatalog.from_config({"mine": entry}).get("mine")

    assert_plain(str(actionable(caught.value)), expected)


def test_a_value_in_a_table_file_never_reaches_a_message(project: Path) -> None:
    path = drafted(project, customers(), lambda content: None)
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    content["columns"]["fee"]["in_range"] = {"min_value": "secret", "max_value": 3}
    path.write_text(yaml.safe_dump(content), encoding="utf-8")

    ended = run(project, "check", "mine")

    assert_plain(ended.output, ("columns.fee.in_range.min_value: must be",))
    assert "secret" not in ended.output


def test_every_resolver_that_conf_uses_is_suggested() -> None:
    conf = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "conf").rglob("*.yml"))
    assert set(re.findall(r"\$\{([a-z_.]+):", conf)) <= set(RESOLVERS)
