"""Multilayer perceptrons that stop early on the log loss of held-out customers.

scikit-learn's ``MLPClassifier`` holds out rows at random and stops on their accuracy. `NetworkClassifier` trains it epoch by
epoch, holds out whole customers and stops on their log loss. Stored models refer to these classes by name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from scipy.special import expit
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from churn_pipeline.modelling.probability_classifier import ProbabilityClassifier

Floats = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]

# Rows predicted at once: limits the memory for the hidden layers of a large table.
CHUNK = 8192
# Share of customers that decide when to stop.
VALIDATION_FRACTION = 0.15
# Rows per training step.
BATCH_SIZE = 200


def held_out_customers(y: Any, groups: Any, fraction: float, random: np.random.RandomState) -> Booleans:
    """Draw customers for validation, stratified by whether they churned in any row.

    Parameters
    ----------
    y : array-like of shape (n_rows,)
        1 for customers who churned, 0 for the others.
    groups : array-like of int, shape (n_rows,), or None
        The customer of each row; None if each row is a customer of its own.
    fraction : float
        Share of customers to hold out.
    random : RandomState
        Source of randomness.

    Returns
    -------
    ndarray of bool, shape (n_rows,)
        True for all rows of the held-out customers.
    """
    customers, customer = np.unique(np.arange(len(y)) if groups is None else groups, return_inverse=True)
    churned = np.zeros(len(customers), dtype=np.int64)
    np.maximum.at(churned, customer, np.asarray(y))
    stratify = churned if np.bincount(churned, minlength=2).min() > 1 else None
    places = np.arange(len(customers))
    _, held_out = train_test_split(places, test_size=fraction, stratify=stratify, random_state=random)
    return np.isin(customer, held_out)


class BaseNetwork(ProbabilityClassifier, ABC):
    """What all networks share: early stopping, and prediction in numpy from float64 weights.

    A network has one or more members. They share the input, and their probabilities are averaged.

    Attributes
    ----------
    classes_ : ndarray of shape (2,)
        The two classes.
    n_iter_ : int
        Number of epochs with the lowest validation loss, whose weights are kept.
    weights_ : list of ndarray of shape (n_members, n_inputs, n_outputs), float64
        One array per layer. Hidden layers are rectified linear units; the last layer returns log-odds.
    biases_ : list of ndarray of shape (n_members, 1, n_outputs), float64
        One array per layer.
    """

    # scikit-learn's metadata routing reads this: `CandidatePipeline.fit` hands on the customer of each row.
    __metadata_request__fit: ClassVar[dict[str, bool]] = {"groups": True}

    max_iter: int
    patience: int
    random_state: Any

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        """Train, stop after `patience` epochs without a lower validation loss, and keep the best epoch's weights.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_features)
            Numbers without NaN.
        y : array-like of shape (n_rows,)
            1 for customers who churned, 0 for the others.
        groups : array-like of int, shape (n_rows,), optional
            The customer of each row; None if each row is a customer of its own.

        Returns
        -------
        BaseNetwork
            Itself.
        """
        X, y = validate_data(self, X, y, dtype=np.float64)
        random = check_random_state(self.random_state)
        self.classes_ = np.unique(y)
        held_out = held_out_customers(y, groups, VALIDATION_FRACTION, random)
        trainer = self._trainer(X[~held_out], y[~held_out], random)
        lowest = np.inf
        for epoch in range(1, self.max_iter + 1):
            weights, biases = trainer.train_epoch()
            loss = log_loss(y[held_out], _predict(weights, biases, X[held_out]), labels=[0, 1])
            if loss < lowest:
                lowest, self.n_iter_ = loss, epoch
                self.weights_, self.biases_ = weights, biases
            elif epoch - self.n_iter_ >= self.patience:
                break
        return self

    def predict_proba(self, X: Any) -> Floats:
        """Predict probabilities.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_features)
            Numbers without NaN.

        Returns
        -------
        ndarray of shape (n_rows, 2), float64
            Probabilities of staying and of churning.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        churn = _predict(self.weights_, self.biases_, X)
        return np.column_stack([1.0 - churn, churn])

    @abstractmethod
    def _trainer(self, X: Floats, y: npt.NDArray[np.int64], random: np.random.RandomState) -> Trainer:
        """Prepare training on these rows."""


class Trainer(ABC):
    """Trains a network epoch by epoch."""

    @abstractmethod
    def train_epoch(self) -> tuple[list[Floats], list[Floats]]:
        """Train one epoch, and return copies of weights and biases as `BaseNetwork` stores them."""


class NetworkClassifier(BaseNetwork):
    """scikit-learn's multilayer perceptron, with early stopping on held-out customers.

    Parameters
    ----------
    width : int, default=64
        Units per hidden layer.
    depth : int, default=1
        Hidden layers.
    alpha : float, default=1e-4
        Strength of the L2 penalty.
    learning_rate_init : float, default=1e-3
        Step size of the Adam optimiser.
    max_iter : int, default=300
        Maximum number of epochs.
    patience : int, default=10
        Epochs without a lower validation loss before training stops.
    random_state : int, RandomState or None, default=None
        Seed of initial weights, batches and validation customers.
    """

    def __init__(
        self,
        width: int = 64,
        depth: int = 1,
        *,
        alpha: float = 1e-4,
        learning_rate_init: float = 1e-3,
        max_iter: int = 300,
        patience: int = 10,
        random_state: Any = None,
    ) -> None:
        self.width = width
        self.depth = depth
        self.alpha = alpha
        self.learning_rate_init = learning_rate_init
        self.max_iter = max_iter
        self.patience = patience
        self.random_state = random_state

    def _trainer(self, X: Floats, y: npt.NDArray[np.int64], random: np.random.RandomState) -> Trainer:
        network = MLPClassifier(
            hidden_layer_sizes=(self.width,) * self.depth,
            alpha=self.alpha,
            learning_rate_init=self.learning_rate_init,
            batch_size=min(BATCH_SIZE, len(X)),
            # Not an integer, because partial_fit would then draw the same batches in every epoch.
            random_state=random,
        )
        return _SklearnTrainer(network, X, y)


class _SklearnTrainer(Trainer):
    def __init__(self, network: MLPClassifier, X: Floats, y: npt.NDArray[np.int64]) -> None:
        self.network, self.X, self.y = network, X, y

    def train_epoch(self) -> tuple[list[Floats], list[Floats]]:
        self.network.partial_fit(self.X, self.y, classes=[0, 1])
        weights = [layer[np.newaxis].copy() for layer in self.network.coefs_]
        biases = [layer[np.newaxis, np.newaxis].copy() for layer in self.network.intercepts_]
        return weights, biases


def _predict(weights: list[Floats], biases: list[Floats], X: Floats) -> Floats:
    """Average the members' probabilities of class 1: shape (n_rows,)."""
    parts = [np.empty(0)]
    for start in range(0, len(X), CHUNK):
        value = X[np.newaxis, start : start + CHUNK]
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            value = np.maximum(value @ weight + bias, 0.0)
        parts.append(expit(value @ weights[-1] + biases[-1]).mean(axis=0).ravel())
    return np.concatenate(parts)
