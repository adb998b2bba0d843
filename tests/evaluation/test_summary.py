"""Summary and run description: rows, candidates, metrics and costs of a run in a few lines."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from churn_pipeline.costs import CostModel, DecisionRule, ValueColumn
from churn_pipeline.evaluation.report import HoldoutResults, RunReport
from churn_pipeline.evaluation.summary import run_description, summarise

DATA = {
    "table": "customers",
    "rows": {"in": 1205, "valid": 1203, "quarantined": 2},
    "split": {
        "train": {"rows": 1000, "churn_share": 0.265},
        "hold-out": {"rows": 200, "churn_share": 0.27},
        "set_aside": {"twin": 1, "late": 2},
    },
    "leaks": {"findings": [], "auc": {"plan": 0.987, "months": 0.6}},
}
LEADERBOARD = pd.DataFrame(
    {
        "candidate": ["splines", "logistic"],
        "log_loss": [0.41, 0.42],
        "auc": [0.85, 0.84],
        "log_loss_se": [0.01, 0.01],
        "fit_seconds": [1.0, 2.0],
    }
)
SINGLE = {
    "candidate": "splines",
    "rule": "lowest cross-validated log loss",
    "members": [{"candidate": "splines", "weight": 1.0}],
}
BLEND = {**SINGLE, "members": [{"candidate": "splines", "weight": 0.25}, {"candidate": "forest", "weight": 0.75}]}
METRICS = pd.DataFrame(
    {
        "metric": ["auc", "mine"],
        "value": [0.8, 2.0],
        "lower": [0.7, 1.0],
        "upper": [0.9, 3.0],
        "best_possible": [0.85, np.nan],
    }
)
PROFIT = pd.DataFrame({"metric": ["profit", "empc"], "value": [4.2, 5.0], "lower": [3.0, 4.0], "upper": [5.0, 6.0]})
COSTS = CostModel(value=10, offer_cost=1, contact_cost=1, acceptance=0.5)
GATE = {
    "verdict": "first",
    "reasons": ["There is no champion to compare with."],
    "notes": ["This hold-out has been used once."],
}
RESULTS = HoldoutResults(
    METRICS, PROFIT, pd.DataFrame(), pd.DataFrame(), GATE, DecisionRule.of(COSTS, np.array([10.0])), 0.95
)
REPORT = RunReport(DATA, LEADERBOARD, SINGLE, {}, RESULTS, "Costs are taken from the parameters.", 1)


def with_leak(suspect: str) -> dict[str, Any]:
    finding = {
        "columns": [suspect],
        "tier": "warn",
        "evidence": "AUC 0.987 on its own",
        "figures": {"auc": 0.987},
    }
    return {**DATA, "leaks": {"findings": [finding], "auc": {"plan": 0.987, "months": 0.6}}}


def test_a_summary_accounts_for_rows_candidates_and_metrics() -> None:
    said = summarise(REPORT)
    assert "1,205 rows in = 1,203 valid + 2 quarantined" in said
    assert "1,000 for training, 200 held out, 3 set aside" in said
    assert "churn 26.5%" in said
    assert said.index("splines") < said.index("logistic")
    assert "Chosen: splines (rule: lowest cross-validated log loss)" in said
    assert "Evaluated on 200 held-out customers, with 95% intervals" in said
    assert "  auc                     0.8000   [0.7000, 0.9000]   best possible 0.8500" in said.splitlines()
    assert "  mine                    2.0000   [1.0000, 3.0000]" in said.splitlines()
    assert "empc" not in said
    assert "  Costs are taken from the parameters." in said.splitlines()
    assert (
        "  Customers are contacted if their churn probability is at least the break-even, 36.4%." in said.splitlines()
    )
    assert "Gate: first. There is no champion to compare with.\n  This hold-out has been used once." in said
    assert "LEAK" not in said


def test_a_summary_says_that_each_value_has_its_own_threshold() -> None:
    by_column = COSTS.model_copy(update={"value": ValueColumn(column="charge")})
    results = replace(RESULTS, decision=DecisionRule.of(by_column, np.array([5.0, 15.0])))
    assert "break-even at their own value. At the mean value, the break-even is 36.4%." in summarise(
        replace(REPORT, results=results)
    )


def test_a_metric_without_interval_shows_what_chance_explains() -> None:
    rows = {"metric": ["miscalibration", "calibration_error"], "value": [0.002, 0.03], "lower": np.nan, "upper": np.nan}
    metrics = pd.DataFrame({**rows, "by_chance": [0.004, np.nan], "best_possible": np.nan})
    report = replace(REPORT, results=replace(RESULTS, metrics=metrics))
    said = summarise(report).splitlines()
    assert "  miscalibration          0.0020   up to 0.0040 by chance" in said
    assert "  calibration_error       0.0300" in said
    assert "| miscalibration | 0.0020 | up to 0.0040 by chance |" in run_description(report)


def test_a_summary_warns_about_leaks() -> None:
    said = summarise(replace(REPORT, data_report=with_leak("plan")))
    assert "!! LIKELY LEAK: plan: AUC 0.987 on its own" in said
    assert "roles.ignored" in said


def test_a_run_description_has_members_metrics_and_rows() -> None:
    said = run_description(replace(REPORT, choice=BLEND))
    assert said.startswith("Blend of `splines` 25%, `forest` 75%. Gate: **first**.")
    assert "| on 200 held-out customers | value | 95% interval |" in said
    assert "| auc | 0.8000 | 0.7000 to 0.9000 |" in said
    assert "| profit | 4.2000 | 3.0000 to 5.0000 |" in said
    assert "empc" not in said
    assert "Trained on 1,000 customers of table `customers`; 26.5% of them churned" in said
    assert run_description(REPORT).startswith("Chosen: `splines`. Gate")
