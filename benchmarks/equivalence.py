"""Equivalence, size and speed of every candidate's ONNX model: `make benchmark-equivalence`."""

import importlib.util
import re
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import yaml

from benchmarks.common import ROOT, write
from benchmarks.quality.tables import Rows, read
from churn_pipeline.modelling.candidates import Candidate, build_candidate
from churn_pipeline.modelling.early_stopping import stops_early, with_trees
from churn_pipeline.modelling.hard_rows import hard_rows
from churn_pipeline.modelling.onnx_conversion import convert_model, model_inputs
from churn_pipeline.pipelines.packaging.equivalence import Predictors
from churn_pipeline.serving.bundle import open_session

TABLES = ("telco", "mlc_churn", "iranian")
PAGE = ROOT / "docs" / "how_to" / "own_candidate.md"
PARAMETERS = ROOT / "conf" / "base" / "parameters_modelling.yml"
HARD_ROWS, BATCH, CALLS, TREES = 20_000, 1_000, 100, 500


def candidates() -> Iterator[tuple[str, Candidate]]:
    """The default candidates, and those on the page about own candidates whose packages are installed."""
    found = dict(yaml.safe_load(PARAMETERS.read_text(encoding="utf-8"))["candidates"])
    for block in re.findall(r"```yaml\n(candidates:\n.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL):
        found |= {name: block for name, block in yaml.safe_load(block)["candidates"].items() if block}
    for name, block in found.items():
        if name != "torch_network" or importlib.util.find_spec("torch"):
            candidate = Candidate.model_validate(block)
            yield name, with_trees(candidate, TREES) if stops_early(candidate) else candidate


def measure(name: str, candidate: Candidate, table: str, rows: Rows) -> dict[str, Any]:
    """Fit a candidate on four fifths of a table's rows, convert it, and compare on the others and on hard rows."""
    contract, test = rows.contract, np.arange(len(rows.label)) % 5 == 0
    features, y = rows.features, rows.label
    columns = (tuple(contract.numeric), tuple(contract.categorical))
    model = build_candidate(candidate, *columns, seed=0)
    begin = time.perf_counter()
    model.fit(features[~test], y[~test], groups=rows.groups[~test])
    seconds = time.perf_counter() - begin
    converted = convert_model(model, *columns).SerializeToString(deterministic=True)
    predictors = Predictors(model, open_session(converted), *columns, tolerance=1e-6)
    made_up = hard_rows(features[test], model, *columns, np.random.default_rng(0), limit=HARD_ROWS)
    largest = [
        max(compared.difference.max() for _, compared in predictors.compare(given, np.full(len(given), 0.5)))
        for given in (features[test], made_up)
    ]
    some = features.sample(BATCH, replace=True, random_state=0)
    one = _median_seconds(predictors, some.iloc[:1])
    return {
        "table": table,
        "candidate": name,
        "held-out rows": f"{largest[0]:.1e}",
        "hard rows": f"{largest[1]:.1e}",
        "seconds to fit": f"{seconds:.1f}",
        "MB": f"{len(converted) / 1e6:.2f}",
        "µs, one row": f"{1e6 * one:.0f}",
        "µs per row of 1,000": f"{1e6 * _median_seconds(predictors, some) / BATCH:.2f}",
    }


def _median_seconds(predictors: Predictors, rows: pd.DataFrame) -> float:
    inputs = model_inputs(rows, predictors.numeric, predictors.categorical)
    taken = []
    for _ in range(CALLS):
        begin = time.perf_counter()
        predictors.session.run(None, inputs)
        taken.append(time.perf_counter() - begin)
    return float(np.median(taken))


def main() -> None:
    results = []
    for table in TABLES:
        rows = read(table)
        results += [measure(name, candidate, table, rows) for name, candidate in candidates()]
    how = (
        "The largest difference in churn probability between the trained model and its ONNX model, on a fifth of the rows that was "
        f"not trained on, and on {HARD_ROWS:,} rows that are hard to convert; together and one at a time. Packaging tolerates "
        f"1e-6. Each candidate has its configured arguments, and boosting has {TREES} trees. "
        "Times are medians on one core. The PyTorch network is measured if PyTorch is installed. Made by "
        "`make benchmark-equivalence`."
    )
    write("equivalence", "Every candidate's compiled model", how, pd.DataFrame(results))


if __name__ == "__main__":
    main()
