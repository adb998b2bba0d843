"""Benchmarks are started by hand, so only this test notices when the code that they import has moved."""

import subprocess
import sys

from tests.conftest import ROOT

# Contenders and peers have their own environments or are started with settings.
MODULES = [
    ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for file in sorted((ROOT / "benchmarks").rglob("*.py"))
    if not {"contenders", "serving_peers"} & set(file.parts)
]


def test_every_benchmark_can_be_imported() -> None:
    assert "benchmarks.evaluation.gate" in MODULES
    code = f"import importlib\nfor module in {MODULES}:\n    importlib.import_module(module)"
    done = subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
