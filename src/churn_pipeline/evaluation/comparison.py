"""Comparison of a challenger with a baseline on the same held-out customers, in log loss and profit.

Both models are scored on the same rows, and the difference of each row is averaged: a customer who is hard to predict is hard
for both models. The limits are normal, with a standard error that is robust to several rows of one customer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from churn_pipeline.costs import CostModel, contact_profit, contacts
from churn_pipeline.evaluation.gate_settings import GateSettings
from churn_pipeline.evaluation.holdout import Holdout
from churn_pipeline.evaluation.intervals import mean_with_error
from churn_pipeline.evaluation.predictions import Probabilities, row_log_loss


@dataclass(frozen=True, eq=False)
class Baseline:
    """A registered version that a challenger is compared with.

    Attributes
    ----------
    name
        ``champion``, ``anchor`` (the best champion so far), or ``champion and anchor`` if one version is both.
    version
        The version's number.
    p : ndarray of shape (n,), optional
        Its churn probabilities on the hold-out; None if it cannot be compared.
    problem
        Why it cannot be compared, as a sentence.
    attempt
        How many distinct models have been compared with this version so far, this one included.
    """

    name: str
    version: str
    p: Probabilities | None = None
    problem: str = ""
    attempt: int = 1


@dataclass(frozen=True)
class Comparison:
    """One metric of challenger and baseline.

    Attributes
    ----------
    metric, baseline
        Names of the metric and of the baseline.
    challenger, baseline_value
        The metric of both models.
    difference, standard_error
        The difference, and its standard error; above 0 the challenger is better.
    lower, upper
        Its limits, each with an error of `level`.
    margin
        The loss that is tolerated.
    power
        Probability that an equally good challenger is shown to lose less than the margin.
    p_worse
        p-value of the test that the challenger is not worse; one-sided.
    """

    metric: str
    baseline: str
    challenger: float
    baseline_value: float
    difference: float
    standard_error: float
    lower: float
    upper: float
    level: float
    margin: float
    power: float
    p_worse: float

    @property
    def within_margin(self) -> bool:
        """Whether the challenger is shown to lose less than the margin."""
        return self.lower > -self.margin or self.lower == self.difference == 0


def compare(
    challenger: Holdout, baseline: Baseline, costs: CostModel, settings: GateSettings, constant: float
) -> tuple[Comparison, Comparison]:
    """Compare log loss and profit of a challenger and a baseline.

    Parameters
    ----------
    challenger
        Labels, values and group keys of n rows, and the challenger's churn probabilities.
    baseline
        Its `p`, of shape (n,), must not be None.
    costs, settings
        The cost model; shares of the margins and the error rate.
    constant
        The constant prediction: what the baseline gains over it is the scale of the log loss's margin.

    References
    ----------
    Schuirmann (1987), Journal of Pharmacokinetics and Biopharmaceutics 15: two one-sided tests.
    Holmgren (1999), "Establishing equivalence by showing that a specified percentage of the effect of the active control over
    placebo is maintained", Journal of Biopharmaceutical Statistics 9: margins as a share of an effect.
    """
    y, value, groups = challenger.y, challenger.value, challenger.groups
    other = Holdout(y, np.asarray(baseline.p), value, groups)
    level = attempt_level(settings.error_rate, baseline.attempt)
    losses = [row_log_loss(y, p) for p in (challenger.p, other.p)]
    earned = contact_profit(y, value, costs)
    profits = [contacts(p, value, costs) * earned for p in (challenger.p, other.p)]
    gain = float(row_log_loss(y, np.full(y.size, constant)).mean() - losses[1].mean())
    log_loss = _compare_rows(
        "log_loss", baseline.name, losses, -1, settings.log_loss_share * max(gain, 0.0), level, groups
    )
    share = settings.profit_share * max(float(profits[1].mean()), 0.0)
    return log_loss, _compare_rows("profit", baseline.name, profits, 1, share, level, groups)


def attempt_level(error_rate: float, attempt: int) -> float:
    """One-sided error of the limits at the k-th comparison with one baseline.

    Each further attempt could pass by luck. So the error shrinks with the attempts.
    """
    return error_rate / attempt


def _compare_rows(
    metric: str,
    baseline: str,
    rows: Sequence[Probabilities],
    sign: int,
    margin: float,
    level: float,
    groups: npt.NDArray[np.generic] | None,
) -> Comparison:
    difference, error = mean_with_error(sign * (rows[0] - rows[1]), groups)
    reach = float(norm.ppf(1 - level)) * error
    return Comparison(
        metric=metric,
        baseline=baseline,
        challenger=float(rows[0].mean()),
        baseline_value=float(rows[1].mean()),
        difference=difference,
        standard_error=error,
        lower=difference - reach,
        upper=difference + reach,
        level=level,
        margin=margin,
        power=float(norm.cdf((margin - reach) / error)) if error else 1.0,
        p_worse=float(norm.cdf(difference / error)) if error else 1.0,
    )


def significantly_worse(compared: Sequence[Comparison], error_rate: float) -> list[Comparison]:
    """Comparisons in which the challenger is significantly worse by any amount, with one error rate over all of them.

    References
    ----------
    Holm (1979), "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics 6.
    """
    found: list[Comparison] = []
    for row in sorted(compared, key=lambda row: row.p_worse):
        if row.p_worse > error_rate / (len(compared) - len(found)):
            break
        found.append(row)
    return found
