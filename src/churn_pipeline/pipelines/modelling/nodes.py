"""Nodes of modelling: validate each candidate out of fold, fit it, compare, choose, compile."""

import logging
from collections.abc import Sequence
from typing import Any

import joblib
import numpy as np
import onnx
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field
from sklearn.pipeline import Pipeline

from churn_pipeline.contract.table import Contract
from churn_pipeline.evaluation.metrics import log_loss, resolve_metric
from churn_pipeline.modelling.candidates import Candidate, build_candidate
from churn_pipeline.modelling.choice import Choice, choose_candidate
from churn_pipeline.modelling.cross_validation import Task
from churn_pipeline.modelling.ensemble import BlendedModel, assemble
from churn_pipeline.modelling.onnx_conversion import convert_model, model_digest
from churn_pipeline.modelling.search import SearchSettings, search_candidate
from churn_pipeline.modelling.studies import ForgetfulStudies, Studies
from churn_pipeline.pipelines.data_engineering.splitting import FOLD_TRAIN, FOLD_VALIDATE

logger = logging.getLogger(__name__)


class ChoiceSettings(BaseModel):
    """How candidates are compared and one is chosen."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metrics: tuple[str, ...] = Field(
        min_length=1, description="Shown on the leaderboard; the candidates are chosen by log loss."
    )
    standard_errors: float = Field(
        default=1.0,
        ge=0,
        description="A simpler candidate is chosen when it is within so many standard errors of the best.",
    )
    blend_standard_errors: float = Field(
        default=0.5,
        ge=0,
        description="A blend is chosen when it is better than a single candidate by more than so many; .inf for none.",
    )
    calibrate: bool = Field(default=True, description="Whether candidates are calibrated where that helps out of fold.")


def search(
    features: pd.DataFrame,
    label: pd.DataFrame,
    folds: pd.DataFrame,
    candidate: Candidate,
    contract: Contract,
    seed: int,
    settings: SearchSettings | None = None,
    studies: Studies | None = None,
) -> tuple[pd.DataFrame, Candidate]:
    """Search a candidate's space, everything a trial learns being fitted on each fold's training rows alone.

    The one node that is not pure: its trials are remembered by `studies`, from which it goes on if it was cut short.
    What it returns does not depend on that.

    Returns
    -------
    predictions : pandas.DataFrame
        The best trial's, a row for each validated customer and fold: ``fold``, ``row``, ``churned`` (0/1),
        ``probability`` (float64), ``seconds`` (to fit and predict the fold).
    candidate : Candidate
        The candidate with the hyperparameters to fit, and nothing left to search.
    """
    task = Task(
        features=features,
        churned=label["churned"],
        folds={
            str(name): ((fold == FOLD_TRAIN).to_numpy(), (fold == FOLD_VALIDATE).to_numpy())
            for name, fold in folds.items()
        },
        numeric=contract.numeric,
        categorical=contract.categorical,
        loss=log_loss,
        seed=seed,
    )
    found = search_candidate(task, candidate, settings or SearchSettings(), studies or ForgetfulStudies())
    return found.predictions, found.candidate


def fit(features: pd.DataFrame, label: pd.DataFrame, candidate: Candidate, contract: Contract, seed: int) -> Pipeline:
    """Fit a candidate on all training customers."""
    model = build_candidate(candidate, contract.numeric, contract.categorical, seed)
    # Copies and forests' trees side by side; what each draws is decided before, so that nothing depends on it.
    with joblib.parallel_config("threading", n_jobs=joblib.cpu_count()):
        return model.fit(features, label["churned"])


def compare(settings: ChoiceSettings, **predictions: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Rank candidates by cross-validated log loss, and choose one of them or a blend.

    Parameters
    ----------
    settings
        Which metrics the leaderboard shows, and the margins of the choice.
    **predictions
        Out-of-fold predictions by candidate, as `search` gives them.

    Returns
    -------
    leaderboard : pandas.DataFrame
        A row a candidate, best first: mean over folds of each metric, the mean log loss's standard error, and seconds;
        of the candidates as they came, before calibration.
    choice : dict
        See `churn_pipeline.modelling.choice.Choice`: what was chosen, the rule and the numbers that chose it.
    """
    names = list(dict.fromkeys(["log_loss", *settings.metrics]))
    rows = []
    for candidate, table in predictions.items():
        scores = _fold_scores(table, names)
        rows.append(
            {
                "candidate": candidate,
                **scores.mean().to_dict(),
                "log_loss_se": scores["log_loss"].std(ddof=1) / np.sqrt(len(scores)),
                "fit_seconds": table.groupby("fold")["seconds"].first().sum(),
            }
        )
    leaderboard = pd.DataFrame(rows).sort_values("log_loss", kind="stable", ignore_index=True)
    choice = choose_candidate(predictions, settings.standard_errors, settings.blend_standard_errors, settings.calibrate)
    for sentence in choice.sentences:
        logger.info("%s", sentence)
    return leaderboard, choice.to_dict()


def _fold_scores(predictions: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """A row a fold, a column a metric."""
    metrics = {name: resolve_metric(name) for name in names}
    return pd.DataFrame.from_records(
        [
            {
                name: metric(fold["churned"].to_numpy(), fold["probability"].to_numpy())
                for name, metric in metrics.items()
            }
            for _, fold in predictions.groupby("fold")
        ]
    )


def choose(choice: dict[str, Any], **models: Pipeline) -> Pipeline | BlendedModel:
    """The fitted model that was chosen: a candidate's, calibrated where that helped, or a blend."""
    return assemble(models, Choice.model_validate(choice).members)


def convert_chosen(
    model: Pipeline | BlendedModel, choice: dict[str, Any], contract: Contract
) -> tuple[onnx.ModelProto, dict[str, str], dict[str, str]]:
    """Compile the chosen model to ONNX; the digest of its bytes is the model's digest.

    Returns
    -------
    compiled : onnx.ModelProto
    report, tags : dict of str
        The chosen candidate and the model's digest, once for the nodes that follow and once for the MLflow run.
    """
    compiled = convert_model(model, contract.numeric, contract.categorical)
    report = {"candidate": choice["candidate"], "model_digest": model_digest(compiled)}
    return compiled, report, report
