"""Settings that apply to the search of every candidate."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

# The rest of the time budget is for fitting the chosen model on all rows, its evaluation and its record.
SEARCH_SHARE = 0.45


class SearchSettings(BaseModel):
    """How every candidate is searched.

    Attributes
    ----------
    trials : int, optional
        Number of trials of every search; overrides the candidates' own `trials`.
    seconds : float, optional
        Time budget of the whole training, in seconds. The searches use up to `SEARCH_SHARE` of it. None: no limit.
    max_rows : int
        Largest number of rows that candidates are searched and compared on; the chosen model is fitted on all rows.
    parallel_trials : int
        Maximum number of trials that run at once, further limited by the number of cores. The sampler ignores the last
        ``parallel_trials - 1`` trials, so that its suggestions do not depend on which trial ends first.
    startup_trials : int
        Number of trials that are drawn at random before the sampler learns from results.
    pruning_deviations : float, optional
        A trial is pruned when its mean gap to the best trial, over the folds fitted so far, exceeds this many standard
        errors of that gap; see `churn_pipeline.modelling.search.pruning.PruningRule`. None disables pruning.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    trials: int | None = Field(default=None, ge=1)
    seconds: float | None = Field(default=60.0, gt=0)
    max_rows: int = Field(default=50_000, ge=1000)
    parallel_trials: int = Field(default=4, ge=1)
    startup_trials: int = Field(default=6, ge=1)
    pruning_deviations: float | None = Field(default=2.0, gt=0)

    @property
    def search_seconds(self) -> float:
        """Time for the searches of all candidates, in seconds; infinity if there is no limit."""
        return float("inf") if self.seconds is None else SEARCH_SHARE * self.seconds
