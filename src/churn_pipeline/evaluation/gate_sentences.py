"""Sentences that explain the gate's verdict and what the hold-out can tell."""

from collections.abc import Iterator, Mapping, Sequence

from churn_pipeline.evaluation.comparison import Comparison
from churn_pipeline.evaluation.gate_settings import GateSettings


def comparison_sentence(row: Comparison, finding: str) -> str:
    """Say how the challenger compares with a baseline in one metric."""
    name = row.metric.replace("_", " ").capitalize()
    if not row.difference and not row.standard_error:
        return f"{name} {finding}: equal to the {row.baseline}'s for every customer ({row.challenger:.4f})."
    difference = f"{better_or_worse(row.difference)} than the {row.baseline}'s" if row.difference else "no difference"
    return (
        f"{name} {finding}: {difference} ({row.challenger:.4f} vs {row.baseline_value:.4f}), "
        f"{100 * (1 - 2 * row.level):.4g}% limits {better_or_worse(row.lower)} and {better_or_worse(row.upper)}; "
        f"up to {row.margin:.4f} worse is tolerated."
    )


def better_or_worse(difference: float) -> str:
    """A difference without a sign, such as ``0.0021 worse``."""
    if not difference:
        return "no difference"
    return f"{abs(difference):.4f} {'better' if difference > 0 else 'worse'}"


def power_sentence(compared: Sequence[Comparison], churners: int, settings: GateSettings) -> str:
    """Say how probably this hold-out shows that an equally good model loses less than the margin."""
    weakest = min(compared, key=lambda row: row.power)
    if weakest.power >= settings.sufficient_power:
        return (
            f"The hold-out with {churners:,} churners suffices: an equally good challenger passes with a probability of at "
            f"least {settings.sufficient_power:.0%}."
        )
    return (
        f"The hold-out with {churners:,} churners does not suffice: an equally good challenger passes with a probability of "
        f"{weakest.power:.0%} ({weakest.metric.replace('_', ' ')}, required: {settings.sufficient_power:.0%})."
    )


def standalone_sentence(metrics: Mapping[str, float], settings: GateSettings) -> str:
    """Say which miscalibration this hold-out finds."""
    return (
        f"With {metrics['churners']:,.0f} held-out churners, a model is refused with a probability of "
        f"{settings.sufficient_power:.0%} if its odds are {metrics['detectable_odds']:.2f} times too high or too low."
    )


def uses_sentence(uses: int) -> str:
    """Say how often the hold-out has been used."""
    return (
        "This hold-out has been used once."
        if uses == 1
        else f"This hold-out has been used for {uses:,} different models."
    )


def within_margins(compared: Sequence[Comparison]) -> Iterator[str]:
    """Say of each metric that it is within its margin."""
    return (comparison_sentence(row, "is within the margin") for row in compared)
