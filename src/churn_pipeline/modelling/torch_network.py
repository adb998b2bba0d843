"""An ensemble of networks with shared weights, trained by PyTorch (TabM).

Only training needs PyTorch, which is in the extra ``torch``. The fitted classifier contains numpy arrays, so prediction,
storage, ONNX conversion and the service do not need it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from churn_pipeline.modelling.networks import BaseNetwork, Floats, Trainer

WEIGHT_DECAY = 3e-4
# Rows per training step.
BATCH_SIZE = 256


class TorchNetworkClassifier(BaseNetwork):
    """Networks that share most weights, as in TabM; their probabilities are averaged.

    Each member multiplies the inputs and the outputs of every shared hidden layer by factors of its own, and has its own last
    layer. Training averages the members' losses, so the members differ. Early stopping holds out whole customers.

    Parameters
    ----------
    n_members : int, default=16
        Number of networks.
    width : int, default=64
        Units per hidden layer.
    depth : int, default=2
        Hidden layers.
    learning_rate_init : float, default=2e-3
        Step size of the AdamW optimiser.
    max_iter : int, default=200
        Maximum number of epochs.
    patience : int, default=10
        Epochs without a lower validation loss before training stops.
    random_state : int, RandomState or None, default=None
        Seed of initial weights, batches and validation customers.

    References
    ----------
    Gorishniy, Kotelnikov and Babenko (2025), "TabM: Advancing Tabular Deep Learning with Parameter-Efficient Ensembling", ICLR.
    """

    def __init__(
        self,
        n_members: int = 16,
        width: int = 64,
        depth: int = 2,
        *,
        learning_rate_init: float = 2e-3,
        max_iter: int = 200,
        patience: int = 10,
        random_state: Any = None,
    ) -> None:
        self.n_members = n_members
        self.width = width
        self.depth = depth
        self.learning_rate_init = learning_rate_init
        self.max_iter = max_iter
        self.patience = patience
        self.random_state = random_state

    def _trainer(self, X: Floats, y: npt.NDArray[np.int64], random: np.random.RandomState) -> Trainer:
        sizes = [X.shape[1], *[self.width] * self.depth]
        return _TorchTrainer(X, y, sizes, self.n_members, self.learning_rate_init, int(random.randint(2**31)))


class _TorchTrainer(Trainer):
    """Trains with PyTorch in float32 on one thread, because the order of sums depends on the number of threads."""

    def __init__(
        self, X: Floats, y: npt.NDArray[np.int64], sizes: list[int], n_members: int, learning_rate: float, seed: int
    ) -> None:
        try:
            import torch
        except ImportError as error:
            raise ImportError(
                "TorchNetworkClassifier needs PyTorch to train: install the extra torch, as in "
                "pip install --editable '.[torch]', or remove the candidate."
            ) from error
        torch.set_num_threads(1)
        self.torch = torch
        self.draw = torch.Generator().manual_seed(seed)
        self.X = torch.from_numpy(X.astype(np.float32))
        self.y = torch.from_numpy(y.astype(np.float32))
        self.layers = [
            self._hidden_layer(n_members, n_in, n_out, first=position == 0)
            for position, (n_in, n_out) in enumerate(pairwise(sizes))
        ]
        self.head = self._uniform(n_members, sizes[-1], 1, fan_in=sizes[-1])
        self.head_bias = torch.zeros(n_members, 1, 1, requires_grad=True)
        parameters = [*(part for layer in self.layers for part in layer), self.head, self.head_bias]
        self.optimiser = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=WEIGHT_DECAY)

    def _uniform(self, *shape: int, fan_in: int) -> Any:
        limit = fan_in**-0.5
        drawn = self.torch.rand(*shape, generator=self.draw) * 2 * limit - limit
        return drawn.requires_grad_()

    def _hidden_layer(self, n_members: int, n_in: int, n_out: int, *, first: bool) -> tuple[Any, Any, Any, Any]:
        """Draw shared weights, the members' factors of inputs and outputs, and their biases.

        The members start from different signs of the inputs, and otherwise equal.
        """
        torch = self.torch
        signs = torch.randint(0, 2, (n_members, 1, n_in), generator=self.draw) * 2.0 - 1.0
        factors_in = signs if first else torch.ones(n_members, 1, n_in)
        factors_out = torch.ones(n_members, 1, n_out)
        bias = torch.zeros(n_members, 1, n_out)
        shared = self._uniform(n_in, n_out, fan_in=n_in)
        return shared, factors_in.requires_grad_(), factors_out.requires_grad_(), bias.requires_grad_()

    def train_epoch(self) -> tuple[list[Floats], list[Floats]]:
        torch = self.torch
        for batch in torch.randperm(len(self.X), generator=self.draw).split(BATCH_SIZE):
            value = self.X[batch]
            for shared, factors_in, factors_out, bias in self.layers:
                value = torch.relu(((value * factors_in) @ shared) * factors_out + bias)
            log_odds = (value @ self.head + self.head_bias).squeeze(-1)
            target = self.y[batch].expand_as(log_odds)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(log_odds, target)
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
        return self._stored()

    def _stored(self) -> tuple[list[Floats], list[Floats]]:
        """Multiply the shared weights by the members' factors."""
        weights, biases = [], []
        for layer in self.layers:
            shared, factors_in, factors_out, bias = (part.detach().numpy().astype(np.float64) for part in layer)
            weights.append(factors_in.transpose(0, 2, 1) * shared * factors_out)
            biases.append(bias)
        last, last_bias = (part.detach().numpy().astype(np.float64) for part in (self.head, self.head_bias))
        return [*weights, last], [*biases, last_bias]
