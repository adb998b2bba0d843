"""Seconds and memory by number of rows: `make benchmark-rows`.

Simulated tables of 1,000 to 1,000,000 training rows, and 10,000 further rows to predict. `ours` is the training's nodes from the
folds to the chosen model. Like the quality benchmark, each contender runs in its own environment and process, and each measurement
is stored, so that an interrupted benchmark resumes.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.common import RESULTS, ROOT, markdown_table
from benchmarks.quality import records
from benchmarks.quality.measure import ContenderError, run, scored
from benchmarks.quality.report import provenance
from benchmarks.quality.tables import Fold, Rows, export_rows, read
from churn_pipeline.evaluation.metrics import METRICS

ROWS = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
TEST_ROWS = 10_000
CONTENDERS = ("ours", "lightgbm_bagged", "catboost", "autogluon_600")
NAME = "rows"
WORK = ROOT / "build" / NAME
HOW = (
    "Tables of the simulation; each contender trains on the given number of rows and predicts 10,000 others. Seconds include fit and "
    "prediction. `ours` runs the project's own nodes: inner folds, search, fit, comparison, calibration, choice. `autogluon_600` "
    "stops after 600 s by its own budget. Peak memory is the largest resident memory of a contender's processes together, "
    "sampled twice a second; it includes reading the table. `best possible AUC` is that of the simulation's true probabilities on the "
    "same rows. Empty cells were not measured. All contenders run on two cores. Made by `make benchmark-rows`."
)


def draw(rows: int) -> tuple[Fold, float]:
    """Simulate a table and write it for the contenders.

    Returns
    -------
    fold : Fold
        Its first `rows` rows are for training, the others for prediction.
    best : float
        The best possible AUC on the rows to predict.
    """
    name = f"{NAME}_{rows}"
    params = f"simulation_name={name},simulation.rows={rows + TEST_ROWS}"
    kedro = Path(sys.executable).parent / "kedro"
    subprocess.run([kedro, "run", "--pipelines", "simulation", "--params", params], cwd=ROOT, check=True)
    table = read("simulated", simulation_name=name)
    fold = Fold(WORK / name, NAME, rows, None)
    export_rows(table, fold.folder)
    training = np.arange(len(table.customers)) < rows
    np.savetxt(fold.mask, training.astype("int64"), fmt="%d")
    return fold, _best_auc(table, training, name)


def delete(rows: int) -> None:
    """Delete the drawn files in data/."""
    for part in ("customers", "truth"):
        (ROOT / f"data/01_raw/{NAME}_{rows}_{part}.csv").unlink(missing_ok=True)


def measure(rows: int, contenders: Sequence[str], again: Sequence[str]) -> list[str]:
    """Measure what is missing for one number of rows; return what failed."""
    file, failed = records.file_of(NAME), []
    key = {"table": "simulated", "kind": NAME, "fold": rows}
    done = {line["contender"] for line in records.load(file) if line["fold"] == rows} - set(again)
    missing = [name for name in contenders if name not in done]
    if not missing:
        return []
    try:
        fold, best = draw(rows)
        for name in missing:
            print(f"{rows:,} rows: {name}", flush=True)
            record = (
                key | {"contender": name, "rows": fold.digest(), "best_auc": round(best, 6)} | records.circumstances()
            )
            try:
                answer = run(name, "simulated", fold, {"simulation_name": f"{NAME}_{rows}"})
            except ContenderError as error:
                failed.append(str(error))
                continue
            records.save(file, record | scored(answer, fold.held_out_labels()))
    finally:
        delete(rows)
    return failed


def write_result() -> None:
    """Write the seconds by rows and contender, and all figures in a second table."""
    lines = sorted(
        records.load(records.file_of(NAME)), key=lambda line: (line["fold"], CONTENDERS.index(line["contender"]))
    )
    if not lines:
        return
    cells = {(line["fold"], line["contender"]): f"{line['seconds']:.1f}" for line in lines}
    seconds = pd.DataFrame(
        [
            {"training rows": f"{rows:,}"} | {name: cells.get((rows, name), "") for name in CONTENDERS}
            for rows in sorted({line["fold"] for line in lines})
        ]
    )
    figures = pd.DataFrame(
        {
            "training rows": f"{line['fold']:,}",
            "contender": line["contender"],
            "seconds": f"{line['seconds']:.1f}",
            "peak memory, GB": f"{line['peak_gb']:.2f}",
            "log loss": f"{line['log_loss']:.4f}",
            "AUC": f"{line['auc']:.4f}",
            "best possible AUC": f"{line['best_auc']:.4f}",
        }
        for line in lines
    )
    parts = [
        "# Training time by number of rows",
        "Seconds:",
        markdown_table(seconds),
        "## All figures",
        markdown_table(figures),
        "## Where each result comes from",
        markdown_table(provenance(lines)),
        HOW,
    ]
    text = "\n\n".join(parts) + "\n"
    (RESULTS / f"{NAME}.md").write_text(text, encoding="utf-8")
    print(text)


def _best_auc(table: Rows, training: np.ndarray, name: str) -> float:
    truth = pd.read_csv(ROOT / f"data/01_raw/{name}_truth.csv")
    identifier = str(table.contract.roles.id)
    test = table.customers.loc[~training, [identifier]].merge(truth, on=identifier, how="left", validate="1:1")
    return METRICS["auc"](table.label[~training].to_numpy(), test["churn_probability"].to_numpy())


def main(rows: Sequence[int], contenders: Sequence[str], again: Sequence[str]) -> int:
    failed = [failure for number in rows for failure in measure(number, contenders, again)]
    write_result()
    for failure in failed:
        print(failure, file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default=",".join(map(str, ROWS)), help="such as 1000,3000")
    parser.add_argument("--contenders", default=",".join(CONTENDERS))
    parser.add_argument("--again", default="", help="contenders to measure again")
    given = parser.parse_args()
    numbers = [int(number) for number in given.rows.split(",")]
    sys.exit(main(numbers, given.contenders.split(","), [name for name in given.again.split(",") if name]))
