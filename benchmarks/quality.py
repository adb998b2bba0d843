"""Model quality compared with other tools: `make benchmark-quality`.

Three public tables, five outer folds each, once plain and once with identical rows in the same fold. Every contender gets the
same rows and the same columns, the features of the table's contract, and runs in its own environment. Protected columns are
no features, so no contender gets them. `ours` is the complete training, search and choice included. Measurements are stored in
build/quality: an interrupted benchmark resumes, and `--again ours` repeats ours. One table and ours alone:
`make benchmark-quality TABLES=telco CONTENDERS=ours`.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from benchmarks.common import ROOT, project, write
from churn_pipeline.contract.cells import churned, model_inputs
from churn_pipeline.contract.table import Contract
from churn_pipeline.contract.validation import validate_table
from churn_pipeline.evaluation.metrics import METRICS
from churn_pipeline.modelling.candidates import Candidate
from churn_pipeline.modelling.search import SearchSettings
from churn_pipeline.modelling.studies import UnstoredStudies
from churn_pipeline.pipelines.data_engineering.identity import identify_customers
from churn_pipeline.pipelines.data_engineering.nodes import make_folds
from churn_pipeline.pipelines.data_engineering.splitting import SplitSettings
from churn_pipeline.pipelines.modelling.nodes import ChoiceSettings, choose, compare, fit, prepare, search

TABLES = ("telco", "mlc_churn", "iranian")
WORK = ROOT / "build" / "quality"
LOCKS = Path(__file__).parent / "contenders"
# Environment and time budget in seconds per fold of each peer.
PEERS = {
    "logistic": ("scikit-learn", 60),
    "untuned_boosting": ("scikit-learn", 60),
    "flaml": ("flaml", 60),
    "autogluon": ("autogluon", 150),
}


def outer_folds(features: pd.DataFrame, label: np.ndarray) -> dict[str, list[np.ndarray]]:
    """Masks of the training rows per fold, by kind of folds; a table without identical rows has no grouped folds."""

    def masks(splits: Iterator[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
        return [np.isin(np.arange(len(label)), train) for train, _ in splits]

    groups = features.groupby(list(features), sort=False, dropna=False).ngroup().to_numpy()
    plain = masks(StratifiedKFold(5, shuffle=True, random_state=0).split(features, label))
    if len(np.unique(groups)) == len(groups):
        return {"plain": plain}
    grouped = StratifiedGroupKFold(5, shuffle=True, random_state=0).split(features, label, groups)
    return {"plain": plain, "grouped": masks(grouped)}


def environment(name: str) -> Path:
    """The Python of a peer's environment, which is created from its hashed lock on first use."""
    folder, lock = WORK / "environments" / name, LOCKS / f"{name}.txt"
    python = folder / "bin" / "python"
    if not python.exists():
        uv = Path(sys.executable).parent / "uv"
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
        subprocess.run([uv, "pip", "sync", "--quiet", "--python", python, "--require-hashes", lock], check=True)
    return python


def peer(name: str, folder: Path, fold: Path, out: Path) -> None:
    """Run one peer on one fold, in a separate process."""
    lock, seconds = PEERS[name]
    command = [environment(lock), LOCKS / "contend.py", name, "--folder", folder, "--fold", fold]
    log = out.with_suffix(".log")
    with log.open("w", encoding="utf-8") as stream:
        subprocess.run(
            [*command, "--seconds", str(seconds), "--out", out],
            check=True,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONWARNINGS": "ignore"},
        )


class Training:
    """The complete training of this project on one table, as in `kedro run --pipelines training`."""

    def __init__(self, table: str) -> None:
        with project(table=table) as context:
            self.contract: Contract = context.catalog.load("contract")
            self.customers = validate_table(context.catalog.load("raw_customers"), self.contract).customers
            params = context.params
        self.seed: int = params["seed"]
        self.candidates = {
            name: Candidate.model_validate(block) for name, block in params["candidates"].items() if block
        }
        self.split = SplitSettings.model_validate(params["split"])
        self.search = SearchSettings.model_validate(params["search"])
        self.choice = ChoiceSettings.model_validate(params["choice"])
        self.features = model_inputs(self.customers, self.contract)
        self.label = churned(self.customers, self.contract)
        identity = identify_customers(self.customers, self.contract, self.split.identical_rows)
        self.groups = pd.DataFrame({"customer": identity.groups})

    def run(self, training: np.ndarray) -> tuple[dict[str, np.ndarray], Any]:
        """Train on some rows and predict the others.

        Returns
        -------
        probabilities : dict of numpy.ndarray
            Churn probabilities of the other rows: of each candidate and, as ``ours``, of the chosen model.
        choice
            Why that model was chosen.
        """
        inputs = self.features[training].reset_index(drop=True)
        label = self.label[training].reset_index(drop=True).to_frame()
        customers = self.customers[training].reset_index(drop=True)
        groups = self.groups[training].reset_index(drop=True)
        folds = make_folds(customers, label, groups, self.contract, self.split, self.seed)
        task = prepare(inputs, label, folds, self.contract, self.seed, groups)
        found = {
            name: search(task, candidate, self.search, UnstoredStudies(name))
            for name, candidate in self.candidates.items()
        }
        models = {name: fit(inputs, label, best, self.contract, self.seed, groups) for name, (_, best) in found.items()}
        _, choice = compare(self.choice, **{name: predictions for name, (predictions, _) in found.items()})
        models["ours"] = choose(choice, **models)
        test = self.features[~training]
        return {name: model.predict_proba(test)[:, 1] for name, model in models.items()}, choice


