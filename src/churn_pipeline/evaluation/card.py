"""The model card: what a run made, in words that a person can hold it to. Written from the run's own records."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from churn_pipeline.evaluation.profit import CostModel, ValueColumn, if_stayer
from churn_pipeline.evaluation.segments import ALL, FAIRNESS

Facts = Mapping[str, Any]

# What no metric on a hold-out can show
LIMITS = (
    "It says who is likely to leave, not whom a contact keeps. Leave the control share of the target list alone, and "
    "measure what the contact earned before believing the profits here.",
    "The hold-out is of the same time and source as the training rows. How the model does on later customers, the "
    "monitoring has to say.",
    "Intervals hold the luck of which customers were held out, not that of which were trained on, nor an error in the "
    "data or in the label.",
    "A segment too small to score is not known to be served well.",
)


def model_card(
    data_report: Facts,
    choice: Facts,
    metrics: pd.DataFrame,
    profit: pd.DataFrame,
    segments: pd.DataFrame,
    gaps: pd.DataFrame,
    costs: CostModel,
    gate: Facts,
    rebuild: Facts,
    level: float = 0.95,
    protected: Sequence[str] | None = None,
    limits: Sequence[str] = (),
) -> str:
    """Write a model card as Markdown.

    Parameters
    ----------
    data_report
        Of data engineering: table, rows, digests, split, label, features, protected, leaks.
    choice
        candidate, rule, and what else of the choice is to be told.
    metrics, profit
        Of the hold-out: metric, value, lower, upper; best_possible in the first where it is known.
    segments, gaps
        From `segment_metrics` and `gaps`.
    costs
        The cost model assumed.
    gate
        From `GateVerdict.report`.
    rebuild
        Facts by name, such as commit, seed, command, versions, model digest.
    level
        Of the intervals.
    protected
        Names of the protected attributes; by default those of the data report.
    limits
        Further limits, of this table.

    References
    ----------
    Mitchell et al. (2019), "Model Cards for Model Reporting", FAT*: the sections.
    """
    names = tuple(data_report.get("protected", ()) if protected is None else protected)
    sections = [
        ("", _head(data_report, choice, gate)),
        ("What the label means", _label(data_report["label"])),
        ("Data", _data(data_report)),
        ("How good it is", _metrics(metrics, data_report, level)),
        ("What it is worth", _profit(profit, costs, level)),
        ("Fairness", _fairness(segments, gaps, names, level)),
        ("Other segments", _others(gaps, names)),
        ("Gate", _gate(gate)),
        ("Limits", [f"- {limit}" for limit in (*LIMITS, *limits)]),
        ("How to rebuild it", _facts(rebuild)),
    ]
    text = ["\n".join([*([f"## {title}", ""] if title else []), *lines]) for title, lines in sections]
    return "\n\n".join(text) + "\n"


def _head(data_report: Facts, choice: Facts, gate: Facts) -> list[str]:
    return [
        f"# Model card: churn of '{data_report['table']}'",
        "",
        f"A `{choice['candidate']}` that gives each customer a churn probability, to decide whom to contact with an "
        f"offer. It was chosen by {choice['rule']}. Gate: **{gate['verdict']}**.",
        "",
        "It is not made to set prices, to refuse service, or to evaluate a person.",
    ]


def _label(label: Facts) -> list[str]:
    facts = {"Observed": label.get("observed"), "Horizon": label.get("horizon")}
    return [str(label["meaning"]), "", *_facts({name: fact for name, fact in facts.items() if fact})]


def _data(report: Facts) -> list[str]:
    rows, split = report["rows"], report["split"]
    train, held = split["train"], split["hold-out"]
    table = _table(
        ["rows", "how many", "churn"],
        [
            ["read", f"{rows['in']:,}", ""],
            ["in quarantine", f"{rows['quarantined']:,}", ""],
            ["trained on", f"{train['rows']:,}", f"{train['churn_share']:.1%}"],
            ["held out", f"{held['rows']:,}", f"{held['churn_share']:.1%}"],
            ["set aside", f"{sum(split.get('set_aside', {}).values()):,}", ""],
        ],
    )
    facts = {f"Digest of {_words(name)}": f"`{digest}`" for name, digest in report["digests"].items()}
    facts[f"Features ({len(report['features'])})"] = ", ".join(report["features"])
    suspects = report.get("leaks", {}).get("suspects", ())
    if suspects:
        facts["**Likely leak**"] = f"{', '.join(suspects)} nearly tells the label alone. Believe nothing below."
    return [*table, "", *_facts(facts)]


def _metrics(metrics: pd.DataFrame, report: Facts, level: float) -> list[str]:
    known = "best_possible" in metrics and bool(metrics["best_possible"].notna().any())
    rows = [
        [
            *[_code(row["metric"]), _number(row["value"]), _limits(row, row["value"])],
            *([_number(row["best_possible"], row["value"])] if known else []),
        ]
        for row in metrics.to_dict("records")
    ]
    held = report["split"]["hold-out"]["rows"]
    return [
        f"On {held:,} held-out customers that no model was trained or chosen on.",
        "",
        *_table(["metric", "value", f"{level:.0%} interval", *(["best possible"] if known else [])], rows),
    ]


def _profit(profit: pd.DataFrame, costs: CostModel, level: float) -> list[str]:
    unit = f" {costs.currency}" if costs.currency else ""
    value = (
        f"{costs.value.months:g} × the column `{costs.value.column}`, in{unit or ' its own unit'}"
        if isinstance(costs.value, ValueColumn)
        else f"{costs.value:,g}{unit}"
    )
    assumed = {
        "Value of a customer who is kept": value,
        "Offer, where taken": f"{costs.offer_cost:,g}{unit}",
        "Contact": f"{costs.contact_cost:,g}{unit}",
        "Churners who accept": f"{costs.acceptance:.0%}",
    }
    rows = [
        [_code(row["metric"]), _number(row["value"]), _limits(row, row["value"])] for row in profit.to_dict("records")
    ]
    return [
        "These costs are assumed, not measured:",
        "",
        *_facts(assumed),
        "",
        f"A stayer who is contacted takes the offer too and costs {-if_stayer(costs):,g}{unit}. Profits are per customer "
        "of the base, contacted or not. What is called hindsight is overstated, and EMPC too: both pick the best "
        "threshold on the rows that evaluate it.",
        "",
        *_table(["metric", "value", f"{level:.0%} interval"], rows),
    ]


def _fairness(segments: pd.DataFrame, gaps: pd.DataFrame, protected: tuple[str, ...], level: float) -> list[str]:
    if not protected:
        return ["No attribute is named as protected: nothing was compared."]
    held = segments[segments["segment"].isin(protected)]
    wide = held[held["metric"].isin(FAIRNESS)].pivot_table(
        index=["segment", "level", "rows"], columns="metric", values="value", sort=False, observed=True
    )
    columns = [name for name in FAIRNESS if name in wide]
    rows = [
        [_code(str(segment)), _escape(str(name)), f"{n:,}", *(_percent(value) for value in values)]
        for (segment, name, n), values in zip(wide.index, wide[columns].to_numpy(), strict=True)
    ]
    unscored = held[held["note"] != ""]
    found = gaps[gaps["segment"].isin(protected) & gaps["metric"].isin(FAIRNESS)]
    return [
        *_table(["attribute", "level", "customers", *map(_words, columns)], rows),
        "",
        *[f"- `{row['segment']}`: {_escape(str(row['level']))}, {row['note']}." for row in unscored.to_dict("records")],
        *_gap_lines(found, level),
    ]


def _gap_lines(found: pd.DataFrame, level: float) -> Iterator[str]:
    beyond = found[found["beyond_noise"].astype(bool)]
    for row in beyond.to_dict("records"):
        yield (
            f"- `{row['segment']}`: {_words(row['metric'])} differs by {row['gap'] * 100:.1f} points "
            f"[{row['lower'] * 100:.1f}, {row['upper'] * 100:.1f}], highest for {_escape(str(row['highest']))}, lowest "
            f"for {_escape(str(row['lowest']))}."
        )
    yield (
        f"- {len(found) - len(beyond)} of {len(found)} gaps are within noise at {level:.0%}, which does not show that "
        "they are none."
    )


def _others(gaps: pd.DataFrame, protected: tuple[str, ...]) -> list[str]:
    rest = gaps[~gaps["segment"].isin((*protected, ALL)) & gaps["beyond_noise"].astype(bool)]
    rest = rest[rest["metric"].isin(("auc", "profit", "calibration_gap"))]
    if rest.empty:
        return ["No gap in AUC, profit or calibration is beyond noise."]
    rows = [
        [
            *[_code(row["segment"]), _code(row["metric"]), _number(row["gap"]), _limits(row, row["gap"])],
            *[_escape(str(row[of])) for of in ("highest", "lowest")],
        ]
        for row in rest.to_dict("records")
    ]
    return _table(["segment", "metric", "gap", "interval", "highest", "lowest"], rows)


def _gate(gate: Facts) -> list[str]:
    lines = [f"**{gate['verdict']}**", "", *[f"- {reason}" for reason in gate["reasons"]]]
    if gate.get("comparisons"):
        rows = [
            [
                *[_code(row["metric"]), _number(row["challenger"]), _number(row["champion"], row["challenger"])],
                *[_number(row["difference"], row["challenger"]), _limits(row, row["challenger"])],
            ]
            for row in gate["comparisons"]
        ]
        lines += ["", *_table(["metric", "challenger", "champion", "improvement", "interval"], rows)]
    return lines


def _facts(facts: Facts) -> list[str]:
    return [f"- {name}: {_plain(fact)}" for name, fact in facts.items()]


def _plain(fact: Any) -> str:
    if isinstance(fact, Mapping):
        return ", ".join(f"{name} {_plain(inner)}" for name, inner in fact.items())
    if isinstance(fact, list | tuple):
        return ", ".join(map(_plain, fact))
    return str(fact)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def _limits(row: Mapping[Any, Any], like: float) -> str:
    return f"{_number(row['lower'], like)} to {_number(row['upper'], like)}"


def _number(value: float, like: float | None = None) -> str:
    """A number, with the digits that suit its size or that of what it is `like`."""
    if not np.isfinite(value):
        return ""
    size = abs(value if like is None else like)
    digits = 1 if size >= 100 else 2 if size >= 5 else 4
    return f"{value:,.{digits}f}"


def _percent(value: float) -> str:
    return f"{value:.1%}" if np.isfinite(value) else ""


def _words(metric: str) -> str:
    return metric.replace("_", " ")


def _code(name: str) -> str:
    return f"`{name}`"


def _escape(text: str) -> str:
    """A level's own text must not break a table or be read as markup."""
    return "".join(f"\\{sign}" if sign in "\\`*_[]<>|#" else sign for sign in text.replace("\n", " "))
