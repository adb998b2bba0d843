"""How rows are split: who is one customer, what is left for training, folds, the horizon and early stopping."""

import time
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from kedro.io import DatasetError
from sklearn.model_selection import StratifiedGroupKFold

from benchmarks.common import project
from benchmarks.evaluation.split_tables import CHURN, copied, correlated, customers, panel, returning
from churn_pipeline.contract.cells import churned
from churn_pipeline.contract.table import Contract
from churn_pipeline.contract.validation import validate_table
from churn_pipeline.evaluation.intervals import t_margin
from churn_pipeline.evaluation.metrics import log_loss
from churn_pipeline.modelling.candidates import Candidate, build_candidate
from churn_pipeline.modelling.cross_validation import Task, validate_fold
from churn_pipeline.modelling.early_stopping import trees_for_all_rows, with_trees
from churn_pipeline.pipelines.data_engineering.identity import identify_customers
from churn_pipeline.pipelines.data_engineering.nodes import split_customers
from churn_pipeline.pipelines.data_engineering.splitting import (
    FOLD_VALIDATE,
    HOLDOUT,
    TRAIN,
    SplitSettings,
    folds,
    sides,
)

TITLE = "Splits"
SETTINGS = SplitSettings(holdout_share=0.2, holdout_latest=0.25, folds=5)
SEEDS = range(5)
# Measured at commit 5006d34 on the same tables.
BEFORE = {
    "ids": {4: ("0.2 %", "9.1 to 19.2 %"), 6: ("6.2 %", "10.7 to 13.9 %"), 8: ("28.0 %", "11.2 to 13.0 %")},
    "panel": {
        6: ("99 %", "stopped: one class only"),
        8: ("81 %", "47, 45, 1197, 69, 45"),
        10: ("1 %", "283, 304, 353, 308, 327"),
    },
    "no id": {4: "28.0 to 29.1 %", 6: "20.4 to 21.5 %"},
    "horizon": "2025-08-31",
    "tables": {
        "simulated": ("6,449", "1,549", "2", "1291, 1289, 1291, 1289, 1289"),
        "simulated_monthly": ("27,068", "3,137", "23,247", "775, 752, 729, 698, 704"),
        "telco": ("5,591", "1,419", "33", "1117, 1120, 1119, 1120, 1115"),
        "iranian": ("2,512", "638", "0", "512, 505, 508, 475, 512"),
        "mlc_churn": ("4,041", "959", "0", "809, 808, 808, 808, 808"),
    },
}


def measure() -> str:
    """Measure each part of the split; the figures before are constants."""
    parts = (_distinct_ids, _panel, _no_id, _chance, _horizon, _early_stopping, _tables, _speed)
    return "\n\n".join(part() for part in parts)


def _contract(features: Iterable[str], dated: bool = False, with_id: bool = True, horizon: str = "1 month") -> Contract:
    columns: dict[str, Any] = {name: {"dtype": "str"} for name in features} | {"churn": {"dtype": "int64"}}
    roles: dict[str, Any] = {"target": {"column": "churn", "positive": 1}}
    if with_id:
        columns["id"], roles["id"] = {"dtype": "str"}, "id"
    if dated:
        columns["day"], roles["date"] = {"dtype": "datetime64[ns]"}, "day"
    label = {"meaning": "left", "horizon": horizon}
    return Contract.parse({"columns": columns, "roles": roles, "label": label}, "measured")


def _features(table: pd.DataFrame) -> list[str]:
    return [name for name in table if name not in ("id", "day", "churn")]


def _side(table: pd.DataFrame, contract: Contract) -> pd.Series:
    return sides(table, identify_customers(table, contract), contract, SETTINGS)


def _range(shares: Sequence[float]) -> str:
    return f"{100 * min(shares):.1f} to {100 * max(shares):.1f} %"


def _markdown(title: str, how: str, rows: Iterable[Sequence[object]], header: Sequence[str]) -> str:
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in (header, *rows)]
    lines.insert(1, "|" + "---|" * len(header))
    return "\n".join([f"### {title}", "", how, "", *lines])


def _distinct_ids() -> str:
    rows = []
    for features, (share, churn) in BEFORE["ids"].items():
        shares, churns = [], []
        for seed in SEEDS:
            table = customers(8000, features, seed)
            train = _side(table, _contract(_features(table))) == TRAIN
            shares.append(float(train.mean()))
            churns.append(float(table["churn"][train].mean()))
        rows.append((features, share, f"{100 * np.mean(shares):.1f} %", churn, _range(churns)))
    how = "8,000 customers with distinct ids and three-level features (60, 30 and 10 %), 12 % churn, five seeds."
    header = ("features", "rows left for training, before", "after", "their churn, before", "after")
    return _markdown("Different customers with matching features", how, rows, header)


