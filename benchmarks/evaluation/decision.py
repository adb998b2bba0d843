"""The contact decision: a threshold for each customer's value against one threshold, and the served decision."""

import json
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.model_selection import StratifiedKFold

from benchmarks.common import ROOT, project
from churn_pipeline.contract.cells import churned, model_inputs
from churn_pipeline.contract.table import Contract
from churn_pipeline.costs import CostModel, DecisionRule, break_even, contact_profit, contacts
from churn_pipeline.datasets.registered_model import RegisteredVersion
from churn_pipeline.modelling.candidates import Candidate, build_candidate
from churn_pipeline.modelling.onnx_conversion import convert_model, model_digest
from churn_pipeline.pipelines.data_engineering.nodes import validate_customers
from churn_pipeline.pipelines.evaluation.training_profile import profile_training
from churn_pipeline.pipelines.packaging.nodes import PackagingSettings, check_equivalence, collect_content
from churn_pipeline.serving.app import Application
from churn_pipeline.serving.bundle import Bundle, load_bundle
from churn_pipeline.serving.metrics import Metrics
from churn_pipeline.serving.settings import Settings

TITLE = "The decision that is evaluated is the one that is served"
TABLES = ("simulated", "telco")
FOLDS, RESAMPLES, SEED = 5, 4_000, 1
CANDIDATE = {
    "class": "sklearn.linear_model.LogisticRegression",
    "arguments": {"C": 1.0, "max_iter": 1000},
    "numeric": "splines",
    "numeric_arguments": {"n_knots": 10, "degree": 3},
    "categorical_arguments": {"min_frequency": 20, "max_categories": 50},
}
# Profit per held-out customer in full training runs of commit 290186d: evaluated and served, their difference with its 95 %
# bootstrap interval, and the customers who got another decision.
BEFORE = {
    "simulated": "| simulated | 1,549 | 42.04 | 40.98 | 1.05 [−0.92, 3.05] | 163 |",
    "telco": "| telco | 1,419 | 42.65 | 41.10 | 1.55 [0.11, 3.01] | 111 |",
}
# Time of `Application.predict` at commit 5006d34 and after the change, alternating in two processes: the smallest of twenty
# 10 % quantiles, in µs, for 1 and for 100 customers of the tests' bundle.
LATENCY = "| 1 | 31.9 | 34.1 | 1.07 |\n| 100 | 543 | 567 | 1.04 |"


def measure() -> str:
    """Measure profit on both tables, and compare the service's decisions with the evaluated ones."""
    results = [_measure_table(table) for table in TABLES]
    return "\n".join(
        [
            "Before, the gate and the headline used each customer's break-even, and the service used one threshold. Profit per "
            "held-out customer in full training runs of commit 290186d, with paired bootstrap intervals of the difference:",
            "",
            "| table | customers | evaluated | served | difference | other decisions |",
            "|---|---|---|---|---|---|",
            *BEFORE.values(),
            "",
            f"The same comparison with more customers: out-of-fold probabilities of splines + logistic regression ({FOLDS} "
            f"folds, seed {SEED}), {RESAMPLES:,} paired resamples.",
            "",
            "| table | customers | own break-even | one threshold | difference | other decisions |",
            "|---|---|---|---|---|---|",
            *[result[0] for result in results],
            "",
            "After: a model of four folds is packaged, and its service answers the customers of the fifth as JSON. "
            "Profit per customer:",
            "",
            "| table | customers | evaluated | served | other decisions |",
            "|---|---|---|---|---|",
            *[result[1] for result in results],
            "",
            "Time of the scoring path (parse, score, decide, write JSON; without HTTP) in µs:",
            "",
            "| customers | before | after | ratio |",
            "|---|---|---|---|",
            LATENCY,
        ]
    )


