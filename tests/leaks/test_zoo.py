"""Planted leaks are named, and strong honest features pass. `zoo_outside` was written without knowledge of the leak check."""

from types import ModuleType

import pytest
from tests.conftest import PUBLIC, needs_public_data
from tests.leaks import planting, zoo, zoo_outside

from churn_pipeline.leaks import LeakSettings, find_leaks

ZOOS = {"zoo": zoo, "zoo_outside": zoo_outside}
SIMULATED = planting.simulated()
LEAKS = [(zoo, name) for zoo, module in ZOOS.items() for name in module.LEAKS]
HONEST = [(zoo, name) for zoo, module in ZOOS.items() for name in module.HONEST]


@pytest.mark.parametrize(("source", "name"), LEAKS)
def test_a_planted_leak_is_named(source: str, name: str) -> None:
    found = planting.findings(SIMULATED, ZOOS[source].LEAKS[name])
    assert planting.tier(found) != "none"
    assert all(finding.figures for finding in found)


@pytest.mark.parametrize(("source", "name"), HONEST)
def test_a_strong_honest_feature_passes(source: str, name: str) -> None:
    assert planting.findings(SIMULATED, ZOOS[source].HONEST[name]) == []


@pytest.mark.slow
@needs_public_data
@pytest.mark.parametrize("source", ZOOS)
@pytest.mark.parametrize("name", planting.TABLES)
def test_leaks_are_named_in_a_public_table_and_honest_features_pass(name: str, source: str) -> None:
    assert PUBLIC
    module: ModuleType = ZOOS[source]
    table = dict(planting.public(PUBLIC))[name]
    own = find_leaks(*table, LeakSettings(), 1)
    leaks = {leak: planting.tier(planting.findings(table, plant)) for leak, plant in module.LEAKS.items()}
    honest = {good: planting.tier(planting.findings(table, plant)) for good, plant in module.HONEST.items()}
    named = sum(found != "none" for found in leaks.values())
    assert named >= 0.9 * len(leaks), leaks
    assert "stop" not in honest.values()
    assert not own.stops
    assert sum(found == "warn" for found in honest.values()) + len(own.warnings) <= 1, (honest, own.findings)
