"""Training as a user runs it: on the embedded table, on an invented one, and against a tracking server."""

import json
import random
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from tests.conftest import PUBLIC, Project, Trained, needs_public_data, quick_parameters
from tests.customers import invented_table


def _training_run(project: Project) -> mlflow.entities.Run:
    """The run of the last training; its trials are nested in it, and packaging has a run of its own."""
    client = mlflow.MlflowClient(f"sqlite:///{project.path}/mlruns/mlflow.db")
    experiment = client.get_experiment_by_name("churn_simulated")
    runs = client.search_runs([experiment.experiment_id])
    return next(run for run in runs if " training " in run.info.run_name)


def test_training_ends_with_leaderboard_metrics_and_the_evaluated_model_registered(trained: Trained) -> None:
    project, printed = trained
    for words in ("Leaderboard", "Chosen:", "best possible", "kedro mlflow ui", "kedro viz"):
        assert words in printed
    run = _training_run(project)
    assert run.info.status == "FINISHED"
    grouped = ("holdout/auc", "holdout/intervals/auc_lower", "holdout/best_possible/auc_best_possible", "gate/passed")
    assert set(grouped) <= set(run.data.metrics)
    assert {name.split("/")[0] for name in run.data.metrics} == {"holdout", "gate"}
    assert run.data.params["split.holdout_share"] == "0.2"
    assert run.data.params["tuned.splines.trials"] == "2"
    assert "tuned.splines.arguments.C" in run.data.params
    assert max(map(len, run.data.params.values())) < 120
    assert not {"", "None"} & set(run.data.params.values())
    assert re.fullmatch(r"[\w ]+ · simulated training · \d{4}-\d\d-\d\d \d\d:\d\d", run.info.run_name)
    assert not {"runner", "run_id", "project_path"} & set(run.data.tags)
    note = run.data.tags["mlflow.note.content"]
    assert f"| auc | {run.data.metrics['holdout/auc']:.4f} |" in note
    assert "Gate: **first**" in note
    read = run.inputs.dataset_inputs[0].dataset
    assert (read.name, read.digest) == ("simulated", run.data.tags["digest.data"][:12])
    assert {
        "git.commit",
        "git.dirty",
        "digest.lock",
        "digest.data",
        "digest.contract",
        "digest.holdout",
        "table",
        "model_digest",
        "candidate",
    } <= set(run.data.tags)
    assert len(run.data.tags["digest.lock"]) == 64
    client = mlflow.MlflowClient(f"sqlite:///{project.path}/mlruns/mlflow.db")
    artifacts = {
        item.path for folder in ("plots", "reports") for item in client.list_artifacts(run.info.run_id, folder)
    }
    assert {
        "plots/roc.png",
        "plots/precision_recall.png",
        "plots/reliability.png",
        "plots/gain.png",
        "reports/leaderboard.csv",
        "reports/metrics.csv",
        "reports/data_report.json",
    } <= artifacts
    assert not [item.path for item in client.list_artifacts(run.info.run_id) if "quarantine" in item.path]
    version = client.get_model_version_by_alias("churn_simulated", "challenger")
    assert version.run_id == run.info.run_id
    assert version.description == note
    assert "`simulated`" in client.get_registered_model("churn_simulated").description
    assert version.tags["model_digest"] == run.data.tags["model_digest"]

    from churn_pipeline.datasets import RegisteredModelDataset

    mlflow.set_tracking_uri(f"sqlite:///{project.path}/mlruns/mlflow.db")
    model = RegisteredModelDataset(name="churn_simulated", alias="challenger").load()
    features = pd.read_parquet(project.path / "data/05_model_input/simulated/holdout_features.parquet")
    evaluated = pd.read_parquet(project.path / "data/07_model_output/simulated/holdout_predictions.parquet")
    np.testing.assert_allclose(model.predict_proba(features)[:, 1], evaluated["probability"], rtol=0, atol=1e-15)


def test_two_runs_on_the_same_data_give_the_same_metrics_and_the_same_model(trained: Trained, project: Project) -> None:
    project.configure(**quick_parameters())
    ended = project.kedro("run", "--pipelines", "training")  # its folds in this process, those of `trained` in others

    assert ended.code == 0, ended.output
    first, second = (
        (
            run.data.metrics,
            run.data.tags["model_digest"],
            (each.path / "data/08_reporting/simulated/metrics.csv").read_bytes(),
        )
        for each, run in ((each, _training_run(each)) for each in (trained.project, project))
    )
    assert first == second


def test_from_nodes_continues_after_data_engineering(project: Project) -> None:
    assert project.kedro("run", "--pipelines", "data_engineering").code == 0

    ended = project.kedro(
        "run",
        "--pipelines",
        "training",
        "--from-nodes",
        "split.train_features_and_label,split.holdout_features_and_label,split.make_folds,split.leaks,"
        "split.report_data,evaluation.find_true_probabilities,decision.costs",
    )

    assert ended.code == 0, ended.output


