"""Trials of a search, and the interface of the study that stores, shows and records them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

State = Literal["complete", "pruned", "failed"]


@dataclass(frozen=True)
class Trial:
    """A trial that ended.

    Attributes
    ----------
    number : int
        From 0.
    values : dict
        The values it tried, by ``group.name``.
    scores : tuple of float
        Log loss of each fold, in order; fewer than there are folds if it was pruned.
    state : {"complete", "pruned", "failed"}
        How it ended.
    start_seconds : float
        When it started, in seconds after the start of the search.
    seconds : float
        How long it took.
    problem : str
        Why it failed.
    """

    number: int
    values: dict[str, Any]
    scores: tuple[float, ...]
    state: State
    start_seconds: float
    seconds: float
    problem: str = ""

    @property
    def loss(self) -> float:
        """Mean log loss of the scored folds; infinity if there are none."""
        return float(np.mean(self.scores)) if self.scores else float("inf")

    @property
    def rank(self) -> tuple[float, int]:
        """Sort key, best first: by log loss, then by number."""
        return self.loss, self.number

    @property
    def end_seconds(self) -> float:
        """When it ended, in seconds after the start of the search."""
        return self.start_seconds + self.seconds


@dataclass(frozen=True)
class Progress:
    """Progress of a search.

    Attributes
    ----------
    done : int
        Number of trials that ended.
    total : int or None
        Number of all trials; None if only the time budget ends the search.
    best : Trial or None
        The best complete trial so far.
    seconds_left : float
        Estimated remaining time.
    """

    done: int
    total: int | None
    best: Trial | None
    seconds_left: float


class Study(Protocol):
    """Stores the trials of one search, shows its progress, and records each trial that ended."""

    def ended(self) -> Mapping[int, Trial]:
        """Trials that earlier processes stored, by number."""

    def end(self, trial: Trial) -> None:
        """Store a trial that has just ended."""

    def show(self, progress: Progress) -> None:
        """Show the progress of the search."""

    def seconds_of(self, trials: int) -> float:
        """Time that an earlier search with this number of trials took; 0 if there was none."""

    def conclude(self, report: Mapping[str, Any], trials: Sequence[Trial]) -> None:
        """Record the search's result and all its trials, including those of earlier runs."""


class Studies(Protocol):
    """Opens the studies of one candidate.

    Attributes
    ----------
    candidate : str
        The candidate's name.
    """

    candidate: str

    def open(self, name: str, space: Mapping[str, BaseDistribution]) -> AbstractContextManager[Study]:
        """The study of this name; a new one if there is none."""


class UnstoredStudies:
    """Studies that store, show and record nothing, for searches whose trials are not needed later.

    Examples
    --------
    >>> with UnstoredStudies().open("", {}) as study:
    ...     dict(study.ended())
    {}
    """

    def __init__(self, candidate: str = "candidate") -> None:
        self.candidate = candidate

    @contextmanager
    def open(self, name: str, space: Mapping[str, BaseDistribution]) -> Iterator[Study]:
        """A new study."""
        yield self

    def ended(self) -> Mapping[int, Trial]:
        """Nothing is stored."""
        return {}

    def end(self, trial: Trial) -> None:
        """Do nothing."""

    def show(self, progress: Progress) -> None:
        """Do nothing."""

    def seconds_of(self, trials: int) -> float:
        """Nothing is stored."""
        return 0.0

    def conclude(self, report: Mapping[str, Any], trials: Sequence[Trial]) -> None:
        """Do nothing."""
