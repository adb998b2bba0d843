"""The cost model, and the contact decision that follows from it.

A contacted churner accepts the offer with probability `acceptance`, stays, and is worth `value` minus the offer. A
contacted stayer accepts the offer too, but would have stayed anyway. Every contact has a cost. So contacting a customer
earns::

    churner    acceptance * (value - offer_cost) - contact_cost
    stayer                             -offer_cost - contact_cost

and not contacting earns 0.

Training and the service use these functions, so that the decision that is evaluated is the one that is served. This module
imports neither pandas nor anything else of the project.

References
----------
Neslin, Gupta, Kamakura, Lu & Mason (2006), "Defection Detection", Journal of Marketing Research 43(2): the profit model.
"""

from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    import pandas as pd

# Finite, and above every churn probability
NO_CONTACT_THRESHOLD = float(np.nextafter(1, 2))
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
ThresholdBasis = Literal["customer_value", "mean_value", "one_value"]
Amount = float | None


def check_values(value: npt.ArrayLike, n: int) -> Floats:
    """Customer values of shape (n,); a single number is broadcast."""
    values = np.asarray(value, dtype=np.float64)
    if values.ndim == 0:
        values = np.full(n, values)
    if values.shape != (n,):
        raise ValueError(
            f"Values have shape {values.shape} for {n:,} customers; pass one per customer or a single number."
        )
    bad = ~(np.isfinite(values) & (values >= 0))
    if bad.any():
        raise ValueError(
            f"{bad.sum():,} of {n:,} customer values are missing or negative (first at position {bad.argmax()}). "
            "Use 0 for a customer without value."
        )
    return values


class ValueColumn(BaseModel):
    """Customer value from a column: the monthly amount times the months that a retained customer stays."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str
    months: float = Field(default=1, gt=0)


class CostModel(BaseModel):
    """Costs and earnings of contacting a customer.

    Attributes
    ----------
    value
        Value of a retained customer before the offer cost: one number, or a column.
    offer_cost
        Cost of an accepted offer.
    contact_cost
        Cost of every contact.
    acceptance
        Share of contacted churners who accept the offer and stay.
    acceptance_sample
        Certainty of `acceptance`, as the number of churners it was estimated from. Used only by EMPC. An acceptance of 0.3
        and a sample of 20 give Beta(6, 14), which the authors of EMPC use.
    currency
        Used in labels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: Annotated[float, Field(gt=0)] | ValueColumn
    offer_cost: float = Field(ge=0)
    contact_cost: float = Field(ge=0)
    acceptance: float = Field(gt=0, le=1)
    acceptance_sample: float = Field(default=20, gt=0)
    currency: str = ""

    def values(self, customers: "pd.DataFrame") -> Floats:
        """Value of each customer if retained, of shape (n,).

        Raises
        ------
        ValueError
            If the column is missing, or a value in it is missing or negative.
        """
        if not isinstance(self.value, ValueColumn):
            return np.full(len(customers), self.value)
        if self.value.column not in customers:
            raise ValueError(f"The column '{self.value.column}', which the cost model takes values from, is missing.")
        return check_values(customers[self.value.column].to_numpy(np.float64) * self.value.months, len(customers))


def contact_profit_churner(value: npt.ArrayLike, costs: CostModel) -> Floats:
    """Expected profit of contacting a churner, averaged over accepting and declining; same shape as `value`."""
    return costs.acceptance * (np.asarray(value, dtype=np.float64) - costs.offer_cost) - costs.contact_cost


def contact_profit_stayer(costs: CostModel) -> float:
    """Profit of contacting a customer who would have stayed: never above 0."""
    return -costs.offer_cost - costs.contact_cost


def expected_profit(p: npt.ArrayLike, value: npt.ArrayLike, costs: CostModel) -> Floats:
    """Expected profit of contacting each customer with churn probability `p`, of shape (n,)."""
    probabilities = np.asarray(p, dtype=np.float64)
    return probabilities * contact_profit_churner(value, costs) + (1 - probabilities) * contact_profit_stayer(costs)