def ours(training: Training, fold: Path, out: Path) -> None:
    """Run the complete training on one fold."""
    begin = time.perf_counter()
    probabilities, choice = training.run(np.loadtxt(fold, dtype="int64").astype(bool))
    seconds = time.perf_counter() - begin
    candidates = {name: p.tolist() for name, p in probabilities.items()}
    result = {
        "seconds": round(seconds, 2),
        "probability": candidates.pop("ours"),
        "candidates": candidates,
        "rule": choice,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result), encoding="utf-8")


def measure(table: str, contenders: Sequence[str], again: Sequence[str]) -> None:
    """Measure what is still missing from build/quality for one table, and repeat the contenders in `again`."""
    training, folder = Training(table), WORK / table
    folder.mkdir(parents=True, exist_ok=True)
    training.features.to_csv(folder / "features.csv", index=False)
    kinds = {name: "category" if name in training.contract.categorical else "float64" for name in training.features}
    (folder / "kinds.json").write_text(json.dumps(kinds), encoding="utf-8")
    np.savetxt(folder / "churned.csv", training.label.to_numpy(), fmt="%d")
    for kind, masks in outer_folds(training.features, training.label.to_numpy()).items():
        for number, mask in enumerate(masks, start=1):
            fold = folder / f"{kind}-{number}.csv"
            np.savetxt(fold, mask.astype("int64"), fmt="%d")
            for name in contenders:
                out = folder / name / f"{kind}-{number}.json"
                if out.exists() and name not in again:
                    continue
                out.parent.mkdir(parents=True, exist_ok=True)
                print(f"{table}, {kind} fold {number} of {len(masks)}: {name}", flush=True)
                ours(training, fold, out) if name == "ours" else peer(name, folder, fold, out)


def scores(table: str) -> pd.DataFrame:
    """AUC, log loss and seconds of every contender and every candidate of ours, per fold."""
    folder, rows = WORK / table, []
    label = np.loadtxt(folder / "churned.csv", dtype="int64")
    for file in sorted(folder.glob("*/*.json")):
        kind, fold = file.stem.split("-")
        y = label[np.loadtxt(folder / f"{file.stem}.csv", dtype="int64") == 0]
        measured = json.loads(file.read_text(encoding="utf-8"))
        probabilities = {file.parent.name: measured["probability"]}
        probabilities |= {f"our {name}": p for name, p in measured.get("candidates", {}).items()}
        for name, p in probabilities.items():
            metrics = {metric: METRICS[metric](y, np.array(p)) for metric in ("auc", "log_loss")}
            seconds = measured["seconds"] if name == file.parent.name else np.nan
            rows.append({"folds": kind, "contender": name, "fold": fold, **metrics, "seconds": seconds})
    return pd.DataFrame(rows)


def compare_contenders(table: str) -> pd.DataFrame:
    """Means over folds, and by how much our log loss is lower, with the standard error of paired fold differences."""
    rows = []
    for kind, part in scores(table).groupby("folds", sort=False):
        wide = part.pivot_table(index="fold", columns="contender", values="log_loss")
        for name, results in part.groupby("contender", sort=False):
            gain = (wide[name] - wide["ours"]).dropna() if "ours" in wide else pd.Series(dtype=float)
            error = gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else np.nan
            shown = "" if name == "ours" or not len(gain) else f"{gain.mean():+.4f} ± {error:.4f}"
            seconds = results["seconds"].mean()
            rows.append(
                {
                    "table": table,
                    "folds": kind,
                    "contender": name,
                    "AUC": f"{results['auc'].mean():.4f}",
                    "log loss": f"{results['log_loss'].mean():.4f}",
                    "our log loss is lower by": shown,
                    "seconds a fold": "" if np.isnan(seconds) else f"{seconds:.1f}",
                }
            )
    return pd.DataFrame(rows).sort_values(["folds", "log loss"], ascending=[False, True], kind="stable")


def main(tables: Sequence[str], contenders: Sequence[str], again: Sequence[str]) -> None:
    for table in tables:
        measure(table, contenders, again)
    measured_tables = [table for table in TABLES if (WORK / table / "churned.csv").exists()]
    how = (
        "Five outer folds of each table (`StratifiedKFold(5, shuffle=True, random_state=0)`). In the grouped variant "
        "(`StratifiedGroupKFold`) identical rows stay in the same fold; a table without identical rows has no grouped variant. "
        "`ours` runs the complete training in each outer fold: search, comparison on inner folds, calibration, choice, fit. Rows "
        "named `our …` are single candidates, each tuned separately. `untuned_boosting` is `HistGradientBoostingClassifier()`; "
        "`flaml` and `autogluon` (`best_quality`) optimise log loss on both cores. All contenders get the same columns: the "
        "features of the table's contract, without protected columns. The column `our log loss is lower by` shows the "
        "mean paired difference over the folds ± its standard error; a positive value means that ours is better. Made by "
        "`make benchmark-quality`."
    )
    write(
        "quality",
        "Model quality compared with other tools (nested cross-validation)",
        how,
        pd.concat(map(compare_contenders, measured_tables)),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", default=",".join(TABLES))
    parser.add_argument("--contenders", default=",".join([*PEERS, "ours"]))
    parser.add_argument("--again", default="", help="contenders to measure again, such as 'ours'")
    arguments = parser.parse_args()
    again = [name for name in arguments.again.split(",") if name]
    main(arguments.tables.split(","), arguments.contenders.split(","), again)
