"""Nodes of modelling: search each candidate, compare them, choose, fit the chosen model, convert it to ONNX."""

import logging
from collections.abc import Sequence
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt
import onnx
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field
from sklearn.pipeline import Pipeline

from churn_pipeline.contract.table import Contract
from churn_pipeline.evaluation.metrics import log_loss, resolve_metric
from churn_pipeline.modelling.candidates import Candidate, build_candidate
from churn_pipeline.modelling.choice import choose_candidate
from churn_pipeline.modelling.choice_report import Choice
from churn_pipeline.modelling.cross_validation import Task
from churn_pipeline.modelling.ensemble import BlendedModel, assemble
from churn_pipeline.modelling.onnx_conversion import convert_model, model_digest
from churn_pipeline.modelling.search import SearchSettings, search_candidate
from churn_pipeline.modelling.serving_cost import microseconds_per_customer
from churn_pipeline.modelling.studies import Studies, UnstoredStudies
from churn_pipeline.pipelines.data_engineering.splitting import FOLD_TRAIN, FOLD_VALIDATE

logger = logging.getLogger(__name__)

FEATURE, FOLD = "feature.", "fold."
# Time for searches: one entry, ``seconds``; None if there is no limit.
Seconds = dict[str, float | None]
NO_LIMIT: Seconds = {"seconds": None}


class ChoiceSettings(BaseModel):
    """How candidates are compared, and how one of them or a blend is chosen."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metrics: tuple[str, ...] = Field(
        min_length=1, description="Metrics on the leaderboard; candidates are chosen by log loss."
    )
    standard_errors: float = Field(
        default=0.25,
        ge=0,
        description="An option that is cheaper to serve may be worse by this many standard errors.",
    )
    cost: float = Field(default=1e-5, ge=0, description="Log loss that one microsecond of serving a customer is worth.")
    blends: bool = Field(default=True, description="Whether candidates may be blended.")
    calibrate: bool = Field(
        default=True, description="Whether candidates may be calibrated, where that lowers the out-of-fold log loss."
    )


def prepare(
    features: pd.DataFrame,
    label: pd.DataFrame,
    folds: pd.DataFrame,
    groups: pd.DataFrame,
    seed: int,
    settings: SearchSettings,
) -> tuple[pd.DataFrame, Seconds]:
    """Collect the rows and folds that candidates are searched and compared on, and the time for that.

    Of a table with more than `settings.max_rows` training rows, customers are drawn at random, with all their rows.

    Returns
    -------
    rows : pandas.DataFrame
        ``feature.<name>`` for each input of the model, ``fold.<name>`` for each fold, ``churned`` and ``customer``.
    seconds : dict
        Time for the searches of all candidates.
    """
    drawn = draw_customers(groups["customer"].to_numpy(), settings.max_rows, seed)
    parts = [features.add_prefix(FEATURE), folds.add_prefix(FOLD), label[["churned"]], groups[["customer"]]]
    rows = pd.concat([part[drawn].reset_index(drop=True) for part in parts], axis="columns")
    return rows, {"seconds": settings.search_seconds if np.isfinite(settings.search_seconds) else None}


def make_task(rows: pd.DataFrame, contract: Contract, seed: int) -> Task:
    """Make the searches' data and folds from the rows of `prepare`."""
    folds = {str(name).removeprefix(FOLD): rows[name] for name in rows if str(name).startswith(FOLD)}
    features = rows[[name for name in rows if str(name).startswith(FEATURE)]]
    return Task(
        features=features.rename(columns=lambda name: name.removeprefix(FEATURE)),
        churned=rows["churned"],
        folds={
            name: ((fold == FOLD_TRAIN).to_numpy(), (fold == FOLD_VALIDATE).to_numpy()) for name, fold in folds.items()
        },
        numeric=contract.numeric,
        categorical=contract.categorical,
        loss=log_loss,
        seed=seed,
        groups=rows["customer"].to_numpy(),
    )


def draw_customers(customers: npt.NDArray[np.int64], max_rows: int, seed: int) -> npt.NDArray[np.bool_]:
    """Draw customers until they have `max_rows` rows: a mask of their rows, bool of shape (n_rows,)."""
    if len(customers) <= max_rows:
        return np.ones(len(customers), dtype=bool)
    numbers = pd.factorize(customers)[0]
    order = np.random.default_rng(seed).permutation(numbers.max() + 1)
    kept = order[np.cumsum(np.bincount(numbers)[order]) <= max_rows]
    return np.isin(numbers, kept)


