"""What a choice decided and why, as plain values and in sentences."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from churn_pipeline.modelling.blending import Kind
from churn_pipeline.modelling.ensemble import Member

# Smaller differences in log loss are rounding errors.
ROUNDING_ERROR = 1e-9


class _Values(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Difference(_Values):
    """How much lower the log loss of an option is than that of a baseline, on the same folds.

    Attributes
    ----------
    option, baseline : str
        Names of the two.
    advantage : float
        Mean over folds of the baseline's log loss minus the option's; positive if the option is better.
    standard_error : float
        Standard error of that mean.
    """

    option: str
    baseline: str
    advantage: float
    standard_error: float

    def exceeds(self, standard_errors: float) -> bool:
        """Whether the advantage exceeds this many standard errors."""
        return self.advantage > max(ROUNDING_ERROR, standard_errors * self.standard_error)

    def __str__(self) -> str:
        gain = f"gain {self.advantage:+.5f}" if self.advantage >= 0 else f"{-self.advantage:.5f} worse"
        return f"{gain}, standard error {self.standard_error:.5f}"


class CalibrationReport(_Values):
    """The calibration of a candidate, and what each kind of calibration would gain.

    Attributes
    ----------
    candidate : str
        The candidate's name.
    applied : {"none", "logistic", "beta"}
        The chosen kind.
    measured : tuple of Difference
        Gain of each kind over no calibration, measured out of fold.
    """

    candidate: str
    applied: Kind
    measured: tuple[Difference, ...]


class Choice(_Values):
    """The chosen model, the rule that decided, and the differences that it used.

    Attributes
    ----------
    candidate : str
        Name of the chosen candidate; for a blend, the names of its members, joined by ``+``.
    members : tuple of Member
        Input of `churn_pipeline.modelling.ensemble.assemble`: one member, or several for a blend.
    rule : {"lowest log loss plus cost of serving", "cheapest within the margin"}
        The second: it is cheaper to serve than the best option, and hardly worse.
    rows : int
        Number of rows that the options were compared on.
    log_loss : float
        Mean log loss over folds of the chosen model; calibration and weights are fitted out of fold too.
    log_losses : dict of str to float
        The same for each candidate, after its calibration, and shrunk away from 0 and 1 as blends are if that lowers it.
    microseconds : dict of str to float
        Estimated time to serve one customer, of each option.
    decided_by : Difference, optional
        The chosen model compared with the best or, if it is the best, with the best other candidate; None if there is only
        one candidate.
    blend : Difference, optional
        The best blend compared with the best candidate; None if only one member has weight, or blends are disabled.
    calibrations : tuple of CalibrationReport
        For each candidate.
    sentences : tuple of str
        The decision in plain sentences.
    """

    candidate: str
    members: tuple[Member, ...]
    rule: Literal["lowest log loss plus cost of serving", "cheapest within the margin"]
    rows: int = 0
    log_loss: float
    log_losses: dict[str, float]
    microseconds: dict[str, float] = {}
    decided_by: Difference | None = None
    blend: Difference | None = None
    calibrations: tuple[CalibrationReport, ...] = ()
    sentences: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values for JSON, which ``Choice.model_validate`` reads."""
        return self.model_dump(mode="json")


def explain(choice: Choice, standard_errors: float, cost: float) -> list[str]:
    """Explain the choice, beginning with the reason that decided."""
    blend = choice.blend
    return [
        _explain_rule(choice, standard_errors, cost),
        *([f"The best blend, {blend.option}, compared with {blend.baseline}: {blend}."] if blend else []),
        *(_explain_calibration(report) for report in choice.calibrations if report.measured),
    ]


def _explain_rule(choice: Choice, standard_errors: float, cost: float) -> str:
    difference = choice.decided_by
    chosen = f"{choice.candidate} (log loss {choice.log_loss:.5f}"
    if len(choice.members) > 1:
        weights = ", ".join(f"{member.weight:.0%} {member.candidate}" for member in choice.members)
        chosen = f"a blend of {weights} (log loss {choice.log_loss:.5f}"
    if difference is None:
        return f"Chosen: {chosen}), the only candidate."
    if choice.rule == "lowest log loss plus cost of serving":
        return (
            f"Chosen: {chosen}), with the lowest log loss plus cost of serving, at {cost:g} per microsecond. "
            f"Compared with {difference.baseline}: {difference}."
        )
    spent = [choice.microseconds.get(name, 0.0) for name in (choice.candidate, difference.baseline)]
    return (
        f"Chosen: {chosen}), the cheapest to serve within {_plural(standard_errors)} of the best: about {spent[0]:.1f} "
        f"microseconds per customer instead of {spent[1]:.1f}. Compared with the best, {difference.baseline}: {difference}."
    )


def _explain_calibration(report: CalibrationReport) -> str:
    verdict = "not calibrated" if report.applied == "none" else f"{report.applied} calibration"
    gains = "; ".join(f"with {difference.option} calibration: {difference}" for difference in report.measured)
    return f"{report.candidate}: {verdict}. Out-of-fold log loss {gains}."


def _plural(standard_errors: float) -> str:
    return f"{standard_errors:g} standard error{'' if standard_errors == 1 else 's'}"
