"""One MLflow run of many processes: what a task must have in common with the run, and what the run shows in the end."""

import ast
from pathlib import Path
from typing import Any

import mlflow
from kedro.framework.project import pipelines
from kedro.pipeline import Pipeline
from mlflow.entities import Run

from churn_pipeline import killed_runs
from churn_pipeline.configuration import TableConfigLoader
from churn_pipeline.contract.errors import Finding, ProjectError
from churn_pipeline.record import ARTIFACT, code_state, make_record
from churn_pipeline.tracking import is_tagged, log_table, name_run, pipelines_of

UNKNOWN = "unknown"
WHOLE = "__default__"


def project_tags(project: Path, table: str, environment: str | None, python: str) -> dict[str, str]:
    """Return the tags that describe code and configuration; they are the same for all tasks of a run."""
    return {
        **code_state(project),
        "table": table,
        "environment": environment or "local",
        "python": python,
    }


def check_task(run: Run, tags: dict[str, str], run_params: dict[str, Any], pipeline: Pipeline) -> None:
    """Check that a task belongs to the MLflow run that it continues.

    Parameters
    ----------
    run
        The run to continue.
    tags
        The task's `project_tags`.
    run_params
        The task's options of ``kedro run``.
    pipeline
        The task's nodes.

    Raises
    ------
    ProjectError
        If code, configuration or ``--params`` differ, or a node is in none of the run's pipelines.
    """
    theirs = run.data.tags
    findings = [
        Finding(f"{name} is {value} here and {theirs[name]} in the run")
        for name, value in tags.items()
        if UNKNOWN not in (value, theirs.get(name, UNKNOWN)) and value != theirs[name]
    ]
    if is_tagged(run):
        ours = run_params.get("runtime_params") or {}
        if ours != (expected := runtime_params_of(run)):
            findings.append(Finding(f"--params are {ours} here and {expected} in the run"))
        foreign = {node.name for node in pipeline.nodes} - {node.name for node in pipeline_of(run).nodes}
        if foreign:
            names = ", ".join(pipelines_of(run) or [WHOLE])
            findings.append(Finding(f"{min(foreign)} is not a node of the run's pipelines ({names})"))
    if findings:
        fix = "give all tasks of a run the same code and configuration, or start another run: `kedro mlflow-run start`"
        raise ProjectError(f"This task cannot continue the MLflow run {run.info.run_id}", [*findings, Finding(fix)])
    if killed_runs.TAG in theirs:  # from now on, the run has more than one process
        mlflow.MlflowClient().delete_tag(run.info.run_id, killed_runs.TAG)


def pipeline_of(run: Run) -> Pipeline:
    """Return all nodes of the pipelines that a run records."""
    return combine(pipelines_of(run))


def combine(names: list[str]) -> Pipeline:
    """Combine pipelines by name, as ``kedro run --pipelines`` does.

    Raises
    ------
    ProjectError
        If there is no pipeline of that name.
    """
    for name in names:
        if name not in pipelines:
            raise ProjectError(f"There is no pipeline '{name}'", f"choose one of {', '.join(sorted(pipelines))}")
    return sum((pipelines[name] for name in names or [WHOLE]), Pipeline([]))


def runtime_params_of(run: Run) -> dict[str, Any]:
    """Return the ``--params`` that a run records."""
    return dict(ast.literal_eval(run.data.tags.get("runtime_params", "{}")))


def describe_run(run_id: str, loader: TableConfigLoader) -> None:
    """Log the active run's record, name and table, from what has been logged so far."""
    run = mlflow.get_run(run_id)
    record = make_record(run, loader["parameters"], loader.runtime_params or {}, loader.table_text)
    mlflow.log_dict(record.model_dump(mode="json"), ARTIFACT)
    name_run(run, loader.table)
    if "data" in record.digests and not (run.inputs and run.inputs.dataset_inputs):
        log_table(record.table, record.digests["data"])


def check_complete(run: Run) -> None:
    """Check that a run may be marked as finished.

    Raises
    ------
    ProjectError
        If its last task failed, or it lacks the model that its pipelines register or the version that they package.
    """
    outputs = pipeline_of(run).all_outputs()
    registered = mlflow.MlflowClient().search_model_versions(f"run_id = '{run.info.run_id}'")
    problems = {
        "its last task failed": run.info.status in ("FAILED", "KILLED"),
        "it has registered no model": "registered_model@logged" in outputs and not registered,
        "it has packaged no version": "packaged_tags" in outputs and "packaged.version" not in run.data.tags,
    }
    findings = [Finding(problem) for problem, applies in problems.items() if applies]
    if findings:
        fix = Finding("run the remaining tasks, or end it with --status FAILED")
        raise ProjectError(f"The MLflow run {run.info.run_id} is not complete", [*findings, fix])
