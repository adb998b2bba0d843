"""Run contenders, each in its own environment and process, and store their scores."""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.common import ROOT
from benchmarks.quality import records
from benchmarks.quality.tables import WORK, Fold, TableSet, export
from churn_pipeline.evaluation.metrics import METRICS

SAMPLE_SECONDS = 0.5
LOCKS = ROOT / "benchmarks" / "contenders"


@dataclass(frozen=True)
class Peer:
    """A function of contend.py, its environment, and its time budget in seconds per fold, if it has one."""

    function: str
    environment: str
    seconds: int | None = None


PEERS = {
    "logistic": Peer("logistic", "scikit-learn"),
    "untuned_boosting": Peer("untuned_boosting", "scikit-learn"),
    "catboost": Peer("catboost", "boosters"),
    "lightgbm_bagged": Peer("lightgbm_bagged", "boosters"),
    "xgboost": Peer("xgboost", "boosters"),
    "flaml": Peer("flaml", "flaml", 60),
    "flaml_ensemble": Peer("flaml_ensemble", "flaml", 60),
    "autogluon_150": Peer("autogluon", "autogluon", 150),
    "autogluon_600": Peer("autogluon", "autogluon", 600),
}
# Runtime parameters of ours, by contender.
OURS: dict[str, dict[str, Any]] = {
    "ours": {},
    "ours_minute": {"search": {"seconds": 125}},
    "ours_catboost": {
        "candidates": {
            "catboost": {
                "class": "catboost.CatBoostClassifier",
                "arguments": {"iterations": 5000, "early_stopping_rounds": 50, "learning_rate": 0.05},
                "categorical_arguments": {"min_frequency": 20, "max_categories": 50},
            }
        }
    },
}
CONTENDERS = (*OURS, *PEERS)


class ContenderError(Exception):
    """A contender ended with an error."""


def environment(name: str) -> Path:
    """The Python of a peer's environment, which is created from its hashed lock on first use."""
    lock = LOCKS / f"{name}.txt"
    folder = WORK / "environments" / f"{name}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:8]}"
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        uv = Path(sys.executable).parent / "uv"
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder], check=True)
        subprocess.run([uv, "pip", "sync", "--quiet", "--python", python, "--require-hashes", lock], check=True)
        (folder / "ready").touch()
    return python


def command(name: str, table: str, fold: Fold, params: dict[str, Any]) -> list[str]:
    """The command that runs a contender on a fold; `params` are runtime parameters of ours; with them, it fits no single candidates."""
    rows = ["--fold", str(fold.mask), *(["--groups", str(fold.groups)] if fold.groups else [])]
    if name in OURS:
        params = OURS[name] | params
        script = [sys.executable, "-m", "benchmarks.quality.training", table, "--params", json.dumps(params)]
        return [*script, *(["--chosen-only"] if params else []), *rows]
    peer = PEERS[name]
    script = [str(environment(peer.environment)), str(LOCKS / "contend.py"), peer.function]
    return [*script, "--folder", str(fold.folder), "--seconds", str(peer.seconds or 0), *rows]


def peak_memory(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process; return the largest resident memory of it and its children, sampled twice a second, in bytes."""
    peak = 0
    while process.poll() is None:
        with contextlib.suppress(psutil.Error):
            parent = psutil.Process(process.pid)
            resident = 0
            for one in (parent, *parent.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    resident += one.memory_info().rss
            peak = max(peak, resident)
        time.sleep(SAMPLE_SECONDS)
    return peak


def run(name: str, table: str, fold: Fold, params: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run a contender on a fold.

    Returns
    -------
    dict
        What the contender wrote, and ``peak_gb``, the largest resident memory of its processes together.

    Raises
    ------
    ContenderError
        If it fails. The message names its log.
    """
    out = fold.folder / name / f"{fold.name}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    log = out.with_suffix(".log")
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(
            [*command(name, table, fold, params or {}), "--out", str(out)],
            stdout=stream,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=os.environ | {"PYTHONWARNINGS": "ignore"},
        )
        peak = peak_memory(process)
    if process.returncode:
        raise ContenderError(f"{name} on {table}, {fold.name}: exit code {process.returncode}; its log is {log}")
    answer: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return answer | {"peak_gb": round(peak / 1024**3, 2)}


def scored(answer: dict[str, Any], label: np.ndarray) -> records.Record:
    """The scores of an answer and what it says about itself, without probabilities."""

    def scores(probability: list[float]) -> dict[str, float]:
        return {metric: round(METRICS[metric](label, np.array(probability)), 6) for metric in ("log_loss", "auc")}

    candidates = {name: scores(probability) for name, probability in answer.get("candidates", {}).items()}
    own = {key: answer[key] for key in ("serving", "versions", "trained", "skipped") if answer.get(key)}
    if "choice" in answer:
        own["chosen"] = answer["choice"]["candidate"]
    measured = {"seconds": answer["seconds"], "peak_gb": answer["peak_gb"]}
    return scores(answer["probability"]) | measured | ({"candidates": candidates} if candidates else {}) | own


def measure(
    name: str, tables: TableSet, table: str, contenders: Iterable[str], again: Iterable[str], numbers: Iterable[int]
) -> list[str]:
    """Measure what the scores of a set still lack for one table, and repeat the contenders in `again`.

    Returns
    -------
    list of str
        Contenders that failed, with the folds and the logs.
    """
    file, failed, wanted_numbers = records.file_of(name), [], set(numbers)
    for fold in export(table, tables):
        for contender in contenders if fold.number in wanted_numbers else ():
            key = {"table": table, "kind": fold.kind, "fold": fold.number, "contender": contender}
            record = key | {"rows": fold.digest(), "grouped": fold.groups is not None}
            if records.find(records.load(file), record) and contender not in again:
                continue
            print(f"{table}, {fold.name}: {contender}", flush=True)
            record |= records.circumstances()
            try:
                answer = run(contender, table, fold)
            except ContenderError as error:
                failed.append(str(error))
                print(error, flush=True)
                continue
            records.save(file, record | scored(answer, fold.held_out_labels()))
    return failed
