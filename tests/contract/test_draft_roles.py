"""Guessed roles of a draft: target, copies of the target, ids, protected attributes; and options that override guesses."""

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from churn_pipeline.contract.draft import draft
from churn_pipeline.contract.draft_names import is_protected
from churn_pipeline.contract.draft_roles import Choices
from churn_pipeline.contract.errors import TableError
from churn_pipeline.contract.schema import contract_from
from churn_pipeline.contract.table import Contract

ROWS = 200
SOURCE = {"type": "pandas.CSVDataset", "filepath": "customers.csv"}
RNG = np.random.default_rng(0)
CHURNED = RNG.random(ROWS) < 0.3


def table(**columns: Any) -> pd.DataFrame:
    """A feature, a Yes/No feature, and these columns."""
    features = {"calls": RNG.integers(0, 9, ROWS), "paperless": RNG.choice(["Yes", "No"], ROWS)}
    return pd.DataFrame({**features, **columns})


def text_of(data: pd.DataFrame, **choices: str) -> str:
    return draft(data, SOURCE, Choices(**choices))


def drafted(data: pd.DataFrame, **choices: str) -> Contract:
    return contract_from(yaml.safe_load(text_of(data, **choices)), "drafted")


def levels(churned: str, *others: str) -> np.ndarray:
    return np.where(CHURNED, churned, RNG.choice(others, ROWS))


# ---- target ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["Churned", "Attrited", "Cancelled", "canceled", "Exited", "Left", "Terminated"])
@pytest.mark.parametrize("name", ["Customer Status", "state of contract"])
def test_a_status_with_a_level_for_churned_wins_over_yes_and_no(name: str, level: str) -> None:
    roles = drafted(table(**{name: levels(level, "Stayed", "Joined")}, newsletter=["Yes", "No"] * 100)).roles
    assert (roles.target.column, roles.target.positive) == (name, level)


@pytest.mark.parametrize("level", ["Not churned", "never cancelled", "Non-churn"])
def test_a_negated_level_does_not_mean_churned(level: str) -> None:
    roles = drafted(table(Status=np.where(CHURNED, "Churned", level))).roles
    assert roles.target.positive == "Churned"


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ("Churn", "previously_churned"),
        ("churn_flag", "cancelled_orders"),
        ("Attrition", "left_handed"),
        ("exited", "target_offer"),
        ("has_left", "status"),
        ("Churn", "churn_risk"),
        ("Cancelled", "leaving_form"),
        ("target", "paperless bill"),
    ],
)
@pytest.mark.parametrize("order", [1, -1])
def test_the_better_name_wins_in_any_order(better: str, worse: str, order: int) -> None:
    flags = {better: CHURNED.astype(int), worse: RNG.integers(0, 2, ROWS)}
    assert drafted(table(**dict(list(flags.items())[::order]))).roles.target.column == better


@pytest.mark.parametrize(
    ("name", "levels_", "positive"),
    [("retained", ("yes", "no"), "no"), ("is_active", (1, 0), 0), ("Subscriber", ("YES", "NO"), "NO")],
)
def test_for_a_column_that_says_who_stayed_the_other_level_is_positive(
    name: str, levels_: tuple[object, object], positive: object
) -> None:
    data = pd.DataFrame({name: np.where(CHURNED, levels_[1], levels_[0]), "calls": RNG.integers(0, 9, ROWS)})
    assert drafted(data).roles.target.positive == positive


def test_the_draft_says_which_levels_count_as_not_churned() -> None:
    data = table(Status=levels("Churned", "Joined", "Stayed"))
    assert 'positive: "Churned"}  # guessed; not churned: "Joined", "Stayed"\n' in text_of(data)


def test_a_reason_with_two_levels_is_not_the_target() -> None:
    reason = np.where(CHURNED, RNG.choice(["price", "service"], ROWS), None)
    contract = drafted(table(churn_reason=reason, gone=np.where(CHURNED, "Yes", "No")))
    assert contract.roles.target.column != "churn_reason"


