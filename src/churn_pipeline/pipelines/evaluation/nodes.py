"""Nodes of evaluation: evaluate the chosen model on the hold-out, record it, and say what came of the run."""

import json
from collections.abc import Hashable
from typing import Any

import numpy as np
import onnx
import pandas as pd
from matplotlib.figure import Figure
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from pydantic import BaseModel, ConfigDict, Field
from sklearn.pipeline import Pipeline

from churn_pipeline.contract.cells import model_inputs
from churn_pipeline.contract.errors import TableError
from churn_pipeline.contract.example import example_customers
from churn_pipeline.contract.table import Contract
from churn_pipeline.datasets.registered_model import ModelRecord
from churn_pipeline.evaluation import plots
from churn_pipeline.evaluation.bootstrap import bootstrap_metrics
from churn_pipeline.evaluation.metrics import resolve_metric
from churn_pipeline.serving.bundle import CARD_FILE, MODEL_FILE, TRAINING_PROFILE_FILE

MODEL_OUTPUTS = 2
PLOTS = (
    (plots.roc_plot, "auc"),
    (plots.precision_recall_plot, "average_precision"),
    (plots.reliability_plot, "calibration_error"),
    (plots.gain_plot, "lift_top_decile"),
)


class EvaluationSettings(BaseModel):
    """What the chosen model is evaluated by."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metrics: tuple[str, ...] = Field(min_length=1)
    resamples: int = Field(ge=100)
    confidence_level: float = Field(gt=0.5, lt=1)
    importance_repeats: int = Field(ge=1)


def predict(model: Pipeline, features: pd.DataFrame, label: pd.DataFrame) -> pd.DataFrame:
    """The chosen model's churn probabilities on the hold-out beside what happened.

    Returns
    -------
    pandas.DataFrame
        ``churned`` (int64, 0/1) and ``probability`` (float64), a row a held-out row.
    """
    return label.assign(probability=model.predict_proba(features)[:, 1])


def find_true_probabilities(holdout: pd.DataFrame, truth: pd.DataFrame | None, contract: Contract) -> pd.DataFrame:
    """The known churn probability of each held-out row of a simulated table; no rows for a real one.

    Parameters
    ----------
    truth
        The contract's key columns and ``churn_probability``; None where nobody knows.
    """
    if truth is None:
        return pd.DataFrame({"probability": pd.Series(dtype="float64")})
    subject, key = f"The truth of table '{contract.name}'", list(contract.key)
    needed = [*key, "churn_probability"]
    if not key or not set(needed) <= set(truth.columns):
        raise TableError(subject, f"needs {'an id in the contract' if not key else 'the columns ' + ', '.join(needed)}")
    if truth.duplicated(key).any():
        raise TableError(subject, f"is not unique: it names a row twice by {', '.join(key)}")
    known = truth.astype({name: holdout[name].dtype for name in key})
    joined = holdout[key].merge(known, on=key, how="left")
    if joined["churn_probability"].isna().any():
        raise TableError(subject, "lacks held-out customers: draw table and truth together")
    return joined[["churn_probability"]].rename(columns={"churn_probability": "probability"})


def evaluate(
    predictions: pd.DataFrame,
    true_probabilities: pd.DataFrame,
    holdout: pd.DataFrame,
    contract: Contract,
    settings: EvaluationSettings,
    seed: int,
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Metrics on the hold-out with bootstrap intervals, and how far they are from the best possible.

    Customers are resampled, not rows, where one customer has several.

    Returns
    -------
    metrics : pandas.DataFrame
        ``metric``, ``value``, ``lower``, ``upper``, and ``best_possible`` (NaN where nobody knows it).
    logged : dict of float
        The same by name, to log.
    """
    y, p = predictions["churned"].to_numpy(), predictions["probability"].to_numpy()
    functions = {name: resolve_metric(name) for name in settings.metrics}
    groups = holdout[contract.roles.id].to_numpy() if contract.roles.id and contract.roles.date else None
    metrics = bootstrap_metrics(
        y, p, functions, n_resamples=settings.resamples, level=settings.confidence_level, seed=seed, groups=groups
    )
    best = (
        [function(y, true_probabilities["probability"].to_numpy()) for function in functions.values()]
        if len(true_probabilities)
        else np.nan
    )
    metrics = metrics.assign(best_possible=best)
    return metrics, as_logged(metrics)


def as_logged(metrics: pd.DataFrame) -> dict[str, float]:
    """Metrics with their intervals by name, to log; what nobody knows is left out."""
    endings = {"": "value", "_lower": "lower", "_upper": "upper", "_best_possible": "best_possible"}
    return {
        f"{str(row['metric']).rsplit('.', 1)[-1]}{ending}": float(row[part])
        for row in metrics.to_dict("records")
        for ending, part in endings.items()
        if np.isfinite(row.get(part, np.nan))
    }


def draw_plots(
    predictions: pd.DataFrame, true_probabilities: pd.DataFrame, metrics: pd.DataFrame
) -> tuple[Figure, ...]:
    """ROC, precision-recall, reliability and gain on the hold-out, with the best possible curve where it is known."""
    y, p = predictions["churned"].to_numpy(), predictions["probability"].to_numpy()
    truth = true_probabilities["probability"].to_numpy() if len(true_probabilities) else None
    limits = {row["metric"]: (row["lower"], row["upper"]) for row in metrics.to_dict("records")}
    return tuple(draw(y, p, limits.get(metric), truth) for draw, metric in PLOTS)


