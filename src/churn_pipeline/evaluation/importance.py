"""Permutation importance: how much log loss a model loses on the hold-out when one column is shuffled."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
import numpy.typing as npt
import pandas as pd

from churn_pipeline.evaluation.intervals import mean_with_error, t_margin
from churn_pipeline.evaluation.predictions import Labels, Probabilities, check_predictions, row_log_loss

Predict = Callable[[pd.DataFrame], npt.ArrayLike]


@dataclass(frozen=True)
class ImportanceSettings:
    """How permutation importance is computed.

    Attributes
    ----------
    repeats
        Shuffles of each column.
    max_rows
        Larger tables are sampled down to this many customers, to limit the time.
    confidence_level
        Coverage of the intervals.
    seed
        Seed of the sample and of the shuffles.
    """

    repeats: int = 5
    max_rows: int = 5000
    confidence_level: float = 0.95
    seed: int = 0


DEFAULT_SETTINGS = ImportanceSettings()


def permutation_importance(
    predict: Predict,
    features: pd.DataFrame,
    y: npt.ArrayLike,
    columns: Sequence[str] | None = None,
    settings: ImportanceSettings = DEFAULT_SETTINGS,
    groups: npt.NDArray[np.generic] | None = None,
) -> pd.DataFrame:
    """Compute the increase in log loss when the cells of one column are shuffled among the customers.

    It describes the model and not the world: if two columns carry the same information, both can look unimportant, because
    one replaces the other. Shuffling also makes customers that do not exist. Intervals reflect the sampling of customers
    (each one's loss before and after is a pair); those of scikit-learn's function reflect the shuffles.

    Parameters
    ----------
    predict
        Returns the churn probabilities, of shape (n,), for a frame like `features`.
    features : pandas.DataFrame of shape (n, k)
        The model's inputs on the hold-out; not modified.
    y : array-like of shape (n,)
        Labels: 1 for churned.
    columns
        The columns to shuffle; by default all. The shuffles of a column do not depend on the other columns.
    settings
        Number of shuffles and rows, confidence level and seed.
    groups : ndarray of shape (n,), optional
        Group key of each row; rows with the same key are not treated as independent.

    Returns
    -------
    pandas.DataFrame
        Columns feature, importance, lower, upper; the most important first, ties by name.

    Raises
    ------
    ValueError
        If there are fewer than two customers, shapes differ, or a column is missing.

    References
    ----------
    Breiman (2001), "Random Forests", Machine Learning 45.
    Fisher, Rudin & Dominici (2019), "All Models are Wrong, but Many are Useful", JMLR 20(177): for any model.
    """
    labels = np.asarray(y)
    if len(features) != labels.size or labels.size < 2:
        raise ValueError(f"There are {len(features):,} customers and {labels.size:,} labels; pass two or more of each.")
    missing = [name for name in columns or () if name not in features]
    if missing:
        raise ValueError(
            f"There is no feature {', '.join(missing)}. Use some of {', '.join(map(str, features.columns))}."
        )
    if labels.size > settings.max_rows:
        rng = np.random.default_rng(settings.seed)
        sampled = np.sort(rng.choice(labels.size, settings.max_rows, replace=False))
        features, labels = features.iloc[sampled], labels[sampled]
        groups = None if groups is None else groups[sampled]
    baseline = row_log_loss(*check_predictions(labels, predict(features)))
    customers = labels.size if groups is None else len(np.unique(groups))
    rows = []
    for name in columns or [str(column) for column in features.columns]:
        increase = _loss_increase(predict, features, labels, baseline, name, settings)
        mean, error = mean_with_error(increase, groups)
        margin = t_margin(error, customers - 1, settings.confidence_level)
        rows.append((name, mean, mean - margin, mean + margin))
    table = pd.DataFrame(rows, columns=["feature", "importance", "lower", "upper"])
    return table.sort_values(["importance", "feature"], ascending=[False, True], ignore_index=True)


def _loss_increase(
    predict: Predict,
    features: pd.DataFrame,
    y: Labels,
    baseline: Probabilities,
    name: str,
    settings: ImportanceSettings,
) -> Probabilities:
    """Mean increase of each customer's log loss, of shape (n,), over the shuffles of one column."""
    rng = np.random.default_rng([settings.seed, crc32(name.encode())])
    shuffled, column = features.copy(), features[name]
    increase = np.zeros(y.size)
    for _ in range(settings.repeats):
        # By position and with the column's own dtype, so that a categorical stays one
        shuffled[name] = column.iloc[rng.permutation(y.size)].set_axis(features.index)
        increase += row_log_loss(*check_predictions(y, predict(shuffled))) - baseline
    return increase / settings.repeats
