"""The notebooks run from top to bottom, on a trained table and on an unknown one; git holds no outputs."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest
import yaml
from jupyter_client import KernelManager
from tests.conftest import ROOT, Project, Trained
from tests.customers import invented_table

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SHORT = {"02_prototype_a_candidate": {"trials": 1}, "06_truth_lab": {"rows": 2_000}}


@pytest.fixture(scope="module")
def kernel() -> Iterator[KernelManager]:
    """One kernel for all notebooks, because imports take most of the time; its variables are deleted in between."""
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel()
    yield manager
    manager.shutdown_kernel()


def run(name: str, project: Project, kernel: KernelManager, **parameters: Any) -> Any:
    """Run a notebook in the project's folder of notebooks, as `make notebooks` does, without variables of the previous one."""
    folder = project.path / "notebooks"
    folder.mkdir(exist_ok=True)
    client = kernel.client()
    client.start_channels()
    client.execute_interactive(f"%reset -f\n%cd -q {folder}", timeout=60, output_hook=lambda _: None)
    client.stop_channels()
    return papermill.execute_notebook(
        ROOT / "notebooks" / f"{name}.ipynb",
        folder / f"{name}.ipynb",
        parameters={**SHORT.get(name, {}), **parameters},
        progress_bar=False,
        km=kernel,
    )


def outputs(notebook: Any, mime: str) -> list[str]:
    """Outputs of one MIME type."""
    shown = (output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", []))
    return ["".join(data[mime]) for data in shown if mime in data]


def pictures(notebook: Any) -> int:
    return len(outputs(notebook, "image/png"))


def test_there_are_notebooks() -> None:
    assert [file.name[:2] for file in NOTEBOOKS] == ["01", "02", "03", "04", "05", "06"]


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_git_holds_no_outputs_and_parameters_come_first(file: Path) -> None:
    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]

    assert [cell.outputs for cell in code] == [[]] * len(code)
    assert [cell.execution_count for cell in code] == [None] * len(code)
    assert code[0].metadata.tags == ["parameters"]
    assert code[0].source.startswith('table = "simulated"')


@pytest.mark.slow
def test_all_run_top_to_bottom_on_a_trained_table(trained: Trained, tmp_path: Path, kernel: KernelManager) -> None:
    project = Project(Path(shutil.copytree(trained.project.path, tmp_path / "project")))

    done = {file.stem: run(file.stem, project, kernel) for file in NOTEBOOKS}

    assert {name[:2]: pictures(notebook) for name, notebook in done.items()} == {
        "01": 4,
        "02": 2,
        "03": 6,
        "04": 4,
        "05": 2,
        "06": 4,
    }
    block = next(text for text in printed(done["02_prototype_a_candidate"]) if "extra_trees:" in text)
    assert yaml.safe_load(block)["extra_trees"]["class"] == "sklearn.ensemble.ExtraTreesClassifier"
    service_output = "".join(printed(done["05_ask_the_service"]))
    assert "largest difference" in service_output
    assert "The service ended with 0" in service_output


def printed(notebook: Any) -> Iterator[str]:
    """Text that the cells print."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.get("name") == "stdout":
                yield "".join(output.text)


def test_an_unknown_table_is_explored_without_true_probabilities(project: Project, kernel: KernelManager) -> None:
    project.kedro("table", "draft", str(invented_table(random.Random(5), project.path)), "--name", "invented")
    made = project.kedro("run", "--pipelines", "data_engineering", "--params", "table=invented")
    assert made.code == 0, made.output

    assert pictures(run("01_explore_customers", project, kernel, table="invented")) >= 3
    lab = run("06_truth_lab", project, kernel, table="invented")

    assert pictures(lab) == 0
    (sentence,) = outputs(lab, "text/markdown")
    assert sentence.startswith("The true churn probabilities of `invented` are unknown")
