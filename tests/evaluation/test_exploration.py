"""Churn shares by level, and distance to the true churn probabilities."""

import io

import numpy as np
import pandas as pd
import pytest

from churn_pipeline.evaluation.exploration import churn_shares, churn_shares_plot, closeness
from churn_pipeline.evaluation.metrics import log_loss
from churn_pipeline.evaluation.segment_levels import segment_levels


def test_shares_are_counted_and_have_wilsons_limits() -> None:
    plan = pd.Series(["b"] * 40 + ["a"] * 10, index=np.arange(50) * 3)
    churned = np.array([1] * 10 + [0] * 30 + [1] * 5 + [0] * 5)

    table = churn_shares(segment_levels(plan), churned)

    assert table["level"].tolist() == ["a", "b"]
    assert table["customers"].tolist() == [10, 40]
    assert table["churned"].tolist() == [0.5, 0.25]
    # If a limit were the true share, the observed share would be 1.96 standard deviations away
    for row in table.itertuples():
        for limit in (row.lower, row.upper):
            deviation = np.sqrt(limit * (1 - limit) / row.customers)
            assert abs(row.churned - limit) / deviation == pytest.approx(1.959964, abs=1e-5)
        assert row.lower < row.churned < row.upper


def test_levels_without_customers_have_no_row_and_missing_values_have_one() -> None:
    plan = pd.Series(pd.Categorical(["a", None, "a"], categories=["a", "never"]))
    assert churn_shares(segment_levels(plan), [0, 1, 0])["level"].tolist() == ["a", "missing"]


@pytest.mark.parametrize("features", [1, 3])
def test_the_plot_names_the_ends_and_leaves_out_rare_levels(features: int) -> None:
    rng = np.random.default_rng(0)
    churned = np.r_[np.ones(5), (rng.random(595) < np.repeat([0.1, 0.6], [300, 295]))].astype(int)
    plan = pd.Series(np.repeat(["rare", "low", "a level of a very, very long name"], [5, 300, 295]))
    shares = {f"plan {number}": churn_shares(segment_levels(plan), churned) for number in range(features)}

    figure = churn_shares_plot(shares, float(churned.mean()))

    assert "(plan 0: low)" in figure.get_suptitle()
    assert "rare" not in figure.get_suptitle()
    assert sum(axes.axison for axes in figure.axes) == features
    figure.savefig(io.BytesIO(), format="png")


def test_only_the_most_frequent_levels_are_drawn() -> None:
    town = pd.Series([f"town {number}" for number in range(30) for _ in range(number + 1)])
    figure = churn_shares_plot({"town": churn_shares(segment_levels(town), np.zeros(len(town)))}, 0.0)
    names = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert len(names) == 10
    assert "town 29 (30)" in names


def test_excess_log_loss_is_that_of_many_drawn_labels() -> None:
    rng = np.random.default_rng(1)
    truth = rng.uniform(0.02, 0.6, 400)
    p = np.clip(truth + rng.normal(0.03, 0.08, 400), 0.01, 0.99)
    draws = np.concatenate([(rng.random(400) < truth).astype(np.int64) for _ in range(4000)])
    excess = log_loss(draws, np.tile(p, 4000)) - log_loss(draws, np.tile(truth, 4000))

    found = closeness(truth, p)

    assert found["excess_log_loss"] == pytest.approx(excess, abs=0.001)
    assert found["distance"] == pytest.approx(np.abs(p - truth).mean())
    assert found["bias"] == pytest.approx((p - truth).mean())


def test_the_truth_has_distance_zero_and_certainty_is_finite() -> None:
    truth = [0.0, 0.3, 1.0]
    assert closeness(truth, truth) == pytest.approx({"distance": 0, "bias": 0, "excess_log_loss": 0}, abs=1e-15)
    assert 0 < closeness([0.5], [0.0])["excess_log_loss"] < 40


@pytest.mark.parametrize(("truth", "p"), [([0.5], [0.5, 0.5]), ([1.5], [0.5]), ([0.5], [np.nan])])
def test_invalid_probabilities_are_refused(truth: list[float], p: list[float]) -> None:
    with pytest.raises(ValueError, match=r"shape|outside|NaN"):
        closeness(truth, p)
