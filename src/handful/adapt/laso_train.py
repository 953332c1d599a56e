"""How the networks of LaSO (paper 159) are trained, on features and label sets of base data.

    loss = class(C(a), Y_a) + class(C(b), Y_b)
         + class of every output of `LaSO` against the label set it stands for
         + mse of  a put together again ~ a,  U(a,b) ~ U(b,a),  I(a,b) ~ I(b,a),
                   S(a,b) ~ S(S(a,b),b) ~ S(a,I(a,b)) ~ S(a,I(b,a)),  and the same with a and b exchanged

``class`` is the multi-label soft margin loss of a classifier C that stays as it is. Pairs share a label and are drawn
anew each epoch: the first row has the label drawn least so far, the second shares the first's least drawn one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

from handful.adapt.inputs import read_label_sets
from handful.adapt.laso_sets import LaSO, checked_features, label_set
from handful.adapt.multi_label import MultiLabelLogistic
from handful.adapt.parameters import count, finite
from handful.core.train import SGD, descend
from handful.errors import BadInput


@dataclass(frozen=True)
class LaSOTrainer:
    """Trains `LaSO` networks.

    Args:
        n_layers: residual layers of each.
        gated: see `LaSO`.
        epochs: of ``size_ratio`` pairs a row.
        batch_size: pairs a step; the last step of an epoch is left out where it is short.
        size_ratio: pairs a row and epoch.
        lr: start and end of the warm-up.
        warmup: epochs the rate climbs evenly; after them it is halved whenever the loss has not fallen for
            ``patience`` epochs, an epoch after the last time at the earliest.
        patience: see ``warmup``.
        momentum: of the descent.
        weight_decay: of the descent.
        classifier_C: inverse strength of the penalty of the classifier C, logistic regression on all rows.
        random_state: of weights and pairs.
    """

    n_layers: int = 1
    gated: bool = False
    epochs: int = 50
    batch_size: int = 16
    size_ratio: int = 4
    lr: tuple[float, float] = (1e-4, 2e-3)
    warmup: int = 3
    patience: int = 4
    momentum: float = 0.9
    weight_decay: float = 1e-4
    classifier_C: float = 1.0  # noqa: N815
    random_state: int = 0

    def fit(self, Z: Any, Y: Any) -> LaSO:
        """Networks trained on features ``[m, D]``, none negative, and labels ``[m, L]`` of 0 and 1 (or label sets).

        Rows without a label take part in no pair.

        Raises:
            BadInput: features or labels that cannot be used, a parameter that makes no sense.
        """
        for name, least in (("epochs", 1), ("batch_size", 2), ("size_ratio", 1), ("warmup", 0), ("patience", 1)):
            count(name, getattr(self, name), least)
        for rate in self.lr:
            finite("lr", rate, above=0)
        z = checked_features(Z)
        sets = read_label_sets(Y, len(z))
        if sets is None:
            raise BadInput("Y must be a matrix [m, L] of 0 and 1, or a set of labels a row")
        y = torch.as_tensor(sets[0], dtype=z.dtype)
        steps = self.size_ratio * int(y.any(-1).sum()) // self.batch_size
        if not steps:
            raise BadInput(f"{len(z)} rows make less than a batch of {self.batch_size} pairs: lower batch_size")
        logistic = MultiLabelLogistic(C=self.classifier_C).fit(z.numpy(), sets[0]).state_
        with torch.random.fork_rng(devices=[]):  # modules draw when they are made; what they drew is replaced
            networks = LaSO(z.shape[-1], self.n_layers, gated=self.gated).to(z.dtype).train()
        draw = torch.Generator().manual_seed(self.random_state)
        for layer in networks.modules():
            if isinstance(layer, torch.nn.Linear):
                bound = 1 / math.sqrt(layer.in_features)
                torch.nn.init.uniform_(layer.weight, -bound, bound, generator=draw)
                torch.nn.init.uniform_(layer.bias, -bound, bound, generator=draw)
        names = [name for name, _ in networks.named_parameters()]
        buffers = dict(networks.named_buffers())
        plan = _Plan(self.lr, self.warmup * steps, self.patience * steps, steps)

        def losses(parameters: list[Tensor], pair: Tensor) -> Tensor:
            a, b = pair
            weights = {**dict(zip(names, parameters, strict=True)), **buffers}
            outputs = torch.func.functional_call(networks, weights, (z[a], z[b]))
            loss = set_loss(outputs, z[a], z[b], y[a], y[b], logistic["weight"], logistic["bias"])
            plan.seen(float(loss.detach()))
            return loss

        update = SGD(finite("momentum", self.momentum, least=0, most=1), finite("decay", self.weight_decay, least=0))
        start = [parameter.detach() for parameter in networks.parameters()]
        trained = descend(start, losses, self._pairs(y.numpy(), steps), plan.rate, update)
        networks.load_state_dict({**buffers, **dict(zip(names, trained, strict=True))})
        return networks.eval()

    def _pairs(self, y: np.ndarray, steps: int) -> Iterator[Tensor]:
        """Rows ``[2, batch_size]`` of the pairs of each step."""
        draw = np.random.default_rng(self.random_state)
        for _ in range(self.epochs):
            pairs = balanced_pairs(y, steps * self.batch_size, draw)
            yield from torch.as_tensor(pairs.reshape(steps, self.batch_size, 2)).transpose(1, 2)


def balanced_pairs(y: np.ndarray, n: int, draw: np.random.Generator) -> np.ndarray:
    """``n`` pairs of rows ``[n, 2]`` that share a label; labels of ``y [m, L]`` are drawn about equally often."""
    rows_of = [np.flatnonzero(column) for column in y.T]
    drawn, pairs = np.zeros(y.shape[1]), np.empty((n, 2), dtype=np.int64)
    for i in range(n):
        least = np.flatnonzero(drawn == drawn.min())
        first = draw.choice(rows_of[draw.choice(least)])
        drawn += y[first]
        own = np.flatnonzero(y[first])
        second = draw.choice(rows_of[own[drawn[own].argmin()]])
        drawn += y[second]
        pairs[i] = first, second
    return pairs


def set_loss(
    outputs: dict[str, Tensor], a: Tensor, b: Tensor, y_a: Tensor, y_b: Tensor, weight: Tensor, bias: Tensor
) -> Tensor:
    """The sum of all losses of a batch of pairs.

    Args:
        outputs: of `LaSO.forward`.
        a: features ``[n, D]``, as ``b``.
        b: see ``a``.
        y_a: labels ``[n, L]``, as ``y_b``.
        y_b: see ``y_a``.
        weight: of the classifier ``[L, D]``.
        bias: ``[L]``.
    """
    target = {"a": y_a, "b": y_b}
    for name in outputs.keys() - target.keys():
        swapped = name in ("S(b,a)", "S(S(b,a),a)", "S(b,I(a,b))", "S(b,I(b,a))")
        kind = {"S": "subtract", "I": "intersect", "U": "union"}[name[0]]
        target[name] = label_set(kind, y_b, y_a) if swapped else label_set(kind, y_a, y_b)
    real = [(a, y_a), (b, y_b)]
    judged = [*real, *((outputs[name], target[name]) for name in outputs)]
    loss = sum((binary_cross_entropy_with_logits(x @ weight.mT + bias, y) for x, y in judged), a.new_zeros(()))
    alike = [("U(a,b)", "U(b,a)"), ("I(a,b)", "I(b,a)")]
    alike += [("S(a,b)", name) for name in ("S(S(a,b),b)", "S(a,I(a,b))", "S(a,I(b,a))")]
    alike += [("S(b,a)", name) for name in ("S(S(b,a),a)", "S(b,I(a,b))", "S(b,I(b,a))")]
    again = mse_loss(outputs["a"], a) + mse_loss(outputs["b"], b)
    return sum((mse_loss(outputs[one], outputs[other]) for one, other in alike), loss + again)


@dataclass
class _Plan:
    """The rate: an even climb, then halved where the loss stands still."""

    lr: tuple[float, float]
    climb: int
    patience: int
    rest: int
    _best: float = math.inf
    _last: float = math.inf
    _since: int = 0
    _resting: int = 0
    _factor: float = field(default=1.0)

    def seen(self, loss: float) -> None:
        """The loss of the step to come."""
        self._last = loss

    def rate(self, step: int) -> float:
        """Of ``step``, 0, 1, …"""
        if step < self.climb:
            return self.lr[0] + (self.lr[1] - self.lr[0]) * step / self.climb
        if self._last < self._best * (1 - 1e-4):
            self._best, self._since = self._last, 0
        else:
            self._since += 1
        if self._resting:
            self._resting, self._since = self._resting - 1, 0
        if self._since > self.patience:
            self._factor, self._resting, self._since = self._factor / 2, self.rest, 0
        return self.lr[1] * self._factor
