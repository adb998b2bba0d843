"""Profit if an assumption of the cost model is wrong."""

from collections.abc import Sequence

import pandas as pd

from churn_pipeline.costs import CostModel, break_even, contact_profit, contacts
from churn_pipeline.evaluation.holdout import Holdout
from churn_pipeline.evaluation.predictions import Probabilities

FACTORS = (0.5, 0.8, 1.0, 1.25, 2.0)


def sensitivity(holdout: Holdout, costs: CostModel, factors: Sequence[float] = FACTORS) -> pd.DataFrame:
    """Compute the profit if one assumption of the cost model is wrong by a factor.

    A customer is contacted if the churn probability is at least the break-even of that customer's value.

    Returns
    -------
    pandas.DataFrame
        One row per parameter and factor, with the columns

        - parameter, factor, setting (for values, their mean; acceptance is at most 1);
        - threshold: break-even at the mean value;
        - contacted_share, profit: if contacts follow the true costs;
        - profit_with_assumed_costs: if contacts follow the assumed costs, but the changed costs turn out to be the true
          ones. The difference between the two profits is the cost of the wrong assumption.
    """
    labels, probabilities, values = holdout.y, holdout.p, holdout.value
    assumed_contacts = contacts(probabilities, values, costs)
    rows = []
    for parameter in ("value", "offer_cost", "contact_cost", "acceptance"):
        for factor in factors:
            true_costs, true_values = _changed(parameter, factor, costs, values)
            contacted = contacts(probabilities, true_values, true_costs)
            earned = contact_profit(labels, true_values, true_costs)
            rows.append(
                {
                    "parameter": parameter,
                    "factor": factor,
                    "setting": true_values.mean() if parameter == "value" else getattr(true_costs, parameter),
                    "threshold": float(break_even(true_values.mean(), true_costs)),
                    "contacted_share": contacted.mean(),
                    "profit": (contacted * earned).mean(),
                    "profit_with_assumed_costs": (assumed_contacts * earned).mean(),
                }
            )
    return pd.DataFrame(rows)


def _changed(parameter: str, factor: float, costs: CostModel, values: Probabilities) -> tuple[CostModel, Probabilities]:
    if parameter == "value":
        return costs, values * factor
    setting = getattr(costs, parameter) * factor
    return costs.model_copy(update={parameter: min(setting, 1.0) if parameter == "acceptance" else setting}), values
