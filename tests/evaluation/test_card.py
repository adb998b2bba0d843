"""Model card: every section has its facts, and bad results are shown."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest

from churn_pipeline.costs import CostModel, DecisionRule, ValueColumn
from churn_pipeline.evaluation.bootstrap import Resampling, bootstrap_metrics
from churn_pipeline.evaluation.card import LIMITATIONS, model_card
from churn_pipeline.evaluation.comparison import Baseline
from churn_pipeline.evaluation.gate import evaluate_challenger
from churn_pipeline.evaluation.gate_settings import GateSettings
from churn_pipeline.evaluation.holdout import Holdout
from churn_pipeline.evaluation.profit import profit_metrics
from churn_pipeline.evaluation.report import HoldoutResults, RunReport
from churn_pipeline.evaluation.segment_gaps import gaps
from churn_pipeline.evaluation.segments import SegmentScoring, segment_metrics

COSTS = CostModel(value=200, offer_cost=10, contact_cost=1, acceptance=0.3, currency="USD")
REPORT = {
    "table": "simulated",
    "rows": {"in": 8000, "valid": 7990, "quarantined": 10},
    "digests": {"data": "222d0e", "contract": "6bc724"},
    "split": {
        "train": {"rows": 6441, "churn_share": 0.2399},
        "hold-out": {"rows": 800, "churn_share": 0.2369},
        "customers": {"rule": "id", "reason": "Rows with the same 'member|key' are one customer."},
        "set_aside": {"its features are those of a held-out customer": 2},
    },
    "leaks": {"findings": []},
    "label": {"meaning": "The customer leaves within three months.", "observed": "", "horizon": "3 months"},
    "features": ["tenure", "Contract"],
    "protected": ["kind"],
}
USES = {"notes": ("This hold-out has been used for 7 different models.",)}
CHOICE = {"candidate": "splines", "rule": "lowest cross-validated log loss"}


@pytest.fixture(scope="module")
def run() -> RunReport:
    rng = np.random.default_rng(0)
    p = 1 / (1 + np.exp(-rng.normal(-1.6, 1.4, 800)))
    y = (rng.random(800) < p).astype(int)
    kind = pd.Series(np.where(np.arange(800) < 9, "tiny", rng.choice(["red", "a|b"], 800)))
    bent = np.where(kind == "red", p**1.7, p)
    other = pd.Series(np.where(p > 0.3, "high", "low"))
    few, value = Resampling(100), np.full(800, 200.0)
    table = segment_metrics(Holdout(y, bent, value), {"kind": kind, "plan": other}, SegmentScoring(COSTS), few)
    holdout = Holdout(y, p, value)
    results = HoldoutResults(
        metrics=bootstrap_metrics(y, p, ["auc"], few).assign(best_possible=0.8765),
        profit=profit_metrics(holdout, COSTS, resampling=few),
        segments=table,
        segment_gaps=gaps(table, REPORT["protected"]),
        gate={
            **evaluate_challenger(holdout, [Baseline("champion and anchor", "4", p)], COSTS, GateSettings()).report(),
            **USES,
        },
        decision=DecisionRule.of(COSTS, value),
        confidence_level=0.95,
    )
    return RunReport(REPORT, pd.DataFrame(), CHOICE, {"model_digest": "9f31ab"}, results, "Costs are assumed.", 7)


def changed(run: RunReport, **results: Any) -> RunReport:
    return replace(run, results=replace(run.results, **results))


def section(card: str, title: str) -> str:
    return card.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


def test_every_section_has_its_facts(run: RunReport) -> None:
    card = model_card(run)
    assert card.startswith("# Model card: churn of 'simulated'")
    assert "Gate: **no worse**" in card
    assert "The customer leaves within three months." in section(card, "What the label means")
    assert "- Customers: Rows with the same 'member\\|key' are one customer." in section(card, "Data")
    assert "Observed" not in card  # the contract does not say when
    assert "`222d0e`" in section(card, "Data")
    assert "| quarantined | 10 |" in section(card, "Data")
    auc = run.results.metrics.iloc[0]
    assert f"| `auc` | {auc['value']:.4f} | {auc['lower']:.4f} to {auc['upper']:.4f} | 0.8765 |" in card
    assert "200 USD" in section(card, "Profit")
    assert "30%" in section(card, "Profit")
    assert "together cost 11 USD." in section(card, "Profit")
    assert section(card, "Profit").startswith("\nCosts are assumed. They are assumptions")
    assert all(limitation in section(card, "Limitations") for limitation in LIMITATIONS)
    assert "- Model digest: 9f31ab\n- Data digest: 222d0e" in section(card, "How to reproduce it")
    assert "- Seed: 7" in section(card, "How to reproduce it")
    gate = section(card, "Gate")
    assert "| `log_loss` | champion and anchor |" in gate
    assert "- This hold-out has been used for 7 different models." in gate
    assert f"- {run.results.gate['reasons'][0]}" in gate


def test_gaps_between_protected_levels_are_listed(run: RunReport) -> None:
    fairness = section(model_card(run), "Fairness")
    assert "contacted share differs by" in fairness
    assert "highest for a\\|b, lowest for red" in fairness
    assert "tiny is not scored (fewer than 30 customers)" in fairness
    assert "plan" not in fairness
    assert "`plan`" in section(model_card(run), "Other segments")


def test_tables_are_tables(run: RunReport) -> None:
    lines = model_card(run).split("\n")
    for above, line in pairwise(lines):
        if above.startswith("|") and line.startswith("|"):
            assert above.replace("\\|", "").count("|") == line.replace("\\|", "").count("|"), line
        elif line.startswith("|"):
            assert above == ""  # Markdown needs the empty line before a table


def test_bad_news_is_shown(run: RunReport) -> None:
    rng = np.random.default_rng(1)
    noise = Holdout(rng.integers(0, 2, 800), rng.random(800), np.full(800, 200.0))
    refused = evaluate_challenger(noise, (), COSTS, GateSettings()).report()
    report = {**REPORT, "leaks": {"findings": [{"columns": ["refund"], "evidence": "all 40 customers in it churned"}]}}
    card = model_card(replace(changed(run, gate=refused), data_report=report))
    assert "Gate: **refused**" in card
    assert "does not significantly beat a constant" in section(card, "Gate")
    assert "`refund`: all 40 customers in it churned" in section(card, "Data")


def test_unknown_facts_are_left_out(run: RunReport) -> None:
    by_column = COSTS.model_copy(update={"value": ValueColumn(column="charge", months=12), "currency": ""})
    sparse = changed(
        run,
        metrics=run.results.metrics.assign(best_possible=np.nan),
        decision=DecisionRule.of(by_column, np.full(1, 200.0)),
        segment_gaps=run.results.segment_gaps.assign(significant=False),
    )
    card = model_card(replace(sparse, data_report={**REPORT, "protected": []}), limitations=["Made up."])
    assert "best possible" not in card
    assert "nan" not in card
    assert "12 × the column `charge`" in card
    assert "The contract has no protected attribute" in card
    assert "No gap in AUC, profit or calibration is significant." in card
    assert "- Made up." in card


def test_same_run_same_card(run: RunReport) -> None:
    assert model_card(run) == model_card(run)
