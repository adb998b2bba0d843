"""Trials per second of our search compared with a bare Optuna script that runs the same trials: `make benchmark-search`.

Both fit the same values on the same folds, two trials at a time, and prune nothing. Ours also stores each trial in a file,
records it as a nested MLflow run, and passes trials to the sampler in order; bare Optuna keeps its study in memory.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import optuna
import pandas as pd
import psutil
from sklearn.metrics import log_loss as sklearn_log_loss
from threadpoolctl import threadpool_limits

from benchmarks.common import project, write
from churn_pipeline.contract.cells import churned, model_inputs
from churn_pipeline.contract.validation import validate_table
from churn_pipeline.datasets import StudyDataset
from churn_pipeline.evaluation.metrics import log_loss
from churn_pipeline.modelling.candidates import Candidate, build_candidate
from churn_pipeline.modelling.cross_validation import Task
from churn_pipeline.modelling.search import SearchSettings, search_candidate
from churn_pipeline.modelling.studies import Trial, UnstoredStudies
from churn_pipeline.pipelines.data_engineering.identity import identify_customers
from churn_pipeline.pipelines.data_engineering.nodes import make_folds
from churn_pipeline.pipelines.data_engineering.splitting import FOLD_TRAIN, FOLD_VALIDATE, SplitSettings


class ValueCollector(UnstoredStudies):
    """Studies that collect the values of all trials."""

    def conclude(self, report: Mapping[str, Any], trials: Sequence[Trial]) -> None:  # noqa: ARG002
        self.values = [trial.values for trial in trials]


def run_bare_optuna(task: Task, candidate: Candidate, tried: Sequence[dict[str, Any]]) -> None:
    """Run the trials as a bare Optuna script would."""

    def objective(trial: optuna.Trial) -> float:
        values = {name: space(trial, name) for name, space in spaces.items()}
        scores = []
        for step, (train, validating) in enumerate(task.folds.values()):
            chosen = candidate.with_values(
                values | ({"arguments.n_jobs": 1} if "n_jobs" in candidate.arguments else {})
            )
            model = build_candidate(chosen, task.numeric, task.categorical, task.seed)
            with threadpool_limits(limits=1, user_api="openmp"):
                model.fit(task.features[train], task.churned[train])
                probability = model.predict_proba(task.features[validating])[:, 1]
            scores.append(sklearn_log_loss(task.churned[validating], probability))
            trial.report(scores[-1], step)
        return float(np.mean(scores))

    spaces: dict[str, Callable[[optuna.Trial, str], Any]] = {}
    for group, name, dimension in candidate.space.dimensions() if candidate.space else ():
        spaces[f"{group}.{name}"] = _suggestion(dimension)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=1, n_startup_trials=6))
    for values in tried:
        study.enqueue_trial(values)
    with threadpool_limits(limits=1, user_api="blas"):
        study.optimize(objective, n_trials=len(tried), n_jobs=2)


def _suggestion(dimension: Any) -> Callable[[optuna.Trial, str], Any]:
    if hasattr(dimension, "choices"):
        return lambda trial, name: trial.suggest_categorical(name, dimension.choices)
    kind = "suggest_int" if dimension.is_integer else "suggest_float"
    given = {"log": dimension.log} | ({"step": dimension.step} if dimension.step else {})
    return lambda trial, name: getattr(trial, kind)(name, dimension.low, dimension.high, **given)


def run_our_search(task: Task, name: str, candidate: Candidate, settings: SearchSettings, folder: Path) -> None:
    search_candidate(task, candidate, settings, StudyDataset(str(folder / "studies.db"), name).load())


def timed(work: Callable[[], None]) -> tuple[float, float]:
    """Return wall and processor seconds, including those of worker processes."""
    wall, processor = time.perf_counter(), processor_seconds()
    work()
    return time.perf_counter() - wall, processor_seconds() - processor


def processor_seconds() -> float:
    """Return processor seconds of this process and its running children; workers keep running between searches."""
    here = psutil.Process()
    return sum(sum(process.cpu_times()[:2]) for process in (here, *here.children(recursive=True)))


def main(table: str, names: Sequence[str], repeats: int) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with project(table=table) as context:
        contract = context.catalog.load("contract")
        customers = validate_table(context.catalog.load("raw_customers"), contract).customers
        params = context.params
    features, label = model_inputs(customers, contract), churned(customers, contract)
    split = SplitSettings.model_validate(params["split"])
    groups = pd.DataFrame({"customer": identify_customers(customers, contract, split.identical_rows).groups})
    folds = make_folds(customers, label.to_frame(), groups, contract, split, params["seed"])
    masks = {
        str(name): ((fold == FOLD_TRAIN).to_numpy(), (fold == FOLD_VALIDATE).to_numpy()) for name, fold in folds.items()
    }
    task = Task(features, label, masks, contract.numeric, contract.categorical, log_loss, params["seed"])
    settings = SearchSettings.model_validate(params["search"]).model_copy(update={"pruning_deviations": None})
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        uri = f"sqlite:///{folder}/mlflow.db"
        mlflow.set_tracking_uri(uri)
        experiment = mlflow.create_experiment("benchmark", artifact_location=f"file://{folder}/artifacts")
        mlflow.set_experiment(experiment_id=experiment)
        for name in names:
            # Trials fit one copy. Fitting all copies of the best trial is not part of the comparison.
            candidate = params["candidates"][name].model_copy(update={"copies": 1})
            collector = ValueCollector(name)
            search_candidate(task, candidate, settings, collector)
            times: dict[str, list[tuple[float, float]]] = {"ours": [], "bare": []}
            for repeat in range(repeats):
                made = Path(folder) / f"{name}{repeat}"
                # Alternating, so that other load on the machine affects both.
                times["bare"].append(timed(lambda c=candidate, t=collector.values: run_bare_optuna(task, c, t)))
                # A training has an active run with or without a search.
                with mlflow.start_run(run_name=name):
                    times["ours"].append(
                        timed(lambda n=name, c=candidate, m=made: run_our_search(task, n, c, settings, m))
                    )
            medians = {system: np.median(spent, axis=0) for system, spent in times.items()}
            trials = len(collector.values)
            rows.append(
                {
                    "candidate": name,
                    "trials": trials,
                    "ours, trials/s": f"{trials / medians['ours'][0]:.2f}",
                    "plain Optuna, trials/s": f"{trials / medians['bare'][0]:.2f}",
                    "ratio": f"{medians['bare'][0] / medians['ours'][0]:.2f}",
                    "ratio of processor time": f"{medians['bare'][1] / medians['ours'][1]:.2f}",
                }
            )
            print(rows[-1], flush=True)
    how = (
        f"Table `{table}`, {len(customers):,} customers, {len(masks)} folds; medians of {repeats} alternating runs. Both fit the "
        "same values, two trials at a time, without pruning. Ours also stores every trial in a file and as a nested MLflow run. "
        "Made by `make benchmark-search`."
    )
    write("search_throughput", "Search throughput compared with plain Optuna", how, pd.DataFrame(rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", default="simulated")
    parser.add_argument("--candidates", default="logistic,splines,random_forest,gradient_boosting")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    main(given.table, given.candidates.split(","), given.repeats)
