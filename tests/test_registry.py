"""The registered pipelines: their parts, inputs, boxes and parameters."""

import re
from collections.abc import Callable
from graphlib import TopologicalSorter
from inspect import signature

import pytest
import yaml
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

from churn_pipeline import configuration
from churn_pipeline.pipeline_registry import register_pipelines
from tests.conftest import ROOT, Project, quick_parameters


@pytest.fixture
def pipelines(make_project: Callable[..., Project], monkeypatch: pytest.MonkeyPatch):
    project = make_project()
    monkeypatch.chdir(project.path)
    monkeypatch.setattr(configuration, "current_loader", [])
    bootstrap_project(project.path)
    return register_pipelines()


def test_training_is_data_engineering_modelling_and_evaluation(pipelines) -> None:
    parts = {node for name in ("data_engineering", "modelling", "evaluation") for node in pipelines[name].nodes}

    registering = set(pipelines["training"].nodes) - parts
    assert {name for node in registering for name in node.outputs} == {"registered_model@logged", "holdout_sample"}
    assert set(pipelines["__default__"].nodes) == set(pipelines["training"].nodes) | set(pipelines["packaging"].nodes)


def test_evaluation_alone_registers_no_model(pipelines) -> None:
    registering = {name for name, pipeline in pipelines.items() if "registered_model@logged" in pipeline.all_outputs()}

    assert "registered_model@logged" not in pipelines["evaluation"].all_outputs()
    assert registering == {"training", "__default__", "refit"}


def test_every_node_that_can_use_groups_gets_them(pipelines) -> None:
    """Without them, several rows of a customer would count as independent customers."""
    using = {
        node.name: node
        for name in ("training", "refit")
        for node in pipelines[name].nodes
        if "groups" in signature(node.func).parameters
    }

    assert {"split.leaks", "decision.join_holdout", "evaluation.measure_importance"} <= set(using)
    for name, node in using.items():
        given = list(node.inputs)[list(signature(node.func).parameters).index("groups") :]
        assert given[:1] in (["train_groups"], ["holdout_groups"]), name


def test_packaging_waits_for_the_training_of_the_same_run(pipelines) -> None:
    order = [node.name for node in pipelines["__default__"].nodes]

    assert order.index("packaging.accept_version") > order.index("report.record_model")
    # The registered version's run must be complete by then.
    evaluated = (
        "evaluation.evaluate",
        "decision.evaluate_profit",
        "report.write_card",
        "decision.gate",
    )
    assert order.index("report.record_model") > max(map(order.index, evaluated))


def test_packaging_alone_reads_the_registry_and_the_hold_out_samples(pipelines) -> None:
    free = {name for name in pipelines["packaging"].inputs() if not name.startswith("params:")}

    # last_holdout is read only for a version without a sample.
    samples = {"holdout_sample", "last_holdout"}
    assert free == {"registered_model@version", "contract", "serving_lock", "signing_key"} | samples


def test_each_candidate_has_its_namespace(pipelines) -> None:
    namespaces = {node.namespace for node in pipelines["modelling"].nodes if node.namespace}

    assert namespaces == {"preparation", *quick_parameters()["candidates"], "choice"}


def test_what_crosses_boxes_is_persisted_so_each_box_can_be_a_process_of_its_own(pipelines, project: Project) -> None:
    with KedroSession.create(project.path) as session:
        catalog = session.load_context().catalog
    crossing = set()
    for pipeline in pipelines.values():
        boxes = {name: group.name for group in pipeline.group_nodes_by("namespace") for name in group.nodes}
        makers = {output: node.name for node in pipeline.nodes for output in node.outputs}
        crossing |= {
            name
            for node in pipeline.nodes
            for name in set(node.inputs) & set(makers)
            if boxes[makers[name]] != boxes[node.name]
        }

    assert {"search_rows", "splines_tuned", "splines_seconds_left", "true_probabilities", "chosen_model"} <= crossing
    assert {name for name in crossing if catalog.get(name)._EPHEMERAL} == set()


def test_no_two_boxes_need_each_other(pipelines) -> None:
    for pipeline in pipelines.values():
        groups = pipeline.group_nodes_by("namespace")
        order = list(TopologicalSorter({group.name: group.dependencies for group in groups}).static_order())
        assert len(order) == len(groups)


