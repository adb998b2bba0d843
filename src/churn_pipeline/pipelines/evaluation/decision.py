"""Nodes that evaluate the use of the chosen model: profit, segments and target list."""

from dataclasses import replace
from typing import Any

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field
from sklearn.base import ClassifierMixin

from churn_pipeline.contract.cells import current_customers, model_inputs
from churn_pipeline.contract.table import Contract
from churn_pipeline.costs import CostModel, DecisionRule, break_even
from churn_pipeline.evaluation.bootstrap import Resampling
from churn_pipeline.evaluation.holdout import Holdout
from churn_pipeline.evaluation.profit import profit_metrics
from churn_pipeline.evaluation.profit_curve import CURVE_RESAMPLING, profit_curve
from churn_pipeline.evaluation.segment_gaps import gaps
from churn_pipeline.evaluation.segment_levels import segment_levels
from churn_pipeline.evaluation.segments import SegmentScoring, segment_metrics
from churn_pipeline.evaluation.sensitivity import sensitivity
from churn_pipeline.evaluation.targets import TargetSettings, target_list
from churn_pipeline.pipelines.evaluation.holdout_rows import match_to_holdout
from churn_pipeline.pipelines.evaluation.nodes import EvaluationSettings, customer_groups, flat_metrics
from churn_pipeline.pipelines.table_costs import customer_values


class DecisionSettings(BaseModel):
    """Contact budgets, and the metrics and resamples of the segment report."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    budgets: tuple[float, ...] = Field(min_length=1, description="Shares of customers that may be contacted.")
    segment_metrics: tuple[str, ...] = Field(min_length=1)
    segment_resamples: int = Field(ge=100)


def join_holdout(
    predictions: pd.DataFrame,
    customers: pd.DataFrame,
    contract: Contract,
    cost_model: dict[str, Any],
    groups: pd.DataFrame | None = None,
) -> Holdout:
    """Join the held-out customers with their predictions by key, and compute the value of each.

    Returns
    -------
    Holdout
        Rows in the order of `customers`.

    Raises
    ------
    TableError
        If a prediction is missing or repeated, or the cost model does not fit the customers.
    """
    matched = match_to_holdout(predictions, customers, contract, "The predictions of the hold-out")
    value = customer_values(CostModel.model_validate(cost_model), customers)
    return Holdout(matched["churned"].to_numpy(), matched["probability"].to_numpy(), value, customer_groups(groups))


def decision_rule(holdout: Holdout, cost_model: dict[str, Any]) -> dict[str, Any]:
    """Make the decision rule that the service applies: the cost model, and the threshold at the mean value."""
    return DecisionRule.of(CostModel.model_validate(cost_model), holdout.value).model_dump(mode="json")


def evaluate_profit(
    holdout: Holdout,
    cost_model: dict[str, Any],
    evaluation: EvaluationSettings,
    settings: DecisionSettings,
    seed: int,
) -> tuple[pd.DataFrame, dict[str, float], pd.DataFrame, pd.DataFrame]:
    """Compute the profit of using the model on the hold-out, with each customer's own break-even as threshold.

    Returns
    -------
    profit : pandas.DataFrame
        Metrics with intervals.
    logged : dict of float
        These metrics in flat form for logging, and ``threshold``: the break-even at the mean value.
    curve : pandas.DataFrame
        Profit by threshold.
    sensitivity : pandas.DataFrame
        Profit if an assumption of the cost model is wrong.
    """
    costs = CostModel.model_validate(cost_model)
    resampling = Resampling(evaluation.resamples, evaluation.confidence_level, seed)
    profit = profit_metrics(holdout, costs, settings.budgets, resampling=resampling)
    curve = profit_curve(holdout, costs, resampling=replace(resampling, resamples=CURVE_RESAMPLING.resamples))
    logged = {**flat_metrics(profit), "threshold": float(break_even(holdout.value.mean(), costs))}
    return profit, logged, curve, sensitivity(holdout, costs)


def evaluate_segments(
    holdout: Holdout,
    customers: pd.DataFrame,
    contract: Contract,
    cost_model: dict[str, Any],
    evaluation: EvaluationSettings,
    settings: DecisionSettings,
    seed: int,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compute metrics by protected attribute and by segment, and the gaps between levels."""
    names = (*contract.roles.protected, *contract.roles.segments)
    table = segment_metrics(
        holdout,
        {name: segment_levels(customers[name]) for name in names},
        SegmentScoring(CostModel.model_validate(cost_model), settings.segment_metrics, settings.budgets),
        Resampling(settings.segment_resamples, evaluation.confidence_level, seed),
    )
    return table, gaps(table, contract.roles.protected, evaluation.confidence_level)


def list_targets(
    model: ClassifierMixin,
    customers: pd.DataFrame,
    contract: Contract,
    cost_model: dict[str, Any],
    settings: TargetSettings,
) -> pd.DataFrame:
    """List the current customers worth contacting, by expected profit and up to the budget.

    Current customers are those of `current_customers`.
    """
    costs = CostModel.model_validate(cost_model)
    current = current_customers(customers, contract)
    ids = current[contract.roles.id] if contract.roles.id else pd.Series(current.index + 1, index=current.index)
    p = model.predict_proba(model_inputs(current, contract))[:, 1]
    return target_list(ids.to_numpy(), p, customer_values(costs, current), costs, settings)
