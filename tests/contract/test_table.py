"""The contract: features, key, digest, costs, and an error that lists every mistake in a table file."""

from collections.abc import Callable
from copy import deepcopy
from functools import cached_property
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.customers import make_contract, table_file

from churn_pipeline.contract.errors import Finding, TableError
from churn_pipeline.contract.table import Column, Contract

property_test = settings(max_examples=40, deadline=None)


def parse(content: dict[str, Any], name: str = "customers") -> Contract:
    return Contract.parse(content, name)


def changed(change: Callable[[dict[str, Any]], object]) -> Contract:
    """The contract of a changed table file."""
    content = deepcopy(table_file())
    change(content)
    return parse(content)


def mistakes(content: dict[str, Any]) -> str:
    with pytest.raises(TableError) as caught:
        parse(content)
    return str(caught.value)


# ---- roles -----------------------------------------------------------------------------------------------------------


def test_a_column_without_another_role_is_a_feature() -> None:
    contract = make_contract()
    assert contract.features == ("region", "months", "charge", "total", "calls", "plan", "lines", "paperless")
    assert contract.numeric == ("months", "charge", "total", "calls", "paperless")
    assert contract.categorical == ("region", "plan", "lines")


def test_protected_columns_are_features_only_if_listed_as_protected_features() -> None:
    def also(content: dict[str, Any]) -> None:
        content["roles"] |= {"protected": ["age", "region"], "protected_features": ["age"]}

    contract = changed(also)
    assert "age" in contract.numeric
    assert "region" not in contract.features


def test_ignored_and_date_columns_are_not_features() -> None:
    dated = make_contract(dated=True)
    assert "seen" not in dated.features
    assert "plan" not in changed(lambda content: content["roles"].update(ignored=["plan"])).features


@property_test
@given(st.sets(st.sampled_from(["region", "months", "charge", "calls", "plan", "lines"])), st.data())
def test_every_column_is_a_feature_or_has_another_role(protected: set[str], data: st.DataObject) -> None:
    inputs = data.draw(st.sets(st.sampled_from(sorted(protected)))) if protected else set()
    contract = changed(
        lambda content: content["roles"].update(protected=sorted(protected), protected_features=sorted(inputs))
    )
    outside = {"customer", "churn"} | (protected - inputs)
    assert set(contract.features) == set(contract.columns) - outside
    assert set(contract.numeric) | set(contract.categorical) == set(contract.features)
    assert not set(contract.numeric) & set(contract.categorical)
    assert [name for name in contract.columns if name in contract.features] == list(contract.features)


def test_the_row_key() -> None:
    assert make_contract().key == ("customer",)
    assert make_contract(dated=True).key == ("customer", "seen")
    assert changed(lambda content: content["roles"].pop("id")).key == ()


# ---- digest ----------------------------------------------------------------------------------------------------------


def reordered(content: dict[str, Any]) -> dict[str, Any]:
    """The same file with all keys in reverse order, except the order of the columns."""
    columns = {name: dict(reversed(column.items())) for name, column in content["columns"].items()}
    roles = dict(reversed(content["roles"].items()))
    return dict(reversed({**content, "columns": columns, "roles": roles}.items()))


def test_the_digest_does_not_depend_on_the_layout_or_the_name() -> None:
    content = table_file()
    assert parse(content).digest() == parse(reordered(content)).digest() == parse(content, "other").digest()


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["columns"]["age"]["in_range"].update(max_value=100),
        lambda content: content["columns"]["region"]["isin"].append("west"),
        lambda content: content["columns"]["calls"].update(nullable=False),
        lambda content: content["columns"]["total"].update(default=1),
        lambda content: content["columns"]["months"].update(dtype="float64"),
        lambda content: content["roles"]["target"].update(positive="No"),
        lambda content: content["roles"].update(protected=[]),
        lambda content: content["label"].update(horizon="30 days"),
        lambda content: content.update(columns=dict(reversed(content["columns"].items()))),
        lambda content: content["columns"].pop("calls"),
    ],
    ids=["bound", "level", "nullable", "default", "type", "positive", "protected", "horizon", "column order", "column"],
)
def test_the_digest_changes_with_the_meaning(change: Callable[[dict[str, Any]], object]) -> None:
    assert changed(change).digest() != make_contract().digest()


