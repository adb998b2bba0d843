"""Pinning of the base image, with stand-ins for the tools that ask a registry."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import ROOT

DIGEST = "sha256:" + "3f" * 32
SCRIPT = ROOT / ".github/scripts/pin_images.py"
PARAMETERS = """packaging:
  tolerance: 1.0e-6    # largest difference
  base_image: registry.example.com:5000/python:3.11-slim{digest}   # Debian
"""


@pytest.fixture
def parameters(tmp_path: Path) -> Path:
    file = tmp_path / "parameters.yml"
    file.write_text(PARAMETERS.format(digest=""))
    return file


def pin(file: Path, **tools: str) -> subprocess.CompletedProcess[str]:
    """Run the script; `tools` are shell scripts that stand in for the commands of their names."""
    folder = file.parent / "bin"
    folder.mkdir(exist_ok=True)
    for name, text in tools.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    command = [sys.executable, str(SCRIPT), str(file)]
    return subprocess.run(command, env={**os.environ, "PATH": str(folder)}, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("pinned", ["", "@sha256:" + "00" * 32])
def test_it_writes_the_digest_that_the_registry_reports_and_nothing_else(parameters: Path, pinned: str) -> None:
    parameters.write_text(PARAMETERS.format(digest=pinned))
    arguments = parameters.parent / "arguments"
    done = pin(parameters, docker=f'echo "$@" > {arguments}; echo {DIGEST}')
    assert (done.returncode, done.stderr) == (0, "")
    assert parameters.read_text() == PARAMETERS.format(digest=f"@{DIGEST}")
    assert arguments.read_text().split()[-1] == "registry.example.com:5000/python:3.11-slim"


def test_it_asks_skopeo_if_docker_gets_no_answer(parameters: Path) -> None:
    assert pin(parameters, docker="exit 1", skopeo=f"echo {DIGEST}").returncode == 0
    assert f"@{DIGEST}" in parameters.read_text()


@pytest.mark.parametrize(
    ("tools", "problem"),
    [
        ({}, "docker is not installed; skopeo is not installed"),
        ({"docker": "echo no such host >&2; exit 1"}, "docker: no such host"),
        ({"docker": "exit 1"}, "docker: no answer"),
        ({"skopeo": "echo sha256:short"}, "skopeo: sha256:short"),
    ],
)
def test_without_an_answer_the_file_stays_as_it_is(parameters: Path, tools: dict[str, str], problem: str) -> None:
    done = pin(parameters, **tools)
    assert done.returncode == 1
    assert problem in done.stderr
    assert "The digest of registry.example.com:5000/python:3.11-slim could not be read" in done.stderr
    assert parameters.read_text() == PARAMETERS.format(digest="")


def test_the_project_has_the_setting_that_it_pins(tmp_path: Path) -> None:
    file = tmp_path / "parameters.yml"
    file.write_text((ROOT / "conf/base/parameters_packaging.yml").read_text(encoding="utf-8"))
    assert pin(file, docker=f"echo {DIGEST}").returncode == 0
    assert f":3.11-slim@{DIGEST}\n" in file.read_text()
