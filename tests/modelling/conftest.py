"""Small tables with the difficulties of real customer tables, and the shipped candidates."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import yaml

from churn_pipeline.modelling.candidates import Candidate, CandidatePipeline, build_candidate
from churn_pipeline.modelling.early_stopping import stops_early, with_trees

CONF = Path(__file__).parents[2] / "conf" / "base" / "parameters_modelling.yml"
SHIPPED: dict[str, dict[str, Any]] = yaml.safe_load(CONF.read_text(encoding="utf-8"))["candidates"]
# Fewer trees than shipped, to keep tests fast.
FOREST_TREES, BOOSTING_TREES = 30, 60


def without_stopping(block: dict[str, Any]) -> Candidate:
    """A configured candidate with few trees and without a space: it is fitted without validation rows."""
    candidate = Candidate.model_validate({**block, "space": None, "starts": []})
    if stops_early(candidate):
        return with_trees(candidate, BOOSTING_TREES)
    if candidate.class_path.endswith("ForestClassifier"):
        return candidate.with_values({"arguments.n_estimators": FOREST_TREES})
    return candidate


# The shipped candidates as tests fit them.
FITTABLE: dict[str, Candidate] = {name: without_stopping(block) for name, block in SHIPPED.items()}


class Customers(NamedTuple):
    """A table, its labels, and its columns by type."""

    X: pd.DataFrame
    y: npt.NDArray[np.int64]
    numeric: list[str]
    categorical: list[str]


@cache
def make_customers(kind: str) -> Customers:
    rng = np.random.default_rng(7)
    n = 600
    months = rng.integers(0, 73, n).astype(float)
    charge = np.round(rng.uniform(18, 120, n), 2)
    contract = rng.choice(["Month-to-month", "One year", "Two year"], n, p=[0.6, 0.25, 0.15])
    y = (rng.random(n) < 1 / (1 + np.exp(0.06 * months - 0.02 * charge - (contract == "Month-to-month")))).astype(int)
    numeric: dict[str, Any] = {
        "months": months,
        "monthly charge": charge,
        "total  charge": np.where(rng.random(n) < 0.1, np.nan, np.round(months * charge, 2)),
        "always 3": np.full(n, 3.0),
        "never known": np.full(n, np.nan),
        "mostly 0": np.where(rng.random(n) < 0.9, 0.0, rng.gamma(2.0, 10.0, n)),
        "large": rng.normal(1e9, 1e3, n),
    }
    categorical: dict[str, Any] = {
        "contract": contract,
        "paper": rng.choice(["Yes", "No", ""], n),
        "town": [f"town {index}" for index in rng.integers(0, 200, n)],
        "only one": ["the same"] * n,
        "rare": rng.choice(["often", "seldom", "once in a while é"], n, p=[0.98, 0.01, 0.01]),
    }
    if kind == "numeric":
        categorical = {}
    if kind == "categorical":
        numeric = {}
    X = pd.DataFrame({**numeric, **{name: np.array(values, dtype=object) for name, values in categorical.items()}})
    return Customers(X, y, list(numeric), list(categorical))


@pytest.fixture
def customers() -> Callable[[str], Customers]:
    """Make a table: ``mixed``, ``numeric`` or ``categorical``."""
    return lambda kind="mixed": make_customers(kind)._replace(X=make_customers(kind).X.copy())


@cache
def fit_shipped(name: str, kind: str) -> CandidatePipeline:
    made = make_customers(kind)
    return build_candidate(FITTABLE[name], made.numeric, made.categorical, seed=1).fit(made.X, made.y)


@pytest.fixture
def fitted() -> Callable[[str, str], CandidatePipeline]:
    """Fit a shipped candidate on a table, once for all tests."""
    return fit_shipped


@pytest.fixture(params=list(SHIPPED))
def shipped(request: pytest.FixtureRequest) -> str:
    """The name of a shipped candidate."""
    name: str = request.param
    return name


@pytest.fixture(params=["mixed", "numeric", "categorical"])
def kind(request: pytest.FixtureRequest) -> str:
    """A kind of table."""
    kind: str = request.param
    return kind