def break_even(value: npt.ArrayLike, costs: CostModel) -> Floats:
    """The churn probability at which contacting a customer with this value starts to pay.

    With calibrated probabilities this threshold is optimal. It is not fitted to data, so its profit on the hold-out is not
    overstated.

    Returns
    -------
    ndarray with the shape of `value`
        In [0, 1]; `NO_CONTACT_THRESHOLD` if contacting even a certain churner does not pay.

    References
    ----------
    Elkan (2001), "The Foundations of Cost-Sensitive Learning", IJCAI: the threshold follows from the costs alone.
    """
    loss = -contact_profit_stayer(costs)
    gain = np.asarray(contact_profit_churner(value, costs))
    threshold = np.full(gain.shape, NO_CONTACT_THRESHOLD)
    return np.asarray(np.divide(loss, gain + loss, out=threshold, where=gain > 0))


def contacts(p: npt.ArrayLike, value: npt.ArrayLike, costs: CostModel, threshold: float | None = None) -> Mask:
    """Select the customers to contact, as a mask of shape (n,).

    Parameters
    ----------
    p, value : float or array-like of shape (n,)
        Churn probabilities and customer values.
    costs
        The cost model.
    threshold
        Contact customers with at least this churn probability. By default, the break-even of each customer's value.
    """
    probabilities = np.asarray(p, dtype=np.float64)
    return np.asarray(probabilities >= (break_even(value, costs) if threshold is None else threshold))


def contact_profit(y: npt.ArrayLike, value: npt.ArrayLike, costs: CostModel) -> Floats:
    """Profit of contacting each customer given the label, averaged over accepting and declining; of shape (n,)."""
    return np.where(np.asarray(y) == 1, contact_profit_churner(value, costs), contact_profit_stayer(costs))


class DecisionRule(BaseModel):
    """The contact decision of a model version: the cost model, and the mean value for customers without a known value.

    Attributes
    ----------
    costs
        The cost model.
    mean_value
        Mean value of the held-out customers.
    threshold
        Break-even churn probability at the mean value. It is stored so that a change of the formula is noticed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    costs: CostModel
    mean_value: float = Field(ge=0, allow_inf_nan=False)
    threshold: float = Field(ge=0, le=NO_CONTACT_THRESHOLD)

    @classmethod
    def of(cls, costs: CostModel, values: Floats) -> "DecisionRule":
        """The rule under a cost model, for customers whose values have shape (n,)."""
        mean = float(values.mean())
        return cls(costs=costs, mean_value=mean, threshold=float(break_even(mean, costs)))

    @model_validator(mode="after")
    def _check_threshold(self) -> "DecisionRule":
        if abs(self.threshold - float(break_even(self.mean_value, self.costs))) > 1e-9:
            raise ValueError("the threshold is not the break-even at the mean value")
        return self

    @property
    def column(self) -> str | None:
        """The column that customer values come from; None if all customers have one value."""
        return self.costs.value.column if isinstance(self.costs.value, ValueColumn) else None

    def thresholds(self, amounts: Sequence[Amount] | None) -> Floats:
        """Break-even churn probability of each customer, in the same arithmetic as `break_even`.

        It computes with plain floats: for the few customers of a request, numpy would take several times as long.

        Parameters
        ----------
        amounts
            Amount of each customer in the value column, None for missing; None if all customers have one value.

        Returns
        -------
        ndarray of shape (n,), or of shape () for one value
        """
        costs, value = self.costs, self.costs.value
        if amounts is None or not isinstance(value, ValueColumn):
            return np.asarray(self.threshold)
        months, acceptance, offer_cost, contact_cost = (
            value.months,
            costs.acceptance,
            costs.offer_cost,
            costs.contact_cost,
        )
        loss, found = offer_cost + contact_cost, []
        for amount in amounts:
            if amount is None:
                found.append(self.threshold)
                continue
            gain = acceptance * (amount * months - offer_cost) - contact_cost
            found.append(loss / (gain + loss) if gain > 0 else NO_CONTACT_THRESHOLD)
        return np.array(found)

    def bases(self, amounts: Sequence[Amount] | None) -> Iterable[ThresholdBasis]:
        """What each customer's threshold is based on; `amounts` as in `thresholds`."""
        if amounts is None:
            return repeat("one_value")
        return ["mean_value" if amount is None else "customer_value" for amount in amounts]
