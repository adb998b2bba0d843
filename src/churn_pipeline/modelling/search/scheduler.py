"""The order of trials: which run at once, and which results each of them may use."""

from __future__ import annotations

import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import count

import joblib
import numpy as np
import pandas as pd

from churn_pipeline.contract.errors import ProjectError
from churn_pipeline.modelling.search.pruning import PruningRule
from churn_pipeline.modelling.search.sampler import TrialSampler
from churn_pipeline.modelling.search.settings import SearchSettings
from churn_pipeline.modelling.search.trial import TrialOutcome, TrialRunner
from churn_pipeline.modelling.studies import Progress, Study, Trial


@dataclass
class TrialScheduler:
    """Runs the trials of one search, several at once.

    Trial n starts once trial ``n - parallel_trials`` has ended, and uses the results up to that one. Its values and its
    pruning rule therefore depend neither on the number of cores nor on which trial ends first. Only
    `TrialRunner.run` runs in other threads.

    Attributes
    ----------
    name : str
        The candidate's name.
    study : Study
        Stores trials.
    sampler : TrialSampler
        Suggests what trials try.
    runner : TrialRunner
        Runs one trial.
    settings : SearchSettings
        How to search.
    limit : int or None
        Number of trials; None if only the time budget ends the search.
    """

    name: str
    study: Study
    sampler: TrialSampler
    runner: TrialRunner
    settings: SearchSettings
    limit: int | None
    trials: dict[int, Trial] = field(default_factory=dict)
    _running: dict[Future[TrialOutcome], int] = field(default_factory=dict)
    _learned: list[Trial] = field(default_factory=list)
    _best: TrialOutcome | None = None

    def __post_init__(self) -> None:
        self.stored = dict(self.study.ended())
        # A resumed search continues the clock, so that interruptions do not extend the time budget.
        self._started = time.perf_counter() - max((trial.end_seconds for trial in self.stored.values()), default=0.0)

    def run(self) -> list[Trial]:
        """Run all trials, or continue after the stored ones.

        Returns
        -------
        list of Trial
            In the order of their numbers.

        Raises
        ------
        ValueError
            If the first trial fails, or the study was made by another search.
        """
        with ThreadPoolExecutor(min(self.settings.parallel_trials, joblib.cpu_count())) as pool:
            try:
                for number in count() if self.limit is None else range(self.limit):
                    self._learn(number - self.settings.parallel_trials)
                    if self._budget_is_spent():
                        break
                    self._start(pool, number)
                while self._running:
                    self._wait_for_a_trial()
            finally:
                self.runner.stop.set()
        return [self.trials[number] for number in sorted(self.trials)]

    def predictions_of(self, trial: Trial) -> pd.DataFrame | None:
        """Return the trial's out-of-fold predictions; None unless it is the best trial and was run in this process."""
        if self._best is None or self._best.trial.number != trial.number or not self._best.predictions:
            return None
        return pd.concat(self._best.predictions, ignore_index=True)

    def _learn(self, number: int) -> None:
        """Wait for a trial and pass it to the sampler."""
        if number < 0:
            return
        while number not in self.trials:
            self._wait_for_a_trial()
        self.sampler.learn(self.trials[number])
        self._learned.append(self.trials[number])

    def _budget_is_spent(self) -> bool:
        # Use recorded times, not the clock, so that a repeated search stops at the same trial.
        spent = max((trial.end_seconds for trial in self._learned), default=0.0)
        return self.settings.seconds is not None and spent >= self.settings.seconds

    def _start(self, pool: ThreadPoolExecutor, number: int) -> None:
        """Start a trial, or take it from the study if it has ended before."""
        values, stored = self.sampler.suggest(number), self.stored.get(number)
        if stored is None:
            start = time.perf_counter() - self._started
            rule = PruningRule.from_trials(self._learned)
            self._running[pool.submit(self.runner.run, number, values, start, rule)] = number
            return
        if stored.values != values:
            raise ProjectError(
                f"Trial {number} in the study of {self.name}",
                f"has the values {stored.values}, but this search would try {values}: another search made the study. "
                "Delete the study file and search again.",
            )
        self._add(TrialOutcome(stored, []))

    def _wait_for_a_trial(self) -> None:
        """Wait until a trial ends, and store it."""
        done, _ = wait(self._running, return_when=FIRST_COMPLETED)
        for future in sorted(done, key=self._running.__getitem__):
            del self._running[future]
            outcome = future.result()
            self.study.end(outcome.trial)
            self._add(outcome)

    def _add(self, outcome: TrialOutcome) -> None:
        trial = outcome.trial
        if trial.number == 0 and trial.state == "failed":
            raise ProjectError(f"Candidate {self.name}", f"cannot be fitted as configured: {trial.problem}")
        self.trials[trial.number] = trial
        if trial.state == "complete" and (self._best is None or trial.rank < self._best.trial.rank):
            self._best = outcome
        best = self._best.trial if self._best else None
        self.study.show(Progress(len(self.trials), self.limit, best, self._seconds_left()))

    def _seconds_left(self) -> float:
        """Estimate the remaining time from the mean time per trial."""
        spent = time.perf_counter() - self._started
        by_time = np.inf if self.settings.seconds is None else max(0.0, self.settings.seconds - spent)
        by_trials = np.inf if self.limit is None else spent / len(self.trials) * (self.limit - len(self.trials))
        return float(min(by_time, by_trials))
