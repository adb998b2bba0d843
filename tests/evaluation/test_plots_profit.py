"""Plots of profit, scores, segments, features and candidates: they show the numbers of their tables."""

import io
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from churn_pipeline.costs import NO_CONTACT_THRESHOLD, CostModel
from churn_pipeline.evaluation.bootstrap import Resampling
from churn_pipeline.evaluation.holdout import Holdout
from churn_pipeline.evaluation.plots_comparison import importance_plot, leaderboard_plot, segments_plot
from churn_pipeline.evaluation.plots_profit import profit_plot, sensitivity_plot
from churn_pipeline.evaluation.plots_scores import lift_plot, score_plot
from churn_pipeline.evaluation.profit import realised_profit
from churn_pipeline.evaluation.profit_curve import profit_curve
from churn_pipeline.evaluation.segments import ALL, SegmentScoring, segment_metrics
from churn_pipeline.evaluation.sensitivity import sensitivity

COSTS = CostModel(value=200, offer_cost=10, contact_cost=1, acceptance=0.3, currency="USD")
RNG = np.random.default_rng(0)
P = 1 / (1 + np.exp(-RNG.normal(-1.6, 1.4, 1600)))
Y = (RNG.random(1600) < P).astype(np.int64)
KIND = pd.Series(
    np.where(np.arange(1600) < 9, "tiny", RNG.choice(["red", "a level of a very very long name indeed"], 1600))
)
FEW = Resampling(100)
HOLDOUT = Holdout(Y, P, np.full(1600, 200.0))
CURVE = profit_curve(HOLDOUT, COSTS, resampling=FEW)
SEGMENTS = segment_metrics(HOLDOUT, {"kind": KIND}, SegmentScoring(COSTS), FEW)
SENSITIVITY = sensitivity(HOLDOUT, COSTS)
IMPORTANCE = pd.DataFrame(
    {"feature": ["a", "b"], "importance": [0.1, 0.0], "lower": [0.05, -0.01], "upper": [0.15, 0.01]}
)
BOARD = pd.DataFrame({"candidate": ["b", "a"], "log_loss": [0.41, 0.4], "log_loss_se": [0.01, 0.01]})
PLOTS: dict[str, Callable[[], Figure]] = {
    "profit": lambda: profit_plot(CURVE, 0.2, currency="USD"),
    "profit by customer": lambda: profit_plot(CURVE, NO_CONTACT_THRESHOLD, decided=(12.0, 11.0, 13.5)),
    "lift": lambda: lift_plot(Y, P, (3.0, 3.4)),
    "scores": lambda: score_plot(Y, P, 0.2),
    "importance": lambda: importance_plot(IMPORTANCE),
    "leaderboard": lambda: leaderboard_plot(BOARD, {"a": 1.0}),
    "auc": lambda: segments_plot(SEGMENTS, "auc"),
    "false positives": lambda: segments_plot(SEGMENTS, "false_positive_rate"),
    "profits": lambda: segments_plot(SEGMENTS, "profit_of_contacting_all", "USD"),
    "sensitivity": lambda: sensitivity_plot(SENSITIVITY, "USD"),
}


def title(figure: Figure) -> str:
    return figure.axes[0].get_title(loc="left")


def png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def test_the_title_of_segments_counts_levels_that_differ_after_holms_correction() -> None:
    levels = pd.DataFrame({"segment": "plan", "level": [f"level {i}" for i in range(10)], "rows": 100, "value": 0.8})
    whole = pd.DataFrame({"segment": [ALL], "level": ALL, "rows": 1000, "value": 0.8})

    def title(off: float) -> str:
        """One of ten levels lies `off` margins of a 95% interval above the others."""
        table = pd.concat([whole, levels.assign(value=[0.8 + off * 0.1, *[0.8] * 9])], ignore_index=True)
        table = table.assign(metric="auc", lower=table["value"] - 0.1, upper=table["value"] + 0.1, note="")
        return str(segments_plot(table, "auc").axes[0].get_title(loc="left"))

    assert title(1.2) == "AUC: 0 of 10 levels differ significantly"
    assert title(3.0) == "AUC: 1 of 10 levels differ significantly"


def test_titles_state_the_finding() -> None:
    drawn = CURVE[CURVE["threshold"] == CURVE["threshold"].iloc[70]].iloc[0]
    assert title(profit_plot(CURVE, drawn["threshold"])) == (
        f"Profit: {drawn['profit']:.2f} [{drawn['lower']:.2f}–{drawn['upper']:.2f}] per customer"
    )
    assert title(PLOTS["lift"]()).endswith("[3.00–3.40]")
    assert title(PLOTS["scores"]()).startswith("Scores: median 0.")
    assert title(PLOTS["importance"]()) == "Importance: 1 of 2 features significant; most: a"
    assert title(PLOTS["leaderboard"]()) == "Leaderboard: a leads with log loss 0.4000"
    assert title(PLOTS["auc"]()) == "AUC: 0 of 2 levels differ significantly"
    assert title(PLOTS["sensitivity"]()).startswith("Sensitivity: profit depends most on ")


