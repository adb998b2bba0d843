"""The order of trials: which run at once, and which results each of them may use."""

from __future__ import annotations

import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import joblib
import numpy as np
import pandas as pd

from churn_pipeline.contract.errors import ProjectError
from churn_pipeline.modelling.early_stopping import stops_early
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
    limit : int
        Largest number of trials.
    seconds : float or None
        Time for the search. None: no limit.
    """

    name: str
    study: Study
    sampler: TrialSampler
    runner: TrialRunner
    settings: SearchSettings
    limit: int
    seconds: float | None = None
    trials: dict[int, Trial] = field(default_factory=dict)
    _running: dict[Future[TrialOutcome], int] = field(default_factory=dict)
    _learned: list[Trial] = field(default_factory=list)
    _best: list[TrialOutcome] = field(default_factory=list)

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
        with ThreadPoolExecutor(self._at_once) as pool:
            try:
                for number in range(self.limit):
                    self._learn(number - self.settings.parallel_trials)
                    # The first trial runs alone, and shows how long a trial takes.
                    while len(self._running) >= (self._at_once if number > 1 else 1):
                        self._wait_for_a_trial()
                    if number not in self.stored and self._time_is_up():
                        break
                    self._start(pool, number)
                while self._running:
                    self._wait_for_a_trial()
            finally:
                self.runner.stop.set()
        return [self.trials[number] for number in sorted(self.trials)]

    def predictions_of(self, trial: Trial) -> pd.DataFrame | None:
        """Return the out-of-fold predictions of one of the best trials; None if it was not run in this process."""
        for outcome in self._best:
            if outcome.trial.number == trial.number and outcome.predictions:
                return pd.concat(outcome.predictions, ignore_index=True)
        return None

    def _learn(self, number: int) -> None:
        """Wait for a trial and pass it to the sampler."""
        if number < 0:
            return
        while number not in self.trials:
            self._wait_for_a_trial()
        self.sampler.learn(self.trials[number])
        self._learned.append(self.trials[number])

    @property
    def _at_once(self) -> int:
        return min(self.settings.parallel_trials, int(joblib.cpu_count()))

    def _time_is_up(self) -> bool:
        """Whether a trial that starts now would probably end too late, with what is fitted after the last trial.

        Both estimates never fall as trials are added, so a repeated search does not start a trial that this one did not.
        """
        if self.seconds is None or not self.trials:
            return False
        longest = max(trial.seconds for trial in self.trials.values())
        ended = max(trial.end_seconds for trial in self.trials.values())
        elapsed = max(ended, time.perf_counter() - self._started if self._running else 0.0)
        return elapsed + longest + self._seconds_afterwards() > self.seconds

    def _seconds_afterwards(self) -> float:
        """Estimate the time to fit the folds of the best trials again; of all trials so far, the longest such time."""
        candidate = self.runner.candidate
        # Boosting fits the folds once more, with the number of trees of the other folds; copies are fitted only then.
        fits = candidate.copies if stops_early(candidate) or candidate.copies > 1 else 0
        done = [self.trials[number] for number in sorted(self.trials) if self.trials[number].state == "complete"]
        kept, longest = list[Trial](), 0.0
        for trial in done:
            kept = sorted([*kept, trial], key=lambda one: one.rank)[: candidate.keep]
            longest = max(longest, sum(one.seconds for one in kept))
        # Then folds are fitted in parallel.
        return longest * fits / self._at_once

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
        if trial.state == "complete":
            best = sorted([*self._best, outcome], key=lambda one: one.trial.rank)
            self._best = best[: self.runner.candidate.keep]
        best_trial = self._best[0].trial if self._best else None
        self.study.show(Progress(len(self.trials), self.limit, best_trial, self._seconds_left()))

    def _seconds_left(self) -> float:
        """Estimate the remaining time from the mean time per trial."""
        spent = time.perf_counter() - self._started
        by_time = np.inf if self.seconds is None else max(0.0, self.seconds - spent)
        return float(min(by_time, spent / len(self.trials) * (self.limit - len(self.trials))))
