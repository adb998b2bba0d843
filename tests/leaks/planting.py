"""Adds a feature of a zoo to a table, and says what the leak check finds about it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from churn_pipeline.contract.cells import churned, model_inputs
from churn_pipeline.contract.schema import read_contract
from churn_pipeline.contract.validation import validate_table
from churn_pipeline.leaks import LeakFinding, LeakSettings, find_leaks

ROOT = Path(__file__).parents[2]
TABLES = {
    "telco": "telco/WA_Fn-UseC_-Telco-Customer-Churn.csv",
    "iranian": "iranian/Customer_Churn.csv",
    "mlc_churn": "mlc_churn/mlc_churn.csv",
}
Table = tuple[pd.DataFrame, np.ndarray]


def read_table(name: str, file: Path) -> Table:
    """Features and label of a table's valid rows."""
    contract = read_contract(ROOT / "conf" / "base" / "tables" / f"{name}.yml")
    raw = pd.read_csv(file, dtype=str, keep_default_na=False)
    customers = validate_table(raw, contract).customers
    return model_inputs(customers, contract), churned(customers, contract).to_numpy()


def simulated() -> Table:
    """The simulated table that the repository contains."""
    return read_table("simulated", ROOT / "data" / "01_raw" / "simulated_customers.csv")


def public(folder: str) -> Iterator[tuple[str, Table]]:
    """The public tables in a folder, by name."""
    for name, file in TABLES.items():
        yield name, read_table(name, Path(folder) / file)


def findings(table: Table, plant: Any, seed: int = 1) -> list[LeakFinding]:
    """What the check finds about the columns that ``plant`` adds to the table."""
    features, label = table
    planted = plant(features, label, np.random.default_rng(seed))
    columns = planted.to_frame("planted") if isinstance(planted, pd.Series) else planted
    added = {name: _model_input(columns[name]).to_numpy() for name in columns}
    report = find_leaks(features.assign(**added), label, LeakSettings(), seed)
    return [finding for finding in report.findings if set(finding.columns) & set(added)]


def tier(found: list[LeakFinding]) -> Literal["stop", "warn", "none"]:
    """The highest tier of the findings."""
    tiers = {finding.tier for finding in found}
    return "stop" if "stop" in tiers else "warn" if tiers else "none"


def _model_input(cells: pd.Series) -> pd.Series:
    if cells.dtype.kind in "biuf":
        return cells.astype("float64")
    return cells.astype(object).where(cells.notna(), "").map(str)
