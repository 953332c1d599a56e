"""Answers by the nearest class mean under the model as it is tuned, and the loss that goes with them.

    z = B f(x) / |B f(x)|        p_c = unit mean of z over the support of class c        logits = 10 z . p_c

B [d, d] begins as the identity and learns: the alignment before the classifier of URL (Li, Liu, Bilen, "Universal
Representation Learning from Multiple Domains for Few-shot Classification", 2021). In training the items of a step are
support and query at once; afterwards the support is read anew by the model that was tuned.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from handful.tune.recipe import Data, Readout, Seen

SCALE = 10.0
BATCH = 64
"""Items of the support that are read at a time."""


class NearestClass(Readout):
    """See `handful.tune.nearest`.

    Args:
        align: whether there is a B.
        gain: B = I + gain E, where E learns: plain gradient steps of E at a rate r are steps of B at gain^2 r.
    """

    E: nn.Parameter

    def __init__(self, align: bool = True, gain: float = 1.0) -> None:
        super().__init__()
        self.align, self.gain = align, gain

    def begin(self, model: nn.Module, data: Data, generator: torch.Generator) -> None:
        self.data = data
        with torch.no_grad():
            probe = self.look(model, data.take(torch.arange(1)))
        if self.align:
            self.E = nn.Parameter(probe.new_zeros(probe.shape[-1], probe.shape[-1]))

    def embed(self, features: Tensor) -> Tensor:
        """z ``[n, d]``."""
        aligned = features + self.gain * features @ self.E.mT if self.align else features
        return functional.normalize(aligned, dim=-1)

    def scores(self, z: Tensor, support: Tensor, targets: Tensor) -> Tensor:
        """Logits ``[n, C]`` of ``z [n, d]`` by the class means of ``support [N, d]``; 0 for a class without items."""
        return SCALE * z @ functional.normalize(targets.mT.to(support) @ support, dim=-1).mT

    def forward(self, features: Tensor, model: nn.Module) -> Tensor:
        rows = torch.split(torch.arange(len(self.data)), BATCH)
        support = torch.cat([self.embed(self.look(model, self.data.take(some))) for some in rows])
        return self.scores(self.embed(features), support, self.data.weighted)


@dataclass(frozen=True)
class NearestLoss:
    """Cross-entropy of the items of a step by the class means of the same items."""

    name = "nearest-class"
    separable = False

    def __call__(self, seen: Seen) -> Tensor:
        readout = seen.read_by(NearestClass)
        z = readout.embed(seen.features)
        logits = readout.scores(z, z, seen.weight[:, None] * seen.targets)
        each = -(seen.targets * logits.log_softmax(-1)).sum(-1)
        return seen.mean(each)
