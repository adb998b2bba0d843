"""Rebuild a run from its commit, lock, configuration and data, and compare the results with its record."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from churn_pipeline.record import Record, git, read_record

REBUILDS = Path("data") / "rebuilds"
# Runtime parameters that limit searches.
_BUDGET = re.compile(r"(search\.(seconds|trials)|candidates\.[^.]+\.trials)=")

# Variables of this process that the rebuild must not inherit: its environment, its checkout and the user's MLflow server.
OWN_VARIABLES = (
    "VIRTUAL_ENV",
    "PYTHONPATH",
    "KEDRO_ENV",
    "KEDRO_LOGGING_CONFIG",
    "MLFLOW_TRACKING_URI",
    "MLFLOW_REGISTRY_URI",
    "MLFLOW_EXPERIMENT_NAME",
    "MLFLOW_EXPERIMENT_ID",
    "MLFLOW_RUN_ID",
)


class ReproduceError(Exception):
    """The run cannot be rebuilt here; the message names the reason and the fix."""


@dataclass(frozen=True)
class Comparison:
    """Whether one part of a run equals the same part of its rebuild."""

    part: str
    same: bool
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.part:<14}{'same' if self.same else 'NOT THE SAME'}{f': {self.detail}' if self.detail else ''}"


def rebuild(record: Record, project: Path, data: Path | None = None) -> Record:
    """Check out the record's commit in a folder of its own, build its environment from its lock, and run it.

    Parameters
    ----------
    record
        The run to rebuild.
    project
        The project's folder, a git checkout that contains the commit.
    data
        Path of the raw table, if it has moved since the run.

    Returns
    -------
    Record
        Of the rebuilt run.

    Raises
    ------
    ReproduceError
        If the commit is missing, its environment cannot be built, or the run fails.
    """
    partial = set(record.command) - {"pipeline_names"}
    if partial:
        raise ReproduceError(
            f"The run was only a part of a pipeline ({', '.join(sorted(partial))}). Only whole runs can be rebuilt."
        )
    if "refit" in _pipelines(record).split(","):
        raise ReproduceError(
            f"The run refitted version {record.parameters.get('refit', {}).get('version', 'unknown')} from the model registry, "
            "which a rebuild does not have. Reproduce the run that trained that version."
        )
    folder = project / REBUILDS / record.run_id
    print(f"1 of 3: check out the commit in {folder}", flush=True)
    _check_out(record, project, folder)
    configure(record, project, folder, data)
    print("2 of 3: install the environment from its lock (one or two minutes)", flush=True)
    _call(["make", "setup"], folder, "its environment cannot be built from its lock")
    print("3 of 3: run the pipeline", flush=True)
    run = [
        str(folder / ".venv/bin/kedro"),
        "run",
        "--pipelines",
        _pipelines(record),
        "--params",
        _params(record),
    ]
    _call(run, folder, "the run failed")
    find = [str(folder / ".venv/bin/python"), "-c", _LAST_RECORD]
    return read_record(Path(_call(find, folder, "the rebuilt run wrote no record").strip().splitlines()[-1]))


# Runs in the rebuilt environment, whose MLflow may have another version.
_LAST_RECORD = """
import mlflow, pathlib
uri = "sqlite:///" + str(pathlib.Path("mlruns/mlflow.db").resolve())
mlflow.set_tracking_uri(uri)
found = mlflow.search_runs(search_all_experiments=True, output_format="list")
run = next(run for run in found if "mlflow.parentRunId" not in run.data.tags)
print(mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/record.json", dst_path="mlruns"))
"""


def _pipelines(record: Record) -> str:
    names = record.command.get("pipeline_names", "__default__")
    return ",".join(yaml.safe_load(names)) if names.startswith("[") else names


def _params(record: Record) -> str:
    def flat(prefix: str, value: object) -> Iterator[str]:
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from flat(f"{prefix}.{key}" if prefix else str(key), inner)
        else:
            yield f"{prefix}={value}"

    # The number of trials is that of the run, see `_with_recorded_trials`.
    given = flat("", {**record.runtime_params, "table": record.table})
    return ",".join(item for item in given if not _BUDGET.match(item))


def _check_out(record: Record, project: Path, folder: Path) -> None:
    if git(project, "rev-parse", "--git-dir") is None:
        raise ReproduceError(f"{project} is not a clone of this project: clone it, and run the command there.")
    if git(project, "cat-file", "-e", f"{record.commit}^{{commit}}") is None:
        raise ReproduceError(f"Commit {record.commit} is not in this checkout: fetch its branch.")
    if folder.exists():
        git(project, "worktree", "remove", "--force", str(folder))
        shutil.rmtree(folder, ignore_errors=True)
    git(project, "worktree", "prune")
    if git(project, "worktree", "add", "--detach", str(folder), record.commit) is None:
        raise ReproduceError(
            f"Commit {record.commit} cannot be checked out in {folder}: remove that folder, then try again."
        )


def configure(record: Record, project: Path, folder: Path, data: Path | None) -> None:
    """Give the checkout the run's parameters and table file, and link the raw files that git ignores."""
    local = folder / "conf" / "local"
    (local / "tables").mkdir(parents=True, exist_ok=True)
    base: dict[Any, Any] = {}
    for file in sorted((folder / "conf" / "base").glob("parameters*.yml")):
        base |= yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    parameters = _with_recorded_trials(_restore_keys(record.parameters, base), record.trials)
    (local / "parameters.yml").write_text(
        yaml.safe_dump(parameters, allow_unicode=True, sort_keys=False), encoding="utf-8"
    )
    table = yaml.safe_load(record.table_file)
    if data is not None:
        table["source"] = {**table["source"], "filepath": str(data.resolve())}
        text = yaml.safe_dump(table, allow_unicode=True, sort_keys=False)
    else:
        text = record.table_file
    (local / "tables" / f"{record.table}.yml").write_text(text, encoding="utf-8")
    for file in (project / "data" / "01_raw").glob("*"):
        target = folder / "data" / "01_raw" / file.name
        if not target.exists():
            target.symlink_to(file.resolve())


def _with_recorded_trials(parameters: dict[str, Any], trials: dict[str, int]) -> dict[str, Any]:
    """Replace time budgets by the numbers of trials that the run reached; the same trials then run on any machine."""
    if not trials:
        return parameters
    candidates = {
        name: {**block, "trials": trials[name]} if name in trials else block
        for name, block in parameters["candidates"].items()
    }
    return {**parameters, "candidates": candidates, "search": {**parameters["search"], "seconds": None, "trials": None}}


def _restore_keys(recorded: Any, base: Any) -> Any:
    """Give mappings the types of the keys in base: JSON has turned 0 into "0", and both keys would conflict in one block."""
    if not isinstance(recorded, dict) or not isinstance(base, dict):
        return recorded
    keys = {str(key): key for key in base}
    return {keys.get(name, name): _restore_keys(value, base.get(keys.get(name))) for name, value in recorded.items()}


def _call(command: list[str], folder: Path, problem: str) -> str:
    """Run a command in the checkout with the checkout's environment, and return its output."""
    environment = {name: value for name, value in os.environ.items() if name not in OWN_VARIABLES}
    # stderr is inherited: the log and the progress line appear here.
    done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise ReproduceError(
            f"{problem[0].upper()}{problem[1:]} ({folder}). See the log above; the last output was:\n{done.stdout[-2000:]}"
        )
    return done.stdout


def compare(original: Record, rebuilt: Record) -> Iterator[Comparison]:
    """Compare data, contract, code, lock, metrics and model of a run with those of its rebuild."""
    for part in ("data", "contract", "holdout"):
        yield _compare_digests(part, original, rebuilt)
    same_code = original.commit == rebuilt.commit and not original.dirty
    yield Comparison("code", same_code, "the run had uncommitted changes" if original.dirty else "")
    yield _compare_digests("lock", original, rebuilt)
    if original.python != rebuilt.python:
        yield Comparison("python", False, f"{original.python} in the run, {rebuilt.python} rebuilt")
    # The gate's numbers depend on the champion at that time, which is not part of the run.
    names = sorted(
        name for name in original.metrics.keys() | rebuilt.metrics.keys() if not name.startswith(("gate.", "gate/"))
    )
    different = [name for name in names if original.metrics.get(name) != rebuilt.metrics.get(name)]
    shown = [
        f"{name} {original.metrics.get(name)} in the run, {rebuilt.metrics.get(name)} rebuilt" for name in different[:5]
    ]
    yield Comparison("metrics", not different, "; ".join(shown) or f"all {len(names)} are bit-identical")
    yield _compare_digests("model", original, rebuilt)


def _compare_digests(part: str, original: Record, rebuilt: Record) -> Comparison:
    then, now = original.digests.get(part, "none"), rebuilt.digests.get(part, "none")
    return Comparison(part, then == now, then[:12] if then == now else f"{then[:12]} in the run, {now[:12]} rebuilt")


def load(source: str) -> Record:
    """Load a record by the MLflow run's id, or from a file.

    Raises
    ------
    ReproduceError
        If there is no such run or file, or it has no record.
    """
    try:
        if Path(source).is_file():
            return read_record(Path(source))
        from churn_pipeline.record import load_record

        return load_record(source)
    except (OSError, ValueError, json.JSONDecodeError) as error:
        raise ReproduceError(f"There is no record of the run {source}: {error}") from None
    except Exception as error:
        if type(error).__module__.startswith("mlflow"):
            raise ReproduceError(f"There is no record of the run {source}: {error}") from None
        raise


def main(source: str, project: Path, data: Path | None = None) -> int:
    """Rebuild, compare and print; return 0 if every part is the same, otherwise 1."""
    record = load(source)
    print(f"Rebuilding run {record.run_id} of commit {record.commit[:12]}, table '{record.table}'", flush=True)
    comparisons = list(compare(record, rebuild(record, project, data)))
    for comparison in comparisons:
        print(comparison)
    return 0 if all(comparison.same for comparison in comparisons) else 1
