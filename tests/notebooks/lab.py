"""JupyterLab as `make lab` starts it, with a notebook that is opened and run in a browser.

``python -m tests.notebooks.lab NOTEBOOK PICTURE`` runs a notebook and takes a screenshot of it.
"""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
ALL_RUN = 180_000  # milliseconds for all cells, on a busy machine


@contextmanager
def lab(project: Path, own: Path) -> Iterator[str]:
    """Start JupyterLab in a project, with its kernels, settings and records in a separate folder.

    Yields
    ------
    str
        The address of the notebooks, without the file's name, with the access token.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex()
    folders = {f"JUPYTER_{name}_DIR": str(own / name.lower()) for name in ("DATA", "CONFIG", "RUNTIME")}
    folders |= {f"JUPYTERLAB_{name}_DIR": str(own / name.lower()) for name in ("SETTINGS", "WORKSPACES")}
    words = ["--no-browser", "--allow-root", f"--port={port}", "--ServerApp.port_retries=0", "--ip=127.0.0.1"]
    command = [sys.executable, "-m", "kedro", "jupyter", "lab", *words, f"--IdentityProvider.token={token}"]
    # Without these settings JupyterLab asks whether it may fetch news.
    settings = own / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"fetchNews": "false", "checkForUpdates": false}', encoding="utf-8")
    output = own / "lab.txt"
    with output.open("wb") as stream:
        process = subprocess.Popen(
            command, cwd=project, env={**os.environ, **folders}, stdout=stream, stderr=subprocess.STDOUT
        )
    server = httpx.Client(base_url=f"http://127.0.0.1:{port}/api", params={"token": token}, timeout=30)
    try:
        _wait_until_ready(process, server, output)
        yield f"http://127.0.0.1:{port}/lab/tree/notebooks/{{}}?token={token}"
    finally:
        if process.poll() is None:
            server.post(
                "/shutdown"
            )  # the server is a child process of the Kedro command, and the kernels are its children
            process.wait(timeout=30)


def _wait_until_ready(process: "subprocess.Popen[bytes]", server: httpx.Client, output: Path) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        try:
            if server.get("/status").is_success:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise AssertionError(f"JupyterLab did not get ready:\n{output.read_text(errors='replace')}")


def run_all_cells(tab: Any, address: str, cells: int) -> None:
    """Open a notebook with this number of code cells in a tab, and run them all from the menu, in Kedro's kernel."""
    idle = tab.get_by_text("Kedro (churn_pipeline) | Idle")
    tab.goto(address)
    idle.wait_for(timeout=ALL_RUN)
    tab.get_by_role("menuitem", name="Run", exact=True).click()
    tab.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    tab.locator(".jp-InputPrompt", has_text=f"[{cells}]:").wait_for(timeout=ALL_RUN)
    idle.wait_for(timeout=ALL_RUN)


def save(tab: Any) -> None:
    """Save the notebook with its outputs."""
    with tab.expect_response(lambda answer: answer.request.method == "PUT" and "/api/contents/" in answer.url):
        tab.keyboard.press("Control+s")


def main(notebook: Path, picture: Path) -> None:
    """Run a notebook of this checkout in a browser, and take a screenshot of it."""
    import nbformat
    from playwright.sync_api import sync_playwright

    cells = sum(cell.cell_type == "code" for cell in nbformat.read(notebook, as_version=4).cells)
    with tempfile.TemporaryDirectory() as own, lab(ROOT, Path(own)) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        tab = browser.new_page(viewport={"width": 1360, "height": 900})
        run_all_cells(tab, address.format(notebook.name), cells)
        tab.get_by_role("heading", name="Where churn is high").evaluate("heading => heading.scrollIntoView()")
        tab.wait_for_timeout(1_000)
        tab.screenshot(path=picture)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
