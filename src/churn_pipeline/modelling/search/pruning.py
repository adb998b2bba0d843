"""When a trial is pruned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from churn_pipeline.modelling.studies import Trial


@dataclass(frozen=True)
class PruningRule:
    """Stops a trial that is further behind the best trial than chance can explain.

    Gaps are paired by fold, and the mean gap over k folds has a standard error of ``gap_deviation / sqrt(k)``. The rule
    therefore adapts to each table and needs no threshold in units of log loss.

    Attributes
    ----------
    best_scores : tuple of float
        The best trial's log loss in each fold.
    gap_deviation : float
        For each complete trial, its gap to the best trial has a standard deviation over the folds. This is the median of
        those standard deviations.
    """

    best_scores: tuple[float, ...]
    gap_deviation: float

    @classmethod
    def from_trials(cls, trials: Sequence[Trial]) -> PruningRule | None:
        """Derive the rule from complete trials; None if there are fewer than three, or if their gaps do not vary."""
        complete = sorted((trial for trial in trials if trial.state == "complete"), key=lambda trial: trial.rank)
        if len(complete) < 3 or len(complete[0].scores) < 2:
            return None
        gaps = np.array([trial.scores for trial in complete[1:]]) - complete[0].scores
        gap_deviation = float(np.median(gaps.std(axis=1, ddof=1)))
        return cls(complete[0].scores, gap_deviation) if gap_deviation > 0 else None

    def prunes(self, scores: Sequence[float], max_standard_errors: float) -> bool:
        """Whether a trial with these scores on the first folds is behind by more than `max_standard_errors`."""
        done = len(scores)
        gap = sum(scores) / done - sum(self.best_scores[:done]) / done
        return bool(gap > max_standard_errors * self.gap_deviation / done**0.5)