def test_options_override_the_guesses() -> None:
    data = table(
        Churn=CHURNED.astype(int), grade=RNG.choice(["a", "b", "c"], ROWS), code=[f"c{n}" for n in range(ROWS)]
    )
    data["key"] = [f"k{n}" for n in range(ROWS)]
    roles = drafted(data, target="grade", positive="b", id="key").roles
    assert (roles.target.column, roles.target.positive, roles.id) == ("grade", "b", "key")
    given = text_of(data, target="grade", positive="b", id="key")
    assert '  id: "key"  # given\n' in given
    assert 'positive: "b"}  # given; not churned: "a", "c"\n' in given
    assert drafted(data, positive="0").roles.target.positive == 0
    assert drafted(data, positive="Yes").roles.target.column == "paperless"


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (
            {"target": "Chrun"},
            "--target Chrun is not a column of the file; its columns are calls, paperless, Churn, fee, same",
        ),
        ({"target": "fee"}, "--target fee cannot be the target: it contains neither text, integers nor booleans"),
        ({"target": "same"}, "--target same cannot be the target: it has fewer than two different values"),
        (
            {"target": "Churn", "positive": "yes"},
            "--positive yes is not a value of the column 'Churn'; its values are 0, 1",
        ),
        ({"positive": "gone"}, "--positive gone is in no column that can be the target: name the target with --target"),
        (
            {"id": "number"},
            "--id number is not a column of the file; its columns are calls, paperless, Churn, fee, same",
        ),
        ({"id": "Churn"}, "--id Churn is the target: choose another column"),
        ({"id": "fee"}, "--id fee cannot be the id: some of its cells are empty"),
    ],
)
def test_an_option_that_does_not_fit_is_a_one_line_error(choices: dict[str, str], message: str) -> None:
    data = table(Churn=CHURNED.astype(int), fee=np.where(CHURNED, np.nan, 0.5), same=1)
    with pytest.raises(TableError) as error:
        text_of(data, **choices)
    assert str(error.value) == message


# ---- copies of the target --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        (np.where(CHURNED, "f", "t"), "repeats the target in another encoding"),
        (np.where(CHURNED, RNG.choice(["price", "moved"], ROWS), None), "filled in only for customers who churned"),
        (
            np.where(CHURNED & (RNG.random(ROWS) < 0.6), RNG.choice(["price", "moved"], ROWS), None),
            "filled in only for customers who churned",
        ),
        (np.where(CHURNED, 100 + np.arange(ROWS), RNG.random(ROWS)), "a threshold on it separates churned"),
        (np.where(CHURNED, RNG.choice(["a", "b"], ROWS), RNG.choice(["c", "d"], ROWS)), "determines the target"),
        (
            np.where(CHURNED & (RNG.random(ROWS) < 0.7), "sent", "none"),
            "has the same value for all customers who did not",
        ),
    ],
    ids=["copy", "reason", "60 % filled", "threshold", "levels", "one level for stayers"],
)
def test_a_column_that_determines_the_target_is_ignored_with_the_reason(cells: np.ndarray, reason: str) -> None:
    data = table(extra=cells, Churn=CHURNED.astype(int))
    assert drafted(data).roles.ignored == ("extra",)
    assert f'    - "extra"  # {reason}' in text_of(data)


def test_a_strong_but_honest_feature_stays() -> None:
    weak = np.where(RNG.random(ROWS) < 0.05, ~CHURNED, CHURNED)
    data = table(
        complaints=weak.astype(int), days=np.where(CHURNED, 5.0, 50.0) + RNG.normal(0, 20, ROWS), Churn=CHURNED
    )
    assert {"complaints", "days"} <= set(drafted(data).features)


def test_in_a_small_table_a_match_may_be_chance() -> None:
    data = pd.DataFrame({"plan": ["a", "b"] * 5, "calls": [1, 2] * 5, "Churn": ["no", "yes"] * 5})
    assert drafted(data).roles.ignored == ()