def test_the_chosen_threshold_lies_on_the_curve() -> None:
    axes = PLOTS["profit"]().axes[0]
    (chosen,) = [
        line for line in axes.get_lines() if str(line.get_label()).startswith("break-even at the mean value: ")
    ]
    assert float(np.asarray(chosen.get_ydata())[0]) == pytest.approx(realised_profit(Y, P, 200, COSTS, 0.2), abs=0.5)
    lines = {str(line.get_label()) for line in PLOTS["profit by customer"]().axes[0].get_lines()}
    assert "each customer's own break-even: 12.00" in lines
    assert title(PLOTS["profit by customer"]()) == "Profit: 12.00 [11.00–13.50] per customer"


def test_large_losses_do_not_flatten_the_curve() -> None:
    dear = COSTS.model_copy(update={"offer_cost": 60.0})
    axes = profit_plot(profit_curve(HOLDOUT, dear, resampling=FEW), 0.6).axes[0]
    assert axes.get_ylim()[0] > -2 * axes.get_ylim()[1]


def test_bars_are_the_lifts_of_tenths() -> None:
    bars = [bar.get_height() for bar in lift_plot(Y, P).axes[0].patches]  # type: ignore[attr-defined]
    tenths = np.array_split(Y[np.argsort(-P)], 10)
    assert bars == pytest.approx([tenth.mean() / Y.mean() for tenth in tenths])


def test_lifts_of_customers_with_several_rows_have_wider_intervals() -> None:
    rows = np.repeat(np.arange(Y.size), 9)

    def widths(figure: Figure) -> np.ndarray:
        (segments,) = [item.get_segments() for item in figure.axes[0].collections if hasattr(item, "get_segments")]
        return np.array([segment[1][1] - segment[0][1] for segment in segments])

    whole, repeated = widths(lift_plot(Y, P)), widths(lift_plot(Y[rows], P[rows]))
    grouped = widths(lift_plot(Y[rows], P[rows], groups=rows))
    assert grouped == pytest.approx(whole, rel=0.05)
    assert (repeated < 0.5 * whole).all()


def test_each_class_adds_up_to_one() -> None:
    stayed = sum(bar.get_height() for bar in score_plot(Y, P).axes[0].patches[:40])  # type: ignore[attr-defined]
    assert stayed == pytest.approx(1)


def test_levels_that_are_not_scored_are_named_with_the_reason() -> None:
    axes = PLOTS["auc"]().axes[0]
    names = [tick.get_text() for tick in axes.get_yticklabels()]
    assert names[0] == "kind"
    assert any(name.startswith("tiny (9)") for name in names)
    assert [text.get_text() for text in axes.texts] == ["not scored: fewer than 30 customers"]
    assert all(len(name) < 50 for name in names)


def test_the_best_is_at_the_top_and_the_chosen_is_marked() -> None:
    axes = leaderboard_plot(BOARD, {"b": 1.0}).axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["a", "b"]
    (ring,) = [line for line in axes.get_lines() if line.get_label() == "chosen"]
    assert np.asarray(ring.get_xdata()).tolist() == [0.41]


def test_every_member_of_a_blend_is_marked_with_its_weight() -> None:
    axes = leaderboard_plot(BOARD, {"b": 0.3, "a": 0.7}).axes[0]
    (ring,) = [line for line in axes.get_lines() if line.get_label() == "in the chosen blend"]
    assert len(np.asarray(ring.get_xdata())) == 2
    assert [text.get_text().split(" ", 1)[1] for text in axes.texts] == ["(70% of the blend)", "(30% of the blend)"]


def test_error_bars_end_at_the_limits() -> None:
    bars = PLOTS["importance"]().axes[0].containers[0].lines[2][0]  # type: ignore[attr-defined]
    reached = np.array([segment[:, 0] for segment in bars.get_segments()])
    assert reached == pytest.approx(IMPORTANCE[["lower", "upper"]].to_numpy())


@pytest.mark.parametrize("name", PLOTS)
def test_same_input_same_bytes(name: str) -> None:
    assert png(PLOTS[name]()) == png(PLOTS[name]())


@pytest.mark.parametrize("name", PLOTS)
def test_nothing_is_cut_off_and_axes_are_named(name: str) -> None:
    figure = PLOTS[name]()
    figure.draw_without_rendering()
    needed, given = figure.get_tightbbox(), figure.bbox_inches
    assert needed.x0 >= 0
    assert needed.y0 >= 0
    assert needed.x1 <= given.x1
    assert needed.y1 <= given.y1
    assert figure.axes[-1].get_xlabel()


@pytest.mark.parametrize("p", [np.full(40, 0.05), np.repeat([0.0, 1.0], [35, 5])], ids=["constant", "certain"])
def test_odd_predictions_draw(p: np.ndarray) -> None:
    y = np.repeat([0, 1], [36, 4])
    free, cheap = Holdout(y, p, np.zeros(40)), Holdout(y, p, np.full(40, 5.0))
    for figure in (
        lift_plot(y, p),
        score_plot(y, p),
        score_plot(y * 0, p),
        profit_plot(profit_curve(free, COSTS, resampling=FEW), NO_CONTACT_THRESHOLD),
        sensitivity_plot(sensitivity(cheap, COSTS)),
        segments_plot(segment_metrics(cheap, {}, SegmentScoring(COSTS), FEW), "auc"),
    ):
        assert png(figure).startswith(b"\x89PNG")


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no metric 'acu'\. Use one of auc, log_loss"):
        segments_plot(SEGMENTS, "acu")
