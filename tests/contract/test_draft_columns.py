"""Drafted columns: bounds that fit the meaning, codes, words for missing values, and optional keys in comments."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from churn_pipeline.contract.draft import draft, read_for_draft
from churn_pipeline.contract.guesses import draft_column
from churn_pipeline.contract.schema import contract_from
from churn_pipeline.contract.table import Column
from churn_pipeline.costs import CostModel

RNG = np.random.default_rng(0)
ROWS = 1000


def column(name: str, cells: Any) -> Column:
    return draft_column(pd.Series(cells, name=name)).column


def bounds(name: str, cells: Any) -> tuple[float, float]:
    found = column(name, cells).in_range
    assert found is not None
    return found.min_value, found.max_value


# ---- bounds ----------------------------------------------------------------------------------------------------------


def test_a_small_negative_outlier_does_not_move_the_lower_bound() -> None:
    cells = RNG.uniform(0, 90, ROWS)
    cells[3] = -0.02
    drafted = draft_column(pd.Series(cells, name="fee"))
    assert bounds("fee", cells)[0] == 0
    assert any("1 of 1,000 values below 0 will be invalid" in remark for remark in drafted.remarks)


@pytest.mark.parametrize("negative", [[-50.0], [-0.02] * 20])
def test_large_or_frequent_negative_values_move_the_lower_bound(negative: list[float]) -> None:
    assert bounds("balance", np.concatenate([RNG.uniform(0, 90, ROWS), negative]))[0] <= min(negative)


@pytest.mark.parametrize(
    ("name", "high", "upper"),
    [("Utilisation", 0.999, 1), ("ratio", 0.3, 1), ("x", 0.8, 1), ("price per unit", 0.02, 0.05), ("ratio", 3.7, 10)],
)
def test_a_share_stays_at_most_one(name: str, high: float, upper: float) -> None:
    assert bounds(name, np.linspace(0, high, ROWS)) == (0, upper)


def test_a_percentage_stays_at_most_100() -> None:
    assert bounds("discount_pct", range(98)) == (0, 100)


# ---- codes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["postcode", "Zip Code", "branch_code", "city", "BranchId", "region", "area code", "PLZ"]
)
def test_integers_with_the_name_of_a_code_are_categories(name: str) -> None:
    drafted = draft_column(pd.Series(RNG.integers(1, 40, ROWS), name=name))
    assert (drafted.column.dtype, drafted.column.kind) == ("str", "categorical")
    assert "guessed: a code, not a number" in drafted.remarks


@pytest.mark.parametrize(
    "name", ["city_tier", "branch_visits", "number of stores", "population of city", "region sales"]
)
def test_a_count_or_rank_with_such_a_word_stays_a_number(name: str) -> None:
    assert column(name, RNG.integers(1, 40, ROWS)).dtype == "int64"


def test_integers_of_one_length_are_codes_and_sums_are_not() -> None:
    codes = RNG.choice(RNG.integers(10_000, 99_999, 300), ROWS)
    assert column("depot", codes).dtype == "str"
    assert column("annual income", codes).dtype == "int64"
    assert column("joined", RNG.choice([20260131, 20260228, 20260331], ROWS)).dtype == "int64"
    assert column("loan", codes // 100 * 100).dtype == "int64"


# ---- words for missing values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["n/a", "N/A", "unknown", "Unknown", "missing", "tbd", "ausstehend", " n/a"])
def test_a_stray_word_among_numbers_counts_as_missing_in_its_column_only(word: str, tmp_path: Path) -> None:
    path = tmp_path / "customers.csv"
    table = pd.DataFrame(
        {"calls": [word, *map(str, range(60))], "plan": [word, *["a", "b"] * 30], "churn": [*["no", "yes"] * 30, "no"]}
    )
    table.to_csv(path, index=False)
    text = draft(*read_for_draft(path))
    columns = contract_from(yaml.safe_load(text), "drafted").columns
    assert (columns["calls"].dtype, columns["calls"].nullable) == ("int64", True)
    assert word in (columns["plan"].isin or ())
    assert f'"{word}" counts as missing' in text


@pytest.mark.parametrize("word", ["unlimited", "never", "10+", "zero"])
def test_a_word_that_is_a_value_is_not_a_missing_marker(word: str, tmp_path: Path) -> None:
    path = tmp_path / "customers.csv"
    pd.DataFrame({"calls": [word, *map(str, range(30)), "1"], "churn": ["no", "yes"] * 16}).to_csv(path, index=False)
    table, source = read_for_draft(path)
    assert "na_values" not in source["load_args"]
    assert column("calls", table["calls"]).dtype == "str"


# ---- optional keys ---------------------------------------------------------------------------------------------------


@pytest.fixture
def text() -> str:
    churned = RNG.random(ROWS) < 0.3
    table = pd.DataFrame(
        {
            "customer_id": np.arange(ROWS),
            "age": RNG.integers(18, 90, ROWS),
            "monthly_fee": RNG.uniform(5, 50, ROWS),
            "calls": np.where(RNG.random(ROWS) < 0.1, np.nan, RNG.integers(0, 9, ROWS)),
            "plan": RNG.choice(["a", "b", None], ROWS),
            "region": RNG.choice(["north", "south"], ROWS),
            "churn": np.where(churned, "yes", "no"),
        }
    )
    return draft(table, {"type": "pandas.ParquetDataset", "filepath": "customers.parquet"})


KEYS = ("ignored", "protected_features", "default", "horizon")


@pytest.mark.parametrize("key", KEYS)
def test_an_optional_key_is_valid_without_its_comment_sign(text: str, key: str) -> None:
    used = re.sub(rf"^( +)# ({key}: )", r"\1\2", text, flags=re.MULTILINE)
    assert used != text
    contract = contract_from(yaml.safe_load(used), "drafted")
    given = [*contract.model_dump(exclude_defaults=True)["roles"], *contract.model_dump(exclude_defaults=True)["label"]]
    defaults = {name: column.default for name, column in contract.columns.items() if column.default is not None}
    assert key in given or (key, defaults) == ("default", {"calls": 0, "plan": "a"})


def test_the_costs_are_valid_without_their_comment_signs(text: str) -> None:
    block = re.search(r"^# costs:.*\n(#   .*\n)+", text, re.MULTILINE)
    assert block
    used = text.replace(block[0], re.sub(r"^# ", "", block[0], flags=re.MULTILINE))
    costs = CostModel.model_validate(contract_from(yaml.safe_load(used), "drafted").costs)
    assert costs.model_dump()["value"] == {"column": "monthly_fee", "months": 12}


def test_every_key_is_shown(text: str) -> None:
    for key in ("ignored", "default", "protected", "protected_features", "date", "horizon", "costs", "value"):
        assert re.search(rf"^ *(# *)*{key}:", text, re.MULTILINE), key


def test_a_guessed_date_has_a_guessed_horizon() -> None:
    months = pd.date_range("2026-01-01", periods=4, freq="MS")
    table = pd.DataFrame(
        {
            "customer_id": np.repeat(np.arange(25), 4),
            "month": np.tile(months, 25),
            "calls": RNG.integers(0, 9, 100),
            "churn": RNG.choice(["yes", "no"], 100),
        }
    )
    text = draft(table, {"type": "pandas.ParquetDataset", "filepath": "customers.parquet"})
    assert "  horizon: 1 month  # guessed" in text
    assert '  date: "month"  # guessed' in text
