"""A trial is pruned when it is further behind the best trial than chance can explain."""

from typing import Any

import numpy as np
import pytest

from churn_pipeline.modelling.search.pruning import PruningRule
from churn_pipeline.modelling.studies import Trial


def ended(number: int, *scores: float, state: Any = "complete") -> Trial:
    return Trial(number, {}, scores, state, 0.0, 0.0)


def test_the_rule_needs_three_complete_trials_whose_gaps_vary() -> None:
    trials = [ended(0, 0.4, 0.5), ended(1, 0.41, 0.52), ended(2, 0.39, 0.3, state="pruned")]
    assert PruningRule.from_trials(trials) is None
    rule = PruningRule.from_trials([*trials, ended(3, 0.43, 0.52)])
    assert rule is not None
    assert rule.best_scores == (0.4, 0.5)
    assert rule.gap_deviation == pytest.approx(np.sqrt(0.5) * 0.01)
    assert PruningRule.from_trials([ended(n, 0.4, 0.5) for n in range(5)]) is None
    assert PruningRule.from_trials([ended(n, 0.4 + n) for n in range(5)]) is None


def test_a_trial_as_good_as_the_best_is_never_pruned_and_a_far_worse_one_at_once() -> None:
    rule = PruningRule(best_scores=(0.4, 0.5, 0.45), gap_deviation=0.01)
    for scores in ([0.4], [0.4, 0.5], [0.39, 0.5], [0.41, 0.49]):
        assert not rule.prunes(scores, max_standard_errors=0.001)
    assert rule.prunes([0.43], max_standard_errors=2)
    assert not rule.prunes([0.415], max_standard_errors=2)
    assert rule.prunes([0.415, 0.515], max_standard_errors=2)
