"""Time and peak memory of simulating and training on a million customers: `make benchmark-million`."""

import argparse
import resource
import subprocess
import time
from pathlib import Path

import pandas as pd

from benchmarks.common import ROOT, write

NAME = "million"


def _measure(command: list[str]) -> tuple[float, float]:
    """Seconds and peak memory in GB of a command. The peak is that of the largest child so far: run the larger last."""
    begin = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True)
    return time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024**2


def main(rows: int) -> None:
    files = [Path(ROOT / f"data/01_raw/{NAME}_{part}.csv") for part in ("customers", "truth")]
    try:
        simulation = _measure(
            ["kedro", "run", "--pipelines", "simulation", "--params", f"simulation_name={NAME},simulation.rows={rows}"]
        )
        training = _measure(["kedro", "run", "--pipelines", "training", "--params", f"simulation_name={NAME}"])
    finally:
        for file in files:
            file.unlink(missing_ok=True)
    metrics = pd.read_csv(ROOT / "data/08_reporting/simulated/metrics.csv").set_index("metric")
    table = pd.DataFrame(
        {
            "step": ["simulation", "training"],
            "rows": [f"{rows:,}"] * 2,
            "seconds": [f"{seconds:.0f}" for seconds, _ in (simulation, training)],
            "peak memory, GB": [f"{peak:.2f}" for _, peak in (simulation, training)],
        }
    )
    how = (
        f"AUC {metrics.loc['auc', 'value']:.4f} (best possible: {metrics.loc['auc', 'best_possible']:.4f}). Default settings: candidates are searched on 50,000 rows. "
        "Each step is a separate `kedro run`. The peak is the maximum resident set of its process. Made by `make benchmark-million`."
    )
    write("million", "A million customers", how, table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    main(parser.parse_args().rows)
