"""One MLflow run of many processes: `kedro mlflow-run`, and tasks that continue the run in MLFLOW_RUN_ID."""

import itertools
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import Run

from tests.conftest import Project, quick_parameters, shorten
from tests.faults.commands import KILLED
from tests.faults.commands import run as killable
from tests.servers import Team
from tests.tasks import Task, contents

BOXES = (
    "validation",
    "split",
    "preparation",
    "logistic",
    "gradient_boosting",
    "choice",
    "evaluation",
    "decision",
    "report",
)
RUN_ID = "MLFLOW_RUN_ID"


def client(project: Project) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(f"sqlite:///{project.path}/mlruns/mlflow.db")


def only_run(project: Project) -> Run:
    [experiment] = [each for each in client(project).search_experiments() if each.name != "Default"]
    runs = client(project).search_runs([experiment.experiment_id])
    [run] = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    return run


@pytest.fixture
def continued(project: Project, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs a task of the run, as a process with MLFLOW_RUN_ID does."""

    def run(run_id: str, *words: str) -> Any:
        monkeypatch.setenv(RUN_ID, run_id)
        return project.kedro("run", *words)

    return run


def start(project: Project, *words: str) -> str:
    ended = project.kedro("mlflow-run", "start", *words)
    assert ended.code == 0, ended.output
    return ended.output.split()[-1]


def test_tasks_continue_one_run_which_then_is_as_from_one_process(
    make_project: Callable[..., Project],
    project: Project,
    continued: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_id = start(project, "--pipelines", "data_engineering")
    for box in ("validation", "split"):
        ended = continued(run_id, "--pipelines", "data_engineering", "--namespaces", box)
        assert ended.code == 0, ended.output
        assert client(project).get_run(run_id).info.status == "RUNNING"
    monkeypatch.setenv(RUN_ID, run_id)
    assert project.kedro("mlflow-run", "end").code == 0
    assert only_run(project).info.status == "FINISHED"

    monkeypatch.delenv(RUN_ID, raising=False)
    whole = make_project("logistic", "gradient_boosting")
    monkeypatch.chdir(whole.path)
    assert whole.kedro("run", "--pipelines", "data_engineering").code == 0
    assert contents(client(project), run_id) == contents(client(whole), only_run(whole).info.run_id)


def test_a_task_that_fails_leaves_the_run_open_and_failed_until_it_is_repeated(
    project: Project, continued: Callable[..., Any]
) -> None:
    run_id = start(project, "--pipelines", "training")

    failed = continued(run_id, "--pipelines", "training", "--namespaces", "split")
    assert failed.code == 1
    assert client(project).get_run(run_id).info.status == "FAILED"
    refused = project.kedro("mlflow-run", "end", run_id)
    assert refused.code == 1
    assert "its last task failed" in refused.output
    assert "it has registered no model" in refused.output

    assert continued(run_id, "--pipelines", "training", "--namespaces", "validation").code == 0
    assert client(project).get_run(run_id).info.status == "RUNNING"
    assert project.kedro("mlflow-run", "end", run_id, "--status", "FAILED").code == 0
    assert only_run(project).info.status == "FAILED"


@pytest.mark.parametrize("stale", ["finished", "missing", "of another pipeline", "with other parameters"])
def test_a_stale_run_id_is_one_line_and_changes_nothing(
    stale: str, project: Project, continued: Callable[..., Any]
) -> None:
    command = ["--pipelines", "data_engineering"]
    expected = "cannot continue the MLflow run"
    if stale == "missing":
        run_id, expected = "0" * 32, "is not in this tracking store"
    else:
        run_id = start(project, "--pipelines", "data_engineering", "--params", "seed=1")
        command += [] if stale == "with other parameters" else ["--params", "seed=1"]
    if stale == "finished":
        client(project).set_terminated(run_id)
        expected = "has been finished or deleted"
    if stale == "of another pipeline":
        command[1], expected = "modelling", "is not a node of the run's pipelines (data_engineering)"
    before = None if stale == "missing" else client(project).get_run(run_id).to_dictionary()

    ended = continued(run_id, *command)

    assert ended.code == 1
    assert expected in ended.output
    assert "Traceback" not in ended.output
    assert stale == "missing" or client(project).get_run(run_id).to_dictionary() == before


def test_a_run_that_another_program_started_is_continued_and_left_to_it(
    project: Project, continued: Callable[..., Any]
) -> None:
    """As `mlflow run` does, which sets the variable for the command of an MLproject file."""
    mine = client(project)
    run_id = mine.create_run(mine.create_experiment("churn_simulated")).info.run_id

    ended = continued(run_id, "--pipelines", "data_engineering")

    assert ended.code == 0, ended.output
    run = mine.get_run(run_id)
    assert run.info.status == "RUNNING"
    assert run.data.tags["pipeline_names"] == "['data_engineering']"
    assert run.data.params["split.folds"] == "5"
    assert mlflow.artifacts.load_dict(f"runs:/{run_id}/record.json")["command"] == {
        "pipeline_names": "['data_engineering']"
    }


def test_the_tasks_of_a_pipeline_are_its_boxes_in_an_order_in_which_they_can_run(project: Project) -> None:
    ended = project.kedro("mlflow-run", "tasks", "--params", "table=simulated,search.seconds=null")

    assert ended.code == 0, ended.output
    lines = [line for line in ended.output.splitlines() if line.startswith("kedro ")]
    assert all(
        line.startswith("kedro run --params table=simulated,search.seconds=null --namespaces ") for line in lines
    )
    boxes = [shlex.split(line)[-1] for line in lines]
    assert set(boxes) == {*BOXES, "packaging"}
    for first, second in (("validation", "split"), ("logistic", "gradient_boosting"), ("decision", "report")):
        assert boxes.index(first) < boxes.index(second)
    assert boxes[-1] == "packaging"


def test_an_unknown_pipeline_starts_no_run(project: Project) -> None:
    ended = project.kedro("mlflow-run", "start", "--pipelines", "trainning")

    assert ended.code == 1
    assert "There is no pipeline 'trainning'" in ended.output


def box_by_box(folders: Iterator[Path], variables: dict[str, str], *options: str) -> str:
    """Run pipelines box by box, each in a process of its own in the next folder, and return the run's id."""
    started = Task(next(folders), variables).run("mlflow-run", "start", *options)
    assert started.returncode == 0, started.stderr
    run_id = started.stdout.removesuffix("\n")  # stdout is the id and nothing else
    assert run_id.isalnum()
    listed = Task(next(folders), variables).run("mlflow-run", "tasks", *options)
    commands = [shlex.split(line)[1:] for line in listed.stdout.splitlines()]
    assert {*BOXES} <= {words[-1] for words in commands}
    for words in [*commands, ["mlflow-run", "end"]]:
        done = Task(next(folders), {**variables, RUN_ID: run_id}).run(*words)
        assert done.returncode == 0, (words, done.stderr)
    return run_id


def small(project: Project) -> Project:
    """Few customers and few fits: starting the processes takes the time."""
    shorten(project.path, 1_000)
    parameters = quick_parameters("logistic", "gradient_boosting")
    parameters["candidates"]["gradient_boosting"] |= {"copies": 1, "keep": 1}
    parameters["candidates"]["gradient_boosting"]["arguments"]["n_estimators"] = 50
    project.configure(**parameters)
    return project


@pytest.mark.slow
def test_box_by_box_is_as_one_process(make_project: Callable[..., Project], project: Project) -> None:
    whole = small(make_project("logistic", "gradient_boosting"))
    small(project)
    one = Task(whole.path, {}).start("run", "--pipelines", "training")

    run_id = box_by_box(itertools.repeat(project.path), {}, "--pipelines", "training")

    stderr = one.communicate(timeout=900)[1]
    assert one.returncode == 0, stderr
    expected = contents(client(whole), only_run(whole).info.run_id)
    assert contents(client(project), run_id) == expected
    assert expected["tags"]["model_digest"]
    assert [len(model) > 5 for model in expected["models"]] == [True]
    assert len(expected["trials"]) == 4
    assert client(project).get_model_version_by_alias("churn_simulated", "challenger").run_id == run_id


def test_a_task_that_was_killed_continues_the_run(
    make_project: Callable[..., Project],
    project: Project,
    continued: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_id = start(project, "--pipelines", "data_engineering")
    assert continued(run_id, "--pipelines", "data_engineering", "--namespaces", "validation").code == 0
    split = ("run", "--pipelines", "data_engineering", "--namespaces", "split")
    killed = killable(project, *split, fault="kill: saving holdout_customers", environment={RUN_ID: run_id})
    assert killed.code == KILLED, killed.output
    assert client(project).get_run(run_id).info.status == "RUNNING"

    assert continued(run_id, *split[1:]).code == 0
    assert project.kedro("mlflow-run", "end", run_id).code == 0

    monkeypatch.delenv(RUN_ID, raising=False)
    whole = make_project("logistic", "gradient_boosting")
    monkeypatch.chdir(whole.path)
    assert whole.kedro("run", "--pipelines", "data_engineering").code == 0
    assert contents(client(project), run_id) == contents(client(whole), only_run(whole).info.run_id)


@pytest.mark.slow
def test_searches_at_once_of_which_one_was_killed_are_as_one_after_another(project: Project) -> None:
    small(project)
    done = Task(project.path, {}).run("run", "--pipelines", "training")
    assert done.returncode == 0, done.stderr
    expected = contents(client(project), only_run(project).info.run_id)
    (project.path / "data/06_models/simulated/studies.db").unlink()
    started = Task(project.path, {}).run("mlflow-run", "start", "--pipelines", "training")
    task = Task(project.path, {RUN_ID: started.stdout.strip()})
    # A trial is stored before it is recorded.
    fault = "kill: call churn_pipeline.datasets.study_recorder:TrialRecorder.record"
    search = ("run", "--pipelines", "training", "--namespaces")
    killed = killable(project, *search, "logistic", fault=fault, environment=task.variables)
    assert killed.code == KILLED, killed.output

    searches = [task.start(*search, name) for name in ("logistic", "gradient_boosting")]
    for each in searches:
        stderr = each.communicate(timeout=900)[1]
        assert each.returncode == 0, stderr
    assert task.run("mlflow-run", "end", "--status", "KILLED").returncode == 0

    found = contents(client(project), task.variables[RUN_ID])
    assert found["trials"] == expected["trials"]
    tuned = {name: value for name, value in expected["params"].items() if name.startswith("tuned.")}
    assert tuned.items() <= found["params"].items()
    assert found["record"]["trials"] == expected["record"]["trials"] == {"logistic": 2, "gradient_boosting": 2}
    assert found["status"] == "KILLED"


def empty_machines(project: Project, team: Team, folder: Path) -> Iterator[Path]:
    """Move the raw table to S3, and copy the project without data again and again."""
    for file in (project.path / "conf/local").glob("parameters_*.yml"):  # Kedro does not read it with --env production
        shutil.copy(file, project.path / "conf/production")
    bucket, _, prefix = team.environment["CHURN_DATA_ROOT"].removeprefix("s3://").partition("/")
    for name in ("simulated_customers.csv", "simulated_truth.csv"):
        team.servers.s3.client().upload_file(
            str(project.path / "data/01_raw" / name), bucket, f"{prefix}/01_raw/{name}"
        )
    for number in itertools.count():
        machine = folder / f"machine_{number}"
        shutil.copytree(project.path, machine, ignore=shutil.ignore_patterns("mlruns", "data"))
        yield machine
        assert not (machine / "data").exists()


def without_environment(found: dict[str, Any]) -> dict[str, Any]:
    """What a run contains, without the names of its environment and of the user, which a server sets by the login."""
    own = ("env", "environment", "mlflow.user")
    tags = {name: value for name, value in found["tags"].items() if name not in own}
    record = {name: value for name, value in found["record"].items() if name != "environment"}
    return {**found, "tags": tags, "record": record}


@pytest.mark.slow
def test_each_box_on_a_machine_of_its_own_is_as_one_process(
    make_project: Callable[..., Project], project: Project, team: Team, tmp_path: Path
) -> None:
    """Each box runs in a folder without data; the folders share S3, PostgreSQL and the tracking server."""
    whole = small(make_project("logistic", "gradient_boosting"))
    one = Task(whole.path, {}).start("run")
    machines = empty_machines(small(project), team, tmp_path)

    many = box_by_box(machines, team.environment, "--env", "production")

    stderr = one.communicate(timeout=900)[1]
    assert one.returncode == 0, stderr
    server = mlflow.MlflowClient(team.environment["MLFLOW_TRACKING_URI"])
    assert without_environment(contents(server, many)) == without_environment(
        contents(client(whole), only_run(whole).info.run_id)
    )
    [packaged] = list(tmp_path.glob("*/bentos/store/bentos/churn_simulated/latest"))
    assert server.get_model_version_by_alias("churn_simulated", "challenger").run_id == many

    again = next(machines)
    done = Task(again, team.environment).run("run", "--pipelines", "packaging", "--env", "production")
    assert done.returncode == 0, done.stderr
    latest = again / "bentos/store/bentos/churn_simulated/latest"
    assert latest.read_text(encoding="utf-8") == packaged.read_text(encoding="utf-8")
