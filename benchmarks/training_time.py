"""Time of `kedro run --pipelines training` by part: `make benchmark-time`.

The command runs in a separate process, with an additional hook that measures every load, node and save.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.common import ROOT, write

CLOCK = """
import atexit, json, os, sys, time
from collections import defaultdict
spent, begun = defaultdict(float), {}
start = float(os.environ["CLOCK_START"])
def begin(key): begun[key] = time.perf_counter()
def end(kind, key): spent[kind] += time.perf_counter() - begun.pop(key)
from kedro.framework.hooks import hook_impl
class Clock:
    @hook_impl
    def after_context_created(self): spent["start to context"] = time.time() - start
    @hook_impl(tryfirst=True)
    def before_pipeline_run(self): spent["start to first node"] = time.time() - start
    @hook_impl
    def before_dataset_loaded(self, dataset_name): begin(("load", dataset_name))
    @hook_impl
    def after_dataset_loaded(self, dataset_name): end("load", ("load", dataset_name))
    @hook_impl
    def before_dataset_saved(self, dataset_name): begin(("save", dataset_name))
    @hook_impl
    def after_dataset_saved(self, dataset_name): end("save " + dataset_name, ("save", dataset_name))
    @hook_impl(tryfirst=True)
    def before_node_run(self, node): begin(("node", node.name))
    @hook_impl(trylast=True)
    def after_node_run(self, node): end("node " + node.name, ("node", node.name))
from churn_pipeline import settings
settings.HOOKS = (*settings.HOOKS, Clock())
atexit.register(lambda: open(os.environ["CLOCK_FILE"], "w").write(json.dumps(spent)))
from kedro.framework.cli.cli import main
sys.argv = ["kedro", "run", "--pipelines", "training"]
main()
"""


def main() -> None:
    # Otherwise the search would reuse the stored trials.
    (ROOT / "data/06_models/simulated/studies.db").unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        script, file = Path(folder) / "clock.py", Path(folder) / "clock.json"
        script.write_text(CLOCK, encoding="utf-8")
        begin = time.perf_counter()
        environment = {**os.environ, "CLOCK_FILE": str(file), "CLOCK_START": str(time.time())}
        subprocess.run([sys.executable, str(script)], cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
        total = time.perf_counter() - begin
        spent: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))

    def taken(kind: str, *endings: str) -> float:
        return sum(seconds for key, seconds in spent.items() if key.startswith(kind) and key.endswith(endings or ("",)))

    fitting = taken("node", ".search", ".fit")
    drawing, drawn = taken("node", "draw_plots", "draw_decision_plots"), taken("save", "_plot")
    models = taken("save", "registered_model@logged", "chosen_model")
    parts = {
        "search and fit of all candidates": fitting,
        "start: imports, configuration, MLflow run": spent["start to first node"],
        "our nodes, without fitting": taken("node") - fitting - drawing,
        "plots: drawing, saving, logging": drawing + drawn,
        "models: skops, MLflow, registry": models,
        "other datasets: loading, saving, logging": taken("load") + taken("save") - models - drawn,
    }
    parts["rest: hooks, runner, end"] = total - sum(parts.values())
    parts["total"], parts["total without fitting"] = total, total - fitting
    table = pd.DataFrame({"part": parts.keys(), "seconds": [f"{seconds:.1f}" for seconds in parts.values()]})
    write(
        "training_time",
        "Training time by part",
        "One run of `kedro run --pipelines training` on the simulated "
        "table, with an existing environment and MLflow store. Made by `make benchmark-time`.",
        table,
    )


if __name__ == "__main__":
    main()
