"""Results of a training run, from which the model card, the run description, the summary and the plots are made."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from churn_pipeline.costs import CostModel, DecisionRule

Facts = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class HoldoutResults:
    """Results of the chosen model on the hold-out.

    Attributes
    ----------
    metrics
        Columns metric, value, lower, upper, by_chance, best_possible (NaN if unknown).
    profit
        Result of `profit_metrics`.
    segments, segment_gaps
        Results of `segment_metrics` and `gaps`.
    gate
        Result of `GateVerdict.report`.
    decision
        The decision rule, with the cost model in use.
    confidence_level
        Coverage of all intervals except those of the gate.
    """

    metrics: pd.DataFrame
    profit: pd.DataFrame
    segments: pd.DataFrame
    segment_gaps: pd.DataFrame
    gate: Facts
    decision: DecisionRule
    confidence_level: float

    @property
    def costs(self) -> CostModel:
        """The cost model in use."""
        return self.decision.costs


@dataclass(frozen=True, eq=False)
class RunReport:
    """Everything that a training run found.

    Attributes
    ----------
    data_report
        Table name, row counts, split, digests, label, features, protected attributes and leaks.
    leaderboard
        Cross-validated metrics of each candidate.
    choice
        Name of the candidate, rule, members with weights, and further sentences.
    model_report
        Facts about the chosen model, such as its digest.
    results
        Results on the hold-out.
    cost_source
        Where the cost model in use was set, as a sentence.
    seed
        Seed of the run.
    """

    data_report: Facts
    leaderboard: pd.DataFrame
    choice: Facts
    model_report: Mapping[str, str]
    results: HoldoutResults
    cost_source: str
    seed: int


def decision_sentence(decision: DecisionRule) -> str:
    """Say who is contacted, in the evaluation and by the service."""
    if decision.column is None:
        return (
            f"Customers are contacted if their churn probability is at least the break-even, {decision.threshold:.1%}."
        )
    return (
        "Customers are contacted if their churn probability is at least the break-even at their own value. At the mean value, "
        f"the break-even is {decision.threshold:.1%}."
    )
