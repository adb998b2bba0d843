"""Nodes of the decision: which cost model is used, and that the log says so."""

import logging

import pytest
from tests.customers import make_contract, table_file

from churn_pipeline.contract.errors import TableError
from churn_pipeline.contract.table import Contract
from churn_pipeline.pipelines.table_costs import cost_model, cost_source

OWN = {"value": 100.0, "offer_cost": 5, "contact_cost": 1, "acceptance": 0.2}
PARAMETERS = {"value": 600.0, "offer_cost": 50, "contact_cost": 5, "acceptance": 0.3}


def with_costs(**costs: object) -> Contract:
    return Contract.parse({**table_file(), "costs": {**OWN, **costs}}, "customers")


def test_the_tables_own_costs_come_first_and_the_log_says_that_the_parameters_are_ignored(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, "churn_pipeline"):
        assert cost_model(with_costs(), PARAMETERS)["value"] == 100
    expected = "Costs are taken from the file of table 'customers'; `costs` in the parameters is ignored."
    assert cost_source(with_costs()) == expected
    assert expected in caplog.messages


def test_the_parameters_apply_to_a_table_without_costs(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "churn_pipeline"):
        assert cost_model(make_contract(), PARAMETERS)["value"] == 600
    assert "Costs are taken from `costs` in the parameters; the file of table 'customers' has none." in caplog.messages


def test_costs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(TableError, match="acceptance"):
        cost_model(with_costs(acceptance=2), PARAMETERS)
    with pytest.raises(TableError, match="column 'salary', which is missing"):
        cost_model(with_costs(value={"column": "salary"}), PARAMETERS)
