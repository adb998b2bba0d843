"""Planted leaks are found, and strong honest features pass."""

import pytest
from tests.conftest import PUBLIC, needs_public_data
from tests.leaks import planting, zoo

from churn_pipeline.leaks import LeakSettings, find_leaks

SIMULATED = planting.simulated()


@pytest.mark.parametrize("name", zoo.LEAKS)
def test_a_planted_leak_is_named(name: str) -> None:
    found = planting.findings(SIMULATED, zoo.LEAKS[name])
    assert planting.tier(found) != "none"
    assert all(finding.figures for finding in found)


@pytest.mark.parametrize("name", zoo.HONEST)
def test_a_strong_honest_feature_passes(name: str) -> None:
    assert planting.findings(SIMULATED, zoo.HONEST[name]) == []


@needs_public_data
@pytest.mark.parametrize("name", planting.TABLES)
def test_leaks_are_named_in_a_public_table_and_honest_features_pass(name: str) -> None:
    assert PUBLIC
    table = dict(planting.public(PUBLIC))[name]
    own = find_leaks(*table, LeakSettings(), 1)
    leaks = {leak: planting.tier(planting.findings(table, plant)) for leak, plant in zoo.LEAKS.items()}
    honest = {good: planting.tier(planting.findings(table, plant)) for good, plant in zoo.HONEST.items()}
    named = sum(found != "none" for found in leaks.values())
    assert named >= 0.9 * len(leaks), leaks
    assert "stop" not in honest.values()
    assert not own.stops
    assert sum(found == "warn" for found in honest.values()) + len(own.warnings) <= 1, (honest, own.findings)
