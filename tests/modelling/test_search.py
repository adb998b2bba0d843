"""A search gives the same result on any number of cores, interrupted or not, and reports its progress."""

import signal
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.modelling.conftest import SHIPPED
from tests.studies import MemoryStudies

from churn_pipeline.contract.errors import ProjectError
from churn_pipeline.evaluation.metrics import log_loss
from churn_pipeline.modelling import cross_validation
from churn_pipeline.modelling.candidates import Candidate
from churn_pipeline.modelling.cross_validation import Task, validate
from churn_pipeline.modelling.search import SearchResult, SearchSettings, search_candidate
from churn_pipeline.modelling.search.scheduler import TrialScheduler
from churn_pipeline.modelling.studies import Trial

LOGISTIC: dict[str, Any] = {
    "class": "sklearn.linear_model.LogisticRegression",
    "numeric": "scaled",
    "arguments": {"C": 1.0},
    "space": {"arguments": {"C": {"low": 1e-4, "high": 100.0, "log": True}}},
    "trials": 9,
}


@pytest.fixture(scope="module")
def task() -> Task:
    rng = np.random.default_rng(0)
    features = pd.DataFrame({f"x{column}": rng.normal(size=300) for column in range(6)})
    features["kind"] = rng.choice(["a", "b", "c"], 300)
    churned = pd.Series((features["x0"] + rng.normal(size=300) > 0.5).astype("int64"))
    part = np.arange(300) % 3
    folds = {f"fold_{k}": (part != k, part == k) for k in range(3)}
    return Task(features, churned, folds, [f"x{column}" for column in range(6)], ["kind"], log_loss, seed=3)


def candidate(**changes: Any) -> Candidate:
    return Candidate.model_validate({**LOGISTIC, **changes})


def searched(
    task: Task, studies: MemoryStudies | None = None, given: Candidate | None = None, **settings: Any
) -> SearchResult:
    """Search without a time limit, unless `seconds` are given."""
    seconds = settings.pop("seconds", None)
    return search_candidate(task, given or candidate(), SearchSettings(**settings), studies or MemoryStudies(), seconds)