def test_the_digest_is_the_same_on_every_machine() -> None:
    content = {
        "columns": {"x": {"dtype": "float64"}, "y": {"dtype": "int64", "isin": [0, 1]}},
        "roles": {"target": {"column": "y", "positive": 1}},
        "label": {"meaning": "m"},
    }
    assert parse(content).digest() == "3b3e979e10d55d84c95a2ecd16d8d86aea2912a98f03a7d6db9559aff611d6e7"


# ---- horizon ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("horizon", "parts"),
    [("31 days", (31, "days")), ("1 day", (1, "days")), ("3 months", (3, "months")), ("1 month", (1, "months"))],
)
def test_a_horizon_is_a_number_of_days_or_months(horizon: str, parts: tuple[int, str]) -> None:
    contract = make_contract(dated=True, label={"meaning": "m", "horizon": horizon})
    assert contract.label.horizon_parts == parts
    assert contract.label.horizon == horizon


@pytest.mark.parametrize(
    "horizon", ["three months", "0 days", "31", 31, "1.5 months", "3 weeks", " 3 months", "3 months."]
)
def test_another_horizon_is_an_error_that_shows_the_syntax(horizon: object) -> None:
    with pytest.raises(TableError, match=r"label.horizon: .*write `horizon: 3 months` or `horizon: 31 days`"):
        make_contract(label={"meaning": "m", "horizon": horizon})


@pytest.mark.parametrize(
    "label", [{"meaning": "m"}, {"meaning": "m", "horizon": ""}, {"meaning": "m", "horizon": None}]
)
def test_a_date_needs_a_horizon(label: dict[str, Any]) -> None:
    assert make_contract(label=label).label.horizon == ""
    with pytest.raises(
        TableError, match=r"roles.date needs label.horizon, .*write `horizon: 3 months` or `horizon: 31 days`"
    ):
        make_contract(dated=True, label=label)


def test_the_former_key_is_an_error_that_shows_the_new_one() -> None:
    with pytest.raises(TableError, match="label: horizon_days is now `horizon: 31 days`"):
        make_contract(label={"meaning": "m", "horizon": "one month", "horizon_days": 31})


def test_a_label_without_a_horizon_has_no_parts() -> None:
    with pytest.raises(ValueError, match=r"label\.horizon is not set"):
        _ = make_contract().label.horizon_parts


# ---- copies ----------------------------------------------------------------------------------------------------------

free = ["region", "months", "charge", "total", "calls", "plan", "lines", "paperless"]


@st.composite
def updates(draw: st.DrawFn) -> dict[str, Any]:
    """An update for `model_copy`: other columns, roles, names or costs that a table file could also have."""
    contract = make_contract()
    update: dict[str, Any] = {"columns": contract.columns}
    if draw(st.booleans()):
        kept = {"customer", "age", "charge", "churn", *draw(st.sets(st.sampled_from(free), min_size=1))}
        order = draw(st.permutations([name for name in contract.columns if name in kept]))
        update["columns"] = {name: contract.columns[name] for name in order}
        update["columns"]["charge"] = Column(dtype="int64", isin=draw(st.sampled_from([None, (1, 2)])))
    others = st.sampled_from([name for name in update["columns"] if name in free])
    protected, ignored = draw(st.sets(others)), draw(st.sets(others))
    roles = {
        "id": draw(st.sampled_from([None, "customer"])),
        "protected": sorted(protected),
        "protected_features": sorted(draw(st.sets(st.sampled_from(sorted(protected))))) if protected else [],
        "ignored": sorted(ignored - protected),
    }
    update["roles"] = contract.roles.model_copy(update={name: _tuple(role) for name, role in roles.items()})
    update |= draw(st.sampled_from([{}, {"name": "other"}, {"costs": {"value": 5}}, {"description": "Another."}]))
    return {name: update[name] for name in draw(st.permutations(sorted(update)))}


