"""Studies that store trials in memory."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from churn_pipeline.modelling.studies import Progress, Trial, UnstoredStudies


class MemoryStudies(UnstoredStudies):
    """Studies that store trials in memory."""

    def __init__(self, candidate: str = "logistic") -> None:
        super().__init__(candidate)
        self.trials: dict[int, Trial] = {}
        self.names: list[str] = []
        self.progress: list[Progress] = []
        self.n_ended = 0
        self.interrupt_after: int | None = None
        self.seconds: dict[int, float] = {}

    @contextmanager
    def open(self, name: str, space: Mapping[str, Any]) -> Iterator["MemoryStudies"]:
        self.names.append(name)
        yield self

    def ended(self) -> dict[int, Trial]:
        return dict(self.trials)

    def end(self, trial: Trial) -> None:
        self.n_ended += 1
        self.trials[trial.number] = trial
        if len(self.trials) == self.interrupt_after:
            raise KeyboardInterrupt

    def show(self, progress: Progress) -> None:
        self.progress.append(progress)

    def seconds_of(self, trials: int) -> float:
        return self.seconds.get(trials, 0.0)

    def conclude(self, report: Mapping[str, Any], trials: Sequence[Trial]) -> None:
        self.seconds[report["trials"]] = report["seconds"]

    def results(self) -> list[tuple[Any, ...]]:
        return [(t.number, t.values, t.scores, t.state) for _, t in sorted(self.trials.items())]
