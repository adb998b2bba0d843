"""Written documents agree with the code and the configuration."""

import re

import pytest

from churn_pipeline.contract.page import contract_page
from churn_pipeline.contract.schema import read_contract
from tests.conftest import ROOT

TABLES = sorted((ROOT / "conf/base/tables").glob("*.yml"))


@pytest.mark.parametrize("file", TABLES, ids=lambda file: file.stem)
def test_each_table_has_its_page(file) -> None:
    page = ROOT / "docs/tables" / f"{file.stem}.md"

    assert page.read_text(encoding="utf-8") == contract_page(read_contract(file)), "run `make pages` to update it"


def test_no_column_of_a_table_is_named_in_the_code() -> None:
    names = {
        name for file in TABLES for name in read_contract(file).columns if len(name) > 6 and name.lower() != "contract"
    }
    code = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "src").rglob("*.py"))

    assert not [name for name in names if re.search(rf"\b{re.escape(name)}\b", code)]


def test_the_readme_names_only_existing_targets() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z-]+)", (ROOT / "README.md").read_text(encoding="utf-8")))

    assert named
    assert named <= targets
