"""Nodes of the promotion gate: the hold-out's rule and uses, the versions to compare with, and the verdict."""

import logging
from typing import Any

import numpy as np
import pandas as pd

from churn_pipeline.contract.table import Contract
from churn_pipeline.costs import CostModel
from churn_pipeline.evaluation import baselines
from churn_pipeline.evaluation.baselines import Baselines
from churn_pipeline.evaluation.gate import GateVerdict, evaluate_challenger
from churn_pipeline.evaluation.gate_sentences import uses_sentence
from churn_pipeline.evaluation.gate_settings import GateSettings
from churn_pipeline.evaluation.holdout import Holdout
from churn_pipeline.evaluation.holdout_rule import HoldoutUse, holdout_rule
from churn_pipeline.evaluation.model_record import RegisteredVersion
from churn_pipeline.pipelines.data_engineering.splitting import SplitSettings, holdout_key

logger = logging.getLogger(__name__)


def describe_holdout_use(
    contract: Contract,
    split: SplitSettings,
    data_report: dict[str, Any],
    model_report: dict[str, str],
    evaluations: list[dict[str, str]],
) -> HoldoutUse:
    """Describe the rule that decides who is held out, and count the models evaluated on the hold-out.

    Parameters
    ----------
    evaluations
        Tags of earlier evaluations of the table.
    """
    latest = split.holdout_latest if contract.roles.date else None
    customers = data_report["split"]["customers"]["rule"]
    rule = holdout_rule(holdout_key(contract), customers, split.holdout_share, latest, contract.holdout_rotation)
    digests = data_report["digests"]
    return HoldoutUse(rule, digests["holdout"], model_report["model_digest"], digests["contract"], tuple(evaluations))


def score_baselines(
    champion: RegisteredVersion | None, anchor: RegisteredVersion | None, features: pd.DataFrame, use: HoldoutUse
) -> Baselines:
    """Predict the hold-out with champion and anchor; see `baselines.score_baselines`."""
    return baselines.score_baselines(champion, anchor, features, use)


def apply_gate(
    holdout: Holdout,
    compared_with: Baselines,
    use: HoldoutUse,
    train_label: pd.DataFrame,
    cost_model: dict[str, Any],
    settings: GateSettings,
) -> tuple[dict[str, Any], dict[str, float], dict[str, str]]:
    """Evaluate the chosen model on its own, and compare it with champion and anchor on the same hold-out.

    Returns
    -------
    report, logged, tags : dict
        The verdict with reasons, notes and metrics, the metrics to log, and the verdict with all it refers to as tags.
    """
    constant = float(train_label["churned"].mean())
    costs = CostModel.model_validate(cost_model)
    verdict = evaluate_challenger(holdout, compared_with.compared, costs, settings, constant)
    notes = (*verdict.notes, uses_sentence(use.uses), *compared_with.notes)
    logger.info("Gate: %s. %s", verdict.verdict, " ".join((*verdict.reasons, *notes)))
    facts = {
        "champion": compared_with.champion,
        "anchor": compared_with.anchor,
        "holdout_rule": use.rule,
        "holdout_uses": use.uses,
    }
    logged = {name: number for name, number in verdict.numbers().items() if np.isfinite(number)}
    report = {**verdict.report(), **facts, "notes": notes}
    return report, {**logged, "holdout_uses": float(use.uses)}, _tags(verdict, compared_with, use)


def _tags(verdict: GateVerdict, compared_with: Baselines, use: HoldoutUse) -> dict[str, str]:
    """Tags by which later runs count uses of the hold-out and comparisons with the anchor."""
    return {
        "gate": verdict.verdict,
        "gate.champion": compared_with.champion,
        "gate.anchor": compared_with.anchor,
        "holdout_rule": use.rule,
        "digest.holdout": use.digest,
        "model_digest": use.model,
    }
