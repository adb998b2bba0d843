"""Made-up tables for the measurements of the split."""

import numpy as np
import pandas as pd

LEVELS, SHARES = list("abc"), [0.6, 0.3, 0.1]
CHURN = 0.12


def customers(rows: int, features: int, seed: int) -> pd.DataFrame:
    """Customers with distinct ids and independent features of three levels."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(rng.choice(LEVELS, (rows, features), p=SHARES), columns=[f"f{k}" for k in range(features)])
    return table.assign(id=[f"C{row}" for row in range(rows)], churn=(rng.random(rows) < CHURN).astype(int))


def correlated(rows: int, features: int, seed: int) -> pd.DataFrame:
    """Customers of four kinds; the levels of their features depend on the kind."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 4, rows)
    bounds = np.cumsum(rng.dirichlet([0.3] * 3, (4, features)), axis=2)
    levels = (rng.random((rows, features, 1)) > bounds[kind]).sum(axis=2).clip(max=2)
    return pd.DataFrame(levels, columns=[f"f{k}" for k in range(features)])


def copied(rows: int, features: int, seed: int) -> pd.DataFrame:
    """Rows of which a tenth are copies; one feature has a thousand values."""
    once = customers(rows, features, seed).drop(columns=["id", "churn"])
    once = once.assign(minutes=np.random.default_rng(seed).integers(0, 1000, rows))
    return pd.concat([once, once.sample(rows // 10, random_state=seed)], ignore_index=True)


def panel(number: int, features: int, seed: int) -> pd.DataFrame:
    """A row for each of twelve month-ends; a feature is drawn anew in one month of ten."""
    rng = np.random.default_rng(seed)
    levels = rng.choice(LEVELS, (number, features))
    months = []
    for day in pd.date_range("2025-01-31", periods=12, freq="ME"):
        levels = np.where(rng.random(levels.shape) < 0.1, rng.choice(LEVELS, levels.shape), levels)
        month = pd.DataFrame(levels, columns=[f"f{k}" for k in range(features)])
        ids = [f"C{row}" for row in range(number)]
        months.append(month.assign(id=ids, day=day, churn=(rng.random(number) < CHURN).astype(int)))
    return pd.concat(months, ignore_index=True)


def returning(number: int, rows: int, seed: int) -> tuple[pd.DataFrame, pd.Series, np.ndarray]:
    """Customers with several rows, whose features hardly change and whose label does not: features, label, customer."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(number, 6))
    churned = rng.random(number) < 1 / (1 + np.exp(1 - features[:, 0] - 0.5 * features[:, 1]))
    groups = np.repeat(np.arange(number), rows)
    noisy = features[groups] + rng.normal(scale=0.1, size=(len(groups), 6))
    return pd.DataFrame(noisy, columns=[f"x{k}" for k in range(6)]), pd.Series(churned[groups].astype(int)), groups
