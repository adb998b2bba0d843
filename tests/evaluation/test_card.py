"""The model card: it says what the run found, and hides nothing that is unwelcome."""

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest

from churn_pipeline.evaluation.bootstrap import bootstrap_metrics
from churn_pipeline.evaluation.card import LIMITS, model_card
from churn_pipeline.evaluation.gate import Gate, evaluate_gate
from churn_pipeline.evaluation.profit import CostModel, ValueColumn, profit_metrics
from churn_pipeline.evaluation.segments import gaps, segment_metrics

COSTS = CostModel(value=200, offer_cost=10, contact_cost=1, acceptance=0.3, currency="USD")
REPORT = {
    "table": "simulated",
    "rows": {"in": 8000, "valid": 7990, "quarantined": 10},
    "digests": {"data": "222d0e", "contract": "6bc724"},
    "split": {
        "train": {"rows": 6441, "churn_share": 0.2399},
        "hold-out": {"rows": 800, "churn_share": 0.2369},
        "set_aside": {"its features are those of a held-out customer": 2},
    },
    "leaks": {"suspects": []},
    "label": {"meaning": "The customer leaves within three months.", "observed": "", "horizon": "three months"},
    "features": ["tenure", "Contract"],
    "protected": ["kind"],
}
CHOICE = {"candidate": "splines", "rule": "lowest cross-validated log loss"}
REBUILD = {"Command": "`kedro run`", "Versions": {"python": "3.11", "numpy": "2.4"}, "Seeds": [1, 2]}


@pytest.fixture(scope="module")
def run() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    p = 1 / (1 + np.exp(-rng.normal(-1.6, 1.4, 800)))
    y = (rng.random(800) < p).astype(int)
    kind = pd.Series(np.where(np.arange(800) < 9, "tiny", rng.choice(["red", "a|b"], 800)))
    bent = np.where(kind == "red", p**1.7, p)
    other = pd.Series(np.where(p > 0.3, "high", "low"))
    table = segment_metrics(y, bent, 200, COSTS, {"kind": kind, "plan": other}, n_resamples=100)
    return {
        "data_report": REPORT,
        "choice": CHOICE,
        "metrics": bootstrap_metrics(y, p, ["auc"], n_resamples=100).assign(best_possible=0.8765),
        "profit": profit_metrics(y, p, 200, COSTS, n_resamples=100),
        "segments": table,
        "gaps": gaps(table),
        "costs": COSTS,
        "gate": evaluate_gate(y, p, p, 200, COSTS, Gate(resamples=100)).report(),
        "rebuild": REBUILD,
    }


def section(card: str, title: str) -> str:
    return card.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


def test_every_promise_is_kept(run: dict[str, Any]) -> None:
    card = model_card(**run)
    assert card.startswith("# Model card: churn of 'simulated'")
    assert "Gate: **no worse**" in card
    assert "The customer leaves within three months." in section(card, "What the label means")
    assert "Observed" not in card  # nothing was said of it
    assert "`222d0e`" in section(card, "Data")
    assert "| in quarantine | 10 |" in section(card, "Data")
    auc = run["metrics"].iloc[0]
    assert f"| `auc` | {auc['value']:.4f} | {auc['lower']:.4f} to {auc['upper']:.4f} | 0.8765 |" in card
    assert "200 USD" in section(card, "What it is worth")
    assert "30%" in section(card, "What it is worth")
    assert "costs 11 USD" in section(card, "What it is worth")
    assert all(limit in section(card, "Limits") for limit in LIMITS)
    assert "- Versions: python 3.11, numpy 2.4" in section(card, "How to rebuild it")
    assert "| `log_loss` |" in section(card, "Gate")


def test_gaps_between_protected_levels_are_told(run: dict[str, Any]) -> None:
    fairness = section(model_card(**run), "Fairness")
    assert "contacted share differs by" in fairness
    assert "highest for a\\|b, lowest for red" in fairness
    assert "tiny, fewer than 30 customers" in fairness
    assert "plan" not in fairness
    assert "`plan`" in section(model_card(**run), "Other segments")


def test_tables_are_tables(run: dict[str, Any]) -> None:
    lines = model_card(**run).split("\n")
    for above, line in pairwise(lines):
        if above.startswith("|") and line.startswith("|"):
            assert above.replace("\\|", "").count("|") == line.replace("\\|", "").count("|"), line
        elif line.startswith("|"):
            assert above == ""  # without which Markdown sees no table


def test_bad_news_is_told(run: dict[str, Any]) -> None:
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 800)
    refused = evaluate_gate(y, rng.random(800), None, 200, COSTS, Gate(resamples=100)).report()
    report = {**REPORT, "leaks": {"suspects": ["refund"]}}
    card = model_card(**(run | {"gate": refused, "data_report": report}))
    assert "Gate: **refused**" in card
    assert "no better than a constant" in section(card, "Gate")
    assert "refund nearly tells the label alone" in section(card, "Data")


def test_what_is_not_known_leaves_no_hole(run: dict[str, Any]) -> None:
    by_column = COSTS.model_copy(update={"value": ValueColumn(column="charge", months=12), "currency": ""})
    change = {
        "metrics": run["metrics"].assign(best_possible=np.nan),
        "data_report": {**REPORT, "protected": []},
        "costs": by_column,
        "gaps": run["gaps"].assign(beyond_noise=False),
        "limits": ["Made up."],
    }
    card = model_card(**(run | change))
    assert "best possible" not in card
    assert "nan" not in card
    assert "12 × the column `charge`" in card
    assert "No attribute is named as protected" in card
    assert "No gap in AUC, profit or calibration is beyond noise." in card
    assert "- Made up." in card


def test_same_run_same_card(run: dict[str, Any]) -> None:
    assert model_card(**run) == model_card(**run)