def record_model(
    model: Pipeline,
    contract: Contract,
    data_report: dict[str, Any],
    model_report: dict[str, str],
    gate: dict[str, Any],
    model_card: str,
    training_profile: dict[str, Any],
    run_description: str = "",
    onnx_model: onnx.ModelProto | None = None,
) -> ModelRecord:
    """The chosen model as the registry keeps it: signature from the contract, and an example that is no customer's.

    With it goes what belongs to it wherever it is packaged: its card, and the summary of what it was trained on.
    """
    inputs: list[ColSpec | TensorSpec] = [ColSpec(DataType.double, name) for name in contract.numeric]
    inputs += [ColSpec(DataType.string, name) for name in contract.categorical]
    outputs = Schema([TensorSpec(np.dtype("float64"), (-1, MODEL_OUTPUTS), "probabilities")])
    return ModelRecord(
        model=model,
        example=model_inputs(example_customers(contract), contract),
        signature=ModelSignature(inputs=Schema(inputs), outputs=outputs),
        metadata={
            "table": contract.name,
            "gate": str(gate["verdict"]),
            **model_report,
            **{f"{name}_digest": value for name, value in data_report["digests"].items()},
        },
        documents={CARD_FILE: model_card, TRAINING_PROFILE_FILE: json.dumps(training_profile, ensure_ascii=False)},
        run_description=run_description,
        # Packaging takes this file, so that the model is converted only once.
        files={} if onnx_model is None else {MODEL_FILE: onnx_model.SerializeToString(deterministic=True)},
    )


DESCRIBED_METRICS = ("auc", "log_loss", "brier", "calibration_error", "lift_top_decile", "profit", "contacted_share")


def write_run_description(
    data_report: dict[str, Any],
    choice: dict[str, Any],
    metrics: pd.DataFrame,
    profit: pd.DataFrame,
    gate: dict[str, Any],
    settings: EvaluationSettings,
) -> str:
    """What a run came to, in a few lines of Markdown."""
    split = data_report["split"]
    train, held = split["train"], split["hold-out"]
    members = choice["members"]
    named = ", ".join(f"`{each['candidate']}`" + (f" {each['weight']:.0%}" * (len(members) > 1)) for each in members)
    rows = [
        row for row in [*metrics.to_dict("records"), *profit.to_dict("records")] if row["metric"] in DESCRIBED_METRICS
    ]
    return "\n".join(
        [
            f"{'Blend of' if len(members) > 1 else 'Chosen:'} {named}. Gate: **{gate['verdict']}**.",
            "",
            f"| on {held['rows']:,} held-out customers | value | {settings.confidence_level:.0%} interval |",
            "|---|---|---|",
            *(f"| {row['metric']} | {row['value']:.4f} | {row['lower']:.4f} to {row['upper']:.4f} |" for row in rows),
            "",
            f"Trained on {train['rows']:,} customers of table `{data_report['table']}`, of whom {train['churn_share']:.1%} "
            "churned. All of it: `reports/model_card.md` among the artifacts.",
        ]
    )


def summarise(
    data_report: dict[str, Any],
    leaderboard: pd.DataFrame,
    choice: dict[str, Any],
    metrics: pd.DataFrame,
    profit: pd.DataFrame,
    gate: dict[str, Any],
    contract: Contract,
    settings: EvaluationSettings,
) -> str:
    """What a person wants to read when a training has ended, as text."""
    rows, split = data_report["rows"], data_report["split"]
    shown = leaderboard.drop(columns=["log_loss_se"]).round(4).to_string(index=False)
    lines = [
        f"Table '{contract.name}': {rows['in']:,} rows in = {rows['valid']:,} valid + {rows['quarantined']:,} quarantined; "
        f"{split['train']['rows']:,} to train on, {split['hold-out']['rows']:,} held out, {sum(split['set_aside'].values()):,} "
        f"set aside; churn {split['train']['churn_share']:.1%}",
        *_leak_lines(data_report["leaks"]),
        "",
        f"Leaderboard, cross-validated on {split['train']['rows']:,} customers",
        shown,
        "",
        f"Chosen: {choice['candidate']} (rule: {choice['rule']})",
        *[f"  {sentence}" for sentence in choice.get("sentences", [])],
        "",
        f"Evaluated on {split['hold-out']['rows']:,} held-out customers, with "
        f"{settings.confidence_level:.0%} bootstrap intervals",
        *[_metric_line(row) for row in metrics.to_dict("records")],
        *[_metric_line(row) for row in profit.to_dict("records") if row["metric"] in ("profit", "contacted_share")],
        "",
        f"Gate: {gate['verdict']}. {' '.join(gate['reasons'])}",
        "",
        "Look next:",
        f"  kedro mlflow ui             runs, metrics, plots and the registered model churn_{contract.name}@challenger",
        "  kedro viz                   the graph, with tables and plots on its nodes",
        f"  data/08_reporting/{contract.name}/   model_card.md, target_list.csv, leaderboard, metrics, plots",
    ]
    return "\n".join(lines)


def _leak_lines(leaks: dict[str, Any]) -> list[str]:
    if not leaks["suspects"]:
        return []
    named = ", ".join(f"{name} (AUC {leaks['auc'][name]:.3f})" for name in leaks["suspects"])
    return [
        "",
        f"!! LIKELY LEAK: {named} nearly separates the classes alone.",
        "!! Is it known before the label? If not, put it under roles.ignored and train again.",
    ]


def _metric_line(row: dict[Hashable, Any]) -> str:
    true_probabilities = row.get("best_possible", np.nan)
    best = f"   best possible {true_probabilities:.4f}" if np.isfinite(true_probabilities) else ""
    return f"  {row['metric']:<22}{row['value']:>8.4f}   [{row['lower']:.4f}, {row['upper']:.4f}]{best}"
