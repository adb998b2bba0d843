"""The whole training inside five outer folds of a table: `make benchmark-folds TABLE=telco`.

Inside each outer fold, candidates are compared on inner folds of its training rows, one is chosen and fitted on them, and
judged on the rows that no part of it has seen.
"""

import argparse
import time

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedKFold

from benchmarks.common import project, write
from churn_pipeline.contract.cells import churned, model_inputs
from churn_pipeline.contract.quarantine import hold
from churn_pipeline.judgement.metrics import METRICS
from churn_pipeline.modelling.candidates import Candidate
from churn_pipeline.modelling.search import ForgetfulStudies, SearchSettings
from churn_pipeline.pipelines.data_engineering.nodes import make_folds
from churn_pipeline.pipelines.data_engineering.splitting import SplitSettings
from churn_pipeline.pipelines.modelling.nodes import ChoiceSettings, choose, compare, fit, search


def main(table: str) -> None:
    with project(table=table) as context:
        contract = context.catalog.load("contract")
        customers = hold(context.catalog.load("raw_customers"), contract).customers
        params = context.params
    candidates = {name: Candidate.model_validate(block) for name, block in params["candidates"].items()}
    split = SplitSettings.model_validate(params["split"])
    settings = SearchSettings.model_validate(params["search"])
    choice_settings = ChoiceSettings.model_validate(params["choice"])
    features, label = model_inputs(customers, contract), churned(customers, contract)
    rows = []
    outer = StratifiedKFold(5, shuffle=True, random_state=0)
    for number, (train, test) in enumerate(outer.split(features, label), start=1):
        begin = time.perf_counter()
        part = customers.iloc[train].reset_index(drop=True)
        inputs, churn = features.iloc[train].reset_index(drop=True), label.iloc[train].reset_index(drop=True).to_frame()
        folds = make_folds(part, churn, contract, split, params["seed"])
        found = {
            name: search(inputs, churn, folds, candidate, contract, params["seed"], settings, ForgetfulStudies(name))
            for name, candidate in candidates.items()
        }
        models = {name: fit(inputs, churn, best, contract, params["seed"]) for name, (_, best, _) in found.items()}
        _, choice = compare(choice_settings, **{name: predictions for name, (predictions, *_) in found.items()})
        seconds = time.perf_counter() - begin
        y = label.iloc[test].to_numpy()
        for name, model in {**models, "chosen": choose(choice, **models)}.items():
            p = model.predict_proba(features.iloc[test])[:, 1]
            scores = {metric: METRICS[metric](y, p) for metric in ("auc", "log_loss", "brier", "calibration_error")}
            rows.append({"fold": number, "model": name, **scores, "seconds": seconds if name == "chosen" else np.nan})
    scored = pd.DataFrame(rows)
    means = scored.drop(columns="fold").groupby("model", sort=False).mean()
    spread = scored.groupby("model", sort=False)["log_loss"].std(ddof=1) / np.sqrt(5)
    shown = (
        means.round(4).assign(log_loss_se=spread.round(4), seconds=means["seconds"].round(1).fillna("")).reset_index()
    )
    how = (
        f"Five outer folds of `{table}` ({len(customers):,} rows; `StratifiedKFold(5, shuffle=True, random_state=0)`), means over "
        "folds. `chosen` is the whole training: inner folds, comparison, choice and fit on the outer fold's training rows; "
        f"its seconds are for one outer fold with all {len(candidates)} candidates. Made by `make benchmark-folds TABLE={table}`."
    )
    write(f"outer_folds_{table}", f"Outer folds: {table}", how, shown)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", default="simulated")
    main(parser.parse_args().table)
