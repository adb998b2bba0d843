"""Decision trees as arrays: one form for the trees of every library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Tree:
    """One tree, as arrays over its nodes.

    Attributes
    ----------
    feature, threshold : ndarray of shape (n_nodes,), int64 and float64
        An inner node sends a row to the left if ``row[feature] <= threshold``.
    left, right : ndarray of shape (n_nodes,), int64
        Indices of the children; -1 for a leaf.
    missing_left : ndarray of shape (n_nodes,), int64
        1 if missing values go to the left.
    value : ndarray of shape (n_nodes,), float64
        Result of a leaf; not used for inner nodes.
    categories : Mapping of int to tuple of int
        By inner node, the categories that go to the left; such a node ignores its threshold.
    """

    feature: npt.NDArray[np.int64]
    threshold: npt.NDArray[np.float64]
    left: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]
    missing_left: npt.NDArray[np.int64]
    value: npt.NDArray[np.float64]
    categories: Mapping[int, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Boosting:
    """Gradient boosting: the log-odds are ``factor`` times the sum of all trees, plus ``base``.

    Attributes
    ----------
    trees : list of Tree
        All trees that count for a prediction.
    factor, base : float
        See above.
    float32 : bool
        Whether features are rounded to float32 first.
    float32_sum : bool
        Whether ``base`` and the trees are added in float32, one after the other.
    zero_is_missing : tuple of int
        Features in which 0 counts as missing.
    """

    trees: list[Tree]
    factor: float = 1.0
    base: float = 0.0
    float32: bool = False
    float32_sum: bool = False
    zero_is_missing: tuple[int, ...] = ()
