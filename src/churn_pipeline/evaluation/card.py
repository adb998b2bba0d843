"""Model card: a readable description of a run's result, in Markdown."""

from collections.abc import Iterator, Sequence

import pandas as pd

from churn_pipeline.costs import CostModel, ValueColumn, contact_profit_stayer
from churn_pipeline.evaluation.markdown import (
    bullets,
    code,
    escape,
    interval,
    interval_or_chance,
    number,
    percent,
    table,
    words,
)
from churn_pipeline.evaluation.report import Facts, HoldoutResults, RunReport, decision_sentence
from churn_pipeline.evaluation.segments import FAIRNESS

# What no metric on a hold-out can show
LIMITATIONS = (
    "The model predicts who is likely to leave, not who is retained by a contact. Do not contact the control group of the "
    "target list, and measure the effect of the contact before you rely on the profits above.",
    "The hold-out comes from the same time and source as the training rows. Monitoring has to show how the model performs "
    "on later customers.",
    "Intervals reflect the sampling of the hold-out. They do not reflect the sampling of the training rows, or errors in "
    "data or labels.",
    "For segments too small to score, performance is unknown.",
)


def model_card(report: RunReport, limitations: Sequence[str] = ()) -> str:
    """Write the model card of a run as Markdown.

    Parameters
    ----------
    report
        Results of the run.
    limitations
        Further limitations, specific to the run.

    References
    ----------
    Mitchell et al. (2019), "Model Cards for Model Reporting", FAT*: the sections.
    """
    data, results = report.data_report, report.results
    protected = tuple(data.get("protected", ()))
    sections = [
        ("", _head(report)),
        ("What the label means", _label(data["label"])),
        ("Data", _data(data)),
        ("Performance", _metrics(results, data["split"]["hold-out"]["rows"])),
        ("Profit", _profit(results, report.cost_source)),
        ("Fairness", _fairness(results, protected)),
        ("Other segments", _other_segments(results.segment_gaps, protected)),
        ("Gate", _gate(results.gate)),
        ("Limitations", [f"- {limitation}" for limitation in (*LIMITATIONS, *limitations)]),
        ("How to reproduce it", _reproduce(report)),
    ]
    text = ["\n".join([*([f"## {title}", ""] if title else []), *lines]) for title, lines in sections]
    return "\n\n".join(text) + "\n"


def _head(report: RunReport) -> list[str]:
    choice = report.choice
    return [
        f"# Model card: churn of '{report.data_report['table']}'",
        "",
        f"The model (`{choice['candidate']}`) gives each customer a churn probability. Use it to decide whom to contact with "
        f"an offer. Selection rule: {choice['rule']}. Gate: **{report.results.gate['verdict']}**.",
        "",
        "Do not use it to set prices, to refuse service, or to evaluate a person.",
    ]


def _label(label: Facts) -> list[str]:
    facts = {"Observed": label.get("observed"), "Horizon": label.get("horizon")}
    return [str(label["meaning"]), "", *bullets({name: fact for name, fact in facts.items() if fact})]


def _data(report: Facts) -> list[str]:
    rows, split = report["rows"], report["split"]
    train, holdout = split["train"], split["hold-out"]
    counts = table(
        ["rows", "number", "churn"],
        [
            ["input", f"{rows['in']:,}", ""],
            ["quarantined", f"{rows['quarantined']:,}", ""],
            ["training", f"{train['rows']:,}", f"{train['churn_share']:.1%}"],
            ["hold-out", f"{holdout['rows']:,}", f"{holdout['churn_share']:.1%}"],
            ["set aside to prevent leaks", f"{sum(split.get('set_aside', {}).values()):,}", ""],
        ],
    )
    facts = {"Customers": escape(split["customers"]["reason"])} if "customers" in split else {}
    facts |= {f"Digest of {words(name)}": code(digest) for name, digest in report["digests"].items()}
    facts[f"Features ({len(report['features'])})"] = ", ".join(report["features"])
    leaks = report.get("leaks", {}).get("findings", ())
    if leaks:
        found = "; ".join(f"{code(', '.join(leak['columns']))}: {escape(leak['evidence'])}" for leak in leaks)
        facts["**Likely leak**"] = (
            f"{found}. If a column is known only after the label, the results below are not reliable."
        )
    return [*counts, "", *bullets(facts)]


def _metrics(results: HoldoutResults, customers: int) -> list[str]:
    metrics = results.metrics
    known = "best_possible" in metrics and bool(metrics["best_possible"].notna().any())
    rows = [
        [
            *[code(row["metric"]), number(row["value"]), interval_or_chance(row, row["value"])],
            *([number(row["best_possible"], row["value"])] if known else []),
        ]
        for row in metrics.to_dict("records")
    ]
    level = f"{results.confidence_level:.0%} interval"
    return [
        f"Measured on {customers:,} held-out customers, who were used neither to train nor to choose a model.",
        "",
        *table(["metric", "value", level, *(["best possible"] if known else [])], rows),
        "",
        "A calibrated model has a calibration intercept of 0 and a slope of 1. Above 0, the intercept means that probabilities "
        "are too low; below 1, the slope means that they are too extreme. Miscalibration is how much an isotonic recalibration "
        "lowers the log loss; a calibrated model has some by chance.",
    ]


