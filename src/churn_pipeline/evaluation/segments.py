"""Whom the model serves worse: metrics by protected attribute and by segment, and the gaps between levels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from churn_pipeline.evaluation.bootstrap import bootstrap_metrics
from churn_pipeline.evaluation.metrics import Labels, Probabilities, check_predictions
from churn_pipeline.evaluation.profit import Budget, CostModel, Mask, contacts, profit_metrics

ALL = "all customers"
MISSING = "missing"
MIN_ROWS = 30
# Of whom is contacted: demographic parity, equal opportunity, equalised odds, predictive parity
FAIRNESS = ("contacted_share", "true_positive_rate", "false_positive_rate", "precision", "calibration_gap")
Estimate = tuple[float, float, float]


def segment_levels(column: "pd.Series[float] | pd.Series[str]", bins: int = 4) -> "pd.Series[str]":
    """The level of each customer, in words.

    A number with more than twice as many values as bins is cut at its quantiles, which are whole numbers where the
    column holds whole numbers only.

    Parameters
    ----------
    column : Series of shape (n,)
        Levels, or numbers.
    bins
        How many levels to cut numbers into; fewer where a value is too frequent to be split.

    Returns
    -------
    Series of str, of shape (n,)
        With the column's index and name; a categorical, ordered where the column is.
    """
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        numbers = pd.Series(pd.to_numeric(column), dtype="float64")
        if numbers.nunique() > 2 * bins:
            return _as_levels(*_cut(numbers, bins), column)
    # Numbers sort as numbers: 2 before 10
    known = column.dropna().drop_duplicates()
    levels = [str(level) for level in known.sort_values(key=None if _sortable(known) else lambda of: of.astype(str))]
    text = column.astype(object).map(str, na_action="ignore")
    return _as_levels(text.to_numpy(dtype=object), levels, column)


def _sortable(known: "pd.Series[float] | pd.Series[str]") -> bool:
    return bool(pd.api.types.is_numeric_dtype(known) or isinstance(known.dtype, pd.CategoricalDtype))


def _cut(numbers: "pd.Series[float]", bins: int) -> tuple[npt.NDArray[np.object_], list[str]]:
    known = numbers.dropna()
    edges = np.quantile(known, np.linspace(0, 1, bins + 1)[1:-1])
    whole = bool((known % 1 == 0).all())
    edges = np.unique(np.ceil(edges) if whole else [float(f"{edge:.3g}") for edge in edges])
    edges = edges[(edges > known.min()) & (edges <= known.max())]
    names = _range_names(edges, whole)
    place = np.searchsorted(edges, numbers.fillna(0), side="right")
    named = np.array(names, dtype=object)[place]
    named[numbers.isna().to_numpy()] = np.nan
    return named, names


def _range_names(edges: Probabilities, whole: bool) -> list[str]:
    if not edges.size:
        return ["any"]
    step = 1 if whole else 0
    middle = [
        f"{low:,.10g}" if whole and low == high - 1 else f"{low:,.10g} to {'' if whole else '<'}{high - step:,.10g}"
        for low, high in pairwise(edges)
    ]
    return [f"below {edges[0]:,.10g}", *middle, f"{edges[-1]:,.10g} and more"]


def _as_levels(
    text: npt.NDArray[np.object_], levels: list[str], column: "pd.Series[float] | pd.Series[str]"
) -> "pd.Series[str]":
    missing = pd.isna(text)
    kinds = [*dict.fromkeys(levels), *([MISSING] if missing.any() else [])]
    filled = np.where(missing, MISSING, text)
    made = pd.Categorical(filled, categories=kinds, ordered=True)
    return pd.Series(made, index=column.index, name=column.name)


@dataclass(frozen=True)
class _SegmentInputs:
    """Everyone who is evaluated, and how."""

    y: Labels
    p: Probabilities
    value: Probabilities
    contacted: Mask
    groups: npt.NDArray[np.generic] | None
    costs: CostModel
    metrics: Sequence[str]
    budgets: Sequence[Budget]
    threshold: float | None
    n_resamples: int
    level: float
    seed: int


def segment_metrics(
    y: npt.ArrayLike,
    p: npt.ArrayLike,
    value: npt.ArrayLike,
    costs: CostModel,
    segments: Mapping[str, "pd.Series[str]"],
    metrics: Sequence[str] = ("auc", "log_loss"),
    budgets: Sequence[float] = (0.1,),
    threshold: float | None = None,
    min_rows: int = MIN_ROWS,
    n_resamples: int = 300,
    level: float = 0.95,
    seed: int = 0,
    groups: npt.ArrayLike | None = None,
) -> pd.DataFrame:
    """Every metric for all customers and for each level of each segment, with intervals.

    Parameters
    ----------
    y, p : array-like of shape (n,)
        Who churned, and the churn probabilities.
    value : float or array-like of shape (n,)
        What a saved customer is worth.
    costs
        The cost model.
    segments
        Levels of shape (n,) by name: protected attributes and others, as `segment_levels` gives them.
    metrics
        Names that `resolve_metric` knows.
    budgets, threshold
        As in `profit_metrics`; a budget is a share of each level's customers.
    min_rows
        A level with fewer customers (distinct ones, given `groups`), or of one class, is listed and not scored: its
        numbers would be noise and could point at a person.
    n_resamples, level, seed, groups
        As in `bootstrap_metrics`.

    Returns
    -------
    pandas.DataFrame
        Columns segment, level, rows, churn_share, metric, value, lower, upper, note. A level that is not scored has
        one row, with `note` saying why. Beside the metrics asked for and those of `profit_metrics`: true_positive_rate
        and false_positive_rate (share contacted of churners and of stayers), precision (of those contacted) with
        Wilson intervals, and calibration_gap (mean churn probability less churn share).

    References
    ----------
    Hardt, Price & Srebro (2016), "Equality of Opportunity in Supervised Learning", NeurIPS.
    Wilson (1927), JASA 22. Repeated customers count once in these intervals, which is on the wide side.
    """
    labels, probabilities = check_predictions(y, p)
    values = np.broadcast_to(np.asarray(value, dtype=np.float64), labels.shape)
    keys = None if groups is None else np.asarray(groups)
    contacted = contacts(probabilities, values, costs, threshold)
    scene = _SegmentInputs(
        labels,
        probabilities,
        values,
        contacted,
        keys,
        costs,
        metrics,
        budgets,
        threshold,
        n_resamples,
        level,
        seed,
    )
    tables = [_level_table(scene, np.ones(labels.size, dtype=bool), ALL, ALL, min_rows)]
    for name, levels in segments.items():
        if len(levels) != labels.size:
            raise ValueError(f"Segment '{name}' has {len(levels):,} levels for {labels.size:,} customers.")
        column = levels if isinstance(levels.dtype, pd.CategoricalDtype) else segment_levels(levels)
        for kind in column.cat.categories:
            within = (column == kind).to_numpy()
            if within.any():
                tables.append(_level_table(scene, within, name, str(kind), min_rows))
    return pd.concat(tables, ignore_index=True)


def _level_table(scene: _SegmentInputs, within: Mask, segment: str, level: str, min_rows: int) -> pd.DataFrame:
    note = _why_not(scene, within, min_rows)
    table = (
        pd.DataFrame({"metric": [""], "value": np.nan, "lower": np.nan, "upper": np.nan})
        if note
        else _scores(scene, within)
    )
    # Of a tiny level, not even the churn share: of one customer it would be the label
    share = np.nan if note else scene.y[within].mean()
    front = {"segment": segment, "level": level, "rows": int(within.sum()), "churn_share": share}
    return pd.DataFrame({**front, **table, "note": note})


def _why_not(scene: _SegmentInputs, within: Mask, min_rows: int) -> str:
    if _count(within, scene.groups) < max(min_rows, 2):
        return f"fewer than {min_rows} customers"
    if scene.y[within].min() == scene.y[within].max():
        return "one class only"
    return ""


def _count(within: Mask, groups: npt.NDArray[np.generic] | None) -> int:
    return int(within.sum()) if groups is None else len(pd.unique(groups[within]))


def _scores(scene: _SegmentInputs, within: Mask) -> pd.DataFrame:
    y, p, groups = scene.y[within], scene.p[within], None if scene.groups is None else scene.groups[within]
    luck = {"n_resamples": scene.n_resamples, "level": scene.level, "seed": scene.seed}
    tables = [
        bootstrap_metrics(y, p, scene.metrics, groups=groups, **luck),  # type: ignore[arg-type]
        profit_metrics(
            y,
            p,
            scene.value[within],
            scene.costs,
            scene.budgets,
            scene.threshold,
            groups=groups,
            **luck,  # type: ignore[arg-type]
        ),
    ]
    # Its Wilson interval is below, and holds where nobody or everybody is contacted
    tables[1] = tables[1][tables[1]["metric"] != "contacted_share"]
    rows = [(name, *estimate) for name, estimate in _fairness(scene, within).items()]
    return pd.concat([*tables, pd.DataFrame(rows, columns=["metric", "value", "lower", "upper"])], ignore_index=True)


def _fairness(scene: _SegmentInputs, within: Mask) -> dict[str, Estimate]:
    churned = scene.y == 1

    def share(of: Mask, among: Mask) -> Estimate:
        return _proportion(of[within & among], _count(within & among, scene.groups), scene.level)

    everyone = np.ones_like(churned)
    excess = scene.p[within] - scene.y[within]
    groups = None if scene.groups is None else scene.groups[within]
    return {
        "contacted_share": share(scene.contacted, everyone),
        "true_positive_rate": share(scene.contacted, churned),
        "false_positive_rate": share(scene.contacted, ~churned),
        "precision": share(churned, scene.contacted),
        "calibration_gap": _mean(excess, groups, scene.level),
    }


def _proportion(hits: Mask, n: int, level: float) -> Estimate:
    """A share with its Wilson interval from `n` independent customers; NaN of none."""
    if not hits.size:
        return np.nan, np.nan, np.nan
    share, z2 = float(hits.mean()), float(stats.norm.ppf((1 + level) / 2)) ** 2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    reach = np.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n**2))) / (1 + z2 / n)
    return share, float(min(share, middle - reach)), float(max(share, middle + reach))


def _mean(of: Probabilities, groups: npt.NDArray[np.generic] | None, level: float) -> Estimate:
    """A mean with its t interval; rows of one group are summed first, as they are not independent."""
    mean = float(of.mean())
    off = pd.Series(of - mean)
    sums = (off if groups is None else off.groupby(groups).sum()).to_numpy()
    m = sums.size
    error = np.sqrt(m / (m - 1) * (sums**2).sum()) / of.size
    reach = float(stats.t.ppf((1 + level) / 2, df=m - 1) * error)
    return mean, mean - reach, mean + reach


def gaps(table: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """How far the levels of each segment lie apart, in each metric.

    Parameters
    ----------
    table
        From `segment_metrics`, at the same `level`.
    level
        Of the gap's interval. It is widened for the number of pairs of levels (Bonferroni), as the two that lie
        furthest apart were picked from them.

    Returns
    -------
    pandas.DataFrame
        Columns segment, metric, gap (highest less lowest), lower, upper, highest, lowest (levels), beyond_noise
        (whether the interval leaves out zero).

    References
    ----------
    Zou & Donner (2008), "Construction of confidence limits about effect measures", Statistics in Medicine 27: a
    difference's limits from each one's; of shares, it is Newcombe's (1998) hybrid score interval.
    """
    scored = table[(table["note"] == "") & (table["segment"] != ALL) & table["value"].notna()]
    rows = []
    for (segment, metric), group in scored.groupby(["segment", "metric"], sort=False):
        if len(group) < 2:
            continue
        by_value = group.sort_values("value", kind="stable")
        lowest, highest = by_value["level"].iloc[0], by_value["level"].iloc[-1]
        low, high = by_value[["value", "lower", "upper"]].to_numpy()[[0, -1]]
        pairs = len(group) * (len(group) - 1) / 2
        wider = stats.norm.ppf(1 - (1 - level) / 2 / pairs) / stats.norm.ppf((1 + level) / 2)
        gap = high[0] - low[0]
        lower = gap - wider * _reach(high[0] - high[1], low[2] - low[0])
        upper = gap + wider * _reach(high[2] - high[0], low[0] - low[1])
        rows.append((segment, metric, gap, lower, upper, highest, lowest, lower > 0))
    names = ["segment", "metric", "gap", "lower", "upper", "highest", "lowest", "beyond_noise"]
    return pd.DataFrame(rows, columns=names)


def _reach(one: float, other: float) -> float:
    """Sides of two intervals put together; a percentile interval may leave its value out, and then has none there."""
    return float(np.hypot(max(one, 0.0), max(other, 0.0)))
