"""The two tiers: which cells and which AUC stop a run, and which warn."""

from collections.abc import Iterable, Iterator

from churn_pipeline.leaks.cells import Cell, Kind, Labels
from churn_pipeline.leaks.report import LeakFinding, Tier
from churn_pipeline.leaks.settings import LeakSettings

# Least share of all churners that a pure cell contains, by kind and tier. The tail of a strong honest number is pure too,
# but small, and not sharp.
REACH: dict[Kind, tuple[float, float]] = {
    Kind.LEVEL: (0.3, 0.08),
    Kind.SPIKE: (0.3, 0.2),
    Kind.ORDERED: (0.4, 0.2),
    Kind.PAIR: (0.6, 0.25),
}
SHARPNESS = 0.75
# Least odds of churn in a pure cell, relative to the table. In a balanced table, a high share alone means little.
PURE_ODDS = 13.0
# A level with noise warns: its least share of all churners, least odds relative to the table, and least churn share
NOISY_REACH, NOISY_ODDS, NOISY_SHARE = 0.5, 9.0, 0.5
# A cut warns if it contains this much more of the churners than of the stayers. A normal feature with AUC 0.92 reaches 0.68.
CUT = 0.76
# A cell without churners: its least share of all stayers, and its highest odds relative to the table
STAY_STOP, STAY_WARN = (0.6, 0.01), (0.5, 0.04)


def cell_tier(cell: Cell, labels: Labels, settings: LeakSettings) -> Tier | None:
    """``stop``, ``warn`` or None for a cell."""
    reach, odds = cell.churners / labels.churners, float(labels.odds(cell.lower))
    stop_reach, warn_reach = REACH[cell.kind]
    sharp = cell.kind is not Kind.ORDERED or cell.sharpness >= SHARPNESS
    if sharp and odds >= PURE_ODDS:
        if cell.lower >= settings.stop_share and reach >= stop_reach:
            return "stop"
        if cell.lower >= settings.warn_share and reach >= warn_reach:
            return "warn"
    noisy = cell.kind in (Kind.LEVEL, Kind.SPIKE) and reach >= NOISY_REACH
    if noisy and odds >= NOISY_ODDS and cell.lower >= NOISY_SHARE:
        return "warn"
    return _stay_tier(cell, labels)


def _stay_tier(cell: Cell, labels: Labels) -> Tier | None:
    reach = (cell.rows - cell.churners) / labels.stayers
    odds = float(labels.odds(cell.upper))
    if reach >= STAY_STOP[0] and odds <= STAY_STOP[1]:
        return "stop"
    return "warn" if reach >= STAY_WARN[0] and odds <= STAY_WARN[1] else None


def feature_findings(
    name: str, separations: Iterable[tuple[float, float, float]], settings: LeakSettings
) -> Iterator[LeakFinding]:
    """The findings of a feature whose AUC is above a limit, or whose best cut separates the classes too well."""
    for auc, churners, stayers in separations:
        tier: Tier | None = "stop" if auc > settings.max_auc else "warn" if auc > settings.warn_auc else None
        if tier:
            yield LeakFinding((name,), tier, f"AUC {auc:.3f} on its own", {"auc": auc})
        elif churners - stayers > CUT:
            sides = f"{churners:.0%} of all churners on one side, with {stayers:.0%} of all stayers"
            evidence = f"its best cut puts {sides} (AUC {auc:.3f})"
            figures = {"auc": auc, "reach": churners, "stayers": stayers}
            yield LeakFinding((name,), "warn", evidence, figures)


def cell_finding(cell: Cell, labels: Labels, settings: LeakSettings) -> Iterator[LeakFinding]:
    """The finding of a cell that meets a rule, with its figures."""
    tier = cell_tier(cell, labels, settings)
    if tier is None:
        return
    share, stays = cell.churners / cell.rows, cell.upper < labels.share
    if stays:
        limit, reach, side = f"upper limit {cell.upper:.2%}", (cell.rows - cell.churners) / labels.stayers, "stayers"
    else:
        limit, reach, side = f"lower limit {cell.lower:.1%}", cell.churners / labels.churners, "churners"
    figures = {"rows": cell.rows, "churners": cell.churners, "share": share, "lower": cell.lower, "upper": cell.upper}
    evidence = (
        f"{cell.churners:,} of {cell.rows:,} customers churned ({share:.1%}, {limit}, table {labels.share:.1%}) "
        f"where {cell.what}; they include {reach:.0%} of all {side}"
    )
    yield LeakFinding(cell.columns, tier, evidence, {**figures, "reach": reach, "table_share": labels.share})
