"""What the README says about quality, made from the stored scores: no claim goes beyond the tables."""

import pandas as pd

from benchmarks.common import markdown_table
from benchmarks.quality import records
from benchmarks.quality.claims import HIGHER, LEVEL, LOWER, TOO_FEW, best_library, claim, mean_ranks
from benchmarks.quality.measure import CONTENDERS
from benchmarks.quality.report import frame, honest_folds, log_losses
from benchmarks.quality.tables import SETS

# Development first: the settings up to commit 92996de were chosen with the shown tables in view.
HEADINGS = {
    "development": "Quality on the development tables",
    "shown": "Quality on the tables that come with the project",
}
USED = {
    "development": "Settings of ours are chosen on these tables from commit 92996de on, and no earlier ones. The other tools were not "
    "tuned on them.",
    "shown": "Settings of ours up to commit 92996de were chosen with these tables in view, so their figures are optimistic.",
}
PREPOSITIONS = {LOWER: "lower on", LEVEL: "level on", HIGHER: "higher on", TOO_FEW: "measured on too few folds of"}


def summary(name: str) -> str:
    """Heading, sentences and a table for a set of tables; empty without scores of ours."""
    scores = frame([line for line in records.load(records.file_of(name)) if line["table"] in SETS[name].tables])
    wide = honest_folds(log_losses(scores[scores["contender"].isin(CONTENDERS)]))
    wide = {table: wide[table] for table in SETS[name].tables if table in wide and "ours" in wide[table]}
    if not wide:
        return ""
    link = f"[All figures and how they are measured](benchmarks/results/{SETS[name].result}.md)."
    parts = [f"### {HEADINGS[name]}", f"{USED[name]} {sentences(wide)} {link}", markdown_table(losses(wide))]
    return "\n\n".join(parts)


def sentences(wide: dict[str, pd.DataFrame]) -> str:
    """Mean ranks, and ours compared with each AutoML tool and the best single library model by 95 % intervals."""
    ranks = mean_ranks(wide)["mean_rank"]
    ranked = ", ".join(f"{contender} {rank:.2f}" for contender, rank in ranks.items())
    tables = "one table" if len(wide) == 1 else f"{len(wide)} tables"
    said = [f"Mean rank in log loss over {tables}: {ranked}."] if len(ranks) > 1 else []
    for name in (name for name in CONTENDERS if name.startswith(("autogluon", "flaml"))):
        rivals = {table: name for table, folds in wide.items() if name in folds}
        said += _compared(f"`{name}`", wide, rivals)
    rivals = {table: best for table, folds in wide.items() if (best := best_library(folds)) is not None}
    return " ".join([*said, *_compared("the best single library model of each table", wide, rivals)])


def losses(wide: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Mean log loss by contender and table over the folds shared with ours, and whether ours is lower, level or higher."""
    rows = []
    for name in CONTENDERS:
        row = {"log loss": name}
        for table, folds in wide.items():
            common = folds.loc[folds["ours"].notna(), name].dropna() if name in folds else pd.Series(dtype=float)
            word = "" if name == "ours" else f" (ours: {claim(folds['ours'], common)[0]})"
            row[table] = "" if common.empty else f"{common.mean():.4f}{word}"
        if any(row[table] for table in wide):
            rows.append(row)
    return pd.DataFrame(rows)


def _compared(rival: str, wide: dict[str, pd.DataFrame], names: dict[str, str]) -> list[str]:
    words = {table: claim(wide[table]["ours"], wide[table][name])[0] for table, name in names.items()}
    parts = [
        f"{text} {', '.join(table for table, said in words.items() if said == word)}"
        for word, text in PREPOSITIONS.items()
        if word in words.values()
    ]
    return [f"Compared with {rival}, our log loss is {'; '.join(parts)}."] if parts else []
