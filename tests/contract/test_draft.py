"""Drafts: the draft of any table is a valid table file, and the table is valid by its contract."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from kedro.io import AbstractDataset
from tests.customers import raw_customers

from churn_pipeline.contract.draft import draft, read_for_draft
from churn_pipeline.contract.errors import TableError
from churn_pipeline.contract.schema import contract_from
from churn_pipeline.contract.table import Contract
from churn_pipeline.contract.validation import ValidationResult, validate_table

SOURCE = {"type": "pandas.CSVDataset", "filepath": "customers.csv"}


def drafted(table: pd.DataFrame) -> Contract:
    return contract_from(yaml.safe_load(draft(table, SOURCE)), "drafted")


def validated_by_its_draft(table: pd.DataFrame) -> ValidationResult:
    return validate_table(table, drafted(table))


def read_by_its_draft(path: Path) -> tuple[pd.DataFrame, Contract]:
    """The table as Kedro reads it with the drafted source, and the drafted contract."""
    table, source = read_for_draft(path)
    content = yaml.safe_load(draft(table, source))
    return AbstractDataset.from_config("source", content["source"]).load(), contract_from(content, "drafted")


def customers(**columns: Any) -> pd.DataFrame:
    """Ten rows with an id, a number and the target, plus these columns, which may replace them."""
    table = {
        "id": [f"C{number}" for number in range(10)],
        "months": [str(number) for number in range(10)],
        "churn": ["no", "yes"] * 5,
        **columns,
    }
    return pd.DataFrame(table, dtype=object)


# ---- any table is valid by its draft ---------------------------------------------------------------------------------

finite = st.floats(allow_nan=False, allow_infinity=False)
CELLS: dict[str, st.SearchStrategy[str]] = {
    "levels": st.sampled_from(["No", "Yes", "on", "null", "a: b", "'", '"q"', "# x", "Ü", "1e3", " "]),
    "text": st.text(st.characters(codec="utf-8"), max_size=8),
    "numbers": st.integers(-(2**63), 2**63 - 1).map(str),
    "few numbers": st.integers(-1, 1).map(str),
    "decimals": finite.map(repr),
    "dates": st.datetimes(pd.Timestamp("1800-01-01").to_pydatetime(), pd.Timestamp("2200-01-01").to_pydatetime()).map(
        str
    ),
    "true and false": st.sampled_from(["True", "False", "true"]),
    "padded numbers": st.sampled_from(["007", "7", "07", "12"]),
    "nothing": st.just(""),
}
names = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=12
) | st.sampled_from(
    [
        "customer id",
        "gender id",
        "sex",
        "Churn ?",
        "größe",
        'say "so"',
        "a: b",
        "- x",
        "No",
        "#",
        "1",
        "null",
        " lead",
        "gender",
        "day",
        "ID",
    ]
)


@st.composite
def tables(draw: st.DrawFn) -> pd.DataFrame:
    """A table as read from a CSV file, with one column of two values that could be the target."""
    rows = draw(st.integers(4, 25))
    header = draw(st.lists(names, min_size=2, max_size=6, unique_by=str.strip))
    columns: dict[str, list[str | None]] = {}
    for name in header[1:]:
        cell = CELLS[draw(st.sampled_from(sorted(CELLS)))]
        cell = draw(st.sampled_from([cell, cell | st.just(""), cell | st.none()]))
        columns[name] = draw(st.lists(cell, min_size=rows, max_size=rows))
    target = draw(st.sampled_from([("0", "1"), ("No", "Yes"), ("True", "False"), ("stays", "goes: away")]))
    columns[header[0]] = [*target, *draw(st.lists(st.sampled_from(target), min_size=rows - 2, max_size=rows - 2))]
    return pd.DataFrame(columns, dtype=object)


@settings(max_examples=60, deadline=None)
@given(tables())
def test_a_table_is_valid_by_its_draft(table: pd.DataFrame) -> None:
    try:
        contract = drafted(table)
    except TableError as error:
        # every other column is an id, a date, free text or protected
        assert "no feature is left" in str(error)  # noqa: PT017
        return
    result = validate_table(table, contract)
    target = contract.roles.target.column
    blank = table[target].isna() | (table[target].astype(str).str.strip() == "")
    assert set(result.quarantine["reasons"]) <= {f"{target}: is missing"}
    assert len(result.quarantine) == blank.sum()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 100), st.booleans())
def test_a_typed_table_is_valid_by_its_draft(seed: int, with_id: bool) -> None:
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(5, 60))
    table = pd.DataFrame(
        {
            "months": rng.integers(0, 100, rows),
            "charge": rng.normal(size=rows) * 10.0 ** rng.integers(-6, 7),
            "discount": np.where(rng.random(rows) < 0.5, np.nan, rng.random(rows)),
            "paperless": rng.random(rows) < 0.5,
            "region": pd.Categorical(rng.choice(["north", "south"], rows)),
            "since": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 900, rows), unit="D"),
            "left": np.arange(rows) % 2,
        }
    )
    if with_id:
        table.insert(0, "customer_id", np.arange(rows) + 10**17)
    contract = drafted(table)
    result = validate_table(table, contract)
    assert result.quarantine.empty
    assert contract.roles.id == ("customer_id" if with_id else None)
    assert contract.roles.target.column == "left"


@settings(max_examples=25, deadline=None)
@given(st.lists(finite, min_size=4, max_size=20))
def test_bounds_include_all_values_with_headroom(numbers: list[float]) -> None:
    table = pd.DataFrame({"n": [*numbers, 0.5], "churn": ["no", "yes", *["no"] * (len(numbers) - 1)]})
    contract = drafted(table)
    column = contract.columns["n"]
    assert column.in_range is not None
    assert column.in_range.min_value <= min(table["n"])
    assert column.in_range.max_value >= max(table["n"])
    if min(numbers) >= 0:
        assert column.in_range.min_value == 0


# ---- guesses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("levels", "positive"),
    [
        (["No", "Yes"], "Yes"),
        (["0", "1"], 1),
        (["False", "True"], True),
        (["Existing Customer", "Attrited Customer"], "Attrited Customer"),
        (["n", "y"], "y"),
        (["stayed", "churned"], "churned"),
    ],
)
def test_the_target_and_its_positive_value_are_guessed(levels: list[str], positive: object) -> None:
    contract = drafted(customers(churn=levels * 5))
    assert contract.roles.target.column == "churn"
    assert contract.roles.target.positive == positive


def test_without_a_word_for_churn_the_rarer_level_is_positive() -> None:
    assert drafted(customers(churn=["blue"] * 7 + ["red"] * 3)).roles.target.positive == "red"


@pytest.mark.parametrize("name", ["Churn", "Attrition_Flag", "Exited", "cancelled", "has_left"])
def test_the_target_is_found_by_its_name_in_any_position(name: str) -> None:
    table = customers(**{name: ["0", "1"] * 5, "other": ["a", "b"] * 5}).drop(columns="churn")
    assert drafted(table).roles.target.column == name
    assert "please check" not in draft(table, SOURCE)


def test_a_target_without_a_typical_name_is_marked_for_a_check() -> None:
    table = customers(flag=["a", "b"] * 5).drop(columns="churn")
    assert drafted(table).roles.target.column == "flag"
    assert "guessed: please check" in draft(table, SOURCE)


@pytest.mark.parametrize("name", ["customerID", "CustomerId", "id", "account_no", "msisdn", "client id"])
def test_the_id_is_found_by_its_name(name: str) -> None:
    table = customers().drop(columns="id").assign(**{name: [str(number) for number in range(100, 110)]})
    assert drafted(table).roles.id == name


@pytest.mark.parametrize("name", ["paid", "idle", "width", "Video"])
def test_a_name_that_contains_id_within_a_word_is_not_an_id(name: str) -> None:
    table = customers(**{name: [str(number * 3 % 7) for number in range(10)]}).drop(columns="id")
    assert drafted(table).roles.id is None


def test_a_table_without_an_id() -> None:
    table = customers(months=["1", "2"] * 5).drop(columns="id")
    assert drafted(table).roles.id is None
    assert "# id: none found" in draft(table, SOURCE)


def test_protected_columns_are_guessed_and_are_not_features() -> None:
    contract = drafted(
        customers(gender=["f", "m"] * 5, Age=["20", "30"] * 5, SeniorCitizen=["0", "1"] * 5, Usage=["1", "2"] * 5)
    )
    assert set(contract.roles.protected) == {"gender", "Age", "SeniorCitizen"}
    assert not set(contract.roles.protected) & set(contract.features)
    assert "Usage" in contract.features


def test_a_date_next_to_a_repeated_id_is_the_date_of_the_row() -> None:
    days = ["2026-01-01", "2026-02-01"] * 5
    repeated = customers(id=[f"C{number // 2}" for number in range(10)], month=days)
    assert drafted(repeated).roles.date == "month"
    assert validated_by_its_draft(repeated).quarantine.empty
    assert drafted(customers(month=days)).roles.ignored == ("month",)


def test_a_repeated_id_without_a_date_is_ignored() -> None:
    repeated = customers(id=[f"C{number // 2}" for number in range(10)])
    contract = drafted(repeated)
    assert contract.roles.id is None
    assert contract.roles.ignored == ("id",)
    assert validated_by_its_draft(repeated).quarantine.empty


def test_a_few_repeated_ids_are_left_to_quarantine() -> None:
    table = raw_customers(100)
    table.loc[99, "customer"] = table.loc[0, "customer"]
    assert drafted(table.rename(columns={"customer": "customer_id"})).roles.id == "customer_id"


def test_free_text_is_ignored() -> None:
    assert drafted(customers(comment=[f"called about {number}" for number in range(10)])).roles.ignored == ("comment",)


# ---- odd columns -----------------------------------------------------------------------------------------------------


def test_an_empty_column_and_a_constant_column() -> None:
    table = customers(empty=[""] * 10, none=[None] * 10, constant=["5"] * 10, word=["a"] * 10)
    contract = drafted(table)
    assert contract.columns["empty"].nullable
    assert contract.columns["none"].nullable
    assert contract.columns["constant"].isin == (5,)
    assert contract.columns["word"].isin == ("a",)
    assert validated_by_its_draft(table).quarantine.empty


def test_whole_numbers_with_leading_zeros_stay_text() -> None:
    contract = drafted(customers(id=[f"{number:05d}" for number in range(10)], zip=["01234", "12345"] * 5))
    assert contract.columns["id"].dtype == "str"
    assert contract.columns["zip"].isin == ("01234", "12345")


def test_columns_keep_their_order_and_show_the_range_seen() -> None:
    table = customers(calls=["1", "2", "3", "4", "", "6", "7", "8", "9", "10"])
    text = draft(table, SOURCE)
    assert list(drafted(table).columns) == list(table)
    assert '"calls":  # seen 1 … 10; 10.00% missing' in text
    assert drafted(table).columns["calls"].nullable


def test_no_column_of_two_values_is_a_clear_error() -> None:
    with pytest.raises(TableError, match="a column with two values that marks the customers who churned"):
        draft(customers().drop(columns="churn"), SOURCE)