def _measure_table(table: str) -> tuple[str, str]:
    with project(table=table) as context:
        contract, raw = context.catalog.load("contract"), context.catalog.load("raw_customers")
    customers, _, _ = validate_customers(raw, contract)
    costs, y = CostModel.model_validate(contract.costs), churned(customers, contract).to_numpy()
    features, values, p = model_inputs(customers, contract), costs.values(customers), np.empty(len(customers))
    splits = list(StratifiedKFold(FOLDS, shuffle=True, random_state=SEED).split(features, y))
    for train, test in splits:
        p[test] = _fit(contract, features.iloc[train], y[train]).predict_proba(features.iloc[test])[:, 1]
    own, one = contacts(p, values, costs), p >= break_even(values.mean(), costs)
    earned = contact_profit(y, values, costs)
    first = (
        f"| {table} | {y.size:,} | {(earned * own).mean():.2f} | {(earned * one).mean():.2f} "
        f"| {_difference(earned * own - earned * one)} | {(own != one).sum():,} |"
    )
    return first, _serve(table, contract, customers, *splits[0])


def _fit(contract: Contract, features: pd.DataFrame, y: npt.NDArray[np.int64]) -> Any:
    candidate = Candidate.model_validate(CANDIDATE)
    return build_candidate(candidate, contract.numeric, contract.categorical, seed=SEED).fit(features, y)


def _difference(paired: npt.NDArray[np.float64]) -> str:
    rng = np.random.default_rng(SEED)
    drawn = [paired[rng.integers(0, paired.size, paired.size)].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"{paired.mean():.2f} [{low:.2f}, {high:.2f}]".replace("-", "−")


def _serve(
    table: str,
    contract: Contract,
    customers: pd.DataFrame,
    train: npt.NDArray[np.intp],
    test: npt.NDArray[np.intp],
) -> str:
    """Package a model, send it the other customers, and compare its decisions with the evaluated ones."""
    costs, y = CostModel.model_validate(contract.costs), churned(customers, contract).to_numpy()
    features, held_out = model_inputs(customers, contract), customers.iloc[test].reset_index(drop=True)
    model = _fit(contract, features.iloc[train], y[train])
    scored = features.iloc[test].reset_index(drop=True)
    values = costs.values(held_out)
    with TemporaryDirectory() as folder:
        version = _version(contract, model, features.iloc[train], DecisionRule.of(costs, values))
        served = _answers(_package(version, contract, scored, held_out, Path(folder)), held_out)
    evaluated = contacts(model.predict_proba(scored)[:, 1], values, costs)
    earned = contact_profit(y[test], values, costs)
    profits = [float((earned * mask).mean()) for mask in (evaluated, served)]
    return f"| {table} | {test.size:,} | {profits[0]:.4f} | {profits[1]:.4f} | {(evaluated != served).sum()} |"


def _version(contract: Contract, model: Any, features: pd.DataFrame, rule: DecisionRule) -> RegisteredVersion:
    converted = convert_model(model, contract.numeric, contract.categorical)
    return RegisteredVersion(
        name=f"churn_{contract.name}",
        version="1",
        created=datetime(2026, 1, 1, tzinfo=UTC),
        model=model,
        documents={
            "model_card.md": "# Benchmark\n",
            "decision.json": rule.model_dump_json(),
            "training_profile.json": json.dumps(profile_training(model, features, contract)),
        },
        run_id="0" * 32,
        tags={"digest.contract": contract.digest(), "model_digest": model_digest(converted)},
        metrics={},
        files={"model.onnx": converted.SerializeToString(deterministic=True)},
    )


def _package(
    version: RegisteredVersion, contract: Contract, features: pd.DataFrame, customers: pd.DataFrame, folder: Path
) -> Bundle:
    converted = convert_model(version.model, contract.numeric, contract.categorical)
    settings = PackagingSettings(hard_rows=2_000)
    report = check_equivalence(version, converted, features, customers, contract, settings, SEED)
    lock = (ROOT / "requirements/serving.txt").read_text(encoding="utf-8")
    for name, content in collect_content(version, converted, contract, report, lock).files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    return load_bundle(folder / "bundle")


def _answers(bundle: Bundle, customers: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """The service's decisions on customers sent as JSON."""
    settings = Settings.from_environment({"CHURN_SERVING_AUTHENTICATION": "off"})
    application = Application(bundle, settings, Metrics())
    sent = customers.drop(columns=bundle.contract.roles.target.column).astype(object)
    rows = sent.where(sent.notna(), None).to_dict("records")
    decisions: list[str] = []
    for first in range(0, len(rows), 500):
        _, content = application.predict(json.dumps({"customers": rows[first : first + 500]}).encode(), "benchmark")
        decisions += [answer["decision"] for answer in json.loads(content)["predictions"]]
    return np.array(decisions) == "contact"
