"""Which features a model lives by: what it loses on the hold-out when one column is shuffled."""

from collections.abc import Callable, Sequence
from zlib import crc32

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from churn_pipeline.evaluation.metrics import Labels, Probabilities, check_predictions

Predict = Callable[[pd.DataFrame], npt.ArrayLike]


def permutation_importance(
    predict: Predict,
    features: pd.DataFrame,
    y: npt.ArrayLike,
    columns: Sequence[str] | None = None,
    repeats: int = 5,
    max_rows: int = 5000,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """How much log loss the model gives up when a column's cells are dealt out anew among customers.

    What is measured is the model, not the world: of two columns that say the same, both can look unimportant, as
    each stands in for the other, and shuffling one makes customers that do not exist. Unlike scikit-learn's function
    of that name, whose spread is that of the shuffles, intervals are over customers: each one's loss, before and
    after, is a pair.

    Parameters
    ----------
    predict
        Gives the churn probabilities, of shape (n,), of a frame like `features`.
    features : pandas.DataFrame of shape (n, k)
        The model's inputs on the hold-out; left as they are.
    y : array-like of shape (n,)
        Who churned.
    columns
        Which to shuffle; by default all. Each column's shuffles are its own, whatever the others.
    repeats
        How many shuffles of each.
    max_rows
        More customers than these are sampled, to bound the time.
    level, seed
        Of the intervals, and of the shuffles.

    Returns
    -------
    pandas.DataFrame
        Columns feature, importance, lower, upper; the most important first, by name where they tie.

    Raises
    ------
    ValueError
        When there are fewer than two customers, shapes differ, or a column is not there.

    References
    ----------
    Breiman (2001), "Random Forests", Machine Learning 45.
    Fisher, Rudin & Dominici (2019), "All Models are Wrong, but Many are Useful", JMLR 20(177): of any model.
    """
    labels = np.asarray(y)
    if len(features) != labels.size or labels.size < 2:
        raise ValueError(f"There are {len(features):,} customers and {labels.size:,} labels; give two or more of each.")
    missing = [name for name in columns or () if name not in features]
    if missing:
        raise ValueError(
            f"There is no feature {', '.join(missing)}. Name some of {', '.join(map(str, features.columns))}."
        )
    if labels.size > max_rows:
        kept = np.sort(np.random.default_rng(seed).choice(labels.size, max_rows, replace=False))
        features, labels = features.iloc[kept], labels[kept]
    whole = _losses(*check_predictions(labels, predict(features)))
    rows = []
    for name in columns or [str(column) for column in features.columns]:
        lost = _lost(predict, features, labels, whole, name, repeats, seed)
        error = float(lost.std(ddof=1) / np.sqrt(lost.size))
        reach = float(stats.t.ppf((1 + level) / 2, lost.size - 1)) * error
        rows.append((name, lost.mean(), lost.mean() - reach, lost.mean() + reach))
    table = pd.DataFrame(rows, columns=["feature", "importance", "lower", "upper"])
    return table.sort_values(["importance", "feature"], ascending=[False, True], ignore_index=True)


def _lost(
    predict: Predict,
    features: pd.DataFrame,
    y: Labels,
    whole: Probabilities,
    name: str,
    repeats: int,
    seed: int,
) -> Probabilities:
    """Log loss that each customer gains, of shape (n,), over the shuffles of one column."""
    rng = np.random.default_rng([seed, crc32(name.encode())])
    shuffled, column = features.copy(), features[name]
    lost = np.zeros(y.size)
    for _ in range(repeats):
        # By position and with the column's own type: levels stay levels
        shuffled[name] = column.iloc[rng.permutation(y.size)].set_axis(features.index)
        lost += _losses(*check_predictions(y, predict(shuffled))) - whole
    return lost / repeats


def _losses(y: Labels, p: Probabilities) -> Probabilities:
    eps = np.finfo(np.float64).eps
    return np.asarray(-np.log(np.clip(np.where(y == 1, p, 1 - p), eps, 1)))
