"""The Bento that the serving benchmarks measure: the latest one of the table `simulated`."""

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.common import ROOT

TABLE = "simulated"
STORE = ROOT / "bentos" / "store"


def last_bento() -> Path:
    """The Bento that `make serve` serves; it is built if missing."""
    latest = STORE / "bentos" / f"churn_{TABLE}" / "latest"
    if not latest.exists():
        subprocess.run([sys.executable, "-m", "kedro", "run", "--params", f"table={TABLE}"], cwd=ROOT, check=True)
    return latest.with_name(latest.read_text(encoding="utf-8").strip())


def read_manifest() -> dict[str, str]:
    """Read the manifest of the served bundle."""
    manifest: dict[str, str] = json.loads((last_bento() / "src/bundle/manifest.json").read_text(encoding="utf-8"))
    return manifest