def test_a_score_of_the_churn_is_ignored_by_its_name() -> None:
    data = table(**{"Churn Score": RNG.integers(0, 100, ROWS), "Churn Label": np.where(CHURNED, "Yes", "No")})
    assert drafted(data).roles.ignored == ("Churn Score",)


# ---- ids and text ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["CLIENTNUM", "meter", "Customer Number", "serial number", "ref", "konto"])
@pytest.mark.parametrize("first", [0, 1, 70_000])
def test_a_unique_integer_is_the_id(name: str, first: int) -> None:
    data = table(**{name: first + RNG.permutation(ROWS)}, Churn=CHURNED)
    assert drafted(data).roles.id == name
    assert "none found" not in text_of(data)


@pytest.mark.parametrize("name", ["RowNumber", "Unnamed: 0", "index", "nr", "position"])
def test_a_row_number_beside_an_id_is_ignored(name: str) -> None:
    data = table(**{name: np.arange(ROWS)}, client=900_000 + 7 * RNG.permutation(ROWS), Churn=CHURNED)
    contract = drafted(data)
    assert (contract.roles.id, contract.roles.ignored) == ("client", (name,))
    assert f'    - "{name}"  # a row number' in text_of(data)


def test_a_second_unique_integer_is_ignored() -> None:
    data = table(customer_id=RNG.permutation(ROWS), phone=600_000 + 31 * RNG.permutation(ROWS), Churn=CHURNED)
    assert drafted(data).roles.ignored == ("phone",)


def test_a_unique_quantity_stays_a_feature_and_the_draft_says_so() -> None:
    data = table(total_spend=5 * RNG.permutation(ROWS), Churn=CHURNED)
    assert "total_spend" in drafted(data).features
    assert '# id: "total_spend"  # not chosen: different in every row, but its name is that of a quantity' in text_of(
        data
    )


@pytest.mark.parametrize("distinct", [20, 70, 150])
def test_surnames_are_ignored(distinct: int) -> None:
    names = RNG.choice(
        [f"{letter}son{number}" for number in range(10) for letter in "ABCDEFGHIJKLMNO"][:distinct], ROWS
    )
    assert drafted(table(Surname=names, Churn=CHURNED)).roles.ignored == ("Surname",)


def test_nearly_unique_text_is_ignored_whatever_its_name() -> None:
    data = table(remark=RNG.choice([f"t{number}" for number in range(120)], ROWS), Churn=CHURNED)
    assert data["remark"].nunique() < ROWS / 2 + 20
    assert drafted(data).roles.ignored == ("remark",)


# ---- protected attributes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("gender", "Sex", "Age", "Customer_Age", "Age Group", "AgeHH1", "HeadOfHousehold ages", "age_of_customer"),
        *(
            "MaritalStatus",
            "marital status",
            "Married",
            "maritalstatus",
            "SeniorCitizen",
            "seniorcitizen",
            "Senior Citizen",
        ),
        *("ethnicity", "nationality", "birth_year", "YearOfBirth", "Under 30", "disability", "religion"),
    ],
)
def test_the_name_is_that_of_a_protected_attribute(name: str) -> None:
    assert is_protected(name)


@pytest.mark.parametrize(
    "name",
    [
        *("account_age", "age_of_subscription", "AccountAge", "device age", "CurrentEquipmentAge", "age on network"),
        *(
            "contract_age_months",
            "usage",
            "page",
            "average",
            "Age of Contract",
            "policy_age",
            "message",
            "stage",
            "grace",
        ),
        *("AccountAgeDays", "card age", "percentage", "Sussex", "tenure"),
    ],
)
def test_the_name_is_not_that_of_a_protected_attribute(name: str) -> None:
    assert not is_protected(name)


def test_protected_guesses_are_marked() -> None:
    data = table(account_age=RNG.integers(0, 90, ROWS), Married=RNG.choice(["Yes", "No"], ROWS), Churn=CHURNED)
    assert re.search(r'^  protected: \["Married"\]  # guessed', text_of(data), re.MULTILINE)
