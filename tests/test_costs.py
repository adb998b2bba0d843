"""The decision rule: the thresholds of the service are those of evaluation, to the last bit."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from churn_pipeline.costs import NO_CONTACT_THRESHOLD, CostModel, DecisionRule, ValueColumn, break_even, contacts

cost_models = st.builds(
    CostModel,
    value=st.builds(ValueColumn, column=st.just("charge"), months=st.floats(0.1, 60)),
    offer_cost=st.floats(0, 200),
    contact_cost=st.floats(0, 20),
    acceptance=st.floats(0.01, 1),
)
amounts = st.lists(st.floats(-10, 1e4) | st.integers(0, 500) | st.none(), min_size=1, max_size=30)


@given(cost_models, amounts, st.floats(0, 1e5), st.lists(st.floats(0, 1), min_size=30, max_size=30))
def test_thresholds_and_decisions_are_those_of_evaluation(
    costs: CostModel, known: list[float | None], mean: float, p: list[float]
) -> None:
    assert isinstance(costs.value, ValueColumn)
    rule = DecisionRule.of(costs, np.array([mean]))
    values = np.array([np.nan if amount is None else amount for amount in known]) * costs.value.months
    values = np.where(np.isnan(values), mean, values)
    found = rule.thresholds(known)
    np.testing.assert_array_equal(found, break_even(values, costs))
    probabilities = np.array(p[: len(known)])
    np.testing.assert_array_equal(probabilities >= found, contacts(probabilities, values, costs))
    expected = ["mean_value" if amount is None else "customer_value" for amount in known]
    assert list(rule.bases(known)) == expected


def test_one_value_gives_one_threshold() -> None:
    costs = CostModel(value=200, offer_cost=10, contact_cost=1, acceptance=0.3)
    rule = DecisionRule.of(costs, np.full(5, 200.0))
    assert rule.column is None
    assert rule.thresholds(None) == rule.threshold == pytest.approx(11 / 67)
    assert next(iter(rule.bases(None))) == "one_value"


def test_a_contact_that_never_pays_has_a_threshold_that_a_document_can_hold() -> None:
    costs = CostModel(value=ValueColumn(column="charge"), offer_cost=10, contact_cost=1, acceptance=0.3)
    rule = DecisionRule.of(costs, np.array([5.0]))
    assert rule.threshold == NO_CONTACT_THRESHOLD
    assert DecisionRule.model_validate_json(rule.model_dump_json()) == rule


@pytest.mark.parametrize("change", [{"threshold": 0.5}, {"mean_value": 100.0}, {"mean_value": -1.0}, {"fee": 1}])
def test_a_changed_document_is_refused(change: dict[str, float]) -> None:
    rule = DecisionRule.of(CostModel(value=200, offer_cost=10, contact_cost=1, acceptance=0.3), np.array([200.0]))
    with pytest.raises(ValidationError):
        DecisionRule.model_validate({**rule.model_dump(), **change})


def test_the_cost_model_imports_no_pandas() -> None:
    code = "import sys, churn_pipeline.costs; print(sorted({'pandas', 'scipy', 'sklearn', 'kedro'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
