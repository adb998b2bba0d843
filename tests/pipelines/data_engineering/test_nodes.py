"""Nodes of data engineering: the run continues with valid rows, or stops and lists every problem."""

import json
import logging
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.customers import make_contract, raw_customers, table_file

from churn_pipeline.contract.errors import TableError
from churn_pipeline.contract.table import Contract
from churn_pipeline.leaks import LeakSettings
from churn_pipeline.pipelines.data_engineering import splitting
from churn_pipeline.pipelines.data_engineering.nodes import (
    QuarantineSettings,
    check_leaks,
    check_quarantine,
    features_and_label,
    make_folds,
    report_data,
    split_customers,
    validate_customers,
)
from churn_pipeline.pipelines.data_engineering.splitting import FOLD_VALIDATE, HOLDOUT, TRAIN, SplitSettings

CONTRACT = make_contract()
SPLIT = SplitSettings(holdout_share=0.3, holdout_latest=0.4, folds=3)
LEAKS = LeakSettings()


def validated(raw: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    return validate_customers(raw, CONTRACT)


def faulty(rows: int, faults: int) -> pd.DataFrame:
    raw = raw_customers(rows)
    raw.loc[: faults - 1, "region"] = "SECRET"
    return raw


# ---- contract --------------------------------------------------------------------------------------------------------


def test_the_report_counts_rows_and_contains_no_value() -> None:
    customers, quarantine, report = validated(faulty(50, 3).assign(note="n"))
    assert report["rows"] == {"in": 50, "valid": 47, "quarantined": 3}
    assert (len(customers), len(quarantine)) == (47, 3)
    assert report["columns_not_in_contract"] == ["note"]
    assert report["table"] == "customers"
    assert report["findings"][0]["column"] == "region"
    assert "SECRET" not in json.dumps(report)
    assert report["digests"]["contract"] == CONTRACT.digest()


def test_the_data_digest_depends_on_the_raw_cells() -> None:
    digests = [validated(raw)[2]["digests"]["data"] for raw in (raw_customers(20), raw_customers(20), faulty(20, 1))]
    assert digests[0] == digests[1] != digests[2]


def test_few_invalid_rows_are_logged_as_warnings(caplog: pytest.LogCaptureFixture) -> None:
    customers, _, report = validated(faulty(200, 2))
    with caplog.at_level(logging.INFO):
        accepted = check_quarantine(customers, report, CONTRACT, QuarantineSettings(max_share=0.01))
    pd.testing.assert_frame_equal(accepted, customers)
    assert "Rows in 200 = valid 198 + quarantined 2" in caplog.text
    assert "Quarantined: column 'region': isin" in caplog.text
    assert "SECRET" not in caplog.text


def test_too_many_invalid_rows_stop_the_run_with_every_finding() -> None:
    raw = faulty(200, 3)
    raw.loc[1, "age"] = "x"
    customers, _, report = validated(raw)
    with pytest.raises(TableError) as caught:
        check_quarantine(customers, report, CONTRACT, QuarantineSettings(max_share=0.01))
    said = str(caught.value)
    assert "3 of 200 rows are invalid, more than 1.0%" in said
    assert "column 'region': isin" in said
    assert "column 'age': is not int64" in said
    assert "SECRET" not in said


def test_a_single_invalid_row_stops_the_run_if_the_share_is_zero() -> None:
    customers, _, report = validated(faulty(200, 1))
    with pytest.raises(TableError):
        check_quarantine(customers, report, CONTRACT, QuarantineSettings(max_share=0))


@pytest.mark.parametrize(("level", "word"), [("No", "churned"), ("Yes", "stayed")])
def test_a_single_class_stops_the_run(level: str, word: str) -> None:
    customers, _, report = validated(raw_customers(20).assign(churn=level))
    with pytest.raises(TableError, match=f"column 'churn': no customer {word}. Check roles.target.positive"):
        check_quarantine(customers, report, CONTRACT, QuarantineSettings(max_share=0.01))


# ---- split -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dated", [False, True])
def test_every_customer_is_in_one_part(dated: bool) -> None:
    contract = make_contract(dated)
    customers = validate_customers(raw_customers(400, dated=dated), contract)[0]
    before = customers.copy(deep=True)
    parts = split_customers(customers, contract, SPLIT)[:3]
    assert sorted(pd.concat(parts)["customer"]) == sorted(customers["customer"])
    assert all(part.index.equals(pd.RangeIndex(len(part))) for part in parts)
    assert parts[2]["reason"].str.startswith("set aside: ").all()
    assert bool(len(parts[2])) is dated
    pd.testing.assert_frame_equal(customers, before)


def test_a_hold_out_with_a_training_customer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    table = validated(raw_customers(100))[0]
    id_column = CONTRACT.roles.id
    assert id_column is not None
    twice = pd.concat([table, table, table], ignore_index=True)
    half = np.where(np.arange(300) < 200, TRAIN, HOLDOUT)
    monkeypatch.setattr(splitting, "sides", lambda *_: pd.Series(half))
    with pytest.raises(TableError, match="100 training customers are also in the hold-out"):
        split_customers(twice, CONTRACT, SPLIT)
    apart = twice.assign(**{id_column: [f"C{row}" for row in range(300)]})
    assert len(split_customers(apart, CONTRACT, SPLIT)[0]) == 200


def test_the_rule_and_the_groups_come_from_all_valid_rows(caplog: pytest.LogCaptureFixture) -> None:
    content = table_file()
    content["roles"] = {"target": content["roles"]["target"], "ignored": ["customer"]}
    contract = Contract.parse(content, "customers")
    once = validate_customers(raw_customers(300), contract)[0]
    table = pd.concat([once, once.head(100)], ignore_index=True)
    with caplog.at_level(logging.INFO):
        train, holdout, _, train_groups, holdout_groups, report = split_customers(table, contract, SPLIT)
    assert report["customers"]["rule"] == "identical rows"
    assert report["customers"]["reason"] in caplog.text
    for part, groups in ((train, train_groups), (holdout, holdout_groups)):
        of_features = part.groupby(list(contract.features), dropna=False).ngroup()
        assert pd.crosstab(of_features, groups["customer"]).gt(0).sum().eq(1).all()
    folds = make_folds(train, features_and_label(train, contract)[1], train_groups, contract, SPLIT, seed=1)
    assert (folds.groupby(train_groups["customer"]).transform("first") == folds).all(axis=None)


def test_too_many_rows_set_aside_stop_the_run() -> None:
    contract = make_contract(dated=True)
    customers = validate_customers(raw_customers(400, dated=True), contract)[0]
    capped = SPLIT.model_copy(update={"max_set_aside": 0.1})
    with pytest.raises(TableError, match=r"of 400 rows \(.*%\) would be set aside, more than 10.0%"):
        split_customers(customers, contract, capped)


def test_a_part_of_one_class_stops_the_run() -> None:
    customers = validated(raw_customers(100))[0]
    train = split_customers(customers, CONTRACT, SPLIT)[0]
    one_class = customers.assign(
        churn=np.where(customers["customer"].isin(train["customer"]), customers["churn"], "No")
    )
    with pytest.raises(TableError, match=r"hold-out has \d+ rows and lacks a class"):
        split_customers(one_class, CONTRACT, SPLIT)


def test_features_label_and_folds_have_the_same_length() -> None:
    customers = validated(raw_customers(120))[0]
    features, label = features_and_label(customers, CONTRACT)
    groups = pd.DataFrame({"customer": range(120)})
    made = make_folds(customers, label, groups, CONTRACT, SPLIT, seed=1)
    assert list(features) == [*CONTRACT.numeric, *CONTRACT.categorical]
    assert list(label) == ["churned"]
    assert len(features) == len(label) == len(made) == 120
    assert ((made == FOLD_VALIDATE).sum(axis=1) == 1).all()


# ---- leaks -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def features() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "noise": rng.normal(size=2000),
            "constant": 1.0,
            "missing": np.nan,
            "level": rng.choice(["a", "b", ""], 2000),
            "name": [f"level {row}" for row in range(2000)],
        }
    )