def test_boxes_change_no_name_of_a_dataset(pipelines) -> None:
    names = {name for pipeline in pipelines.values() for name in pipeline.datasets() if not name.startswith("params:")}

    in_a_namespace = {name.split(".")[1] for name in names if "." in name}
    assert in_a_namespace == {"studies"}  # the candidates'


def test_no_node_that_trains_can_read_the_truth(pipelines) -> None:
    readers = {
        node.name
        for pipeline in pipelines.values()
        for node in pipeline.nodes
        if {"truth", "simulated_truth", "true_probabilities"} & set(node.inputs)
    }

    assert readers == {"evaluation.find_true_probabilities", "evaluation.evaluate", "report.draw_plots"}
    trained_from = pipelines["training"].to_outputs("chosen_model").all_inputs()
    assert not {"truth", "simulated_truth", "true_probabilities"} & trained_from


def test_training_reads_only_the_table_and_parameters(pipelines) -> None:
    free = {name.rsplit(".", 1)[-1] for name in pipelines["training"].inputs() if not name.startswith("params:")}

    assert free == {"raw_customers", "contract", "truth", "champion", "anchor", "evaluations", "studies"}


# Blocks that several nodes read; their names describe what they set.
SHARED_BLOCKS = {"seed", "candidates"}


def test_each_parameter_block_has_the_name_of_a_node_box_or_pipeline_that_reads_it(pipelines) -> None:
    readers: dict[str, set[str]] = {}
    for pipeline_name, pipeline in pipelines.items():
        for node in pipeline.nodes:
            names = {pipeline_name, *node.name.split(".")}
            for parameter in (name for name in node.inputs if name.startswith("params:")):
                readers.setdefault(parameter.removeprefix("params:").split(".")[0], set()).update(names)

    assert {block for block, names in readers.items() if block not in names | SHARED_BLOCKS} == set()


def test_each_parameter_block_in_conf_is_read(pipelines, project: Project) -> None:
    files = (project.path / "conf" / "base").glob("parameters*.yml")
    blocks = {block for file in files for block in yaml.safe_load(file.read_text(encoding="utf-8"))}
    used = {
        name.removeprefix("params:").split(".")[0]
        for pipeline in pipelines.values()
        for name in pipeline.inputs()
        if name.startswith("params:")
    }

    assert blocks - used <= {"table", "simulation_name", "refit"}  # the catalog reads these


# kedro-viz cannot draw a step back to an earlier layer: the chosen model depends on the first two, and packaging comes last.
OTHER_LAYER = {
    "{candidate}_cv_predictions": "06_models",
    "choice": "06_models",
    "packaged_model": "08_reporting",
    "last_holdout": "08_reporting",
}


def test_a_dataset_is_in_the_layer_of_its_folder() -> None:
    layers = {}
    for file in sorted((ROOT / "conf/base").glob("catalog_*.yml")):
        for name, entry in yaml.safe_load(file.read_text(encoding="utf-8")).items():
            inner = entry.get("dataset")
            path = str((inner if isinstance(inner, dict) else entry).get("filepath", ""))
            if path.startswith("${globals:data_root}/"):
                layers[name] = (path.split("/")[1], entry["metadata"]["kedro-viz"]["layer"])
    assert len(layers) > 30
    assert {name: layer for name, (folder, layer) in layers.items() if layer != folder} == OTHER_LAYER


def test_every_file_of_the_pipelines_is_under_the_data_root_and_has_credentials() -> None:
    for file in [*(ROOT / "conf/base").glob("catalog_*.yml"), *(ROOT / "conf/base/tables").glob("*.yml")]:
        lines = file.read_text(encoding="utf-8").splitlines()
        assert [line for line in lines if re.search(r"(filepath|path): *data/", line)] == []
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        for name, entry in content.items():
            for block in (entry, *entry.values()) if isinstance(entry, dict) else ():
                path = str(block.get("filepath", "")) if isinstance(block, dict) else ""
                if "${globals:" in path and not path.endswith(".db"):
                    assert block["credentials"] == "storage", (file.name, name)
