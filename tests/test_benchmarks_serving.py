"""The serving benchmark: its peers check the same customers as the contract, and its headline names the strongest peer."""

from typing import Any, get_args

import pytest
from benchmarks.serving import EMPTY, FLOOR, NOTHING, OURS, headline, strongest_peer
from benchmarks.serving_peers.customers import Customer

from churn_pipeline.contract.schema import read_contract
from tests.conftest import ROOT


def test_the_peers_check_every_rule_of_the_contract() -> None:
    contract = read_contract(ROOT / "conf/base/tables/simulated.yml")
    assert set(Customer.model_fields) == set(contract.features)
    for name, field in Customer.model_fields.items():
        column = contract.columns[name]
        bounds: dict[str, Any] = {}
        for one in field.metadata:
            bounds |= {kind: getattr(one, kind) for kind in ("ge", "le") if hasattr(one, kind)}
        span = column.in_range
        assert bounds == ({} if span is None else {"ge": span.min_value, "le": span.max_value})
        assert get_args(field.annotation) == tuple(column.isin or ())


def test_the_headline_compares_with_the_strongest_peer_and_not_with_services_without_a_model() -> None:
    measured = {
        OURS: [{"requests": 300, "p50": 1, "rows": 80}, {"requests": 100, "p50": 2, "rows": 80}],
        "slow": [{"requests": 10, "p50": 9, "rows": 200}] * 2,
        "fast": [{"requests": 200, "p50": 2, "rows": 40}] * 2,
        NOTHING: [{"requests": 900, "p50": 0, "rows": 900}] * 2,
        FLOOR: [{"requests": 900, "p50": 0}] * 2,
        EMPTY: [{}] * 2,
    }
    assert strongest_peer(measured) == "fast"
    for part in ("fast", "1.00 × its requests/s", "0.75 × its p50", "2.00 × its rows/s"):
        assert part in headline(measured)


def test_a_headline_needs_as_many_rounds_of_the_peer_as_of_ours() -> None:
    with pytest.raises(ValueError, match="zip"):
        headline({OURS: [{"requests": 1, "p50": 1, "rows": 1}], "peer": [{"requests": 1, "p50": 1, "rows": 1}] * 2})
