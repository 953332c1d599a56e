"""One recipe after the other, each on top of what the ones before it changed.

138 Chain of LoRA: Efficient Fine-tuning of Language Models via Residual Learning, 2024. A low-rank change is learnt,
tied into the weights, and a new one learns what is left:

    W_m = W_(m-1) + s B_m A_m       B_m = 0 and A_m drawn at first, with an optimiser and a schedule of their own

After M links the change has rank up to M r, while never more than one link learns. Seen as Frank and Wolfe's method, a
link is the step towards the best low-rank matrix; for smooth stochastic losses the gap to a point that none improves
falls as 1 / sqrt(T), up to how well each link is solved.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from handful.errors import BadInput
from handful.tune.change import Mode
from handful.tune.delta import Delta, Holder, Merged, Placed
from handful.tune.fillers import Linear, Shuffled
from handful.tune.loop import tune
from handful.tune.lora import LoRA
from handful.tune.recipe import Data, Readout, Recipe, Stage
from handful.tune.sites import Where, as_matrix
from handful.tune.tuned import Tuned


def going_on(readout: Readout) -> Readout:
    """A copy of ``readout`` that goes on learning from where it stands: `Readout.begin` leaves it as it is."""
    made = copy.deepcopy(readout)
    made.begin = _as_it_is  # type: ignore[method-assign]
    return made


def _as_it_is(model: nn.Module, data: Data, generator: torch.Generator) -> None:
    """In place of `Readout.begin`."""


def sequence(
    model: nn.Module,
    data: Data,
    recipes: Sequence[Recipe],
    *,
    seed: int = 0,
    mode: Mode = "branch",
    told: Callable[[int, Tuned], None] | None = None,
) -> Tuned:
    """Tune by each recipe in turn, with the changes of those before it in the weights.

    Args:
        model: as for `tune`; the base is back in the end, bit for bit.
        data: what every one learns from.
        recipes: the readout of the first goes on learning in the others, whose own slot is not looked at.
        seed: of the first; link m has the seed plus m.
        mode: see `Delta.attached`.
        told: called with the number of a link and what came out of it, as it ends.

    Returns:
        All changes as one delta of the base, each link on its own in it, and the losses of all steps.

    Raises:
        BadInput: there is no recipe; a change has no weight form, so that it cannot be tied into the weights.
    """
    if not recipes:
        raise BadInput("a chain needs at least one link")
    for placed in (placed for recipe in recipes[:-1] for placed in recipe.changes):
        placed.change.check("weight", training=False)
    links: list[Tuned] = []
    tied: Merged | None = None
    try:
        for number, recipe in enumerate(recipes):
            if links:
                recipe = replace(recipe, readout=partial(going_on, links[-1].readout))
            link = tune(model, data, recipe, seed=seed + number, mode=mode)
            links.append(link)
            if told is not None:
                told(number, link)
            if number + 1 < len(recipes):
                if tied is not None:
                    tied.undo()  # the sum is made anew from the base, so that roundings do not add up
                tied = Delta.joined(model, [link.delta for link in links]).merge(model)
    finally:
        if tied is not None:
            tied.undo()
    losses = [loss for link in links for loss in link.losses]
    return Tuned(model, Delta.joined(model, [x.delta for x in links]), links[-1].readout, links[-1].classes, losses)


@dataclass(frozen=True)
class ChainOfLoRA:
    """Low-rank changes one after the other, each on what the last one left (138).

    Args:
        links: how many; the paper has 1 to 3.
        rank: of all links, or of each, such as ``(8, 6, 4)``.
        alpha, dropout: see `LoRA`.
        lr: the paper takes the best of 1e-3, 8e-4, 5e-4, 1e-4, 5e-5.
        epochs: of all links together.
        batch: 4 to 8.
        warmup: share of the steps of a schedule.
        schedule: ``"per-link"`` begins it anew with each link, ``"global"`` has one over the whole chain.
        patience: a link ends early once the loss no longer falls, see `Stage`.
        roles: query and value.
    """

    links: int = 3
    rank: int | tuple[int, ...] = 8
    alpha: float = 16.0
    dropout: float = 0.1
    lr: float = 5e-4
    epochs: float = 5
    batch: int = 8
    warmup: float = 0.06
    schedule: Literal["per-link", "global"] = "per-link"
    patience: int | None = None
    roles: tuple[str, ...] = ("q", "v")

    def __post_init__(self) -> None:
        if self.links < 1:
            raise BadInput(f"a chain of {self.links} links is none; it needs at least one")
        if not isinstance(self.rank, int) and len(self.rank) != self.links:
            raise BadInput(f"{len(self.rank)} ranks for {self.links} links: give one for each, or one for all")
        if self.schedule not in ("per-link", "global"):
            raise BadInput(f"schedule is 'per-link' or 'global', not {self.schedule!r}")

    def recipes(self, data: Data) -> tuple[Recipe, ...]:
        """One a link; the steps on ``data`` are shared out evenly.

        Raises:
            BadInput: there are fewer steps than links.
        """
        total = Shuffled().steps(data, self.epochs, self.batch)
        if total < self.links:
            raise BadInput(f"{total} steps are not enough for {self.links} links")
        ranks = (self.rank,) * self.links if isinstance(self.rank, int) else self.rank
        ends = [round(total * (link + 1) / self.links) for link in range(self.links)]
        if self.schedule == "global" and not round(self.warmup * total) <= min(ends[0], total - 1):
            raise BadInput(f"the warm-up is longer than the first link, of {ends[0]} steps; shorten it, or the chain")
        stages = [self._stage(first, end, total) for first, end in zip([0, *ends], ends, strict=False)]
        return tuple(
            Recipe((Placed(LoRA(r, self.alpha, self.dropout), Where(self.roles)),), stages=(stage,), readout=Linear)
            for r, stage in zip(ranks, stages, strict=True)
        )

    def _stage(self, first: int, end: int, total: int) -> Stage:
        """Steps ``first`` to ``end`` of ``total``."""
        whole = Stage(steps=end - first, lr=self.lr, batch=self.batch, warmup=self.warmup, patience=self.patience)
        if self.schedule == "per-link":
            return whole
        warm = round(self.warmup * total)

        def left(at: int) -> float:
            return self.lr * (total - max(at, warm)) / (total - warm)

        return replace(whole, lr=left(first), last=left(end), warmup=0.0 if first else warm / end)

    def fit(self, model: nn.Module, data: Data, seed: int = 0) -> Tuned:
        """Run the chain; see `sequence`."""
        return sequence(model, data, self.recipes(data), seed=seed)


@torch.no_grad()
def ranks(delta: Delta, model: nn.Module, tolerance: float = 1e-6) -> dict[str, int]:
    """By site the rank of the whole change of its weight: singular values above ``tolerance`` of the largest."""
    base: dict[str, Tensor] = {}
    changed: dict[str, Tensor] = {}
    for holder in delta.holders:
        assert isinstance(holder, Holder)
        module = model.get_submodule(holder.site)
        if holder.parameter != "weight":
            continue
        weight = as_matrix(module, module.get_parameter("weight")).double()
        base[holder.site] = weight
        changed[holder.site] = holder.change.weight(changed.get(holder.site, weight), holder.tensors)
    out = {}
    for site, weight in changed.items():
        s = torch.linalg.svdvals(weight - base[site])
        out[site] = int((s > tolerance * s[0]).sum()) if s[0] > 0 else 0
    return out
