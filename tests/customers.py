"""A small fictitious customer table and its contract for tests: columns of every type, with every kind of check."""

import random
import string
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from churn_pipeline.contract.table import Contract

REGIONS = ["north", "south", "east side"]


def table_file(dated: bool = False, **changes: Any) -> dict[str, Any]:
    """The content of a table file; `changes` replace its top-level keys."""
    columns: dict[str, Any] = {
        "customer": {"dtype": "str"},
        "age": {"dtype": "int64", "in_range": {"min_value": 18, "max_value": 99}},
        "region": {"dtype": "str", "nullable": True, "isin": list(REGIONS)},
        "months": {"dtype": "int64", "greater_than_or_equal_to": 0, "less_than": 600},
        "charge": {"dtype": "float64", "in_range": {"min_value": 0, "max_value": 1000}},
        "total": {"dtype": "float64", "nullable": True, "default": 0, "greater_than_or_equal_to": 0},
        "calls": {"dtype": "int64", "nullable": True, "less_than_or_equal_to": 50},
        "plan": {"dtype": "str", "str_matches": "^[A-Z]{2}$", "str_length": {"max_value": 2}},
        "lines": {"dtype": "int64", "isin": [1, 2, 3]},
        "paperless": {"dtype": "bool"},
        "churn": {"dtype": "str", "isin": ["No", "Yes"]},
    }
    roles: dict[str, Any] = {
        "id": "customer",
        "target": {"column": "churn", "positive": "Yes"},
        "protected": ["age"],
    }
    if dated:
        columns = {"seen": {"dtype": "datetime64[ns]"}, **columns}
        roles["date"] = "seen"
    label = {"meaning": "The customer left.", **({"horizon": "30 days"} if dated else {})}
    return {"label": label, "roles": roles, "columns": columns, **changes}


def make_contract(dated: bool = False, **changes: Any) -> Contract:
    """The table file's contract."""
    return Contract.parse(table_file(dated, **changes), "customers")


def raw_customers(rows: int, seed: int = 0, dated: bool = False) -> pd.DataFrame:
    """Valid raw rows as read from a CSV file, with text in every cell."""
    rng = np.random.default_rng(seed)
    table = {
        "customer": [f"C-{number:05d}" for number in range(rows)],
        "age": rng.integers(18, 100, rows).astype(str),
        "region": rng.choice([*REGIONS, " "], rows),
        "months": rng.integers(0, 600, rows).astype(str),
        "charge": [repr(float(value)) for value in rng.uniform(0, 1000, rows)],
        "total": np.where(rng.random(rows) < 0.2, "", rng.integers(0, 10_000, rows).astype(str)),
        "calls": np.where(rng.random(rows) < 0.2, "", rng.integers(0, 51, rows).astype(str)),
        "plan": rng.choice(["AA", "QX", "ZZ"], rows),
        "lines": rng.choice(["1", "2", "3"], rows),
        "paperless": rng.choice(["true", "False", "yes", "0"], rows),
        "churn": rng.choice(["No", "Yes"], rows, p=[0.7, 0.3]),
    }
    if dated:
        days = pd.Timestamp("2025-01-01") + pd.to_timedelta(rng.integers(0, 400, rows), unit="D")
        table = {"seen": days.strftime("%Y-%m-%d"), **table}
    return pd.DataFrame(table).astype(object)


def invented_table(rng: random.Random, folder: Path, rows: int = 1_500) -> Path:
    """A table with random names, types and levels and without an id; some of its columns are related to churn."""

    def name() -> str:
        return "".join(rng.choices(string.ascii_letters + " äß/%", k=rng.randint(3, 12))).strip() or "column"

    generator = np.random.default_rng(rng.randrange(2**32))
    risk = generator.normal(size=rows)
    table: dict[str, object] = {}
    for _ in range(rng.randint(2, 4)):
        table[name()] = np.round(risk * rng.uniform(0.2, 1) + generator.normal(size=rows), 2)
    for _ in range(rng.randint(1, 3)):
        table[name()] = np.clip(np.round(10 + 3 * risk + 4 * generator.normal(size=rows)), 0, None).astype(int)
    for _ in range(rng.randint(1, 4)):
        levels = [name() for _ in range(rng.randint(2, 9))]
        table[name()] = generator.choice(levels, size=rows)
    table[name()] = generator.random(rows) < 0.5
    table["Has left?"] = np.where(generator.random(rows) < 1 / (1 + np.exp(1.2 - 1.5 * risk)), "gone", "here")
    frame = pd.DataFrame(table)
    blank = frame.columns[0]
    frame.loc[generator.random(rows) < 0.05, blank] = np.nan
    frame.to_csv(folder / "invented.csv", index=False, sep=rng.choice([",", ";"]))
    return folder / "invented.csv"