def _panel() -> str:
    rows = []
    for features, (group, validates) in BEFORE["panel"].items():
        table = panel(2000, features, seed=0)
        contract = _contract(_features(table), dated=True)
        train, _, _, groups, _, _ = split_customers(table, contract, SETTINGS)
        numbers = groups["customer"].to_numpy()
        made = folds(train, train["churn"], numbers, contract, SETTINGS, seed=0)
        largest = 100 * np.bincount(numbers).max() / len(numbers)
        after = ", ".join(map(str, (made == FOLD_VALIDATE).sum()))
        rows.append((features, group, f"{largest:.2f} %", validates, after))
    how = (
        "2,000 customers at twelve month-ends; each three-level feature is drawn anew in one month of ten. "
        "The largest group is the share of training rows that have to stay together."
    )
    header = ("features", "largest group, before", "after", "validation rows by fold, before", "after")
    return _markdown("A panel of twelve months", how, rows, header)


def _no_id() -> str:
    rows = []
    for features, before in BEFORE["no id"].items():
        tables = [customers(8000, features, seed).drop(columns="id") for seed in SEEDS]
        contract = _contract(_features(tables[0]), with_id=False)
        rows.append((features, before, _range([float((_side(table, contract) == HOLDOUT).mean()) for table in tables])))
    how = "The tables above without their ids, five seeds. `split.holdout_share` is 20 %."
    return _markdown("Few values and no id", how, rows, ("features", "hold-out, before", "after"))


def _chance() -> str:
    made = {
        "independent features, 6 columns": [
            customers(8000, 6, seed).drop(columns=["id", "churn"]) for seed in range(20)
        ],
        "independent features, 12 columns": [
            customers(8000, 12, seed).drop(columns=["id", "churn"]) for seed in range(20)
        ],
        "correlated features, 6 columns": [correlated(8000, 6, seed) for seed in range(20)],
        "correlated features, 12 columns": [correlated(8000, 12, seed) for seed in range(20)],
        "10 % copies, 6 columns and one of 1,000 values": [copied(8000, 6, seed) for seed in range(20)],
    }
    rows = []
    for name, tables in made.items():
        right = "identical rows" if "copies" in name else "each row"
        reports = [identify_customers(table, _contract(table, with_id=False)).report for table in tables]
        rows.append(
            (name, *_mean_shares(reports), right, f"{sum(report['rule'] == right for report in reports)} of 20")
        )
    for name, table, contract in _shipped():
        ignored = (*contract.roles.ignored, *filter(None, [contract.roles.id]))
        roles = contract.roles.model_copy(update={"id": None, "ignored": ignored})
        report = identify_customers(table, contract.model_copy(update={"roles": roles})).report
        rows.append(
            (f"{name}{' without its id' if contract.roles.id else ''}", *_mean_shares([report]), report["rule"], "")
        )
    how = (
        "Without an id, identical rows are one customer if chance explains less than half of them. The share by chance is "
        "the share of rows with an identical row after one feature is shuffled, the lowest over all features. "
        "Made-up tables have 8,000 rows; means over 20 seeds."
    )
    header = ("table", "rows with an identical row", "by chance", "one customer is", "decided so")
    return _markdown("Which rows are one customer", how, rows, header)


def _mean_shares(reports: Sequence[dict[str, Any]]) -> Iterator[str]:
    for key in ("identical_share", "identical_share_by_chance"):
        yield f"{100 * np.mean([report[key] for report in reports]):.1f} %"


def _horizon() -> str:
    table = panel(2000, 8, seed=0)
    contract = _contract(_features(table), dated=True, horizon="3 months")
    side = _side(table, contract)
    last, begin = table["day"][side == TRAIN].max(), table["day"][side == HOLDOUT].min()
    rows = [
        ("last training row", BEFORE["horizon"], f"{last:%Y-%m-%d}"),
        ("first held-out row", *[f"{begin:%Y-%m-%d}"] * 2),
    ]
    how = (
        'A label "within three months" on the panel above. Before, the horizon in days was 0 unless it was set. Now a table '
        "with a date needs a horizon."
    )
    return _markdown("Horizon", how, rows, ("", "before", "after"))


