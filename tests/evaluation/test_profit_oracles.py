"""Profit metrics equal those of empulse, an independent implementation."""

import numpy as np
import pytest
from empulse.metrics import empc_score, mpc_score
from hypothesis import given, settings
from hypothesis import strategies as st

from churn_pipeline.costs import CostModel
from churn_pipeline.evaluation.bootstrap import Resampling
from churn_pipeline.evaluation.empc import empc
from churn_pipeline.evaluation.holdout import Holdout
from churn_pipeline.evaluation.profit import profit_metrics
from churn_pipeline.evaluation.segments import ALL, SegmentScoring, segment_metrics


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    value=st.floats(50, 1000),
    offer=st.floats(1, 40),
    contact=st.floats(0.5, 10),
    acceptance=st.floats(0.1, 0.9),
    sample=st.floats(5, 100),
)
def test_empc_and_the_profit_in_hindsight_are_empulses(
    seed: int, value: float, offer: float, contact: float, acceptance: float, sample: float
) -> None:
    rng = np.random.default_rng(seed)
    p = np.round(1 / (1 + np.exp(-rng.normal(-1.6, 1.4, 300))), 2)  # with ties
    y = (rng.random(300) < p).astype(np.int64)
    y[:2] = 0, 1
    costs = CostModel(
        value=value, offer_cost=offer, contact_cost=contact, acceptance=acceptance, acceptance_sample=sample
    )
    theirs = {"clv": value, "incentive_cost": offer, "contact_cost": contact}
    beta = {"alpha": acceptance * sample, "beta": (1 - acceptance) * sample}
    found, share = empc(y, p, value, costs)
    assert found == pytest.approx(empc_score(y, p, **beta, **theirs), rel=1e-6, abs=1e-8)
    assert share == pytest.approx(empc_score.optimal_rate(y, p, **beta, **theirs), rel=1e-6, abs=1e-8)
    metrics = profit_metrics(Holdout(y, p, np.full(300, value)), costs, resampling=Resampling(40)).set_index("metric")
    most = mpc_score(y, p, accept_rate=acceptance, **theirs)
    assert metrics.loc["hindsight_profit", "value"] == pytest.approx(max(most, 0), rel=1e-9, abs=1e-9)


def test_the_segment_report_shows_the_same_profit_in_hindsight() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(200)
    y = (rng.random(200) < p).astype(np.int64)
    costs = CostModel(value=200, offer_cost=10, contact_cost=1, acceptance=0.3)
    table = segment_metrics(Holdout(y, p, np.full(200, 200.0)), {}, SegmentScoring(costs), Resampling(40))
    row = table[(table["segment"] == ALL) & (table["metric"] == "empc")].iloc[0]
    assert row["value"] == pytest.approx(empc_score(y, p, alpha=6, beta=14, clv=200, incentive_cost=10, contact_cost=1))
