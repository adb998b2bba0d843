"""Two trainings of one table at once: the second says what to do, and the first is not disturbed."""

from typing import Any

import pytest
from tests.conftest import Project
from tests.faults.commands import TRAIN, paused, run
from tests.faults.conftest import Observe
from tests.faults.state import final_state, local_store, statuses

pytestmark = pytest.mark.faults
SEARCHING = "call churn_pipeline.datasets.study_recorder:TrialRecorder.record"


def test_a_second_training_of_a_table_stops_and_the_first_ends_as_if_alone(
    project: Project, uninterrupted: dict[str, Any], observe: Observe
) -> None:
    with paused(project, *TRAIN, at=SEARCHING) as first:
        second = run(project, *TRAIN)
        assert second.code == 1, second.output
        ended = first.resume()

    assert ended.code == 0, ended.output
    assert sorted(statuses(local_store(project))) == ["FAILED", "FINISHED"]
    assert final_state(local_store(project)) == uninterrupted
    observe("two trainings", second)
