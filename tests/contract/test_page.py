"""The documentation page of a table: complete, and valid Markdown."""

from tests.customers import make_contract, table_file

from churn_pipeline.contract.page import contract_page
from churn_pipeline.contract.table import Contract


def rows(page: str) -> dict[str, list[str]]:
    """The page's table, by column."""
    lines = [line for line in page.splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {cell[0].strip("`"): cell[1:] for cell in cells}


def test_every_column_has_a_row_with_its_role_type_and_rules() -> None:
    contract = make_contract(dated=True, costs={"value": {"column": "charge"}})
    table = rows(contract_page(contract))
    assert list(table) == list(contract.columns)
    assert table["customer"][:3] == ["id", "str", "no"]
    assert table["seen"][:2] == ["date", "datetime64[ns]"]
    assert table["churn"][0] == "target"
    assert table["age"][0] == "protected"
    assert table["age"][3] == "18 … 99"
    assert table["charge"][0] == "numeric feature, value"
    assert table["region"][:4] == ["categorical feature", "str", "allowed", "`north`, `south`, `east side`"]
    assert table["total"][2] == "means 0"


def test_the_page_shows_label_key_and_digest() -> None:
    content = table_file(dated=True, description="Ours.")
    content["label"] |= {"observed": "each month", "horizon": "30 days"}
    contract = Contract.parse(content, "ours")
    page = contract_page(contract)
    assert page.startswith("# ours\n\nOurs.\n")
    assert "**Label:** The customer left. `churn` = `Yes` is churn." in page
    assert "**Observed:** each month." in page
    assert "**Horizon:** 30 days." in page
    assert "**Row key:** `customer`, `seen`." in page
    assert contract.digest() in page


def test_the_page_of_a_table_without_an_id() -> None:
    content = table_file()
    content["roles"] = {"target": content["roles"]["target"], "ignored": ["customer"]}
    page = contract_page(Contract.parse(content, "customers"))
    assert "**Row key:** the features, because there is no id." in page
    assert rows(page)["customer"][0] == "ignored"


def test_only_the_first_of_many_levels_are_shown_with_their_number() -> None:
    content = table_file()
    content["columns"]["plan"] = {"dtype": "str", "isin": [f"L{number}" for number in range(30)]}
    shown = rows(contract_page(Contract.parse(content, "customers")))["plan"][3]
    assert "`L7`" in shown
    assert "`L8`" not in shown
    assert "… 30 levels" in shown


def test_a_bar_in_a_name_a_rule_or_a_description_does_not_break_the_table() -> None:
    content = table_file()
    content["columns"]["plan"] = {"dtype": "str", "str_matches": "^(AA|QX|ZZ)$", "description": "Gold | silver"}
    content["columns"]["a|b"] = {"dtype": "int64"}
    page = contract_page(Contract.parse(content, "customers"))
    bars = {line.replace(r"\|", "").count("|") for line in page.splitlines() if line.startswith("|")}
    assert bars == {7}