def test_a_candidate_is_a_block_of_yaml(project: Project) -> None:
    arguments = {"n_estimators": 30, "min_samples_leaf": 20}
    project.configure(
        candidates={"extra_trees": {"class": "sklearn.ensemble.ExtraTreesClassifier", "arguments": arguments}}
    )

    ended = project.kedro("run", "--pipelines", "training")

    assert ended.code == 0, ended.output
    assert "Chosen: extra_trees" in ended.output


@pytest.mark.parametrize("seed", [1, 2])
def test_an_invented_table_is_drafted_and_trained_without_a_change_of_the_code(seed: int, project: Project) -> None:
    file = invented_table(random.Random(seed), project.path)

    drafted = project.kedro("table", "draft", str(file), "--name", "invented")
    assert drafted.code == 0, drafted.output
    assert "target 'Has left?'" in drafted.output
    checked = project.kedro("table", "check", "invented")
    assert checked.code == 0, checked.output
    trained = project.kedro("run", "--pipelines", "training", "--params", "table=invented")

    assert trained.code == 0, trained.output
    metrics = pd.read_csv(project.path / "data/08_reporting/invented/metrics.csv").set_index("metric")["value"]
    assert metrics["auc"] > 0.65


def test_a_leak_stops_the_run_and_an_allowed_leak_is_reported(project: Project) -> None:
    file = project.path / "data/01_raw/simulated_customers.csv"
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    table["TotalCharges"] = np.where(table["Churn"] == "Yes", "1.5", "2.5")
    table.to_csv(file, index=False)

    stopped = project.kedro("run", "--pipelines", "training")
    assert stopped.code == 1
    assert "The table gives the label away" in stopped.output
    assert "column 'TotalCharges': likely leak, AUC 1.000 on its own" in stopped.output
    assert "roles.ignored" in stopped.output

    project.configure(leaks={"allowed": ["TotalCharges"]})
    ended = project.kedro("run", "--pipelines", "training")
    assert ended.code == 0, ended.output
    assert "LIKELY LEAK: TotalCharges" in ended.output
    report = json.loads((project.path / "data/08_reporting/simulated/data_report.json").read_text())
    assert [leak["columns"] for leak in report["leaks"]["findings"]] == [["TotalCharges"]]


@pytest.mark.slow
@needs_public_data
@pytest.mark.parametrize(("table", "auc"), [("telco", 0.82), ("mlc_churn", 0.88), ("iranian", 0.95)])
def test_public_tables_train_without_changes(table: str, auc: float, project: Project) -> None:
    assert PUBLIC
    project.configure(**quick_parameters())
    ended = project.kedro("run", "--pipelines", "training", "--params", f"table={table}")

    assert ended.code == 0, ended.output
    metrics = pd.read_csv(project.path / f"data/08_reporting/{table}/metrics.csv").set_index("metric")["value"]
    assert metrics["auc"] > auc
    report = json.loads((project.path / f"data/08_reporting/{table}/data_report.json").read_text())
    assert report["rows"]["quarantined"] == 0


@pytest.fixture
def tracking_server(tmp_path: Path) -> Iterator[str]:
    """A real MLflow tracking server on loopback, ended by its process id."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (tmp_path / "server.log").open("w") as log:
        server = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "mlflow",
                "server",
                "--host",
                "127.0.0.1",
                "--port",
                str(port),
                "--workers",
                "1",
                "--backend-store-uri",
                f"sqlite:///{tmp_path}/server.db",
                "--artifacts-destination",
                str(tmp_path / "artifacts"),
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=tmp_path,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            if server.poll() is not None:
                break
            try:
                urllib.request.urlopen(f"{address}/health", timeout=1)
                break
            except OSError:
                time.sleep(0.5)
        else:
            raise TimeoutError((tmp_path / "server.log").read_text())
        yield address
    finally:
        server.terminate()
        server.wait(timeout=30)


@pytest.mark.slow
def test_production_records_on_a_tracking_server(
    project: Project, tracking_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_server)
    monkeypatch.setenv("CHURN_DATA_ROOT", "data")

    ended = project.kedro("run", "--env", "production")

    assert ended.code == 0, ended.output
    assert (project.path / "bentos/churn_simulated.bento").is_file()
    client = mlflow.MlflowClient(tracking_server)
    version = client.get_model_version_by_alias("churn_simulated", "challenger")
    run = client.get_run(version.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["environment"] == "production"
    assert {item.path for item in client.list_artifacts(run.info.run_id, "plots")} >= {"plots/roc.png"}


def test_production_without_a_server_says_what_to_set(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("CHURN_DATA_ROOT", "data")

    ended = project.kedro("run", "--pipelines", "training", "--env", "production")

    assert ended.code == 1
    assert "MLFLOW_TRACKING_URI" in ended.output
