"""Which tokens tell the classes apart counts more: weights of tokens that are learnt by a look ahead (paper 018).

    d_t     = -log softmax_c(z_t)[y]            z [T, C] logits of token t under each class' prefix, y the class
    w       = softmax_t(net(d))                 over all tokens of a batch; net: 1 -> 100 -> 1, ReLU, of d detached
    L_gen   = sum_t w_t (-log p_t)              under the prefix of y
    L_disc  = mean_t d_t

Each step: theta' = theta - meta_lr dL_gen(w)/dtheta; the net takes a step of Adam by dL_disc(theta')/dnet on the same
batch; then the prefixes take theirs by L_gen with the net's new weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from handful.core.train import Adam
from handful.errors import BadInput
from handful.generate.prefixes import ClassPrefixes, Tokens
from handful.tune.recipe import Closures, Data, Seen

NET = ("inner", "inner_bias", "outer", "outer_bias")
HIDDEN = 100


class WeighingPrefixes(ClassPrefixes):
    """`ClassPrefixes` with the net that weighs tokens beside them: buffers, as it does not learn with them."""

    inner: Tensor
    inner_bias: Tensor
    outer: Tensor
    outer_bias: Tensor

    def begin(self, model: nn.Module, data: Data, generator: torch.Generator) -> None:
        super().begin(model, data, generator)
        drawn = [2 * torch.rand(size, generator=generator) - 1 for size in ((HIDDEN, 1), HIDDEN, (1, HIDDEN), 1)]
        bounds = (1.0, 1.0, HIDDEN**-0.5, HIDDEN**-0.5)  # as nn.Linear begins
        for name, value, bound in zip(NET, drawn, bounds, strict=True):
            self.register_buffer(name, bound * value.to(self.keys))

    def weigh(self, d: Tensor) -> Tensor:
        """w of all tokens of a batch ``[N]``, which sum to 1."""
        inner = functional.linear(d.detach()[:, None], self.now("inner"), self.now("inner_bias")).relu()
        return functional.linear(inner, self.now("outer"), self.now("outer_bias"))[:, 0].softmax(0)


def discrimination(tokens: Tokens, labels: Tensor) -> Tensor:
    """d of all tokens of a batch ``[N]``."""
    each = -tokens.gold.log_softmax(1)[torch.arange(len(labels)), labels]
    return each[tokens.known]


@dataclass(frozen=True)
class Generation:
    """L_gen, by the net's weights or, without ``weighted``, the mean over tokens."""

    weighted: bool = True
    name = "generation"
    separable = False

    def __call__(self, seen: Seen) -> Tensor:
        tokens: Tokens = seen.features
        loss = -tokens.likelihood[torch.arange(len(seen.labels)), seen.labels][tokens.known]
        if not self.weighted:
            return loss.mean()
        assert isinstance(seen.readout, WeighingPrefixes)
        return (seen.readout.weigh(discrimination(tokens, seen.labels)) * loss).sum()


@dataclass(frozen=True)
class Discrimination:
    """L_disc. Fills no step by itself: `LookAhead` asks for it."""

    name = "discrimination"
    separable = True

    def __call__(self, seen: Seen) -> Tensor:
        return discrimination(seen.features, seen.labels).mean()


class LookAhead:
    """The step above, for a recipe with both objectives.

    Args:
        prefixes: what learns; also the recipe's readout.
        meta_lr: of the look ahead.
        lr, weight_decay: of the net; the rate falls to 0 in a line.
    """

    def __init__(
        self, prefixes: WeighingPrefixes, meta_lr: float = 2e-2, lr: float = 1e-2, weight_decay: float = 1e-4
    ) -> None:
        if not meta_lr > 0 or lr < 0:
            raise BadInput(f"meta_lr is above 0 and the net's rate not below, not {meta_lr} and {lr}")
        self.prefixes, self.meta_lr, self.lr = prefixes, meta_lr, lr
        self._update = Adam(weight_decay=weight_decay)

    def __call__(
        self, closures: Closures, parameters: Sequence[Tensor], update: Callable[[Sequence[Tensor]], None]
    ) -> Tensor:
        """See `handful.tune.recipe.Step`."""
        net = [getattr(self.prefixes, name) for name in NET]
        self._update(net, self.gradient(closures), self.lr * (1 - closures.step / closures.steps))
        loss = closures["generation"]()
        update(torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True))
        return loss.detach()

    def gradient(self, closures: Closures) -> tuple[Tensor, ...]:
        """dL_disc(theta') / dnet."""
        theta = dict(self.prefixes.named_parameters())
        net = {name: getattr(self.prefixes, name).detach().clone().requires_grad_() for name in NET}
        # Attention's fast forms have no second derivative.
        with sdpa_kernel(SDPBackend.MATH), self.prefixes.instead(net):
            loss = closures["generation"]()
            slopes = torch.autograd.grad(loss, list(theta.values()), create_graph=True, materialize_grads=True)
            moved = {name: p - self.meta_lr * g for (name, p), g in zip(theta.items(), slopes, strict=True)}
            with self.prefixes.instead(moved):
                ahead = closures["discrimination"]()
        return torch.autograd.grad(ahead, list(net.values()), allow_unused=True, materialize_grads=True)