def _tuple(role: Any) -> Any:
    return tuple(role) if isinstance(role, list) else role


def properties(contract: Contract) -> dict[str, Any]:
    names = [name for name, member in vars(Contract).items() if isinstance(member, property | cached_property)]
    return {name: getattr(contract, name) for name in names} | {
        "digest": contract.digest(),
    }


@property_test
@given(updates(), st.booleans())
def test_a_copy_has_the_properties_of_a_freshly_parsed_contract(update: dict[str, Any], used: bool) -> None:
    contract = make_contract()
    if used:
        properties(contract)  # an earlier use must not influence the copy
    copy = contract.model_copy(update=update)
    try:
        parsed = Contract.model_validate_json(copy.model_dump_json())
    except ValueError as error:
        assert "no feature is left" in str(error)  # noqa: PT017
        return
    found = properties(copy)
    assert set(found) >= {"features", "numeric", "categorical", "key"}
    assert found == properties(parsed)


# ---- costs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("costs", "column"),
    [(None, None), ({}, None), ({"value": 5}, None), ({"value": {"column": "total", "months": 12}}, "total")],
)
def test_the_value_column_is_that_of_the_costs(costs: dict[str, Any] | None, column: str | None) -> None:
    assert make_contract(costs=costs).value_column == column


# ---- mistakes --------------------------------------------------------------------------------------------------------

