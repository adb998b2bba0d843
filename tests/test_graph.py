"""The graph as a static site, as `make viz-site` builds it, of a project with customers' rows, which it must not show."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from tests.conftest import Project, quick_parameters

CUSTOMER = "customer-that-must-not-be-shown"
LAYERS = [
    "01_raw",
    "02_intermediate",
    "03_primary",
    "05_model_input",
    "06_models",
    "07_model_output",
    "08_reporting",
]


@pytest.fixture(scope="module")
def site(make_project: Callable[..., Project]) -> Path:
    """A site of a project with the files of a training, one of each kind."""
    project = make_project()
    _write(project.path / "data")
    process = subprocess.run(
        [sys.executable, "-m", "kedro", "viz", "build", "--include-previews"],
        cwd=project.path,
        env={**os.environ, "KEDRO_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    built = project.path / "build"
    assert (built / "index.html").is_file(), process.stdout + process.stderr
    assert "circular" not in process.stderr
    return built


def _write(data: Path) -> None:
    private = pd.DataFrame({"id": [CUSTOMER], "churned": [1], "probability": [0.5]})
    for file in (
        "02_intermediate/simulated/quarantine.csv",
        "03_primary/simulated/customers.parquet",
        "03_primary/simulated/train_customers.parquet",
        "03_primary/simulated/holdout_customers.parquet",
        "05_model_input/simulated/train_features.parquet",
        "05_model_input/simulated/train_label.parquet",
        "05_model_input/simulated/folds.parquet",
        "07_model_output/simulated/holdout_predictions.parquet",
        "07_model_output/simulated/splines_cv_predictions.parquet",
        "08_reporting/simulated/target_list.csv",
    ):
        path = data / file
        path.parent.mkdir(parents=True, exist_ok=True)
        private.to_csv(path, index=False) if path.suffix == ".csv" else private.to_parquet(path)
    reporting = data / "08_reporting/simulated"
    pd.DataFrame({"candidate": ["splines", "logistic"], "log_loss": [0.41, 0.42]}).to_csv(
        reporting / "leaderboard.csv", index=False
    )
    pd.DataFrame({"metric": ["auc"], "value": [0.85]}).to_csv(reporting / "metrics.csv", index=False)
    (reporting / "gate.json").write_text(json.dumps({"verdict": "no worse"}), encoding="utf-8")
    figure, axes = plt.subplots()
    axes.plot([0, 1])
    figure.savefig(reporting / "roc.png", format="png")
    plt.close(figure)


def graph(site: Path, pipeline: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((site / "api" / "pipelines" / pipeline).read_text(encoding="utf-8"))
    return content


def node(site: Path, name: str, kind: str = "data") -> dict[str, Any]:
    """What a click on a node shows; a dataset and a task may have the same name."""
    nodes = graph(site, "__default__")["nodes"]
    known = next(each["id"] for each in nodes if (each["name"], each["type"]) == (name, kind))
    content: dict[str, Any] = json.loads((site / "api" / "nodes" / known).read_text(encoding="utf-8"))
    return content


def test_every_pipeline_has_its_layers_in_the_order_of_the_data(site: Path) -> None:
    pipelines = {each["id"] for each in graph(site, "__default__")["pipelines"]}
    assert pipelines == {
        *("__default__", "training", "data_engineering", "modelling", "evaluation", "packaging", "simulation", "refit")
    }
    for name in pipelines:
        content = graph(site, name)
        layers = {each["layer"] for each in content["nodes"] if each["type"] == "data"}
        assert layers <= set(LAYERS)  # every dataset has a layer
        # kedro-viz also lists the layers of other pipelines, but draws only those that are not empty.
        drawn = [layer for layer in content["layers"] if layer in layers]
        assert drawn == sorted(layers)
    assert graph(site, "__default__")["layers"] == LAYERS


@pytest.mark.parametrize(
    ("pipeline", "boxes"),
    [
        ("data_engineering", {"validation", "split"}),
        ("modelling", {"preparation", *quick_parameters()["candidates"], "choice"}),
        ("evaluation", {"evaluation", "decision", "report"}),
        ("packaging", {"packaging"}),
    ],
)
def test_steps_are_collapsed_in_boxes(site: Path, pipeline: str, boxes: set[str]) -> None:
    tree = graph(site, pipeline)["modular_pipelines"]
    assert set(tree) - {"__root__"} == boxes
    assert {child["id"] for child in tree["__root__"]["children"] if child["type"] == "modularPipeline"} == boxes


def test_tables_metrics_reports_and_plots_are_shown_on_their_nodes(site: Path) -> None:
    assert node(site, "leaderboard")["preview"]["data"] == [["splines", 0.41], ["logistic", 0.42]]
    assert node(site, "metrics")["preview"]["data"] == [["auc", 0.85]]
    assert json.loads(node(site, "gate")["preview"]) == {"verdict": "no worse"}
    plot = node(site, "roc_plot")
    assert plot["preview_type"] == "ImagePreview"
    assert plot["preview"].startswith("iVBOR")  # a PNG


def test_no_customer_is_shown_anywhere(site: Path) -> None:
    files = [file for file in site.rglob("*") if file.is_file()]
    assert len(files) > 100
    assert not [file for file in files if CUSTOMER.encode() in file.read_bytes()]


def test_only_these_datasets_are_previewed(site: Path) -> None:
    """A new dataset of the catalog is not previewed until it is named here."""
    shown = {
        *(
            "contract_report",
            "split_report",
            "leaks",
            "data_report",
            "leaderboard",
            "choice",
            "model_report",
            "training_profile",
            "metrics",
        ),
        *(
            "profit",
            "profit_curve",
            "sensitivity",
            "segments",
            "segment_gaps",
            "importance",
            "gate",
            "cost_model",
            "decision_rule",
            "equivalence_report",
            "split_report",
        ),
        *(
            f"{name}_plot"
            for name in ("roc", "precision_recall", "reliability", "gain", "profit", "sensitivity", "lift")
        ),
        *(f"{name}_plot" for name in ("scores", "importance", "segments", "leaderboard")),
    }
    previewed = set()
    for pipeline in ("__default__", "simulation"):
        for each in graph(site, pipeline)["nodes"]:
            file = site / "api" / "nodes" / each["id"]
            if each["type"] == "data" and file.is_file() and json.loads(file.read_text()).get("preview_type"):
                previewed.add(each["name"])
    assert previewed == shown


def test_a_node_shows_its_docstring_and_source(site: Path) -> None:
    shown = node(site, "validate_customers", "task")
    assert '"""' in shown["code"]
    assert shown["run_command"] == "kedro run --to-nodes='validation.validate_customers'"
