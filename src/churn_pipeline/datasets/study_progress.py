"""The progress of a search on a terminal."""

from __future__ import annotations

import sys

from tqdm import tqdm  # type: ignore[import-untyped]

from churn_pipeline.modelling.studies import Progress

LAYOUT = "{desc}: {n_fmt}/{total_fmt} trials |{bar:20}| {elapsed}{postfix}"
LAYOUT_WITHOUT_TOTAL = "{desc}: {n_fmt} trials, {elapsed}{postfix}"  # a time budget ends the search


class SearchProgressLine:
    """One line on a terminal: number of trials, the best log loss so far, and the remaining time.

    If stderr is not a terminal, nothing is written.

    Parameters
    ----------
    candidate
        The candidate's name.
    """

    def __init__(self, candidate: str) -> None:
        self.candidate = candidate
        self._bar = tqdm(
            desc=candidate,
            bar_format=LAYOUT,
            leave=False,
            file=sys.stderr,
            disable=not sys.stderr.isatty(),
        )

    def __enter__(self) -> SearchProgressLine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def show(self, progress: Progress) -> None:
        """Redraw the line."""
        self._bar.bar_format = LAYOUT if progress.total is not None else LAYOUT_WITHOUT_TOTAL
        best = progress.best
        score = f"best log loss {best.loss:.4f} (trial {best.number})" if best else "no score yet"
        self._bar.set_postfix_str(f"{score}, {tqdm.format_interval(progress.seconds_left)} left", refresh=False)
        self._bar.n, self._bar.total = progress.done, progress.total
        self._bar.refresh()

    def close(self) -> None:
        """Remove the line."""
        self._bar.close()
