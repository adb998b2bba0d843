"""What a trial tries: a candidate's space in Optuna's terms, and the sampler that suggests values from it."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from churn_pipeline.modelling.candidates import Candidate
from churn_pipeline.modelling.space import Choices, Range
from churn_pipeline.modelling.studies import Trial

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution


def distributions(candidate: Candidate) -> dict[str, BaseDistribution]:
    """Convert a candidate's space to Optuna's distributions.

    Parameters
    ----------
    candidate : Candidate
        The candidate to search.

    Returns
    -------
    dict of str to BaseDistribution
        Distributions by ``group.name``, such as ``arguments.C``; empty if the candidate has no search space.
    """
    dimensions = candidate.space.dimensions() if candidate.space else ()
    return {f"{group}.{name}": _distribution(dimension) for group, name, dimension in dimensions}


class TrialSampler:
    """Suggests the values of each trial with Optuna's TPE sampler.

    The suggestion for trial n depends only on the seed, the candidate's name, n, and the trials passed to `learn`. The
    sampler is seeded anew for each trial, so that a resumed search suggests what an uninterrupted one would.

    Parameters
    ----------
    seed : int
        Seed of the search.
    name : str
        The candidate's name.
    space : Mapping of str to BaseDistribution
        As returned by `distributions`.
    first : sequence of dict
        Values of the first trials, by ``group.name``.
    startup_trials : int
        Number of random trials before the sampler learns from results.
    """

    def __init__(
        self,
        seed: int,
        name: str,
        space: Mapping[str, BaseDistribution],
        first: Sequence[dict[str, Any]],
        startup_trials: int,
    ) -> None:
        import optuna

        self._seed, self._name, self._space, self._startup_trials = seed, name, dict(space), startup_trials
        with _quiet_optuna():
            self._study = optuna.create_study(direction="minimize")
        for values in first:
            self._study.enqueue_trial(values)
        self._open_trials: dict[int, optuna.Trial] = {}

    def suggest(self, number: int) -> dict[str, Any]:
        """Suggest the values of a trial; call it in the order of trial numbers.

        Parameters
        ----------
        number : int
            The trial's number, from 0.

        Returns
        -------
        dict
            Values by ``group.name``.
        """
        import optuna

        seed = hashlib.sha256(f"{self._seed}/{self._name}/{number}".encode()).digest()[:4]
        self._study.sampler = optuna.samplers.TPESampler(
            n_startup_trials=self._startup_trials, seed=int.from_bytes(seed, "big")
        )
        with _quiet_optuna():
            trial = self._study.ask(self._space)
        assert trial.number == number
        self._open_trials[number] = trial
        return dict(trial.params)

    def learn(self, trial: Trial) -> None:
        """Add the result of a trial; call it in the order of trial numbers.

        Parameters
        ----------
        trial : Trial
            A trial that ended, and that `suggest` gave the values for.
        """
        from optuna.trial import TrialState

        opened = self._open_trials.pop(trial.number)
        for step, score in enumerate(trial.scores):
            opened.report(score, step)
        if trial.state == "complete":
            self._study.tell(opened, trial.loss)
        else:
            self._study.tell(opened, state=TrialState.PRUNED if trial.state == "pruned" else TrialState.FAIL)


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Silence Optuna's log line for each trial, and its warnings about experimental features."""
    from optuna import exceptions, logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", exceptions.ExperimentalWarning)
            yield
    finally:
        logging.set_verbosity(before)


def _distribution(dimension: Range | Choices) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(dimension, Choices):
        return CategoricalDistribution(dimension.choices)
    if dimension.is_integer:
        return IntDistribution(int(dimension.low), int(dimension.high), dimension.log, int(dimension.step or 1))
    return FloatDistribution(float(dimension.low), float(dimension.high), dimension.log, dimension.step)
