"""Short texts about a run: the summary printed at its end, and the description stored in MLflow."""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np

from churn_pipeline.evaluation.markdown import interval_or_chance
from churn_pipeline.evaluation.report import Facts, RunReport, decision_sentence

DESCRIBED_METRICS = (
    "auc",
    "log_loss",
    "brier",
    "lift_top_decile",
    "calibration_intercept",
    "calibration_slope",
    "miscalibration",
    "profit",
    "contacted_share",
)


def run_description(report: RunReport) -> str:
    """Describe a run in a few lines of Markdown."""
    data, results = report.data_report, report.results
    train, holdout = data["split"]["train"], data["split"]["hold-out"]
    members = report.choice["members"]
    weights = [f" {member['weight']:.0%}" if len(members) > 1 else "" for member in members]
    names = ", ".join(f"`{member['candidate']}`{weight}" for member, weight in zip(members, weights, strict=True))
    rows = [
        row
        for row in [*results.metrics.to_dict("records"), *results.profit.to_dict("records")]
        if row["metric"] in DESCRIBED_METRICS
    ]
    return "\n".join(
        [
            f"{'Blend of' if len(members) > 1 else 'Chosen:'} {names}. Gate: **{results.gate['verdict']}**.",
            "",
            f"| on {holdout['rows']:,} held-out customers | value | {results.confidence_level:.0%} interval |",
            "|---|---|---|",
            *(f"| {row['metric']} | {row['value']:.4f} | {interval_or_chance(row, row['value'])} |" for row in rows),
            "",
            f"Trained on {train['rows']:,} customers of table `{data['table']}`; {train['churn_share']:.1%} of them churned. "
            "All results: `reports/model_card.md` in the artifacts.",
        ]
    )


def summarise(report: RunReport) -> str:
    """Summarise a run as text for the terminal."""
    data, results, choice = report.data_report, report.results, report.choice
    rows, split, name = data["rows"], data["split"], data["table"]
    leaderboard = report.leaderboard.drop(columns=["log_loss_se"]).round(4).to_string(index=False)
    lines = [
        f"Table '{name}': {rows['in']:,} rows in = {rows['valid']:,} valid + {rows['quarantined']:,} quarantined; "
        f"{split['train']['rows']:,} for training, {split['hold-out']['rows']:,} held out, "
        f"{sum(split['set_aside'].values()):,} set aside; churn {split['train']['churn_share']:.1%}",
        *_leak_lines(data["leaks"]),
        "",
        f"Leaderboard, cross-validated on {choice.get('rows') or split['train']['rows']:,} customers",
        leaderboard,
        "",
        f"Chosen: {choice['candidate']} (rule: {choice['rule']})",
        *[f"  {sentence}" for sentence in choice.get("sentences", [])],
        "",
        f"Evaluated on {split['hold-out']['rows']:,} held-out customers, with {results.confidence_level:.0%} intervals",
        *[_metric_line(row) for row in results.metrics.to_dict("records")],
        *[
            _metric_line(row)
            for row in results.profit.to_dict("records")
            if row["metric"] in ("profit", "contacted_share")
        ],
        f"  {decision_sentence(results.decision)}",
        f"  {report.cost_source}",
        "",
        f"Gate: {results.gate['verdict']}. {' '.join(results.gate['reasons'])}",
        *[f"  {note}" for note in results.gate["notes"]],
    ]
    return "\n".join(lines)


def _leak_lines(leaks: Facts) -> list[str]:
    if not leaks["findings"]:
        return []
    return [
        "",
        *[f"!! LIKELY LEAK: {', '.join(found['columns'])}: {found['evidence']}" for found in leaks["findings"]],
        "!! Is it known before the label? If not, put it under roles.ignored and train again.",
    ]


def _metric_line(row: Mapping[Hashable, Any]) -> str:
    limits = f"   [{row['lower']:.4f}, {row['upper']:.4f}]" if np.isfinite(row["lower"]) else ""
    by_chance, best_possible = row.get("by_chance", np.nan), row.get("best_possible", np.nan)
    chance = f"   up to {by_chance:.4f} by chance" if np.isfinite(by_chance) else ""
    best = f"   best possible {best_possible:.4f}" if np.isfinite(best_possible) else ""
    return f"  {row['metric']:<22}{row['value']:>8.4f}{limits}{chance}{best}"
