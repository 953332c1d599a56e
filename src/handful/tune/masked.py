"""A sparse update: only chosen entries of the weights learn (FISH mask, Sung et al. 2021; lottery-ticket sparse
fine-tuning, Ansell et al. 2022).

    f(W) = W + D at the chosen entries, W elsewhere        D = 0 at first, one number an entry

The entries are the ``int(P keep)`` of the highest score over all P entries of all weights together: by the diagonal
Fisher information (FISH), or by how far a round of full tuning moves them (lottery ticket, `movement`). `Others` is the
counterpart: all but the chosen entries learn, so that a sparse update that stands in the weight stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from handful.errors import BadInput
from handful.tune.change import Begun, Change, Mode, Tensors, register
from handful.tune.delta import Delta, Holder, Placed
from handful.tune.information import Information
from handful.tune.recipe import Data, Readout
from handful.tune.sites import Where, as_matrix


@register
@dataclass(frozen=True)
class Masked(Change):
    """See `handful.tune.masked`; made by `chosen`.

    Args:
        entries: how many entries of the weight learn. Without a choice they are random ones.
    """

    key: ClassVar[str] = "masked"
    modes: ClassVar[frozenset[Mode]] = frozenset({"weight"})
    entries: int = 1

    def begin(self, weight: Tensor, generator: torch.Generator) -> Begun:
        if not 1 <= self.entries <= weight.numel():
            raise BadInput(f"{self.entries} entries cannot learn in a weight of {weight.numel()}")
        at = torch.randperm(weight.numel(), generator=generator)[: self.entries]
        return Begun({"D": weight.new_zeros(self.entries)}, {"at": at.to(weight.device)})

    def weight(self, w: Tensor, t: Tensors) -> Tensor:
        if not bool(((t["at"] >= 0) & (t["at"] < w.numel())).all()):
            raise BadInput(f"a sparse update names entries outside of a weight of {w.numel()}")
        return w.flatten().index_add(0, t["at"], t["D"]).reshape(w.shape)


@register
@dataclass(frozen=True)
class Others(Change):
    """Every entry but some learns: ``f(W) = W`` at those, P elsewhere, and P = W at first.

    Args:
        entries: how many stay as they are. Without a choice (`At`) they are random ones.
    """

    key: ClassVar[str] = "others"
    modes: ClassVar[frozenset[Mode]] = frozenset({"weight"})
    entries: int = 1

    def begin(self, weight: Tensor, generator: torch.Generator) -> Begun:
        if not 0 <= self.entries < weight.numel():
            raise BadInput(
                f"{self.entries} of the {weight.numel()} entries of a weight are to stay; leave some to learn"
            )
        at = torch.randperm(weight.numel(), generator=generator)[: self.entries]
        return Begun({"P": weight}, {"at": at.to(weight.device)})

    def weight(self, w: Tensor, t: Tensors) -> Tensor:
        return t["P"].flatten().index_copy(0, t["at"], w.flatten()[t["at"]]).reshape(w.shape)


@dataclass(frozen=True)
class At:
    """Puts `Masked` and `Others` at their entries: fills the slot `start`.

    Args:
        entries: by the parameter's name the flat positions in it, as ``[out, in]``.
    """

    entries: Mapping[str, Tensor]

    def __call__(
        self, delta: Delta, model: nn.Module, readout: Readout, data: Data, loss: Callable[[Any], Tensor]
    ) -> None:
        """See `handful.tune.recipe.Start`."""
        for holder in delta.holders:
            if isinstance(holder, Holder) and isinstance(holder.change, (Masked, Others)):
                holder.tensors["at"].copy_(self.entries[f"{holder.site}.{holder.parameter}"])


def chosen(scores: Mapping[str, Tensor], keep: float) -> tuple[tuple[Placed, ...], At]:
    """What fills the slots ``changes`` and ``start`` for a sparse update.

    Args:
        scores: by the parameter's name one of each entry of it, as ``[out, in]``; the highest are kept. A parameter
            that several modules share stands there once, and learns in all of them.
        keep: the share of all entries, above 0 and up to 1.

    Raises:
        BadInput: no entry would be kept; scores hold NaN.
    """
    every = torch.cat([score.flatten() for score in scores.values()])
    many = int(len(every) * keep)
    if not 1 <= many <= len(every):
        raise BadInput(f"keep={keep} of {len(every)} entries are {many}; keep at least one and at most all")
    if bool(every.isnan().any()):
        raise BadInput("scores of entries hold NaN")
    sizes = [score.numel() for score in scores.values()]
    mask = torch.zeros(len(every), dtype=torch.bool)
    mask[every.topk(many).indices.cpu()] = True
    parts = torch.split(mask, sizes)
    at = {name: part.nonzero()[:, 0] for name, part in zip(scores, parts, strict=True) if part.any()}
    split = {name: name.rpartition(".") for name in at}
    where = {name: Where((), kind, tied=True, sites=(site,)) for name, (site, _, kind) in split.items()}
    return tuple(Placed(Masked(len(at[name])), where[name]) for name in at), At(at)


def fisher(
    model: nn.Module, where: Where, readout: Readout, data: Data, information: Information | None = None
) -> dict[str, Tensor]:
    """The diagonal Fisher information of each site's weight ``[out, in]``, over all of ``data``: scores of FISH."""
    weights = {site.name: model.get_submodule(site.name).get_parameter("weight") for site in where.find(model)}
    found = (information or Information(examples=None)).diagonal(model, readout, data, weights)
    return {f"{site}.weight": as_matrix(model.get_submodule(site), f) for site, f in found.items()}


@torch.no_grad()
def movement(delta: Delta, model: nn.Module) -> dict[str, Tensor]:
    """How far each entry of each parameter was moved: scores of a lottery ticket from a round of `Own`."""
    out = {}
    for holder in delta.holders:
        assert isinstance(holder, Holder)
        module = model.get_submodule(holder.site)
        weight = module.get_parameter(holder.parameter)
        out[f"{holder.site}.{holder.parameter}"] = (as_matrix(module, holder(weight)) - as_matrix(module, weight)).abs()
    return out
