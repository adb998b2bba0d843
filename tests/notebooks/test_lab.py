"""A user opens a notebook in JupyterLab with Kedro's kernel and runs all its cells."""

import shutil
from pathlib import Path

import nbformat
import pytest
from tests.conftest import ROOT, Project
from tests.notebooks.lab import CHROMIUM, FLAGS, lab, run_all_cells, save

NOTEBOOK = "01_explore_customers.ipynb"


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
def test_a_notebook_runs_in_a_browser(project: Project, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    made = project.kedro("run", "--pipelines", "data_engineering")
    assert made.code == 0, made.output
    (project.path / "notebooks").mkdir()
    file = Path(shutil.copy(ROOT / "notebooks" / NOTEBOOK, project.path / "notebooks"))
    cells = sum(cell.cell_type == "code" for cell in nbformat.read(file, as_version=4).cells)

    with lab(project.path, tmp_path) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        tab = browser.new_page(viewport={"width": 1360, "height": 900})
        run_all_cells(tab, address.format(NOTEBOOK), cells)
        save(tab)
        browser.close()

    code = [cell for cell in nbformat.read(file, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, cells + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert [output.traceback for output in outputs if output.output_type == "error"] == []
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 4