def search(
    rows: pd.DataFrame,
    contract: Contract,
    seed: int,
    candidate: Candidate,
    settings: SearchSettings | None = None,
    studies: Studies | None = None,
    available: Seconds | None = None,
) -> tuple[pd.DataFrame, list[dict[str, Any]], Seconds]:
    """Search a candidate's space; each trial is fitted on the training rows of each fold only.

    This is the one node that is not pure: `studies` stores its trials, and an interrupted search resumes from them. The
    result does not depend on that.

    Returns
    -------
    predictions : pandas.DataFrame
        Of each of the best trials, a row for each fold and validation customer: ``trial`` (from 1, best first), ``fold``,
        ``row``, ``churned`` (0/1), ``probability`` (float64), ``seconds`` (to fit and predict the fold), ``microseconds`` (to
        serve a customer, estimated).
    candidates : list of dict
        The candidate with the values of its best trials, and without a space, as plain values of `Candidate`.
    seconds_left : dict
        Time for the candidates that follow.
    """
    task, seconds = make_task(rows, contract, seed), (available or NO_LIMIT)["seconds"]
    limit = None if seconds is None else seconds * candidate.share
    result = search_candidate(task, candidate, settings or SearchSettings(), studies or UnstoredStudies(), limit)
    predictions = [
        table.assign(microseconds=microseconds_per_customer(tuned, len(task.numeric)))
        for table, tuned in zip(result.predictions, result.candidates, strict=True)
    ]
    numbered = pd.concat(predictions, keys=range(1, len(predictions) + 1), names=["trial"])
    return (
        numbered.reset_index("trial").reset_index(drop=True),
        [tuned.model_dump(mode="json", by_alias=True) for tuned in result.candidates],
        {"seconds": None if seconds is None else max(0.0, seconds - result.report["seconds"])},
    )


def name_of_trial(candidate: str, trial: int) -> str:
    """Name of one of the best trials of a candidate, from 1: the first is named as the candidate."""
    return candidate if trial == 1 else f"{candidate}_{trial}"


def fit(
    features: pd.DataFrame,
    label: pd.DataFrame,
    groups: pd.DataFrame,
    contract: Contract,
    seed: int,
    choice: dict[str, Any],
    **candidates: list[dict[str, Any]],
) -> Pipeline | BlendedModel:
    """Fit the members of the chosen model on all training customers; other candidates are not fitted.

    Parameters
    ----------
    features, label
        Inputs and labels of the training customers, of n rows each.
    groups
        The customer of each row.
    contract
        Names the columns by type.
    seed
        Seed of the models.
    choice
        `churn_pipeline.modelling.choice_report.Choice` as plain values.
    **candidates
        What `search` found, by candidate, as plain values of `Candidate`.

    Returns
    -------
    Pipeline or BlendedModel
        A fitted candidate, calibrated if that was chosen, or a blend.
    """
    members = Choice.model_validate(choice).members
    found = {
        name_of_trial(name, trial): Candidate.model_validate(candidate)
        for name, tuned in candidates.items()
        for trial, candidate in enumerate(tuned, start=1)
    }
    models = {}
    # Copies and trees are fitted in parallel. Their seeds are drawn before, so the result does not depend on that.
    with joblib.parallel_config("threading", n_jobs=joblib.cpu_count()):
        for name in dict.fromkeys(member.candidate for member in members):
            model = build_candidate(found[name], contract.numeric, contract.categorical, seed)
            models[name] = model.fit(features, label["churned"], groups=groups["customer"].to_numpy())
    return assemble(models, members)


def compare(settings: ChoiceSettings, **predictions: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Rank candidates by cross-validated log loss, and choose one of them or a blend.

    Parameters
    ----------
    settings
        Metrics of the leaderboard, and margins of the choice.
    **predictions
        Out-of-fold predictions by candidate, as `search` returns them. Each of the best trials is compared.

    Returns
    -------
    leaderboard : pandas.DataFrame
        One row per candidate and kept trial, best first: the mean over folds of each metric, the standard error of the mean log
        loss,
        microseconds to serve a customer (estimated) and seconds to fit. All of it is measured before calibration.
    choice : dict
        `churn_pipeline.modelling.choice_report.Choice` as plain values.
    """
    names = list(dict.fromkeys(["log_loss", *settings.metrics]))
    rows = []
    tables = {
        name_of_trial(candidate, int(trial)): found[found["trial"] == trial].drop(columns="trial")
        for candidate, found in predictions.items()
        for trial in found["trial"].unique()
    }
    for candidate, table in tables.items():
        scores = _fold_scores(table, names)
        rows.append(
            {
                "candidate": candidate,
                **scores.mean().to_dict(),
                "log_loss_se": scores["log_loss"].std(ddof=1) / np.sqrt(len(scores)),
                "microseconds": table["microseconds"].iloc[0],
                "fit_seconds": table.groupby("fold")["seconds"].first().sum(),
            }
        )
    leaderboard = pd.DataFrame(rows).sort_values("log_loss", kind="stable", ignore_index=True)
    choice = choose_candidate(tables, settings.standard_errors, settings.cost, settings.blends, settings.calibrate)
    for sentence in choice.sentences:
        logger.info("%s", sentence)
    return leaderboard, choice.to_dict()


def _fold_scores(predictions: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Metrics of each fold: one row per fold, one column per metric."""
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


def convert_chosen(
    model: Pipeline | BlendedModel, choice: dict[str, Any], contract: Contract
) -> tuple[onnx.ModelProto, dict[str, str], dict[str, str]]:
    """Convert the chosen model to ONNX; the digest of its bytes is the model's digest.

    Returns
    -------
    converted : onnx.ModelProto
    report, tags : dict of str
        The chosen candidate and the model's digest, once for later nodes and once for the MLflow run.
    """
    converted = convert_model(model, contract.numeric, contract.categorical)
    report = {"candidate": choice["candidate"], "model_digest": model_digest(converted)}
    return converted, report, report