def _profit(results: HoldoutResults, cost_source: str) -> list[str]:
    costs = results.costs
    unit = f" {costs.currency}" if costs.currency else ""
    rows = [
        [code(row["metric"]), number(row["value"]), interval(row, row["value"])]
        for row in results.profit.to_dict("records")
    ]
    return [
        f"{cost_source} They are assumptions, not measurements:",
        "",
        *bullets(_assumptions(costs, unit)),
        "",
        decision_sentence(results.decision),
        "",
        "A contacted stayer accepts the offer too; offer and contact together cost "
        f"{-contact_profit_stayer(costs):,g}{unit}. "
        "Profits are per customer of the base, contacted or not. The hindsight metrics and EMPC are overstated: they select "
        "the best threshold on the rows they are evaluated on.",
        "",
        *table(["metric", "value", f"{results.confidence_level:.0%} interval"], rows),
    ]


def _assumptions(costs: CostModel, unit: str) -> dict[str, str]:
    value = (
        f"{costs.value.months:g} × the column `{costs.value.column}`{f', in{unit}' if unit else ''}"
        if isinstance(costs.value, ValueColumn)
        else f"{costs.value:,g}{unit}"
    )
    return {
        "Value of a retained customer": value,
        "Cost of an accepted offer": f"{costs.offer_cost:,g}{unit}",
        "Cost of a contact": f"{costs.contact_cost:,g}{unit}",
        "Churners who accept": f"{costs.acceptance:.0%}",
    }


def _fairness(results: HoldoutResults, protected: tuple[str, ...]) -> list[str]:
    if not protected:
        return ["The contract has no protected attribute, so nothing was compared."]
    segments, gaps = results.segments, results.segment_gaps
    rows_of_protected = segments[segments["segment"].isin(protected)]
    wide = rows_of_protected[rows_of_protected["metric"].isin(FAIRNESS)].pivot_table(
        index=["segment", "level", "rows"], columns="metric", values="value", sort=False, observed=True
    )
    columns = [name for name in FAIRNESS if name in wide]
    rows = [
        [code(str(segment)), escape(str(name)), f"{n:,}", *(percent(value) for value in values)]
        for (segment, name, n), values in zip(wide.index, wide[columns].to_numpy(), strict=True)
    ]
    unscored = rows_of_protected[rows_of_protected["note"] != ""].to_dict("records")
    compared = gaps[gaps["segment"].isin(protected)]
    return [
        *table(["attribute", "level", "customers", *map(words, columns)], rows),
        "",
        *[f"- `{row['segment']}`: {escape(str(row['level']))} is not scored ({row['note']})." for row in unscored],
        *_gap_lines(compared, results.confidence_level),
    ]


def _gap_lines(gaps: pd.DataFrame, confidence_level: float) -> Iterator[str]:
    significant = gaps[gaps["significant"].astype(bool)]
    for row in significant.to_dict("records"):
        yield (
            f"- `{row['segment']}`: {words(row['metric'])} differs by {row['gap'] * 100:.1f} points "
            f"[{row['lower'] * 100:.1f}, {row['upper'] * 100:.1f}], highest for {escape(str(row['highest']))}, lowest "
            f"for {escape(str(row['lowest']))}."
        )
    yield (
        f"- {len(gaps) - len(significant)} of {len(gaps)} gaps are not significant at {confidence_level:.0%}, corrected for "
        "the number of gaps (Holm). This does not mean that there is no gap."
    )


def _other_segments(gaps: pd.DataFrame, protected: tuple[str, ...]) -> list[str]:
    others = gaps[~gaps["segment"].isin(protected) & gaps["significant"].astype(bool)]
    if others.empty:
        return ["No gap in AUC, profit or calibration is significant."]
    rows = [
        [
            *[code(row["segment"]), code(row["metric"]), number(row["gap"]), interval(row, row["gap"])],
            *[escape(str(row[end])) for end in ("highest", "lowest")],
        ]
        for row in others.to_dict("records")
    ]
    return table(["segment", "metric", "gap", "interval", "highest", "lowest"], rows)


def _gate(gate: Facts) -> list[str]:
    lines = [f"**{gate['verdict']}**", "", *[f"- {sentence}" for sentence in (*gate["reasons"], *gate["notes"])]]
    if gate.get("comparisons"):
        rows = [
            [
                *[code(row["metric"]), row["baseline"], number(row["challenger"])],
                *[number(row["baseline_value"], row["challenger"]), number(row["difference"], row["challenger"])],
                *[interval(row, row["challenger"]), number(row["margin"], row["challenger"]), percent(row["power"])],
            ]
            for row in gate["comparisons"]
        ]
        head = [
            "metric",
            "baseline",
            "challenger",
            "its value",
            "difference (positive is better)",
            "limits",
            "margin",
            "power",
        ]
        lines += ["", *table(head, rows)]
    return lines


def _reproduce(report: RunReport) -> list[str]:
    return bullets(
        {
            "Command": "`kedro reproduce RUN_ID`, with the id of the MLflow run that contains this card",
            "Seed": report.seed,
            "Model digest": report.model_report["model_digest"],
            **{f"{words(name).capitalize()} digest": digest for name, digest in report.data_report["digests"].items()},
        }
    )
