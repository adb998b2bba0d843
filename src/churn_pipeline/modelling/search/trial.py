"""One trial: fit and score a candidate on one fold after another."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from churn_pipeline.modelling.candidates import Candidate
from churn_pipeline.modelling.cross_validation import FitFold, Task, validate
from churn_pipeline.modelling.search.pruning import PruningRule
from churn_pipeline.modelling.studies import Trial


class SearchStoppedError(Exception):
    """The search was interrupted, and the result of this trial is no longer needed."""


@dataclass(frozen=True)
class TrialOutcome:
    """A trial that ended, and its out-of-fold predictions, one table for each fold that was fitted."""

    trial: Trial
    predictions: list[pd.DataFrame]


@dataclass(frozen=True)
class TrialRunner:
    """Runs trials of one candidate; several threads may use it at once.

    Attributes
    ----------
    task : Task
        Data and folds for evaluation.
    candidate : Candidate
        The candidate that is searched.
    fit_fold : callable
        Fits and predicts one fold; returned by `churn_pipeline.modelling.cross_validation.fold_fitter`.
    pruning_deviations : float or None
        See `churn_pipeline.modelling.search.SearchSettings`.
    parallel_folds : int
        Number of folds of the first trial that are fitted at once: no other trial runs beside it, and it is never pruned.
    stop : Event
        Once it is set, a trial ends before its next fold.
    """

    task: Task
    candidate: Candidate
    fit_fold: FitFold
    pruning_deviations: float | None
    parallel_folds: int = 1
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self, number: int, values: dict[str, Any], start: float, rule: PruningRule | None) -> TrialOutcome:
        """Fit and score one fold after another, until all are done or the trial is pruned.

        Parameters
        ----------
        number : int
            The trial's number.
        values : dict
            The values to try, by ``group.name``.
        start : float
            When the trial starts, in seconds after the start of the search.
        rule : PruningRule or None
            None never prunes.

        Returns
        -------
        TrialOutcome
            The trial is "failed" if the candidate cannot be fitted with these values.

        Raises
        ------
        SearchStoppedError
            If `stop` was set.
        """
        begin = time.perf_counter()
        trial = Trial(number, values, (), "complete", start, 0.0)
        predictions: list[pd.DataFrame] = []
        try:
            # Trials fit one copy only: which arguments are best hardly depends on the number of copies.
            candidate = self.candidate.with_values(values).model_copy(update={"copies": 1})
            for table in self._predict_folds(candidate, self.parallel_folds if number == 0 else 1):
                predictions.append(table)
                score = self.task.loss(table["churned"].to_numpy(), table["probability"].to_numpy())
                trial = replace(trial, scores=(*trial.scores, score))
                if len(predictions) < len(self.task.folds) and self._is_pruned(trial, rule):
                    trial = replace(trial, state="pruned")
                    break
        except (ArithmeticError, TypeError, ValueError) as error:
            trial = replace(trial, state="failed", problem=f"{type(error).__name__}: {error}")
        return TrialOutcome(replace(trial, seconds=time.perf_counter() - begin), predictions)

    def _is_pruned(self, trial: Trial, rule: PruningRule | None) -> bool:
        if rule is None or self.pruning_deviations is None:
            return False
        return rule.prunes(trial.scores, self.pruning_deviations)

    def _predict_folds(self, candidate: Candidate, parallel_folds: int) -> Iterator[pd.DataFrame]:
        if parallel_folds > 1:
            yield from validate(dict.fromkeys(self.task.folds, candidate), self.fit_fold, parallel_folds)
            return
        for fold in self.task.folds:
            if self.stop.is_set():
                raise SearchStoppedError
            yield self.fit_fold(candidate, fold)