def _early_stopping() -> str:
    new, label, _ = returning(5000, 1, seed=1000)
    rows = []
    for number in (1, 2, 4, 12):
        results = []
        for seed in range(10):
            features, churn, groups = returning(400, number, seed)
            results.append([_stopped(features, churn, at, new, label) for at in (None, groups)])
        trees, losses, seconds = np.moveaxis(np.array(results), 2, 0)
        gap = losses[:, 0] - losses[:, 1]
        margin = t_margin(float(gap.std(ddof=1) / np.sqrt(len(gap))), len(gap) - 1, 0.95)
        means = (*(f"{mean:.0f}" for mean in trees.mean(axis=0)), *(f"{mean:.3f}" for mean in losses.mean(axis=0)))
        longer = f"{seconds[:, 1].sum() / seconds[:, 0].sum():.1f}"
        rows.append(
            (number, *means, f"{gap.mean():.3f} ({gap.mean() - margin:.3f} to {gap.mean() + margin:.3f})", longer)
        )
    how = (
        "Histogram gradient boosting that stops on the validation rows of five folds, on 400 customers with several nearly "
        "equal rows and one label. Log loss on 5,000 other customers; mean of ten seeds, with a 95 % t interval of the paired "
        "difference. Before: folds of rows. After: folds of whole customers."
    )
    header = ("rows per customer", "trees, before", "after", "log loss, before", "after", "lower by", "times as long")
    return _markdown("Early stopping", how, rows, header)


def _stopped(features: pd.DataFrame, churn: pd.Series, groups: Any, new: pd.DataFrame, label: pd.Series) -> list[float]:
    """Trees, log loss on other customers, and processor seconds."""
    arguments = {
        "learning_rate": 0.05,
        "max_leaf_nodes": 8,
        "max_iter": 1000,
        "early_stopping": True,
        "n_iter_no_change": 30,
    }
    content = {"class": "sklearn.ensemble.HistGradientBoostingClassifier", "arguments": arguments}
    candidate = Candidate.model_validate(content)
    begin = time.process_time()
    splitter = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    parts = splitter.split(features, churn, np.arange(len(churn)) if groups is None else groups)
    every = np.arange(len(churn))
    masks = {str(k): (np.isin(every, train), np.isin(every, test)) for k, (train, test) in enumerate(parts)}
    task = Task(features, churn, masks, list(features), [], log_loss, seed=0)
    trees = trees_for_all_rows([int(validate_fold(task, candidate, fold)["trees"].iloc[0]) for fold in masks])
    fitted = build_candidate(with_trees(candidate, trees), list(features), [], seed=0).fit(features, churn)
    seconds = time.process_time() - begin
    loss = log_loss(label.to_numpy(), fitted.predict_proba(new)[:, 1])
    return [float(trees), loss, seconds]


@cache
def _shipped() -> list[tuple[str, pd.DataFrame, Contract]]:
    found = []
    for name in BEFORE["tables"]:
        with project(table=name) as context:
            contract = context.catalog.load("contract")
            try:
                raw = context.catalog.load("raw_customers")
            except DatasetError:
                continue
        found.append((name, validate_table(raw, contract).customers, contract))
    return found


def _tables() -> str:
    rows = []
    for name, table, contract in _shipped():
        train, holdout, aside, groups, _, report = split_customers(table, contract, SETTINGS)
        made = folds(train, churned(train, contract), groups["customer"].to_numpy(), contract, SETTINGS, seed=1)
        sizes = ", ".join(map(str, (made == FOLD_VALIDATE).sum()))
        rows.append((name, report["customers"]["rule"], "before", *BEFORE["tables"][name]))
        rows.append(("", "", "after", f"{len(train):,}", f"{len(holdout):,}", f"{len(aside):,}", sizes))
    how = "Rows of the shipped tables, with the shipped settings. Tables whose data is missing are left out."
    header = ("table", "one customer by", "", "training", "hold-out", "set aside", "validation rows by fold")
    return _markdown("Shipped tables", how, rows, header)


def _speed() -> str:
    rows = []
    for number in (10_000, 100_000):
        groups = np.repeat(np.arange(number), 2)
        churn = (np.random.default_rng(0).random(len(groups)) < CHURN).astype(int)
        begin = time.process_time()
        list(StratifiedGroupKFold(5, shuffle=True, random_state=0).split(churn, churn, groups))
        rows.append((f"{number:,}", f"{time.process_time() - begin:.1f}"))
    how = "Five folds by `StratifiedGroupKFold`, two rows per customer. Tables with one row per customer use `StratifiedKFold`."
    return _markdown("Time for grouped folds", how, rows, ("customers", "processor seconds"))
