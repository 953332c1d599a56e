"""What learns, by what its steps have in common: optimiser, decay, rate."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from handful.core.train import Optimiser
from handful.errors import BadInput
from handful.tune.delta import Delta
from handful.tune.recipe import Stage
from handful.tune.sites import depths, sites


@dataclass
class Group:
    """Parameters that take their steps together: with one optimiser, at ``factor`` times the rate."""

    parameters: list[Tensor]
    update: Optimiser
    factor: float


def groups_of(stage: Stage, model: nn.Module, delta: Delta, readout: nn.Module) -> list[Group]:
    """What learns in a stage, by what its steps have in common."""
    out: list[Group] = []
    for part, module in (("delta", delta), ("readout", readout)):
        lr = stage.readout_lr if part == "readout" and stage.readout_lr is not None else stage.lr
        learns = part in stage.trains
        for parameter in module.parameters():
            parameter.requires_grad_(learns)
        if learns:
            factor = lr / stage.lr if stage.lr else 1.0
            depth = _slower(delta, model, stage.block_decay) if part == "delta" else {}
            update = (part == "readout" and stage.readout_update) or stage.update
            for (decay, slower), some in _alike(module, stage.weight_decay, depth).items():
                out.append(Group(some, update(decay), factor * slower))
    if not out:
        raise BadInput("nothing would learn: no change of the model, and a readout without numbers")
    return out


def _slower(delta: Delta, model: nn.Module, decay: float) -> dict[int, float]:
    """By parameter of the delta, the factor of its rate: ``decay`` to the power of how far below the head it is."""
    if decay == 1:
        return {}
    every = {site.name: site for site in sites(model)}
    blocks, found = depths(every.values()), dict[int, float]()
    for holder in delta.each():
        site = every[holder.site]
        # What has no block lies below all (embeddings), or above (a projection).
        above = 0 if site.role == "projection" else blocks[site.tower] - (-1 if site.block is None else site.block)
        found |= {id(p): decay**above for p in holder.parameters()}
    return found


def _alike(
    module: nn.Module, weight_decay: float, slower: Mapping[int, float]
) -> dict[tuple[float, float], list[Tensor]]:
    """The parameters by their decay, of which vectors have none, and the factor of their rate."""
    out: dict[tuple[float, float], list[Tensor]] = {}
    for parameter in module.parameters():
        decay = weight_decay if parameter.dim() > 1 else 0.0
        out.setdefault((decay, slower.get(id(parameter), 1.0)), []).append(parameter)
    return out


def mover(groups: Sequence[Group], rate: float, clip: float | None) -> Callable[[Sequence[Tensor]], None]:
    """What takes a gradient for each parameter of ``groups``, in their order, and moves them.

    Args:
        groups: what learns.
        rate: of the step.
        clip: length of all gradients together, at most.
    """

    @torch.no_grad()
    def move(gradients: Sequence[Tensor]) -> None:
        if clip is not None:
            length = torch.stack([g.square().sum() for g in gradients]).sum().sqrt()
            gradients = [g * (clip / length.clamp_min(clip)) for g in gradients]
        left = iter(gradients)
        for group in groups:
            some = tuple(itertools.islice(left, len(group.parameters)))
            group.update([p.data for p in group.parameters], some, rate * group.factor)

    return move
