"""Cells: groups of rows with the same level, bin or pattern, with confidence limits of their churn share."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv
from sklearn.metrics import roc_curve

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
FOLDS = 5
# Probability that any limit of a table is wrong by chance
ALPHA = 0.01
# Smaller cells are tested only as part of a group
MIN_ROWS = 20
# Weight, in rows, of the table's churn share in the share of a cell
PRIOR = 1.0
# Odds relative to the table above which churn in a cell counts as raised
RAISED_ODDS = 3.0
# A group is almost pure from this churn share and these relative odds, and almost without churn below the lowest share
PURE_SHARE, PURE_GROUP_ODDS, STAY_SHARE = 0.9, 26.0, 0.005


class Kind(Enum):
    """What a cell is. Cells of a number are ordered, so neighbours have similar shares; a level stands alone."""

    LEVEL = "level"
    SPIKE = "spike"
    ORDERED = "ordered"
    PAIR = "pair"


@dataclass(frozen=True)
class View:
    """One way to cut one feature, or two, into cells.

    Attributes
    ----------
    columns
        The feature or features.
    codes : int array of shape (n,)
        The cell of each row.
    kinds
        The kind of each cell. The first is the kind of a group of cells.
    name
        Describes a cell, given its code.
    group
        What the rows of a cell have in common, such as ``level``.
    """

    columns: tuple[str, ...]
    codes: Integers
    kinds: Sequence[Kind]
    name: Callable[[int], str] = field(repr=False)
    group: str

    @property
    def tests(self) -> int:
        """Number of tests on the view: each large cell, and two groups."""
        return int((np.bincount(self.codes) >= MIN_ROWS).sum()) + 2


@dataclass(frozen=True)
class Cell:
    """A group of rows with its confidence limits.

    ``lower`` and ``upper`` are limits of its churn share. ``sharpness`` is the number of its churners, divided by the
    number of churners in all cells with raised churn. It is near 1 for a step and low for the tail of a gradual feature.
    """

    columns: tuple[str, ...]
    kind: Kind
    what: str
    rows: int
    churners: int
    lower: float
    upper: float
    sharpness: float


@dataclass(frozen=True)
class Labels:
    """The label (1 = churned) and the fold of each row, int arrays of shape (n,)."""

    churned: Integers
    folds: Integers

    @cached_property
    def churners(self) -> int:
        """Number of churners."""
        return int(self.churned.sum())

    @cached_property
    def stayers(self) -> int:
        """Number of stayers."""
        return len(self.churned) - self.churners

    @property
    def share(self) -> float:
        """Churn share of the table."""
        return self.churners / len(self.churned)

    def odds(self, shares: Floats | float) -> Floats:
        """The odds of churn shares, relative to the odds of the table."""
        return np.asarray(shares / np.maximum(1 - np.asarray(shares), 1e-9) * self.stayers / self.churners)


def make_labels(churned: Integers, seed: int, groups: Integers | None = None) -> Labels:
    """Assign customers to folds at random, with about the same share of customers who ever churned in each fold.

    All rows of a customer are in one fold. Otherwise a feature that only recognises customers would give their labels away.
    """
    customer = np.arange(len(churned)) if groups is None else np.unique(groups, return_inverse=True)[1]
    churners = np.bincount(customer, weights=churned) > 0
    folds = np.empty(len(churners), dtype=np.int64)
    rng = np.random.default_rng(seed)
    for side in (False, True):
        members = np.flatnonzero(churners == side)
        folds[rng.permutation(members)] = np.arange(len(members)) % FOLDS
    return Labels(churned, folds[customer])


def out_of_fold_shares(codes: Integers, labels: Labels) -> Floats:
    """The churn share of each row's cell among the rows of the other folds, of shape (n,)."""
    cells = int(codes.max()) + 1
    place = labels.folds * cells + codes
    rows = np.bincount(place, minlength=FOLDS * cells).reshape(FOLDS, cells)
    churners = np.bincount(place[labels.churned == 1], minlength=FOLDS * cells).reshape(FOLDS, cells)
    shares = (churners.sum(axis=0) - churners + PRIOR * labels.share) / (rows.sum(axis=0) - rows + PRIOR)
    return np.asarray(shares.ravel()[place])


def separation(shares: Floats, labels: Labels) -> tuple[float, float, float]:
    """The AUC of out-of-fold shares, and the shares of churners and stayers above the cut that separates them best.

    References
    ----------
    Youden (1950), "Index for rating diagnostic tests": the cut with the largest difference of the two shares.
    """
    stayers, churners, _ = roc_curve(labels.churned, shares)
    best = int(np.argmax(churners - stayers))
    return float(np.trapezoid(churners, stayers)), float(churners[best]), float(stayers[best])


def limits(rows: Integers, churners: Integers, tests: int) -> tuple[Floats, Floats]:
    """Clopper-Pearson limits of churn shares, one-sided, with Bonferroni's correction for the number of tests.

    References
    ----------
    Clopper and Pearson (1934), "The use of confidence or fiducial limits illustrated in the case of the binomial".
    """
    alpha = ALPHA / max(tests, 1)
    lower = betaincinv(np.maximum(churners, 1), rows - churners + 1, alpha)
    upper = betaincinv(churners + 1, np.maximum(rows - churners, 1), 1 - alpha)
    return np.where(churners == 0, 0.0, lower), np.where(churners == rows, 1.0, upper)


def cells_of(view: View, shares: Floats, labels: Labels, tests: int) -> Iterator[Cell]:
    """The large cells of a view; ``shares`` are the view's out-of-fold shares."""
    rows = np.bincount(view.codes, minlength=len(view.kinds))
    churners = np.bincount(view.codes[labels.churned == 1], minlength=len(view.kinds))
    lower, upper = limits(rows, churners, tests)
    sharpness = churners / _raised(shares, labels)
    for code in np.flatnonzero(rows >= MIN_ROWS).tolist():
        counts = int(rows[code]), int(churners[code])
        bounds = float(lower[code]), float(upper[code]), float(sharpness[code])
        yield Cell(view.columns, view.kinds[code], view.name(code), *counts, *bounds)


def groups_of(
    view: View, shares: Floats, labels: Labels, tests: int, odds_alone: Floats | None = None
) -> Iterator[Cell]:
    """The rows whose cells are almost pure in the other folds, and those whose cells are almost without churn.

    The cells were selected on other rows, so each group counts as one test. With ``odds_alone``, the pure group contains
    only rows in which these odds are not high already, and the other group only rows in which they are not low already.
    """
    pure = (shares >= PURE_SHARE) & (labels.odds(shares) >= PURE_GROUP_ODDS)
    none = shares <= STAY_SHARE
    if odds_alone is not None:
        pure &= odds_alone < PURE_GROUP_ODDS / 2
        none &= odds_alone > 1 / RAISED_ODDS
    for inside, word in ((pure, "almost all"), (none, "almost none of the")):
        if not inside.any():
            continue
        rows, churners = int(inside.sum()), int(labels.churned[inside].sum())
        lower, upper = (float(limit[0]) for limit in limits(np.array([rows]), np.array([churners]), tests))
        what = f"{word} other customers with the same {view.group} churned"
        yield Cell(view.columns, view.kinds[0], what, rows, churners, lower, upper, churners / _raised(shares, labels))


def _raised(shares: Floats, labels: Labels) -> int:
    """Number of churners in cells with raised churn, at least 1."""
    return max(int(labels.churned[labels.odds(shares) >= RAISED_ODDS].sum()), 1)
