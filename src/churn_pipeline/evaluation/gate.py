"""Promotion gate: checks the chosen model on its own, and compares it with the champion and the anchor on the same hold-out.

The anchor is the best champion so far. Each comparison has a margin, and the challenger must be shown to lose less. Because the
anchor does not move with every promotion, a chain of promotions cannot lose more than one margin. The gate gives a verdict and
promotes nothing.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

import numpy as np

from churn_pipeline.costs import CostModel
from churn_pipeline.evaluation.comparison import Baseline, Comparison, compare, significantly_worse
from churn_pipeline.evaluation.gate_sentences import (
    comparison_sentence,
    power_sentence,
    standalone_sentence,
    within_margins,
)
from churn_pipeline.evaluation.gate_settings import GateSettings
from churn_pipeline.evaluation.holdout import Holdout
from churn_pipeline.evaluation.standalone import refusals, standalone_metrics

Verdict = Literal["better", "no worse", "cannot tell", "worse", "first", "refused"]
PASSED: tuple[Verdict, ...] = ("better", "no worse", "first")


@dataclass(frozen=True)
class GateVerdict:
    """Verdict of the gate, with reasons and metrics.

    Attributes
    ----------
    verdict
        - ``refused``: the model fails one of the standalone requirements, whether or not there is a champion;
        - ``first``: it passes all of them, and there is no champion;
        - ``worse``: a metric is significantly worse than the champion's or the anchor's, by any amount;
        - ``better``: it loses less than the margin in every metric, and its log loss is significantly lower than the
          champion's;
        - ``no worse``: it loses less than the margin in every metric;
        - ``cannot tell``: none of these is shown, or a baseline cannot be compared.
    reasons
        The reasons, as sentences.
    notes
        What the hold-out can tell, as sentences.
    standalone
        Result of `standalone_metrics`.
    comparisons
        Log loss and profit compared with each baseline; empty without one.
    beats_anchor
        Whether the model passed and its log loss is significantly lower than the anchor's: promoted, it becomes the anchor.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    standalone: dict[str, float]
    comparisons: tuple[Comparison, ...] = field(default=())
    beats_anchor: bool = False

    @property
    def passed(self) -> bool:
        """Whether promotion may be considered."""
        return self.verdict in PASSED

    @property
    def power(self) -> float | None:
        """Probability that an equally good challenger is shown to lose less than each margin; None without a baseline."""
        return min((row.power for row in self.comparisons), default=None)

    def numbers(self) -> dict[str, float]:
        """Flat metrics for logging, without hold-out metrics that are logged elsewhere and without the settings."""
        metrics = {name: number for name, number in self.standalone.items() if name != "auc"}
        for row in self.comparisons:
            name = f"{row.metric}_anchor" if row.baseline == "anchor" else row.metric
            metrics[f"{row.metric}_{row.baseline.split()[0]}"] = row.baseline_value
            metrics[f"{name}_difference"] = row.difference
            metrics[f"{name}_difference_lower"] = row.lower
            metrics[f"{name}_difference_upper"] = row.upper
            metrics[f"{name}_margin"] = row.margin
        power = {} if self.power is None else {"power": self.power}
        return {"passed": float(self.passed), **power, **metrics}

    def report(self) -> dict[str, object]:
        """The verdict as plain data for a report."""
        return {"passed": self.passed, **asdict(self), "power": self.power}


def evaluate_challenger(
    holdout: Holdout,
    baselines: Sequence[Baseline],
    costs: CostModel,
    settings: GateSettings,
    constant: float | None = None,
) -> GateVerdict:
    """Evaluate a challenger on the hold-out, on its own and against its baselines.

    Parameters
    ----------
    holdout
        Labels, values and group keys of n rows, and the challenger's churn probabilities.
    baselines
        Champion and anchor with their churn probabilities, of shape (n,); none before the first promotion. They must not
        have been trained on these customers either.
    costs, settings
        The cost model, and the requirements.
    constant
        The constant prediction to beat, such as the churn share of the training rows. By default the churn share of these
        rows, which is the best possible constant.

    Raises
    ------
    ValueError
        If predictions are invalid, or only one class occurs.

    References
    ----------
    Wellek (2010), "Testing Statistical Hypotheses of Equivalence and Noninferiority": margins.
    Berger (1982), "Multiparameter hypothesis testing and acceptance sampling", Technometrics 24: all margins must hold, so
    each is tested at the full level.
    """
    y = holdout.y
    if y.min() == y.max():
        raise ValueError(
            f"All {y.size:,} customers {'churned' if y[0] else 'stayed'}: nothing can be compared. Evaluate more rows together."
        )
    share = float(y.mean()) if constant is None else constant
    standalone = standalone_metrics(holdout, settings, share)
    compared = tuple(
        row
        for baseline in baselines
        if baseline.p is not None
        for row in compare(holdout, baseline, costs, settings, share)
    )
    # An identical model has no standard error, so it says nothing about other models.
    informative = [row for row in compared if row.standard_error]
    notes = [power_sentence(informative, int(y.sum()), settings)] if informative else []
    notes.append(standalone_sentence(standalone, settings))
    problems = [baseline.problem for baseline in baselines if baseline.p is None]
    if reasons := tuple(refusals(standalone, float(np.ptp(holdout.p)), settings)):
        return GateVerdict("refused", reasons, tuple(notes), standalone, compared)
    verdict, why = _verdict(compared, problems, settings)
    beats_anchor = verdict in PASSED and any(_beats(row) and "anchor" in row.baseline for row in compared)
    return GateVerdict(verdict, tuple(why), tuple(notes), standalone, compared, beats_anchor)


def _verdict(
    compared: tuple[Comparison, ...], problems: Sequence[str], settings: GateSettings
) -> tuple[Verdict, list[str]]:
    if not compared and not problems:
        return "first", ["There is no champion to compare with."]
    if worse := significantly_worse(compared, settings.error_rate / 2):
        return "worse", [comparison_sentence(row, "is significantly worse") for row in worse]
    if problems:
        return "cannot tell", list(problems)
    if unclear := [row for row in compared if not row.within_margin]:
        return "cannot tell", [comparison_sentence(row, "may be worse than tolerated") for row in unclear]
    if better := [row for row in compared if _beats(row) and "champion" in row.baseline]:
        return "better", [
            comparison_sentence(better[0], "is significantly better"),
            "All metrics are within their margins.",
        ]
    return "no worse", list(within_margins(compared))


def _beats(row: Comparison) -> bool:
    return row.metric == "log_loss" and row.lower > 0