MISTAKES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "an unknown key": (
        lambda content: content.update(colums={}),
        "colums: is not a known key: did you mean 'columns'?",
    ),
    "an unknown check": (lambda content: content["columns"]["age"].update(in_rnge=1), "columns.age.in_rnge"),
    "an unknown type": (lambda content: content["columns"]["age"].update(dtype="int"), "columns.age.dtype"),
    "no label": (lambda content: content.pop("label"), "label: is missing: add it"),
    "no target": (lambda content: content["roles"].pop("target"), "roles.target: is missing: add it"),
    "unquoted levels": (
        lambda content: content["columns"]["churn"].update(isin=[False, True]),
        "put such levels in quotes",
    ),
    "an unquoted positive": (lambda content: content["roles"]["target"].update(positive=True), "need quotes in YAML"),
    "a positive of another type": (
        lambda content: content["roles"]["target"].update(positive=1),
        "must be of its type, str",
    ),
    "a positive that is not a level": (
        lambda content: content["roles"]["target"].update(positive="yes"),
        "not one of its levels",
    ),
    "a role of an absent column": (
        lambda content: content["roles"].update(id="absent"),
        "the column 'absent', which is missing from columns",
    ),
    "two roles": (
        lambda content: content["roles"].update(protected=["customer"]),
        "the column 'customer' has two roles",
    ),
    "a nullable target": (
        lambda content: content["columns"]["churn"].update(nullable=True),
        "target may not be nullable",
    ),
    "a nullable id": (lambda content: content["columns"]["customer"].update(nullable=True), "id may not be nullable"),
    "a target of floats": (
        lambda content: content["roles"].update(target={"column": "charge", "positive": 1}),
        "the target must be str, int64 or bool; its type is float64",
    ),
    "a date of another type": (lambda content: content["roles"].update(date="plan"), "type must be datetime64[ns]"),
    "a value as a role": (
        lambda content: content["roles"].update(value="charge"),
        'roles: value has moved to costs: write `value: {column: "charge", months: 12}` there',
    ),
    "a value that is not numeric": (
        lambda content: content.update(costs={"value": {"column": "plan"}}),
        "costs.value uses the column 'plan', which is the target or not numeric",
    ),
    "a value without a column": (
        lambda content: content.update(costs={"value": {"column": "salary"}}),
        "costs.value uses the column 'salary', which is missing from columns",
    ),
    "a date without a role": (
        lambda content: content["columns"].update(day={"dtype": "datetime64[ns]"}),
        "'day' is a date without a role",
    ),
    "a protected feature that is not protected": (
        lambda content: content["roles"].update(protected_features=["plan"]),
        "'plan' is in protected_features but not in protected",
    ),
    "bounds on text": (
        lambda content: content["columns"]["plan"].update(greater_than=1),
        "greater_than cannot be used with the type str",
    ),
    "a pattern on numbers": (
        lambda content: content["columns"]["age"].update(str_matches="a"),
        "str_matches cannot be used",
    ),
    "levels of another type": (
        lambda content: content["columns"]["lines"].update(isin=["1", "2"]),
        "of the column's type",
    ),
    "no levels": (lambda content: content["columns"]["lines"].update(isin=[]), "at least one level"),
    "a level twice": (lambda content: content["columns"]["lines"].update(isin=[1, 1]), "no level twice"),
    "an empty level": (
        lambda content: content["columns"]["region"].update(isin=["", "north"]),
        "an empty cell is a missing one",
    ),
    "reversed bounds": (
        lambda content: content["columns"]["age"].update(in_range={"min_value": 9, "max_value": 1}),
        "columns.age.in_range",
    ),
    "no length": (lambda content: content["columns"]["plan"].update(str_length={}), "columns.plan.str_length"),
    "an invalid regular expression": (
        lambda content: content["columns"]["plan"].update(str_matches="[A-"),
        "columns.plan",
    ),
    "a default of another type": (lambda content: content["columns"]["total"].update(default="none"), "columns.total"),
    "a default that is not a level": (
        lambda content: content["columns"]["region"].update(default="west"),
        "columns.region",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_reported(mistake: str) -> None:
    change, words = MISTAKES[mistake]
    content = deepcopy(table_file())
    change(content)
    said = mistakes(content)
    assert words in said
    assert said.startswith("The contract of table 'customers' has mistakes:")
    assert "Value error" not in said


def test_a_nullable_date_is_a_mistake() -> None:
    content = table_file(dated=True)
    content["columns"]["seen"]["nullable"] = True
    assert "the date may not be nullable" in mistakes(content)


def test_an_error_lists_all_mistakes() -> None:
    content = deepcopy(table_file())
    content["columns"]["age"]["dtype"] = "int"
    content["columns"]["plan"]["less_than"] = 3
    content["unknown"] = 1
    said = mistakes(content)
    assert all(words in said for words in ("columns.age.dtype", "columns.plan", "unknown"))
    roles = deepcopy(table_file())
    roles["roles"] |= {"id": "absent", "protected": ["churn"]}
    said = mistakes(roles)
    assert "'absent'" in said
    assert "'churn' has two roles" in said


def test_a_contract_without_features_is_a_mistake() -> None:
    content = {
        "columns": {"y": {"dtype": "bool"}},
        "roles": {"target": {"column": "y", "positive": True}},
        "label": {"meaning": "m"},
    }
    assert "no feature is left" in mistakes(content)


def test_a_contract_is_immutable() -> None:
    with pytest.raises(ValueError, match="frozen"):
        make_contract().name = "other"  # type: ignore[misc]


def test_a_column_with_levels_is_categorical_even_if_they_are_numbers() -> None:
    assert Column(dtype="int64", isin=(0, 1)).kind == "categorical"
    assert Column(dtype="int64").kind == "numeric"
    assert Column(dtype="bool").kind == "numeric"
    assert Column(dtype="datetime64[ns]").kind == "date"


# ---- text of findings- -----------------------------------------------------------------------------------------------


def test_a_finding_says_where_how_often_and_how_to_fix_it() -> None:
    assert str(Finding("isin", "plan", 1, (3,))) == "column 'plan': isin — 1 row (row 3)"
    many = Finding("isin", "plan", 1200, (1, 2, 3, 4, 5, 6), fix="Fix it.")
    assert str(many) == "column 'plan': isin — 1,200 rows (row 1, 2, 3, 4, 5, …). Fix it."
    assert str(Finding("is empty")) == "is empty"


def test_a_table_error_has_a_line_for_each_finding() -> None:
    error = TableError("The table", [Finding("one"), Finding("two")])
    assert str(error) == "The table:\n  - one\n  - two"
    assert str(TableError("The table", "is empty")) == "The table:\n  - is empty"
