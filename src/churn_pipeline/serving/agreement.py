"""Agreement among the worker processes of one service: either all of them switch to other bundles, or none does.

The workers share a folder on their machine, and nothing else. Its file ``state.json`` is changed only under a file lock. A
change of bundles is a round, a two-phase commit: each live worker loads and checks the bundles and votes. If all live workers
are ready, the selection becomes the agreed one, and each worker switches as soon as it reads that. One failure or the time
limit ends the round for all, and nothing changes. A worker that starts later loads what is agreed.

Each worker holds a lock on a file of its own. The kernel releases it when the process ends, however it ends, so the votes of
dead workers are not waited for.

References
----------
Gray, J. (1978). Notes on data base operating systems. Lecture Notes in Computer Science 60, 393-481: two-phase commit.
"""

import fcntl
import os
import secrets
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TextIO

from pydantic import BaseModel, ConfigDict

from churn_pipeline.serving.bundle_folder import Selection

Outcome = Literal["switched", "refused"]
READY = ""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Round(_Strict):
    """A proposed selection, its time on the monotonic clock, and a vote per worker: `READY`, or the reason why not."""

    selection: Selection
    started: float
    votes: dict[str, str] = {}


class State(_Strict):
    """What the workers have agreed on.

    Attributes
    ----------
    agreed
        The selection that all workers serve.
    round
        The open round, if there is one.
    refused, reason
        The selection of the last round if it failed, and why. It is tried again when a pointer is written again.
    """

    agreed: Selection
    round: Round | None = None
    refused: Selection | None = None
    reason: str = ""

    def propose(self, selection: Selection, now: float) -> None:
        """Open a round for a new selection. A round for another selection ends."""
        if selection.bundles == self.agreed.bundles:
            self.round = self.refused = None
        elif selection != self.refused and (self.round is None or self.round.selection != selection):
            self.round = Round(selection=selection, started=now)

    def vote(self, worker: str, selection: Selection, vote: str) -> None:
        """Record the vote of a worker, unless the round has ended."""
        if self.round is not None and self.round.selection == selection:
            self.round.votes[worker] = vote

    def settle(self, live: Collection[str], now: float, limit: float) -> Outcome | None:
        """End the round if a worker failed, the time limit is over, or all live workers are ready.

        Parameters
        ----------
        live
            Names of the live workers.
        now, limit
            Time on the clock of `propose`, and maximum duration of a round, in seconds.
        """
        if self.round is None:
            return None
        failures = sorted({vote for vote in self.round.votes.values() if vote != READY})
        missing = set(live) - set(self.round.votes)
        if failures:
            return self._refuse("; ".join(failures))
        if now - self.round.started > limit:
            return self._refuse(f"{len(missing)} of {len(live)} workers were not ready after {limit:g} seconds")
        if missing:
            return None
        self.agreed, self.round, self.refused = self.round.selection, None, None
        return "switched"

    def _refuse(self, reason: str) -> Outcome:
        assert self.round is not None, "only an open round is refused"
        self.refused, self.reason, self.round = self.round.selection, reason, None
        return "refused"


class Agreement:
    """The shared folder, as one worker uses it.

    Parameters
    ----------
    folder
        The folder that all workers of the service share; it exists.
    worker
        Name of this worker; by default, its process id and a random part.
    """

    def __init__(self, folder: Path, worker: str | None = None) -> None:
        self._folder = folder
        self.worker = worker or f"{os.getpid()}-{secrets.token_hex(3)}"
        self._held: TextIO | None = None

    def join(self, first: Callable[[], Selection]) -> State:
        """Count as a live worker from now on. The first worker decides what is agreed at the start.

        Parameters
        ----------
        first
            The selection if nothing is agreed yet.
        """
        with self._locked():
            self._held = self._file(self.worker).open("w", encoding="utf-8")
            fcntl.flock(self._held, fcntl.LOCK_EX)
            state = self._read() or State(agreed=first())
            self._write(state)
            return state

    def leave(self) -> None:
        """Stop counting as a live worker."""
        if self._held is not None:
            with self._locked():
                self._file(self.worker).unlink(missing_ok=True)
            self._held.close()
            self._held = None

    @contextmanager
    def state(self) -> Iterator[State]:
        """The state, for this worker alone until the end of the block, which stores its changes."""
        with self._locked():
            state = self._read()
            assert state is not None, "a worker joins first"
            before = state.model_copy(deep=True)
            yield state
            if state != before:
                self._write(state)

    def live(self) -> set[str]:
        """Names of the live workers; only within `state`."""
        return {file.stem for file in self._folder.glob("*.worker") if self._lives(file)}

    def _lives(self, file: Path) -> bool:
        with file.open(encoding="utf-8") as opened:
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            file.unlink()
            return False

    def _file(self, worker: str) -> Path:
        return self._folder / f"{worker}.worker"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._folder / "lock").open("w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # closing the file releases it
            yield

    def _read(self) -> State | None:
        try:
            return State.model_validate_json((self._folder / "state.json").read_bytes())
        except FileNotFoundError:
            return None

    def _write(self, state: State) -> None:
        # A process that is killed while it writes must not leave half a file.
        written = self._folder / "state.json.new"
        written.write_text(state.model_dump_json(), encoding="utf-8")
        written.replace(self._folder / "state.json")
