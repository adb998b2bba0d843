"""Hyperparameter search for one candidate.

Trial n depends only on the seed, the candidate's name, n, and the trials before it except the last few. It depends
neither on the number of cores, nor on which trial ends first, nor on whether the search was interrupted. An interrupted
search therefore resumes after its last stored trial and returns what an uninterrupted one would.

The search stores nothing itself: trials go to a `Study`, which stores, shows and records them.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import joblib
import pandas as pd
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from churn_pipeline.modelling.candidates import Candidate
from churn_pipeline.modelling.cross_validation import FitFold, Task, fold_fitter, validate
from churn_pipeline.modelling.early_stopping import (
    stops_early,
    trees_for_all_rows,
    trees_of_other_folds,
    with_trees,
)
from churn_pipeline.modelling.search.digest import study_digest
from churn_pipeline.modelling.search.sampler import TrialSampler, distributions
from churn_pipeline.modelling.search.scheduler import TrialScheduler
from churn_pipeline.modelling.search.settings import SearchSettings
from churn_pipeline.modelling.search.trial import TrialRunner
from churn_pipeline.modelling.studies import Studies, Trial


@dataclass(frozen=True)
class SearchResult:
    """The result of a search.

    Attributes
    ----------
    candidates : list of Candidate
        The candidate with the values of its best trials, best first, and without a space.
    predictions : list of DataFrame
        Their out-of-fold predictions: ``fold``, ``row``, ``churned``, ``probability``, ``seconds``.
    report : dict
        ``study``, the numbers of ``trials``, ``pruned`` and ``failed`` trials, ``best_trial``, ``log_loss`` and
        ``seconds`` (of all trials and of the fits after them).
    """

    candidates: list[Candidate]
    predictions: list[pd.DataFrame]
    report: dict[str, Any]


def search_candidate(
    task: Task, candidate: Candidate, settings: SearchSettings, studies: Studies, seconds: float | None = None
) -> SearchResult:
    """Search a candidate's space, or resume an interrupted search.

    Parameters
    ----------
    task : Task
        Data and folds for evaluation.
    candidate : Candidate
        The candidate to search. Without a space there is one trial, with its own arguments.
    settings : SearchSettings
        How to search.
    studies : Studies
        Where trials are stored.
    seconds : float, optional
        Time for this search: no trial starts that would probably end later. None: no limit.

    Returns
    -------
    SearchResult
        The results of the trials with the lowest mean log loss; in case of a tie, of the earlier one.

    Raises
    ------
    ProjectError
        If the candidate's own arguments cannot be fitted, or the stored study was made by another search.
    """
    begin = time.perf_counter()
    name = f"{studies.candidate}-{study_digest(task, candidate, settings, studies.candidate)[:16]}"
    space, limit = distributions(candidate), trial_limit(candidate, settings)
    sampler = TrialSampler(task.seed, studies.candidate, space, candidate.first_trials, settings.startup_trials)
    # BLAS' limit and the filter of warnings apply to the whole process, so they are set here and not in each trial.
    with threadpool_limits(limits=1, user_api="blas"), warnings.catch_warnings():
        # A trial that did not converge is scored like any other.
        warnings.simplefilter("ignore", ConvergenceWarning)
        with studies.open(name, space) as study, fold_fitter(task) as fit_fold:
            cores = min(settings.parallel_trials, joblib.cpu_count())
            runner = TrialRunner(task, candidate, fit_fold, settings.pruning_deviations, parallel_folds=cores)
            scheduler = TrialScheduler(studies.candidate, study, sampler, runner, settings, limit, seconds)
            trials = scheduler.run()
            complete = sorted((trial for trial in trials if trial.state == "complete"), key=lambda trial: trial.rank)
            best = complete[: candidate.keep]
            finished = [
                _finish(candidate.with_values(trial.values), scheduler.predictions_of(trial), fit_fold, task)
                for trial in best
            ]
            # A repeated search reports the time of the first one: it leaves later candidates no time for more trials.
            spent = max(time.perf_counter() - begin, study.seconds_of(len(trials)))
            report = {"study": name, **_summary(trials, best[0], spent)}
            study.conclude(report, trials)
    return SearchResult(
        [tuned for tuned, _ in finished], [table.drop(columns="trees") for _, table in finished], report
    )


def _finish(
    tuned: Candidate, predictions: pd.DataFrame | None, fit_fold: FitFold, task: Task
) -> tuple[Candidate, pd.DataFrame]:
    """Fix the number of trees of boosting, and predict each fold with all copies, unless the trial already did."""

    def predict(candidates: Mapping[str, Candidate]) -> pd.DataFrame:
        return pd.concat(validate(candidates, fit_fold, joblib.cpu_count()), ignore_index=True)

    folds = list(task.folds)
    if stops_early(tuned):
        if predictions is None:
            predictions = predict(dict.fromkeys(folds, tuned.model_copy(update={"copies": 1})))
        trees = [int(count) for count in predictions.groupby("fold", sort=False)["trees"].first()[folds]]
        # A number of trees found on a fold's own validation rows would make its predictions look too good.
        others = zip(folds, trees_of_other_folds(trees), strict=True)
        return with_trees(tuned, trees_for_all_rows(trees)), predict(
            {fold: with_trees(tuned, count) for fold, count in others}
        )
    # Trials fit a single copy, so their predictions cannot stand in for the average of several.
    if predictions is None or tuned.copies > 1:
        predictions = predict(dict.fromkeys(folds, tuned))
    return tuned, predictions


def trial_limit(candidate: Candidate, settings: SearchSettings) -> int:
    """Return the largest number of trials of a search, which its time may reduce."""
    if candidate.space is None or not list(candidate.space.dimensions()):
        return 1
    return settings.trials or candidate.trials


def _summary(trials: Sequence[Trial], best: Trial, spent: float) -> dict[str, Any]:
    return {
        "trials": len(trials),
        "pruned": sum(trial.state == "pruned" for trial in trials),
        "failed": sum(trial.state == "failed" for trial in trials),
        "best_trial": best.number,
        "log_loss": best.loss,
        "seconds": round(max(spent, *(trial.end_seconds for trial in trials)), 3),
    }
