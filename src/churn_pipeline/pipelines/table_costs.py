"""The cost model of a table, and the values of its customers: what the evaluation uses, and `kedro table check` checks."""

import logging
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import ValidationError

from churn_pipeline.contract.errors import Finding, TableError
from churn_pipeline.contract.mistakes import mistakes
from churn_pipeline.contract.table import Contract
from churn_pipeline.costs import CostModel, ValueColumn

logger = logging.getLogger(__name__)


def cost_source(contract: Contract) -> str:
    """Say which of the two cost models is used: the one in the table's file, or the one in the parameters."""
    if contract.costs:
        return f"Costs are taken from the file of table '{contract.name}'; `costs` in the parameters is ignored."
    return f"Costs are taken from `costs` in the parameters; the file of table '{contract.name}' has none."


def cost_model(contract: Contract, costs: dict[str, Any]) -> dict[str, Any]:
    """Select the cost model: the table's own, or else the one in the parameters.

    Raises
    ------
    TableError
        If it is not a valid cost model, or uses a column missing from the contract.
    """
    logger.info("%s", cost_source(contract))
    subject = f"The costs of table '{contract.name}'"
    try:
        model = CostModel.model_validate(contract.costs or costs)
    except ValidationError as error:
        raise TableError(subject, "; ".join(mistakes(error, CostModel))) from None
    for problem in contract.value_problems(_value_column(model)):
        raise TableError(subject, f"{problem}: name a numeric column of the contract, or give one number")
    return model.model_dump(mode="json")


def customer_values(costs: CostModel, customers: pd.DataFrame) -> npt.NDArray[np.float64]:
    """The value of each customer, of shape (n,).

    Raises
    ------
    TableError
        If the column is missing, or a value in it is missing or negative.
    """
    try:
        return costs.values(customers)
    except ValueError as error:
        raise TableError(
            "The cost model does not fit the customers", [Finding(str(error), _value_column(costs))]
        ) from None


def _value_column(costs: CostModel) -> str | None:
    return costs.value.column if isinstance(costs.value, ValueColumn) else None
