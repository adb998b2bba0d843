"""Nodes that predict the hold-out and measure the chosen model: metrics, importance and plots."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from pydantic import BaseModel, ConfigDict, Field
from sklearn.base import ClassifierMixin

from churn_pipeline.contract.errors import TableError
from churn_pipeline.contract.table import Contract
from churn_pipeline.evaluation import plots
from churn_pipeline.evaluation.bootstrap import Resampling, bootstrap_metrics
from churn_pipeline.evaluation.importance import ImportanceSettings, permutation_importance
from churn_pipeline.evaluation.metrics import miscalibration, resolve_metric
from churn_pipeline.evaluation.miscalibration import miscalibration_by_chance
from churn_pipeline.evaluation.plots_reliability import reliability_plot
from churn_pipeline.pipelines.evaluation.holdout_rows import holdout_keys, match_to_holdout


class EvaluationSettings(BaseModel):
    """Hold-out metrics, and how their intervals are computed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metrics: tuple[str, ...] = Field(min_length=1)
    resamples: int = Field(ge=100)
    confidence_level: float = Field(gt=0.5, lt=1)
    importance_repeats: int = Field(ge=1)


def predict(
    model: ClassifierMixin, features: pd.DataFrame, label: pd.DataFrame, holdout: pd.DataFrame, contract: Contract
) -> pd.DataFrame:
    """Predict the hold-out with the chosen model.

    Parameters
    ----------
    features, label
        Inputs and labels of the held-out customers, in the order of `holdout`.

    Returns
    -------
    pandas.DataFrame
        The contract's key columns (``row`` if it has no id), ``churned`` (int64, 0/1) and ``probability`` (float64).
    """
    return holdout_keys(holdout, contract).assign(
        churned=label["churned"].to_numpy(), probability=model.predict_proba(features)[:, 1]
    )


def find_true_probabilities(holdout: pd.DataFrame, truth: pd.DataFrame | None, contract: Contract) -> pd.DataFrame:
    """Select the true churn probability of each held-out row of a simulated table.

    Parameters
    ----------
    truth
        The contract's key columns and ``churn_probability``; None if the truth is unknown.

    Returns
    -------
    pandas.DataFrame
        The contract's key columns and ``probability``, in the order of `holdout`; no rows if the truth is unknown.
    """
    if truth is None:
        return holdout_keys(holdout, contract).head(0).assign(probability=pd.Series(dtype="float64"))
    subject, needed = f"The truth of table '{contract.name}'", [*contract.key, "churn_probability"]
    if not contract.key:
        raise TableError(subject, "needs an id in the contract")
    if not set(needed) <= set(truth.columns):
        raise TableError(subject, f"needs the columns {', '.join(needed)}")
    matched = match_to_holdout(truth[needed], holdout, contract, subject)
    if matched["churn_probability"].isna().any():
        raise TableError(subject, "has empty cells in churn_probability: simulate table and truth together")
    return matched.rename(columns={"churn_probability": "probability"})


def evaluate(
    predictions: pd.DataFrame,
    true_probabilities: pd.DataFrame,
    holdout: pd.DataFrame,
    contract: Contract,
    settings: EvaluationSettings,
    seed: int,
    groups: pd.DataFrame | None = None,
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Compute metrics on the hold-out with bootstrap intervals, and the best possible values.

    If a customer has several rows, customers are resampled and not rows.

    Parameters
    ----------
    groups
        The customer of each row of `holdout`; None if each row is a customer of its own.

    Returns
    -------
    metrics : pandas.DataFrame
        ``metric``, ``value``, ``lower``, ``upper`` (NaN if the metric has no interval), ``by_chance`` (what a calibrated model
        exceeds in 5% of samples; only for miscalibration) and ``best_possible`` (NaN if the truth is unknown).
    logged : dict of float
        The same as flat metrics for logging.
    """
    y, p, truth = _predicted_and_true(predictions, true_probabilities, holdout, contract)
    functions = {name: resolve_metric(name) for name in settings.metrics}
    resampling = Resampling(settings.resamples, settings.confidence_level, seed)
    key = customer_groups(groups)
    metrics = bootstrap_metrics(y, p, functions, resampling, key)
    metrics["by_chance"] = [
        miscalibration_by_chance(p, key, settings.confidence_level, seed=seed) if of is miscalibration else np.nan
        for of in functions.values()
    ]
    best = np.nan if truth is None else [function(y, truth) for function in functions.values()]
    metrics = metrics.assign(best_possible=best)
    return metrics, flat_metrics(metrics)


def _predicted_and_true(
    predictions: pd.DataFrame, true_probabilities: pd.DataFrame, holdout: pd.DataFrame, contract: Contract
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Labels, churn probabilities and true ones (None if unknown), in the order of the hold-out."""
    matched = match_to_holdout(predictions, holdout, contract, "The predictions of the hold-out")
    truth = None
    if len(true_probabilities):
        known = match_to_holdout(true_probabilities, holdout, contract, "The true churn probabilities")
        truth = known["probability"].to_numpy()
    return matched["churned"].to_numpy(), matched["probability"].to_numpy(), truth


def customer_groups(groups: pd.DataFrame | None) -> np.ndarray | None:
    """The customer of each row; None if no customer has several rows."""
    return None if groups is None or groups["customer"].is_unique else groups["customer"].to_numpy()


def flat_metrics(metrics: pd.DataFrame) -> dict[str, float]:
    """Flatten metrics and their intervals for logging; unknown values are omitted."""
    endings = {"": "value"} | {f"_{part}": part for part in ("lower", "upper", "by_chance", "best_possible")}
    return {
        f"{str(row['metric']).rsplit('.', 1)[-1]}{ending}": float(row[part])
        for row in metrics.to_dict("records")
        for ending, part in endings.items()
        if np.isfinite(row.get(part, np.nan))
    }


def measure_importance(
    model: ClassifierMixin,
    features: pd.DataFrame,
    label: pd.DataFrame,
    settings: EvaluationSettings,
    seed: int,
    groups: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Compute the permutation importance of each feature on the hold-out, in log loss."""

    def predict_churn(rows: pd.DataFrame) -> np.ndarray:
        return np.asarray(model.predict_proba(rows)[:, 1])

    return permutation_importance(
        predict_churn,
        features,
        label["churned"].to_numpy(),
        settings=ImportanceSettings(repeats=settings.importance_repeats, seed=seed),
        groups=customer_groups(groups),
    )


def draw_plots(
    predictions: pd.DataFrame,
    true_probabilities: pd.DataFrame,
    metrics: pd.DataFrame,
    holdout: pd.DataFrame,
    contract: Contract,
    groups: pd.DataFrame | None = None,
) -> tuple[Figure, ...]:
    """Draw ROC, precision–recall, reliability and gain on the hold-out, with the best possible curves if known."""
    y, p, truth = _predicted_and_true(predictions, true_probabilities, holdout, contract)
    chance = dict(zip(metrics["metric"], metrics["by_chance"], strict=True))
    intervals = {row["metric"]: (row["lower"], row["upper"]) for row in metrics.to_dict("records")}
    return (
        plots.roc_plot(y, p, intervals.get("auc"), truth),
        plots.precision_recall_plot(y, p, intervals.get("average_precision"), truth),
        reliability_plot(y, p, chance.get("miscalibration"), truth, customer_groups(groups)),
        plots.gain_plot(y, p, intervals.get("lift_top_decile"), truth),
    )
