"""Nodes of the decision: what the model is worth, to whom it is fair, whom to contact, whether it may be promoted."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sklearn.base import ClassifierMixin

from churn_pipeline.contract.cells import churned, model_inputs
from churn_pipeline.contract.errors import TableError
from churn_pipeline.contract.table import Contract
from churn_pipeline.evaluation import plots_profit
from churn_pipeline.evaluation.card import model_card
from churn_pipeline.evaluation.gate import Gate, evaluate_gate
from churn_pipeline.evaluation.importance import permutation_importance
from churn_pipeline.evaluation.profit import (
    CostModel,
    break_even,
    profit_curve,
    profit_metrics,
    realised_profit,
    sensitivity,
)
from churn_pipeline.evaluation.segments import gaps, segment_levels, segment_metrics
from churn_pipeline.evaluation.targets import TargetSettings, target_list
from churn_pipeline.pipelines.evaluation.nodes import EvaluationSettings, as_logged

logger = logging.getLogger(__name__)

IN_SAMPLE = (
    "The target list of this run scores customers that the model was trained on too: their expected profit is on the high "
    "side. Score a later table for a campaign."
)


class DecisionSettings(BaseModel):
    """What the model's use is evaluated by."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    budgets: tuple[float, ...] = Field(min_length=1, description="Shares of customers that may be contacted.")
    segment_metrics: tuple[str, ...] = Field(min_length=1)
    segment_resamples: int = Field(ge=100)


def cost_model(contract: Contract, costs: dict[str, Any]) -> dict[str, Any]:
    """The cost model of the table's own file, else the one of the parameters.

    Raises
    ------
    TableError
        When it is no cost model, or names a column that the contract has not.
    """
    try:
        block = CostModel.model_validate(contract.complete_costs(costs))
    except ValidationError as error:
        raise TableError(
            f"The costs of table '{contract.name}'",
            "; ".join(
                f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors(include_input=False)
            ),
        ) from None
    column = getattr(block.value, "column", None)
    if column is not None and column not in contract.columns:
        raise TableError(
            f"The costs of table '{contract.name}'", f"name the column '{column}', which is not in columns"
        )
    return block.model_dump(mode="json")


def evaluate_profit(
    predictions: pd.DataFrame,
    holdout: pd.DataFrame,
    contract: Contract,
    cost_model: dict[str, Any],
    evaluation: EvaluationSettings,
    settings: DecisionSettings,
    seed: int,
) -> tuple[pd.DataFrame, dict[str, float], pd.DataFrame, pd.DataFrame]:
    """What the model is worth on the hold-out: each customer is contacted from the own break-even on.

    Returns
    -------
    profit, logged, curve, sensitivity
        Metrics with intervals; the same by name, to log, with the ``threshold`` that a service decides by, the
        break-even at the mean value; profit against threshold; and what comes of wrong costs.
    """
    costs = CostModel.model_validate(cost_model)
    y, p, value = _holdout_arrays(predictions, holdout, costs)
    groups = _groups(holdout, contract)
    profit = profit_metrics(
        y, p, value, costs, settings.budgets, None, evaluation.resamples, evaluation.confidence_level, seed, groups
    )
    curve = profit_curve(y, p, value, costs, level=evaluation.confidence_level, seed=seed, groups=groups)
    logged = {**as_logged(profit), "threshold": float(break_even(value.mean(), costs))}
    return profit, logged, curve, sensitivity(y, p, value, costs)


