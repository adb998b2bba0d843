"""Nodes that report a run: plots, model card, summary, run description and the record for the model registry."""

import json
from typing import Any

import onnx
import pandas as pd
from matplotlib.figure import Figure
from sklearn.base import ClassifierMixin

from churn_pipeline.contract.cells import model_inputs
from churn_pipeline.contract.example import example_customers
from churn_pipeline.contract.table import Contract
from churn_pipeline.costs import DecisionRule
from churn_pipeline.documents import CARD_FILE, DECISION_FILE, MODEL_FILE, TRAINING_PROFILE_FILE
from churn_pipeline.evaluation import plots_comparison, plots_profit, plots_scores
from churn_pipeline.evaluation.card import model_card
from churn_pipeline.evaluation.holdout_sample import HoldoutSamples, SampleSettings, draw_sample
from churn_pipeline.evaluation.model_record import ModelRecord
from churn_pipeline.evaluation.report import HoldoutResults, RunReport
from churn_pipeline.evaluation.summary import run_description
from churn_pipeline.pipelines.evaluation.decision import join_holdout
from churn_pipeline.pipelines.evaluation.nodes import EvaluationSettings
from churn_pipeline.pipelines.table_costs import cost_source

IN_SAMPLE = (
    "The target list of this run includes customers that the model was trained on, so their expected profit is too high. "
    "Score a later table for a campaign."
)


def collect_results(
    metrics: pd.DataFrame,
    profit: pd.DataFrame,
    segments: pd.DataFrame,
    segment_gaps: pd.DataFrame,
    gate: dict[str, Any],
    decision_rule: dict[str, Any],
    evaluation: EvaluationSettings,
) -> HoldoutResults:
    """Bundle the results on the hold-out."""
    decision = DecisionRule.model_validate(decision_rule)
    return HoldoutResults(metrics, profit, segments, segment_gaps, gate, decision, evaluation.confidence_level)


def collect_report(
    data_report: dict[str, Any],
    leaderboard: pd.DataFrame,
    choice: dict[str, Any],
    model_report: dict[str, str],
    results: HoldoutResults,
    contract: Contract,
    seed: int,
) -> RunReport:
    """Bundle everything that the run found."""
    return RunReport(data_report, leaderboard, choice, model_report, results, cost_source(contract), seed)


def draw_profit_plots(
    profit: pd.DataFrame,
    decision_rule: dict[str, Any],
    curve: pd.DataFrame,
    sensitivity: pd.DataFrame,
) -> tuple[Figure, ...]:
    """Draw profit by threshold, and sensitivity."""
    decision = DecisionRule.model_validate(decision_rule)
    costs, threshold = decision.costs, decision.threshold
    row = profit.set_index("metric").loc["profit"]
    decided = (float(row["value"]), float(row["lower"]), float(row["upper"]))
    return (
        plots_profit.profit_plot(curve, threshold, decided, costs.currency),
        plots_profit.sensitivity_plot(sensitivity, costs.currency),
    )


def draw_score_plots(
    predictions: pd.DataFrame,
    customers: pd.DataFrame,
    contract: Contract,
    decision_rule: dict[str, Any],
    evaluation: EvaluationSettings,
    groups: pd.DataFrame | None = None,
) -> tuple[Figure, ...]:
    """Draw lift and scores."""
    holdout = join_holdout(predictions, customers, contract, decision_rule["costs"], groups)
    threshold = DecisionRule.model_validate(decision_rule).threshold
    return (
        plots_scores.lift_plot(
            holdout.y, holdout.p, confidence_level=evaluation.confidence_level, groups=holdout.groups
        ),
        plots_scores.score_plot(holdout.y, holdout.p, threshold),
    )


def draw_comparison_plots(importance: pd.DataFrame, report: RunReport) -> tuple[Figure, ...]:
    """Draw importance, segments and leaderboard."""
    weights = {member["candidate"]: member["weight"] for member in report.choice["members"]}
    return (
        plots_comparison.importance_plot(importance),
        plots_comparison.segments_plot(report.results.segments, "calibration_gap"),
        plots_comparison.leaderboard_plot(report.leaderboard, weights),
    )


def write_card(report: RunReport) -> str:
    """Write the model card."""
    return model_card(report, limitations=(IN_SAMPLE,))


def draw_holdout_sample(
    model: ClassifierMixin,
    features: pd.DataFrame,
    customers: pd.DataFrame,
    contract: Contract,
    decision_rule: dict[str, Any],
    settings: SampleSettings,
) -> pd.DataFrame:
    """Choose the held-out customers on which packaging checks the ONNX model; see `draw_sample`."""
    column = DecisionRule.model_validate(decision_rule).column
    return draw_sample(model, features, customers, contract, column, settings.max_rows)


def record_model(
    model: ClassifierMixin,
    onnx_model: onnx.ModelProto,
    contract: Contract,
    model_card: str,
    training_profile: dict[str, Any],
    samples: HoldoutSamples,
    report: RunReport,
) -> ModelRecord:
    """Bundle the chosen model with its registry entry.

    The model card, the decision rule and the training profile are stored with the model, because packaging needs them. Of the
    hold-out sample, which has customers' rows, the entry has only digest, number of rows, path and day of expiry. The example
    is made up from the contract.
    """
    digests, gate = report.data_report["digests"], report.results.gate
    return ModelRecord(
        model=model,
        numeric=contract.numeric,
        categorical=contract.categorical,
        example=model_inputs(example_customers(contract), contract),
        metadata={
            "table": contract.name,
            "gate": str(gate["verdict"]),
            "gate_champion": str(gate["champion"]),
            "gate_anchor": str(gate["anchor"]),
            "gate_beats_anchor": str(gate["beats_anchor"]).lower(),
            "holdout_rule": str(gate["holdout_rule"]),
            **report.model_report,
            **samples.tags,
            **{f"{name}_digest": digest for name, digest in digests.items()},
        },
        documents={
            CARD_FILE: model_card,
            DECISION_FILE: report.results.decision.model_dump_json(indent=1),
            TRAINING_PROFILE_FILE: json.dumps(training_profile, ensure_ascii=False),
        },
        run_description=run_description(report),
        # Packaging takes this file, so that the model is converted only once.
        files={MODEL_FILE: onnx_model.SerializeToString(deterministic=True)},
    )
