"""The result of a set of tables: scores, claims, ranks, what the tables were used for, and where each result comes from."""

from collections import Counter
from collections.abc import Iterable

import numpy as np
import pandas as pd

from benchmarks.common import RESULTS, markdown_table
from benchmarks.quality import records
from benchmarks.quality.claims import best_library, claim, mean_ranks
from benchmarks.quality.measure import CONTENDERS, PEERS
from benchmarks.quality.tables import FOLDS, SETS
from benchmarks.quality.texts import HOW, TITLES, USE

Wide = dict[tuple[str, str], pd.DataFrame]


def frame(lines: list[records.Record]) -> pd.DataFrame:
    """One row per fold and contender, and one per fold and candidate of ours (`our …`)."""
    rows = []
    for line in lines:
        shared = {key: line[key] for key in ("table", "kind", "fold")}
        serving = line.get("serving", {})
        own = {key: line[key] for key in ("contender", "log_loss", "auc", "seconds")}
        rows.append(shared | own | serving.get("chosen", {}))
        for name, scores in line.get("candidates", {}).items():
            rows.append(shared | scores | {"contender": f"our {name}", "seconds": np.nan} | serving.get(name, {}))
    columns = ["table", "kind", "fold", "contender", "log_loss", "auc", "seconds", "one_row_us", "batch_row_us"]
    return pd.DataFrame(rows, columns=columns)


def log_losses(scores: pd.DataFrame) -> Wide:
    """Log loss per fold (rows) and contender (columns), by table and kind of folds."""
    return {
        (str(table), str(kind)): part.pivot_table(index="fold", columns="contender", values="log_loss")
        for (table, kind), part in scores.groupby(["table", "kind"], sort=False)
    }


def comparison(scores: pd.DataFrame) -> pd.DataFrame:
    """The main table: means over the folds that each contender has, and ours compared with each over common folds."""
    rows = []
    for (table, kind), wide in log_losses(scores).items():
        part = scores[(scores["table"] == table) & (scores["kind"] == kind)]
        means = part.groupby("contender")[["auc", "log_loss", "seconds", "one_row_us", "batch_row_us"]].mean()
        for name, mean in means.sort_values("log_loss").iterrows():
            word, shown, _ = _against(wide, str(name))
            rows.append(
                {
                    "table": table,
                    "folds": kind,
                    "contender": name,
                    "measured": f"{wide[name].notna().sum()} of {FOLDS}",
                    "AUC": f"{mean['auc']:.4f}",
                    "log loss": f"{mean['log_loss']:.4f}",
                    "difference from ours (95 % interval)": shown,
                    "ours is": word,
                    "seconds a fold": _number(mean["seconds"], 1),
                    "µs for one row": _number(mean["one_row_us"], 0),
                    "µs per row of 1,000": _number(mean["batch_row_us"], 1),
                }
            )
    return pd.DataFrame(rows)


def library_comparison(scores: pd.DataFrame) -> pd.DataFrame:
    """Ours beside the best single library model of each table."""
    rows = []
    for (table, kind), wide in log_losses(scores).items():
        best = best_library(wide)
        if best is None:
            continue
        word, shown, folds = _against(wide, best)
        rows.append(
            {
                "table": table,
                "folds": f"{kind}, {folds}",
                "best single library model": best,
                "difference from ours (95 % interval)": shown,
                "ours is": word,
            }
        )
    return pd.DataFrame(rows)


def honest_folds(wide: Wide) -> dict[str, pd.DataFrame]:
    """One kind of folds per table: grouped where it exists, otherwise plain."""
    return {
        table: folds for (table, kind), folds in wide.items() if kind == "grouped" or (table, "grouped") not in wide
    }


def ranks(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean rank of each contender in log loss; single candidates of ours are not ranked."""
    found = mean_ranks(honest_folds(log_losses(scores[scores["contender"].isin(CONTENDERS)])))
    shown = found.map("{:.0f}".format).assign(mean_rank=found["mean_rank"].map("{:.2f}".format))
    return shown.rename(columns={"mean_rank": "mean rank"}).reset_index(names="contender")


def trained_models(lines: list[records.Record]) -> pd.DataFrame:
    """Which models each AutoML contender trained and skipped, with the number of folds."""
    rows = []
    for name in [name for name, peer in PEERS.items() if peer.seconds]:
        mine = [line for line in lines if line["contender"] == name]
        trained = Counter(model for line in mine for model in set(line.get("trained", ())))
        skipped = Counter(f"{model}: {why}" for line in mine for model, why in line.get("skipped", {}).items())
        if mine:
            row = {"contender": name, "folds": len(mine), "trained (folds)": _counted(trained)}
            rows.append(row | {"skipped or failed (folds)": _counted(skipped) or "none reported"})
    return pd.DataFrame(rows)


def provenance(lines: list[records.Record]) -> pd.DataFrame:
    """Commit, date, machine, load and versions of the results, by contender."""
    rows = []
    for name in CONTENDERS:
        mine = [line for line in lines if line["contender"] == name]
        if mine:
            machines = {f"{line['machine']['cpu']}, {line['machine']['cores']} cores" for line in mine}
            versions = {
                f"{package} {version}" for line in mine for package, version in line.get("versions", {}).items()
            }
            loads = [line["load"] for line in mine]
            rows.append(
                {
                    "contender": name,
                    "dates": _listed(line["date"] for line in mine),
                    "commits": _listed(line["commit"] for line in mine),
                    "machines": _listed(machines),
                    "load before a run": f"{min(loads)} to {max(loads)}",
                    "packages": _listed(versions),
                }
            )
    return pd.DataFrame(rows)


def write_result(name: str) -> None:
    """Write the result of a set of tables from its scores."""
    tables = SETS[name]
    order = {table: number for number, table in enumerate(tables.tables)}
    lines = [line for line in records.load(records.file_of(name)) if line["table"] in order]
    if not lines:  # keep the result of an earlier way to measure
        return
    lines.sort(key=lambda line: (order[line["table"]], line["kind"] != "plain", line["fold"]))
    scores = frame(lines)
    sections = {
        "": comparison(scores),
        "## Ours and the best single library model": library_comparison(scores),
        "## Mean rank in log loss": ranks(scores),
        "## Models of the AutoML tools": trained_models(lines),
        "## Where each result comes from": provenance(lines),
    }
    parts = [f"# {TITLES[name]}", USE[name]]
    for heading, table in sections.items():
        parts += [heading] if heading else []
        parts.append(markdown_table(table) if len(table) else "Not measured yet.")
    parts += ["## How it is measured", HOW]
    text = "\n\n".join(parts) + "\n"
    (RESULTS / f"{tables.result}.md").write_text(text, encoding="utf-8")
    print(text)


def _against(wide: pd.DataFrame, name: str) -> tuple[str, str, int]:
    if name == "ours" or "ours" not in wide:
        return "", "", 0
    word, (mean, low, high), folds = claim(wide["ours"], wide[name])
    return word, f"{mean:+.4f} ({low:+.4f} … {high:+.4f})" if folds > 1 else "", folds


def _number(value: float, digits: int) -> str:
    return "" if np.isnan(value) else f"{value:.{digits}f}"


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))


def _listed(values: Iterable[str]) -> str:
    return ", ".join(sorted(set(values)))