def evaluate_segments(
    predictions: pd.DataFrame,
    holdout: pd.DataFrame,
    contract: Contract,
    cost_model: dict[str, Any],
    evaluation: EvaluationSettings,
    settings: DecisionSettings,
    seed: int,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Metrics by protected attribute and by segment, and the gaps between levels."""
    costs = CostModel.model_validate(cost_model)
    y, p, value = _holdout_arrays(predictions, holdout, costs)
    names = (*contract.roles.protected, *contract.roles.segments)
    levels = {name: segment_levels(holdout[name]) for name in names}
    table = segment_metrics(
        y,
        p,
        value,
        costs,
        levels,
        metrics=settings.segment_metrics,
        budgets=settings.budgets,
        n_resamples=settings.segment_resamples,
        level=evaluation.confidence_level,
        seed=seed,
        groups=_groups(holdout, contract),
    )
    return table, gaps(table, evaluation.confidence_level)


def measure_importance(
    model: ClassifierMixin, features: pd.DataFrame, label: pd.DataFrame, settings: EvaluationSettings, seed: int
) -> pd.DataFrame:
    """Permutation importance of each feature on the hold-out, in log loss."""

    def predict(rows: pd.DataFrame) -> np.ndarray:
        return np.asarray(model.predict_proba(rows)[:, 1])

    return permutation_importance(
        predict, features, label["churned"].to_numpy(), repeats=settings.importance_repeats, seed=seed
    )


def compare_with_champion(
    predictions: pd.DataFrame,
    champion: ClassifierMixin | None,
    features: pd.DataFrame,
    holdout: pd.DataFrame,
    train_label: pd.DataFrame,
    contract: Contract,
    cost_model: dict[str, Any],
    settings: Gate,
    seed: int,
) -> tuple[dict[str, Any], dict[str, float], dict[str, str]]:
    """Evaluate the chosen model alone, and against the registry's champion on the same hold-out.

    Returns
    -------
    report, logged, tags : dict
        The verdict with its reasons and numbers, what of them is to log, and the verdict as a tag.
    """
    costs = CostModel.model_validate(cost_model)
    y, p, value = _holdout_arrays(predictions, holdout, costs)
    theirs, problem = None, ""
    if champion is not None:
        try:
            theirs = champion.predict_proba(features)[:, 1]
        except (KeyError, ValueError) as error:
            problem = f"The champion cannot score these customers: {error}. Was the contract changed? Promote by hand."
    verdict = evaluate_gate(
        y, p, theirs, value, costs, settings, seed, _groups(holdout, contract), float(train_label["churned"].mean())
    )
    if problem and verdict.passed:  # what could not be compared is not known to be better
        verdict = replace(verdict, verdict="unclear", reasons=(problem,))
    logger.info("Gate: %s. %s", verdict.verdict, " ".join(verdict.reasons))
    logged = {name: float(number) for name, number in verdict.numbers().items() if np.isfinite(number)}
    return dict(verdict.report()), logged, {"gate": verdict.verdict}


def list_targets(
    model: ClassifierMixin,
    customers: pd.DataFrame,
    contract: Contract,
    cost_model: dict[str, Any],
    settings: TargetSettings,
) -> pd.DataFrame:
    """Customers worth contacting: those who stayed so far, at their latest date, by expected profit within the budget."""
    costs = CostModel.model_validate(cost_model)
    current = customers[churned(customers, contract) == 0]
    if contract.roles.date is not None:
        current = current[current[contract.roles.date] == customers[contract.roles.date].max()]
    ids = current[contract.roles.id] if contract.roles.id else pd.Series(current.index + 1, index=current.index)
    p = model.predict_proba(model_inputs(current, contract))[:, 1]
    return target_list(ids.to_numpy(), p, costs.values(current), costs, settings)


def draw_decision_plots(
    predictions: pd.DataFrame,
    holdout: pd.DataFrame,
    cost_model: dict[str, Any],
    curve: pd.DataFrame,
    sensitivities: pd.DataFrame,
    importance: pd.DataFrame,
    segments: pd.DataFrame,
    leaderboard: pd.DataFrame,
    choice: dict[str, Any],
    evaluation: EvaluationSettings,
) -> tuple[Figure, ...]:
    """Profit against threshold, sensitivity, lift, scores, importance, segments and leaderboard."""
    costs = CostModel.model_validate(cost_model)
    y, p, value = _holdout_arrays(predictions, holdout, costs)
    threshold = float(break_even(value.mean(), costs))
    return (
        plots_profit.profit_plot(curve, threshold, realised_profit(y, p, value, costs), costs.currency),
        plots_profit.sensitivity_plot(sensitivities, costs.currency),
        plots_profit.lift_plot(y, p, level=evaluation.confidence_level),
        plots_profit.score_plot(y, p, threshold),
        plots_profit.importance_plot(importance),
        plots_profit.segments_plot(segments, "calibration_gap"),
        plots_profit.leaderboard_plot(leaderboard, {each["candidate"]: each["weight"] for each in choice["members"]}),
    )


def write_card(
    data_report: dict[str, Any],
    choice: dict[str, Any],
    metrics: pd.DataFrame,
    profit: pd.DataFrame,
    segments: pd.DataFrame,
    segment_gaps: pd.DataFrame,
    cost_model: dict[str, Any],
    gate: dict[str, Any],
    model_report: Mapping[str, str],
    evaluation: EvaluationSettings,
    seed: int,
) -> str:
    """The model card, from the run's own records."""
    costs = CostModel.model_validate(cost_model)
    rebuild = {
        "command": "`kedro reproduce RUN_ID`, with the id of the MLflow run that holds this card",
        "seed": seed,
        "model digest": model_report["model_digest"],
        **{f"{name} digest": digest for name, digest in data_report["digests"].items()},
    }
    return model_card(
        data_report,
        choice,
        metrics,
        profit,
        segments,
        segment_gaps,
        costs,
        gate,
        rebuild,
        evaluation.confidence_level,
        limits=(IN_SAMPLE,),
    )


def _holdout_arrays(
    predictions: pd.DataFrame, holdout: pd.DataFrame, costs: CostModel
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Who churned, the churn probabilities, and what each customer is worth."""
    try:
        value = costs.values(holdout)
    except ValueError as error:
        raise TableError("The cost model does not fit the customers", str(error)) from None
    return predictions["churned"].to_numpy(), predictions["probability"].to_numpy(), value


def _groups(holdout: pd.DataFrame, contract: Contract) -> np.ndarray | None:
    """A key for each row where a customer may have several."""
    return holdout[contract.roles.id].to_numpy() if contract.roles.id and contract.roles.date else None
