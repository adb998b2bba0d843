"""The agreement of workers: all switch or none does, also when workers die, join late or hang."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from churn_pipeline.serving.agreement import READY, Agreement, State
from churn_pipeline.serving.bundle_folder import BundleId, Selection

LIMIT = 10.0


def selection(name: str, written: int = 0) -> Selection:
    return Selection(current=BundleId(name=name, digest=name * 8), written=(written,))


class Workers(RuleBasedStateMachine):
    """Workers that propose, vote, die, start and hang, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.state = State(agreed=selection("a"))
        self.wanted = selection("a")
        self.now = 0.0
        self.live = {"1", "2"}
        self.count = 2
        self.ready: set[tuple[str, str]] = {("1", "a"), ("2", "a")}
        self.failed: set[str] = set()

    @rule(name=st.sampled_from("abc"), written=st.integers(0, 3))
    def point(self, name: str, written: int) -> None:
        self.wanted = selection(name, written)

    @rule(seconds=st.floats(0, 7))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def start(self) -> None:
        self.count += 1
        self.live.add(str(self.count))
        self.ready.add((str(self.count), self.state.agreed.current.name))  # a new worker loads what is agreed

    @precondition(lambda self: len(self.live) > 1)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        self.live.remove(data.draw(st.sampled_from(sorted(self.live))))

    @rule(data=st.data(), fails=st.booleans())
    def step(self, data: st.DataObject, fails: bool) -> None:
        worker = data.draw(st.sampled_from(sorted(self.live)))
        self.state = State.model_validate_json(self.state.model_dump_json())
        self.state.propose(self.wanted, self.now)
        before, seen = self.state.agreed, self.state.round
        if seen is not None and worker not in seen.votes:
            self.state.vote(worker, seen.selection, "it has changed" if fails else READY)
            if not fails:
                self.ready.add((worker, seen.selection.current.name))
        expired = seen is not None and self.now - seen.started > LIMIT
        outcome = self.state.settle(self.live, self.now, LIMIT)
        if outcome == "switched":
            assert seen is not None
            assert not expired
            assert "".join(seen.votes.values()) == READY, "one failure is enough for none to switch"
            assert self.state.agreed == seen.selection
        else:
            assert self.state.agreed == before
        if outcome == "refused":
            assert self.state.reason
            self.state.propose(self.wanted, self.now)
            assert self.state.round is None, "a refused selection is not tried again until a pointer is written"

    @invariant()
    def every_live_worker_can_serve_what_is_agreed(self) -> None:
        assert all((worker, self.state.agreed.current.name) in self.ready for worker in self.live)


Workers.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestWorkers = Workers.TestCase


HOLD = """
import signal, sys, pathlib
from churn_pipeline.serving.agreement import Agreement, Selection
agreed = Selection(current={"name": "a", "digest": "a" * 8}, written=(0,))
worker = Agreement(pathlib.Path(sys.argv[1]), "other")
worker.join(lambda: agreed)
print("joined", flush=True)
signal.pause()
"""


def test_a_killed_worker_is_not_waited_for(tmp_path: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE)
    assert other.stdout is not None
    assert other.stdout.readline() == b"joined\n"
    ours = Agreement(tmp_path, "ours")
    assert ours.join(lambda: pytest.fail("the first worker has decided")).agreed == selection("a")
    with ours.state() as state:
        assert ours.live() == {"ours", "other"}
        state.propose(selection("b"), 0.0)
        state.vote("ours", selection("b"), READY)
        assert state.settle(ours.live(), 1.0, LIMIT) is None
    other.kill()
    other.wait()
    with ours.state() as state:
        assert state.settle(ours.live(), 2.0, LIMIT) == "switched"
    with ours.state() as state:
        assert state.agreed == selection("b")
    ours.leave()


def test_a_worker_that_is_late_ends_the_round_for_all() -> None:
    state = State(agreed=selection("a"))
    state.propose(selection("b"), 0.0)
    state.vote("1", selection("b"), READY)
    assert state.settle({"1", "2"}, LIMIT, LIMIT) is None
    assert state.settle({"1", "2"}, LIMIT + 0.1, LIMIT) == "refused"
    assert state.reason == "1 of 2 workers were not ready after 10 seconds"
    state.vote("2", selection("b"), READY)
    assert state.settle({"1", "2"}, LIMIT + 0.2, LIMIT) is None
    assert state.agreed == selection("a")


def test_a_refused_bundle_is_tried_again_when_its_pointer_is_written_again() -> None:
    state = State(agreed=selection("a"))
    state.propose(selection("b", 1), 0.0)
    state.vote("1", selection("b", 1), "model.onnx has changed")
    assert state.settle({"1"}, 0.0, LIMIT) == "refused"
    state.propose(selection("b", 1), 1.0)
    assert state.round is None
    state.propose(selection("b", 2), 1.0)
    assert state.round is not None


def test_pointing_back_during_a_round_ends_it() -> None:
    state = State(agreed=selection("a"))
    state.propose(selection("b"), 0.0)
    state.vote("1", selection("b"), READY)
    state.propose(selection("a", 2), 1.0)
    assert state.settle({"1"}, 1.0, LIMIT) is None
    assert state.agreed == selection("a")
