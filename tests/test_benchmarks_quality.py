"""The arithmetic of the quality benchmark: what its scores allow to claim, and which measurements it resumes."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from benchmarks.common import ROOT
from benchmarks.quality import records, training
from benchmarks.quality.claims import best_library, claim, mean_ranks, t_interval
from benchmarks.quality.measure import scored
from benchmarks.quality.report import (
    comparison,
    frame,
    honest_folds,
    library_comparison,
    log_losses,
    ranks,
    trained_models,
)
from benchmarks.quality.summary import losses, sentences
from benchmarks.quality.tables import SETS, outer_folds, read
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_rel

from churn_pipeline.contract.schema import read_contract

LOSSES = st.lists(st.floats(0.01, 1.0), min_size=3, max_size=10)


@given(LOSSES, st.integers(0, 1000))
def test_the_interval_agrees_with_the_paired_t_test(ours: list[float], seed: int) -> None:
    other = np.array(ours) + np.random.default_rng(seed).normal(0, 0.01, len(ours))
    expected = ttest_rel(other, ours).confidence_interval(0.95)
    _, low, high = t_interval(list(other - np.array(ours)))
    assert (low, high) == pytest.approx((expected.low, expected.high))


@given(LOSSES, st.integers(0, 1000))
def test_an_interval_that_includes_zero_is_level_and_the_claim_is_symmetric(ours: list[float], seed: int) -> None:
    mine = pd.Series(ours)
    other = mine + np.random.default_rng(seed).normal(0.005, 0.01, len(ours))
    word, (_, low, high), _ = claim(mine, other)
    assert (word == "level") == (low <= 0 <= high)
    opposite = {"lower": "higher", "higher": "lower", "level": "level"}
    assert claim(other, mine)[0] == opposite[word]


def test_claims_use_common_folds_and_need_three_of_them() -> None:
    ours = pd.Series({1: 0.40, 2: 0.41, 3: 0.42, 4: 0.43})
    other = pd.Series({1: 0.41, 2: 0.4201, 3: 0.4299, 5: 0.1})
    word, (mean, _, _), folds = claim(ours, other)
    assert (word, folds) == ("lower", 3)
    assert mean == pytest.approx(0.01, abs=1e-4)
    assert claim(other, ours)[0] == "higher"
    assert claim(ours, other.drop(1))[0] == "too few folds"


def test_the_best_library_model_needs_all_folds_of_ours() -> None:
    wide = pd.DataFrame(
        {
            "ours": [0.4, 0.4, np.nan],
            "catboost": [0.3, np.nan, 0.3],
            "xgboost": [0.42, 0.43, np.nan],
            "flaml": [0.1] * 3,
        }
    )
    assert best_library(wide) == "xgboost"
    assert best_library(wide.drop(columns="ours")) is None


def test_mean_ranks_use_the_folds_that_all_contenders_have() -> None:
    first = pd.DataFrame({"ours": [0.4, 0.4], "flaml": [0.5, 0.1], "late": [0.6, np.nan]})
    second = pd.DataFrame({"ours": [0.4, 0.4], "flaml": [0.3, 0.3], "late": [0.5, 0.5], "new": [0.1, 0.1]})
    ranks = mean_ranks({"a": first, "b": second})
    assert ranks["mean_rank"].to_dict() == {"ours": 1.5, "flaml": 1.5, "late": 3.0}
    assert mean_ranks({"a": first.iloc[1:], "b": second}).empty


def test_outer_folds_keep_identical_rows_together() -> None:
    label = np.tile([0, 1], 50)
    alike = np.arange(100) // 4
    folds = outer_folds(label, alike, ("plain", "grouped"))
    assert {kind: len(masks) for kind, masks in folds.items()} == {"plain": 5, "grouped": 5}
    for mask in folds["grouped"]:
        assert not set(alike[mask]) & set(alike[~mask])
    assert set(outer_folds(label, np.arange(100), ("plain", "grouped"))) == {"plain"}
    assert set(outer_folds(label, np.arange(100), ("grouped",))) == {"grouped"}


def test_a_measurement_is_found_again_only_for_the_same_rows(tmp_path: Path) -> None:
    file = tmp_path / "set" / "scores.jsonl"
    record = {"table": "gym", "kind": "grouped", "fold": 1, "contender": "ours", "rows": "abc", "log_loss": 0.4}
    records.save(file, record)
    records.save(file, record | {"fold": 2})
    records.save(file, record | {"log_loss": 0.3})
    assert [one["log_loss"] for one in records.load(file)] == [0.3, 0.4]
    assert records.find(records.load(file), record) is not None
    assert records.find(records.load(file), record | {"rows": "other"}) is None


def _lines() -> list[records.Record]:
    """Scores of three contenders on two tables: catboost is worse on a, and equal apart from noise on b."""
    lines: list[records.Record] = []
    for table, gap in (("a", 0.02), ("b", 0.0)):
        for fold in (1, 2, 3, 4):
            noise = 0.01 * (-1) ** fold
            shared = {"table": table, "kind": "grouped", "fold": fold, "auc": 0.8, "seconds": 1.0}
            ours = {"one_row_us": 40.0, "batch_row_us": 2.5}
            lines.append(
                shared
                | {"contender": "ours", "log_loss": 0.4, "serving": {"chosen": ours, "splines": ours}}
                | {"candidates": {"splines": {"log_loss": 0.41, "auc": 0.79}}}
            )
            lines.append(shared | {"contender": "catboost", "log_loss": 0.4 + gap + noise / 4})
            if fold < 3:
                models = {"trained": ["LightGBM", "CatBoost"], "skipped": {"TabM": "ImportError"}}
                lines.append(shared | {"contender": "autogluon_600", "log_loss": 0.5} | models)
    return lines


def test_the_result_says_lower_only_where_the_interval_excludes_zero() -> None:
    table = comparison(frame(_lines())).set_index(["table", "contender"])
    assert table.loc[("a", "catboost"), "ours is"] == "lower"
    assert table.loc[("b", "catboost"), "ours is"] == "level"
    assert table.loc[("a", "autogluon_600"), ["ours is", "measured"]].tolist() == ["too few folds", "2 of 5"]
    assert table.loc[("a", "our splines"), "µs for one row"] == "40"
    assert library_comparison(frame(_lines()))["ours is"].tolist() == ["lower", "level"]
    assert trained_models(_lines())["skipped or failed (folds)"].tolist() == ["TabM: ImportError (4)"]


def test_candidates_of_ours_are_not_ranked() -> None:
    assert ranks(frame(_lines()))["contender"].tolist() == ["ours", "catboost", "autogluon_600"]


def test_the_readme_repeats_the_words_of_the_table() -> None:
    wide = honest_folds(log_losses(frame(_lines())))
    text = sentences(wide)
    assert "Compared with `autogluon_600`, our log loss is measured on too few folds of a, b." in text
    assert "the best single library model of each table, our log loss is lower on a; level on b." in text
    assert losses(wide).set_index("log loss").loc["catboost", "b"] == "0.4000 (ours: level)"


PUBLIC = os.environ.get("CHURN_PUBLIC_DATA")


@pytest.mark.slow
@pytest.mark.skipif(not PUBLIC, reason="CHURN_PUBLIC_DATA is not set")
@pytest.mark.parametrize("table", SETS["development"].tables)
def test_development_tables_meet_their_contracts(table: str) -> None:
    rows = read(table)
    assert len(rows.customers) > 1000
    assert rows.label.mean() < 0.5
    assert not set(rows.contract.roles.protected) & set(rows.features)


@pytest.mark.slow
def test_ours_is_trained_by_the_projects_own_nodes(tmp_path: Path) -> None:
    rows = 8000
    mask, out = tmp_path / "mask.csv", tmp_path / "answer.json"
    np.savetxt(mask, (np.arange(rows) < 1000).astype(int), fmt="%d")
    training.main("simulated", mask, None, out, {"search": {"trials": 1}})
    answer = json.loads(out.read_text(encoding="utf-8"))
    names = set(answer["candidates"])
    assert "logistic" in names
    assert set(answer["serving"]) == {*names, "chosen"}
    scores = scored(answer | {"peak_gb": 1.0}, read("simulated").label.to_numpy()[1000:])
    assert scores["log_loss"] < 0.5
    assert "probability" not in scores


@pytest.mark.parametrize("table", SETS["development"].tables)
def test_development_tables_are_read_at_a_fixed_commit_with_a_checksum(table: str) -> None:
    file = ROOT / f"benchmarks/development/tables/{table}.yml"
    source = yaml.safe_load(file.read_text(encoding="utf-8"))["source"]
    assert source["type"].endswith("FetchedDataset")
    assert re.search(r"githubusercontent\.com/[^/]+/[^/]+/[0-9a-f]{40}/", source["url"])
    assert re.fullmatch(r"[0-9a-f]{64}", source["sha256"])
    assert read_contract(file).roles.target.column not in read_contract(file).features