def test_worker_processes_give_the_same_result(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = MemoryStudies(), MemoryStudies()
    found = searched(task, here)
    monkeypatch.setattr(cross_validation, "ROWS_FOR_THREADS", 10**9)
    monkeypatch.setattr(cross_validation.joblib, "cpu_count", lambda: 2)
    with cross_validation.fold_fitter(task) as fit_fold:
        assert not isinstance(fit_fold, cross_validation.partial)
    apart = searched(task, there)
    assert apart.candidates[0] == found.candidates[0]
    assert here.results() == there.results()
    pd.testing.assert_frame_equal(
        apart.predictions[0].drop(columns="seconds"), found.predictions[0].drop(columns="seconds")
    )


def test_worker_processes_ignore_ctrl_c(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_validation, "ROWS_FOR_THREADS", 10**9)
    monkeypatch.setattr(cross_validation.joblib, "cpu_count", lambda: 2)
    with cross_validation.fold_fitter(task) as fit_fold:
        fit_fold(candidate(), next(iter(task.folds)))
        processes = cross_validation.get_reusable_executor(reuse=True)
        assert processes.submit(signal.getsignal, signal.SIGINT).result() == signal.SIG_IGN


def test_a_failed_fit_in_a_worker_process_is_reported(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_validation, "ROWS_FOR_THREADS", 10**9)
    monkeypatch.setattr(cross_validation.joblib, "cpu_count", lambda: 2)
    with pytest.raises(ProjectError, match="cannot be fitted as configured"):
        searched(task, given=candidate(arguments={"C": -1.0}, space=None))


# ---- trials ---------------------------------------------------------------------------------------------------------


def test_the_first_trial_is_the_configured_candidate_and_the_result_has_no_space(task: Task) -> None:
    studies = MemoryStudies()
    found = searched(task, studies)
    assert studies.trials[0].values == {"arguments.C": 1.0}
    assert len(studies.trials) == 9
    best = min(studies.trials.values(), key=lambda trial: trial.loss if trial.state == "complete" else np.inf)
    assert found.candidates[0] == Candidate.model_validate(
        {**LOGISTIC, "space": None, "trials": 10, "arguments": {"C": best.values["arguments.C"]}}
    )
    assert found.report["log_loss"] == best.loss
    assert (found.report["trials"], found.report["best_trial"]) == (9, best.number)


def test_trials_fit_one_copy_and_the_returned_predictions_are_those_of_all_copies(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[int] = []
    real = cross_validation.validate_fold

    def counting(task: Task, candidate: Candidate, fold: str) -> pd.DataFrame:
        fitted.append(candidate.copies)
        return real(task, candidate, fold)

    monkeypatch.setattr(cross_validation, "validate_fold", counting)
    tree = {
        "class": "sklearn.tree.DecisionTreeClassifier",
        "arguments": {"max_features": 0.5, "min_samples_leaf": 10},
        "space": {"arguments": {"min_samples_leaf": {"low": 5, "high": 50}}},
    }
    found = searched(task, given=Candidate.model_validate({**tree, "copies": 5, "trials": 3}), pruning_deviations=None)
    assert fitted == [1] * 9 + [5] * 3
    assert found.candidates[0].copies == 5
    alone = searched(task, given=Candidate.model_validate({**tree, "trials": 3}), pruning_deviations=None)
    loss = [
        log_loss(each.predictions[0]["churned"].to_numpy(), each.predictions[0]["probability"].to_numpy())
        for each in (found, alone)
    ]
    assert loss[0] < loss[1]


def test_predictions_are_those_of_the_tuned_candidate_on_every_fold(task: Task) -> None:
    found = searched(task)
    again = pd.concat(
        validate(
            dict.fromkeys(task.folds, found.candidates[0]),
            cross_validation.partial(cross_validation.validate_fold, task),
            workers=1,
        ),
        ignore_index=True,
    )
    pd.testing.assert_frame_equal(
        found.predictions[0].drop(columns="seconds"), again.drop(columns=["seconds", "trees"])
    )
    scores = [log_loss(part["churned"], part["probability"]) for _, part in found.predictions[0].groupby("fold")]
    assert np.mean(scores) == found.report["log_loss"]


def test_the_best_trials_are_kept_best_first(task: Task) -> None:
    studies = MemoryStudies()
    found = searched(task, studies, candidate(keep=3))
    ranked = sorted((t for t in studies.trials.values() if t.state == "complete"), key=lambda trial: trial.rank)[:3]
    assert [kept.arguments["C"] for kept in found.candidates] == [trial.values["arguments.C"] for trial in ranked]
    for kept, trial in zip(found.predictions, ranked, strict=True):
        scores = [log_loss(part["churned"], part["probability"]) for _, part in kept.groupby("fold")]
        assert scores == pytest.approx(trial.scores, abs=1e-12)
    resumed = searched(task, studies, candidate(keep=3))
    assert resumed.candidates == found.candidates


def test_without_a_space_there_is_one_trial(task: Task) -> None:
    studies = MemoryStudies()
    found = searched(task, studies, candidate(space=None), seconds=100)
    assert found.report["trials"] == 1
    assert found.candidates[0] == candidate(space=None, trials=10)
    assert studies.trials[0].state == "complete"


def test_of_equal_trials_the_earliest_is_best(task: Task) -> None:
    same = candidate(arguments={"max_iter": 500}, space={"arguments": {"max_iter": {"low": 400, "high": 600}}})
    found = searched(task, given=same)
    assert found.report["best_trial"] == 0
    assert found.candidates[0].arguments["max_iter"] == 500


def test_a_failed_trial_does_not_end_the_search_unless_it_is_the_first(task: Task) -> None:
    space = {"arguments": {"solver": {"choices": ["lbfgs", "no such solver"]}}}
    studies = MemoryStudies()
    searched(task, studies, candidate(arguments={"solver": "lbfgs"}, space=space))
    failed = [trial for trial in studies.trials.values() if trial.state == "failed"]
    assert failed
    assert all("no such solver" in trial.problem and trial.scores == () for trial in failed)
    with pytest.raises(ProjectError, match=r"logistic:\n  - cannot be fitted as configured: .*no such solver"):
        searched(task, given=candidate(arguments={"solver": "no such solver"}, space=space))


# ---- reproducibility ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cores", [1, 5])
def test_the_result_depends_neither_on_cores_nor_on_which_trial_ends_first(
    task: Task, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = MemoryStudies()
    searched(task, expected)
    monkeypatch.setattr(cross_validation.joblib, "cpu_count", lambda: cores)
    plain = cross_validation.validate_fold

    def late(*args: Any) -> pd.DataFrame:
        time.sleep(np.random.default_rng().uniform(0, 0.02))
        return plain(*args)

    monkeypatch.setattr(cross_validation, "validate_fold", late)
    shaken = MemoryStudies()
    searched(task, shaken)
    assert shaken.results() == expected.results()
    assert any(trial.state == "pruned" for trial in shaken.trials.values())


def test_another_seed_or_name_tries_other_values(task: Task) -> None:
    all_studies = [MemoryStudies(), MemoryStudies(), MemoryStudies("other")]
    for used, studies in zip((task, replace(task, seed=4), task), all_studies, strict=True):
        searched(used, studies)
    tried = [[trial.values["arguments.C"] for trial in studies.trials.values()] for studies in all_studies]
    assert len({tuple(values[1:]) for values in tried}) == 3


@pytest.mark.parametrize("after", [1, 4, 8])
def test_an_interrupted_search_resumes_and_ends_like_an_uninterrupted_one(task: Task, after: int) -> None:
    unbroken, broken = MemoryStudies(), MemoryStudies()
    expected = searched(task, unbroken)
    broken.interrupt_after = after
    with pytest.raises(KeyboardInterrupt):
        searched(task, broken)
    assert len(broken.trials) == after
    before, broken.interrupt_after = broken.n_ended, None
    found = searched(task, broken)
    assert broken.results() == unbroken.results()
    assert found.candidates[0] == expected.candidates[0]
    pd.testing.assert_frame_equal(
        found.predictions[0].drop(columns="seconds"), expected.predictions[0].drop(columns="seconds")
    )
    assert broken.n_ended - before == 9 - after


def test_a_finished_search_is_not_repeated_and_more_trials_continue_it(task: Task) -> None:
    studies, whole = MemoryStudies(), MemoryStudies()
    first = searched(task, studies, candidate(trials=6))
    again = searched(task, studies, candidate(trials=6))
    assert studies.n_ended == 6
    pd.testing.assert_frame_equal(
        first.predictions[0].drop(columns="seconds"), again.predictions[0].drop(columns="seconds")
    )
    searched(task, studies)
    searched(task, whole)
    assert studies.results() == whole.results()
    assert searched(task, studies, candidate(trials=6)).report["trials"] == 6
    assert len(set(studies.names)) == 1


def test_a_study_that_another_search_made_is_refused(task: Task) -> None:
    studies = MemoryStudies()
    searched(task, studies)
    studies.trials[2] = replace(studies.trials[2], values={"arguments.C": 5.0})
    with pytest.raises(ProjectError, match=r"Trial 2 in the study of logistic:\n.*another search made the study"):
        searched(task, studies)


# ---- budgets and progress --------------------------------------------------------------------------------------------


@pytest.fixture
def slow_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each fold takes at least 20 ms, in this process."""
    plain = cross_validation.validate_fold

    def slow(*args: Any) -> pd.DataFrame:
        time.sleep(0.02)
        return plain(*args)

    monkeypatch.setattr(cross_validation, "ROWS_FOR_THREADS", 0)
    monkeypatch.setattr(cross_validation, "validate_fold", slow)


@pytest.mark.usefixtures("slow_fits")
def test_a_time_budget_ends_a_search_and_its_number_of_trials_reproduces_it(task: Task) -> None:
    timed, rebuilt = MemoryStudies(), MemoryStudies()
    many = candidate(trials=500)
    found = searched(task, timed, many, seconds=1.0)
    trials = found.report["trials"]
    assert 2 <= trials == len(timed.trials) < 500
    longest = max(trial.seconds for trial in timed.trials.values())
    assert all(trial.start_seconds < 1.0 for trial in timed.trials.values())
    assert max(trial.end_seconds for trial in timed.trials.values()) < 1.0 + longest
    again = searched(task, rebuilt, candidate(trials=trials))
    assert rebuilt.results() == timed.results()
    assert again.candidates[0] == found.candidates[0]


@pytest.mark.usefixtures("slow_fits")
def test_a_repeated_search_in_time_adds_no_trial_and_reports_no_less_time(task: Task) -> None:
    studies = MemoryStudies()
    reports = [searched(task, studies, candidate(trials=500), seconds=0.6).report for _ in range(3)]
    assert reports[0]["trials"] == studies.n_ended
    assert [report["trials"] for report in reports] == [studies.n_ended] * 3
    seconds = [report["seconds"] for report in reports]
    assert seconds == sorted(seconds)
    assert seconds[0] >= max(trial.end_seconds for trial in studies.trials.values())


def test_the_first_trial_runs_even_without_time(task: Task) -> None:
    assert searched(task, seconds=1e-9).report["trials"] == 1


@given(
    ended=st.lists(st.tuples(st.floats(0, 50), st.floats(0.01, 20), st.floats(0, 1)), min_size=1, max_size=8),
    more=st.lists(st.tuples(st.floats(0, 50), st.floats(0.01, 20), st.floats(0, 1)), max_size=4),
    copies=st.integers(1, 4),
    keep=st.integers(1, 4),
)
def test_once_time_is_up_trials_that_end_later_do_not_change_that(
    ended: list[tuple[float, float, float]], more: list[tuple[float, float, float]], copies: int, keep: int
) -> None:
    """A repeated search knows the results of trials that still ran when the first one stopped."""
    runner = SimpleNamespace(candidate=candidate(copies=copies, keep=keep))
    is_up = []
    for times in (ended, ended + more):
        scheduler = TrialScheduler("logistic", MemoryStudies(), None, runner, SearchSettings(), 100, seconds=60.0)  # type: ignore[arg-type]
        scheduler.trials = {
            number: Trial(number, {}, (loss,), "complete", start, seconds)
            for number, (start, seconds, loss) in enumerate(times)
        }
        is_up.append(scheduler._time_is_up())
    assert is_up[1] or not is_up[0]


def test_configured_starts_are_tried_after_the_configured_arguments(task: Task) -> None:
    starts: list[dict[str, Any]] = [{"C": 10.0}, {}, {"C": 0.5}]
    studies = MemoryStudies()
    searched(task, studies, candidate(starts=starts, trials=5))
    assert [studies.trials[number].values["arguments.C"] for number in range(4)] == [1.0, 10.0, 1.0, 0.5]
    assert studies.trials[4].values["arguments.C"] not in (0.5, 1.0, 10.0)


def test_progress_has_the_count_the_best_trial_and_the_time_left(task: Task) -> None:
    studies = MemoryStudies()
    found = searched(task, studies)
    assert [progress.done for progress in studies.progress] == list(range(1, 10))
    assert {progress.total for progress in studies.progress} == {9}
    losses = [progress.best.loss if progress.best else np.inf for progress in studies.progress]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == found.report["log_loss"]
    assert studies.progress[-1].seconds_left == 0


# ---- pruning ---------------------------------------------------------------------------------------------------------


def test_pruning_saves_folds_and_does_not_prune_the_best_trial(task: Task) -> None:
    pruning, whole = MemoryStudies(), MemoryStudies()
    found = searched(task, pruning)
    searched(task, whole, pruning_deviations=None)
    assert {trial.state for trial in whole.trials.values()} == {"complete"}
    folds = [sum(len(trial.scores) for trial in studies.trials.values()) for studies in (pruning, whole)]
    assert folds[0] < folds[1]
    best = pruning.trials[found.report["best_trial"]]
    assert (best.state, len(best.scores)) == ("complete", len(task.folds))


# ---- spaces ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": {"arguments": {"D": {"low": 1, "high": 2}}}}, r"space\.arguments \['D'\] are unknown"),
        ({"space": {"numeric_arguments": {"n_knots": {"low": 4, "high": 9}}}}, "numeric: scaled; it accepts none"),
        (
            {"space": {"categorical_arguments": {"drop": {"choices": ["first", None]}}}},
            "unknown to categorical: one_hot",
        ),
        (
            {"space": {"arguments": {"tol": {"low": 0.1, "high": 0.2}}}},
            "add tol to arguments, as the value of the first trial",
        ),
        (
            {"space": {"arguments": {"C": {"low": 2.0, "high": 9.0}}}},
            r"C: 1\.0, which is outside its space \(2\.0 to",
        ),
        ({"space": {"arguments": {"C": {"choices": [2.0, 3.0]}}}}, r"outside its space \(one of \[2\.0, 3\.0\]\)"),
        ({"space": {"arguments": {"C": {"low": 1.0, "high": 1.0}}}}, "must be below high"),
        ({"space": {"arguments": {"C": {"low": 0.0, "high": 1.0, "log": True}}}}, "log needs a low above 0"),
        ({"space": {"arguments": {"C": {"low": 0.5, "high": 1.5, "log": True, "step": 0.5}}}}, "exclude each other"),
        ({"space": {"arguments": {"C": {"low": 0.5, "high": 1.5, "step": 4.0}}}}, "at most high - low"),
        ({"space": {"arguments": {"C": {"low": "a", "high": 1.0}}}}, "low"),
        ({"space": {"arguments": {"C": {"choices": [1.0, 1]}}}}, "not all different"),
        ({"space": {"arguments": {"C": {"choices": [1.0]}}}}, "at least 2"),
        ({"space": {"preprocessing": {}}}, "preprocessing"),
        ({"trials": 0}, "greater than or equal to 1"),
        ({"share": 0.0}, "greater than 0"),
        ({"share": 1.5}, "less than or equal to 1"),
        ({"starts": [{"C": 2.0}, {"C": 1e9}]}, r"start 2 has C: 1000000000\.0, which is outside its space"),
        ({"starts": [{"tol": 0.1}]}, r"start 1 has tol: 0\.1, which is not in the space"),
        ({"starts": [{"C": 2.0}], "space": None}, "start 1 has C: 2.0, which is not in the space"),
    ],
)
def test_an_invalid_space_is_refused_with_the_reason(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        candidate(**changes)


def test_every_kind_of_dimension_is_searched(task: Task) -> None:
    given = Candidate.model_validate(
        {
            "class": "sklearn.linear_model.LogisticRegression",
            "numeric": "splines",
            "arguments": {"C": 1.0, "fit_intercept": True},
            "numeric_arguments": {"n_knots": 5, "degree": 3},
            "categorical_arguments": {"min_frequency": 10},
            "space": {
                "arguments": {"C": {"low": 0.5, "high": 2.0, "step": 0.5}, "fit_intercept": {"choices": [True, False]}},
                "numeric_arguments": {"n_knots": {"low": 3, "high": 9, "step": 2}},
                "categorical_arguments": {"min_frequency": {"low": 2, "high": 50, "log": True}},
            },
        }
    )
    studies = MemoryStudies()
    found = searched(task, studies, given, trials=10)
    for trial in studies.trials.values():
        assert trial.values["arguments.C"] in (0.5, 1.0, 1.5, 2.0)
        assert isinstance(trial.values["arguments.fit_intercept"], bool)
        assert trial.values["numeric_arguments.n_knots"] in (3, 5, 7, 9)
        assert type(trial.values["categorical_arguments.min_frequency"]) is int
    assert found.candidates[0].numeric_arguments["degree"] == 3


def test_every_shipped_candidate_has_first_trials() -> None:
    for block in SHIPPED.values():
        shipped = Candidate.model_validate(block)
        assert shipped.space is None or shipped.first_trials
