"""The sample of a bundle: invented customers with the churn probabilities that the packaged model gave them.

A service that loads the bundle must give the same answers. That fails if the model, the conversion of requests or onnxruntime
behaves differently there, which digests cannot show.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import to_json

from churn_pipeline.contract.table import Column, Contract
from churn_pipeline.serving.bundle import CATEGORICAL, NUMERIC, OUTPUT, SAMPLE_FILE, Bundle, BundleError
from churn_pipeline.serving.bundle_parts import CategoricalProfile, NumericProfile, Share
from churn_pipeline.serving.bundle_parts import TrainingProfile as Profile
from churn_pipeline.serving.column_rules import ColumnRule, column_rules
from churn_pipeline.serving.requests import RequestError, RequestParser
from churn_pipeline.serving.scoring import Scorer

ROWS = 20
TOLERANCE = 1e-6  # as in packaging; the same machine code gives exactly the same probabilities


class Sample(BaseModel):
    """Invented customers and their churn probabilities at packaging.

    Attributes
    ----------
    customers
        Values by column, as in a request.
    churn_probabilities
        The packaged model's answers, in the order of the customers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    customers: tuple[dict[str, Any], ...] = Field(min_length=1, max_length=ROWS)
    churn_probabilities: tuple[Share, ...]

    @model_validator(mode="after")
    def _of_equal_length(self) -> "Sample":
        if len(self.customers) != len(self.churn_probabilities):
            raise ValueError("expected one churn probability for each customer")
        return self


def make_sample(
    contract: Contract,
    profile: Profile,
    session: onnxruntime.InferenceSession,
    numeric: Sequence[str],
    categorical: Sequence[str],
) -> Sample:
    """Invent customers and score them.

    Each value is drawn from its column's training profile alone, so no row is a customer's. Missing values are left out.

    Parameters
    ----------
    contract, profile, session
        Of the packaged model.
    numeric, categorical
        The model's columns, in the order of its inputs.
    """
    rng, rules = np.random.default_rng(0), column_rules(contract)
    customers = [
        {name: value for name in contract.features if (value := _draw(rules[name], profile, name, rng)) is not None}
        for _ in range(ROWS)
    ]
    rows = [dict.fromkeys(contract.features) | customer for customer in customers]
    inputs = zip((NUMERIC, CATEGORICAL), RequestParser(contract, numeric, categorical, ROWS).inputs(rows), strict=True)
    probabilities = session.run([OUTPUT], {name: given for name, given in inputs if given is not None})[0]
    return Sample(customers=tuple(customers), churn_probabilities=tuple(probabilities.tolist()))


def check_sample(bundle: Bundle) -> None:
    """Check that a loaded bundle gives the answers in its sample.

    Raises
    ------
    BundleError
        If it has no sample, a customer is refused, or a churn probability differs by more than `TOLERANCE`.
    """
    if bundle.sample is None:
        raise BundleError(f"it has no {SAMPLE_FILE}: package the model again")
    parser = RequestParser(bundle.contract, bundle.numeric, bundle.categorical, ROWS)
    try:
        sample = Sample.model_validate_json(bundle.sample)
        customers = parser.read(to_json({"customers": sample.customers}))["customers"]
    except ValidationError:
        raise BundleError(f"{SAMPLE_FILE} is malformed. Package the model again") from None
    except RequestError as error:
        where = f" ({error.problems[0].field}: {error.problems[0].rule})" if error.problems else ""
        raise BundleError(f"{SAMPLE_FILE}: the service refuses a customer{where}. Package the model again") from None
    scored = Scorer(bundle).probabilities(*parser.inputs(customers))
    difference = float(np.max(np.abs(scored - np.array(sample.churn_probabilities))))
    if not difference <= TOLERANCE:  # NaN too
        raise BundleError(
            f"{SAMPLE_FILE}: churn probabilities differ by up to {difference:.2g} from those at packaging. Package the model "
            "again with this version of the service"
        )


def _draw(rule: ColumnRule, profile: Profile, name: str, rng: np.random.Generator) -> Any:
    """A valid value of a feature, as JSON; None for missing."""
    column = rule.column
    candidates = (
        _numbers(profile.numeric[name], column, rng)
        if name in profile.numeric
        else _levels(profile.categorical[name], column, rng)
    )
    options = [*candidates, column.example, *(column.isin or ())]
    if rule.may_be_missing and candidates[0] is None:
        return None
    return next((value for value in options if value is not None and rule.is_valid(value)), None)


def _numbers(profile: NumericProfile, column: Column, rng: np.random.Generator) -> list[Any]:
    """A random quantile, or missing; then the median."""
    at, missing = rng.integers(1, 100), rng.random() < profile.missing
    if not profile.quantiles:
        return [None]
    convert: Any = {"int64": int, "bool": bool}.get(column.dtype, float)
    middle = profile.quantiles[len(profile.quantiles) // 2]
    return [None if missing else convert(profile.quantiles[at]), convert(middle), middle]


def _levels(profile: CategoricalProfile, column: Column, rng: np.random.Generator) -> list[Any]:
    """A random level, or missing; then the other levels."""
    names = list(profile.levels)
    if not names:
        return [None]
    weights = np.array([profile.levels[name] for name in names])
    first = int(rng.choice(len(names), p=weights / weights.sum()))
    found = [names[first], *(name for name in names if name)]
    convert: Any = int if column.dtype == "int64" else str
    return [convert(name) if name else None for name in found]
