"""Objectives over pairs of items: what is alike comes closer, what is not moves apart.

    cosine pairs   mean over given pairs of (cos(f(a), f(b)) - target)^2
    all pairs      the same over every pair of a batch, pairs of one class and pairs of two as heavy together
    SupCon         -mean_i mean_{p in P(i)} log exp(s_ip / t) / sum_{j != i} exp(s_ij / t)
                   P(i) being the others of i's class
    triplets       max(0, d_ap - d_an + margin), d = 1 - cos, p the others of a's class and n the items of others:
                   the mean over those above 0

SupCon: Khosla et al., Supervised Contrastive Learning, 2020, the "out" form. Triplets: Hermans et al., In Defense of
the Triplet Loss, 2017, "batch all". The first is SetFit's (167, Efficient Few-Shot Learning Without Prompts, 2022).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from handful.tune.recipe import Seen


@dataclass(frozen=True)
class CosinePairs:
    """Rows come in pairs, neighbours in the batch: ``[a_0, b_0, a_1, b_1, …]``; see `handful.tune.setfit.Pairs`."""

    name = "cosine-pairs"
    separable = False

    def __call__(self, seen: Seen) -> Tensor:
        a, b = seen.features[0::2], seen.features[1::2]
        alike = (seen.targets[0::2] * seen.targets[1::2]).sum(1) > 0
        return (functional.cosine_similarity(a, b) - alike.to(a)).square().mean()


@dataclass(frozen=True)
class AllPairs:
    """Each unordered pair of different items of the batch, once.

    Args:
        balanced: pairs of one class count as much as those of two, together; else each pair counts the same.
    """

    balanced: bool = True
    name = "all-pairs"
    separable = False

    def __call__(self, seen: Seen) -> Tensor:
        f = functional.normalize(seen.features, dim=1)
        i, j = torch.triu_indices(len(f), len(f), 1)
        alike = (seen.targets @ seen.targets.mT > 0)[i, j]
        error = ((f @ f.mT)[i, j] - alike.to(f)).square()
        if not self.balanced:
            return error.mean()
        kinds = [error[kind] for kind in (alike, ~alike) if bool(kind.any())]
        return torch.stack([kind.mean() for kind in kinds]).mean()


@dataclass(frozen=True)
class SupCon:
    """Supervised contrastive loss; items without another of their class in the batch are anchors of nothing.

    Args:
        temperature: t.
    """

    temperature: float = 0.07
    name = "supcon"
    separable = False

    def __call__(self, seen: Seen) -> Tensor:
        f = functional.normalize(seen.features, dim=1)
        return supcon(f @ f.mT, seen.targets @ seen.targets.mT > 0, self.temperature)


@dataclass(frozen=True)
class Triplets:
    """All triplets of a batch: an item, another of its class, one of another class.

    Args:
        margin: by which the last should be farther away.
    """

    margin: float = 0.25
    name = "triplets"
    separable = False

    def __call__(self, seen: Seen) -> Tensor:
        f = functional.normalize(seen.features, dim=1)
        alike = seen.targets @ seen.targets.mT > 0
        near = alike & ~torch.eye(len(f), dtype=torch.bool)
        d = 1 - f @ f.mT
        each = (d[:, :, None] - d[:, None, :] + self.margin).clamp_min(0)
        each = torch.where(near[:, :, None] & ~alike[:, None, :], each, 0.0)
        return each.sum() / (each > 0).sum().clamp_min(1)


def supcon(similarity: Tensor, alike: Tensor, temperature: float) -> Tensor:
    """The loss for similarities ``[n, n]`` and which pairs are of one class ``[n, n]``; the diagonal is left out."""
    itself = torch.eye(len(similarity), dtype=torch.bool, device=similarity.device)
    logits = (similarity / temperature).masked_fill(itself, float("-inf"))
    shares = (logits - logits.logsumexp(1, keepdim=True)).masked_fill(itself, 0.0)
    positive = (alike & ~itself).to(similarity)
    count = positive.sum(1)
    has = count > 0
    return -((positive * shares).sum(1) / count.clamp_min(1)).sum() / has.sum().clamp_min(1)
