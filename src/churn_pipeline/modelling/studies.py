"""What a search remembers: trials, and the study that keeps, shows and records them."""

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
        What it tried, by ``group.name``.
    scores : tuple of float
        Log loss of each fold, in order; fewer than there are folds if it was pruned.
    state : {"complete", "pruned", "failed"}
        How it ended.
    clock, seconds : float
        When it began, in seconds since the search did, and how long it took.
    problem : str
        Why it failed.
    """

    number: int
    values: dict[str, Any]
    scores: tuple[float, ...]
    state: State
    clock: float
    seconds: float
    problem: str = ""

    @property
    def loss(self) -> float:
        """Mean log loss of the folds done; infinity without any."""
        return float(np.mean(self.scores)) if self.scores else float("inf")


@dataclass(frozen=True)
class Progress:
    """How far a search is; `left` is the time left in seconds, at the pace so far."""

    done: int
    total: int | None
    best: Trial | None
    left: float


class Study(Protocol):
    """What remembers the trials of one search, shows its progress, and records each trial that ended."""

    def ended(self) -> Mapping[int, Trial]:
        """Trials that ended before, by number."""

    def begin(self, number: int, values: Mapping[str, Any], clock: float) -> None:
        """Remember that a trial begins; one that began before and never ended begins again."""

    def end(self, trial: Trial) -> None:
        """Remember a trial that ended just now."""

    def show(self, progress: Progress) -> None:
        """Show how far the search is."""

    def conclude(self, report: Mapping[str, Any], trials: Sequence[Trial]) -> None:
        """Record the search's result and all its trials, those of earlier runs too."""


class Studies(Protocol):
    """What opens the study of a candidate.

    Attributes
    ----------
    candidate : str
        The candidate's name.
    """

    candidate: str

    def open(self, name: str, space: Mapping[str, BaseDistribution]) -> AbstractContextManager[Study]:
        """The study of this name; a new one if there is none."""


class ForgetfulStudies:
    """Studies that remember nothing, show nothing and record nothing: for searches whose trials nobody needs later.

    Examples
    --------
    >>> with ForgetfulStudies().open("", {}) as study:
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
        """None."""
        return {}

    def begin(self, number: int, values: Mapping[str, Any], clock: float) -> None:
        """Nothing."""

    def end(self, trial: Trial) -> None:
        """Nothing."""

    def show(self, progress: Progress) -> None:
        """Nothing."""

    def conclude(self, report: Mapping[str, Any], trials: Sequence[Trial]) -> None:
        """Nothing."""