EACH = pd.DataFrame({"customer": range(2000)})


def leaks(features: pd.DataFrame, churn: np.ndarray) -> dict[str, Any]:
    return check_leaks(features, pd.DataFrame({"churned": churn}), EACH, LEAKS, seed=1)


def test_ordinary_features_are_no_leaks(features: pd.DataFrame, caplog: pytest.LogCaptureFixture) -> None:
    found = leaks(features, np.random.default_rng(1).integers(0, 2, 2000))
    assert found["findings"] == []
    assert all(abs(auc - 0.5) < 0.05 for auc in found["auc"].values())
    assert "LEAK" not in caplog.text


def test_rows_of_one_customer_do_not_give_their_label_away_to_each_other() -> None:
    groups = pd.DataFrame({"customer": np.arange(2000) // 10})
    names = pd.DataFrame({"street": [f"street {customer}" for customer in groups["customer"]]})
    churn = (groups["customer"] % 3 == 0).astype("int64").to_frame("churned")
    assert check_leaks(names, churn, groups, LEAKS, seed=1)["findings"] == []
    with pytest.raises(TableError, match="column 'street'"):
        check_leaks(names, churn, EACH, LEAKS, seed=1)


@pytest.mark.parametrize("leak", ["number", "middle", "level", "missing"])
def test_a_feature_that_gives_the_label_away_stops_the_run_unless_it_is_allowed(
    features: pd.DataFrame, caplog: pytest.LogCaptureFixture, leak: str
) -> None:
    rng = np.random.default_rng(2)
    churn = rng.integers(0, 2, 2000)
    leaked = np.where(rng.random(2000) < 0.01, 1 - churn, churn)
    cells: Any = {
        "number": leaked + rng.normal(scale=0.01, size=2000),
        "middle": np.where(leaked == 1, rng.choice([0.5], 2000), rng.choice([0.0, 1.0], 2000)),
        "level": np.where(leaked == 1, "closed", "open"),
        "missing": np.where(leaked == 1, np.nan, 1.0),
    }[leak]
    with pytest.raises(TableError, match=r"column 'leaked': likely leak, .*roles\.ignored"):
        leaks(features.assign(leaked=cells), churn)
    allowed = LEAKS.model_copy(update={"allowed": ("leaked",)})
    found = check_leaks(features.assign(leaked=cells), pd.DataFrame({"churned": churn}), EACH, allowed, seed=1)
    assert [(leak["columns"], leak["tier"]) for leak in found["findings"]] == [(["leaked"], "warn")]
    assert next(iter(found["auc"])) == "leaked"
    assert "LIKELY LEAK: leaked: " in caplog.text
    assert "leaks.allowed contains `leaked`" in caplog.text


# ---- report ----------------------------------------------------------------------------------------------------------


def test_the_data_report_adds_up_and_names_its_data() -> None:
    customers, _, contract_report = validated(faulty(200, 1))
    _, holdout, *_, split_report = split_customers(customers, CONTRACT, SPLIT)
    report, digests = report_data(contract_report, split_report, holdout, {"findings": [], "auc": {}}, CONTRACT)
    assert (
        sum(report["split"][name]["rows"] for name in ("train", "hold-out"))
        + sum(report["split"]["set_aside"].values())
        == 199
    )
    assert 0 < report["split"]["train"]["churn_share"] < 1
    assert report["split"]["customers"]["rule"] == "id"
    assert set(digests) == {"data", "contract", "holdout"}
    assert report["features"] == list(CONTRACT.features)
    assert report["protected"] == ["age"]
    json.dumps(report)
    assert "holdout" not in contract_report["digests"]  # inputs are not modified


def test_lost_rows_are_an_error() -> None:
    customers, _, contract_report = validated(raw_customers(200))
    _, holdout, *_, split_report = split_customers(customers.iloc[1:], CONTRACT, SPLIT)
    with pytest.raises(AssertionError, match="rows were lost"):
        report_data(contract_report, split_report, holdout, {"findings": [], "auc": {}}, CONTRACT)
