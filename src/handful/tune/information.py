"""What an encoder's parameters matter to its answers: the diagonal of the Fisher information.

    F_i = mean over items of (d z / d theta_i)^2

z is log p(y | x), or the raw logit of y; y is the item's label ("empirical"), or drawn from p(. | x).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from handful.errors import BadInput
from handful.tune.modes import in_mode
from handful.tune.recipe import Data, Readout


@dataclass(frozen=True)
class Information:
    """See `handful.tune.information`.

    Args:
        target: ``"logprob"``, or ``"logit"``.
        labels: ``"empirical"``, or ``"sampled"``.
        examples: items, drawn at random without replacement; ``None`` takes all.
        batch: items at a time; so many gradients of every parameter are held at once.
        seed: of what is drawn.
    """

    target: Literal["logprob", "logit"] = "logprob"
    labels: Literal["empirical", "sampled"] = "empirical"
    examples: int | None = 100
    batch: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.target not in ("logprob", "logit") or self.labels not in ("empirical", "sampled"):
            raise BadInput(f"target is 'logprob' or 'logit', labels are 'empirical' or 'sampled': {self}")
        if self.batch < 1 or (self.examples is not None and self.examples < 1):
            raise BadInput("examples and batch must be at least 1")

    def diagonal(
        self, model: nn.Module, readout: Readout, data: Data, parameters: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """F of each of ``parameters``, in their shapes.

        Args:
            model: read without dropout; nothing of it is changed.
            readout: gives ``[n, C]`` logits; most often fresh.
            data: what the information is taken over.
            parameters: leaves of ``model``, by any name.

        Raises:
            BadInput: the logits are not one a class; a parameter is no number that a gradient could be taken by.
        """
        generator = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(len(data), generator=generator)[: self.examples]
        leaves = list(parameters.values())
        sums = [torch.zeros_like(leaf) for leaf in leaves]
        needed = [leaf.requires_grad for leaf in leaves]
        try:
            for leaf in leaves:
                leaf.requires_grad_(True)
            for rows in torch.split(order, self.batch):
                with torch.enable_grad(), in_mode(False, model, readout):
                    logits = readout(readout.look(model, data.take(rows)), model)
                    if logits.shape != (len(rows), len(data.classes)):
                        raise BadInput(f"{len(data.classes)} classes, but logits of shape {tuple(logits.shape)}")
                    values = self._values(logits, data.targets[rows], generator)
                each = torch.autograd.grad(
                    values, leaves, torch.eye(len(rows)).to(values), is_grads_batched=True, allow_unused=True
                )
                for total, gradient in zip(sums, each, strict=True):
                    if gradient is not None:
                        total += gradient.detach().square().sum(0)
        finally:
            for leaf, was in zip(leaves, needed, strict=True):
                leaf.requires_grad_(was)
        return {name: total / len(order) for name, total in zip(parameters, sums, strict=True)}

    def _values(self, logits: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        """z of each item, ``[B]``."""
        z = logits.log_softmax(-1) if self.target == "logprob" else logits
        if self.labels == "sampled":
            drawn = torch.multinomial(logits.detach().softmax(-1).cpu(), 1, generator=generator)
            return z.gather(1, drawn.to(z.device))[:, 0]
        return (z * targets.to(z)).sum(-1)
