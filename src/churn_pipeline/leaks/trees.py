"""Small trees on one number: they find ranges that no quantile bin matches."""

import numpy as np
from sklearn.tree import DecisionTreeRegressor

from churn_pipeline.leaks.cells import FOLDS, Floats, Labels

DEPTH = 3


def tree_shares(feature: Floats, labels: Labels) -> Floats:
    """The churn share that a tree, fitted to the other folds, gives each row, of shape (n,)."""
    shares = np.empty(len(feature))
    column = feature.reshape(-1, 1)
    for fold in range(FOLDS):
        inside = labels.folds == fold
        # The squared error of a label is half its Gini impurity, and a regression also works with one class
        tree = DecisionTreeRegressor(max_depth=DEPTH, min_samples_leaf=max(10, len(feature) // 500), random_state=0)
        shares[inside] = tree.fit(column[~inside], labels.churned[~inside]).predict(column[inside])
    return shares
