"""MerA: one adapter of several that were trained on other tasks, as a start for a task of a few examples (041, 2023).

    unit i      of an adapter: row D_i, bias c_i, column U_.i;  of LoRA: row A_i, column B_.i
    cost        C_ij = |ref_i - other_j|^2,  a unit being its weights, or its pre-activations on the few examples
    plan        T = argmin <T, C>,  rows and columns summing to 1 / m;  a permutation over m, or softer with entropy
    moved       D' = m T D,   c' = m T c,   U' = U m T^T
    merged      mean, weighted mean or sum of the reference and of the others as they are moved

What goes in and out is the encoder's own space in all of them, so that only hidden units are matched. The merged
adapter then learns the task with a fresh readout, as a single one would, and costs no more.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from handful.core.merging import flat, merge, unflat
from handful.core.transport import matching, sinkhorn
from handful.errors import BadInput
from handful.tune.adapters import Adapter
from handful.tune.delta import Delta, Holder, Placed
from handful.tune.fillers import Linear
from handful.tune.fusion import Fused
from handful.tune.loop import tune
from handful.tune.lora import LoRA
from handful.tune.modes import in_mode
from handful.tune.plain import EVERYTHING
from handful.tune.recipe import Data, Recipe, Stage
from handful.tune.sites import Where
from handful.tune.tuned import Tuned
from handful.tune.zoo import From, Zoo, same_kind

Align = Literal["none", "weights", "activations"]
ROWS, COLUMNS = ("D", "c", "A"), ("U", "B")
"""Tensors of which a row, or a column, belongs to a hidden unit."""


def merge_adapters(
    deltas: Sequence[Delta],
    model: nn.Module,
    align: Align = "activations",
    *,
    inputs: Any = None,
    combine: Literal["mean", "sum"] = "mean",
    weights: Sequence[float] | None = None,
    reference: int = 0,
    reg: float = 0.0,
) -> Delta:
    """One delta of several of one kind: adapters, or LoRA.

    Args:
        deltas: two or more, at most one change a site.
        model: theirs.
        align: by what hidden units are matched to those of the reference before; ``"none"``: not at all.
        inputs: of the few examples, as the model takes them, for ``"activations"``.
        combine: ``"mean"``, or ``"sum"`` of parameters.
        weights: of each delta, 1 by default.
        reference: to which of them the others are moved.
        reg: weight of the plan's entropy, in units of the cost; 0 matches one to one.

    Raises:
        BadInput: fewer than two deltas, or of several kinds; a change that has no hidden units; no inputs where they
            are needed; reg is negative; there is no such reference, align or combine.

    Where the activations of an adapter do not vary at all, weights are compared in their place, with a warning.
    """
    same_kind(deltas)
    if align not in ("none", "weights", "activations") or combine not in ("mean", "sum"):
        raise BadInput(f"align is 'none', 'weights' or 'activations', combine 'mean' or 'sum': {align!r}, {combine!r}")
    if not 0 <= reference < len(deltas) or not reg >= 0:
        raise BadInput(f"reference is 0 to {len(deltas) - 1} and reg at least 0, not {reference} and {reg}")
    moved: list[dict[str, Tensor]] = [dict(delta.named_parameters()) for delta in deltas]
    if align != "none":
        seen = _all_activations(deltas, model, inputs) if align == "activations" else None
        for number, holder in enumerate(deltas[reference].each()):
            described = [_described(delta, number) for delta in deltas]
            if seen is not None and all(_reacts(one[number]) for one in seen):
                described = [one[number].mT for one in seen]
            elif seen is not None:
                warnings.warn(f"{holder.site}: no unit reacts to these inputs; weights are compared", stacklevel=2)
            for other, tensors in enumerate(moved):
                if other != reference:
                    plan = transport(described[reference], described[other], reg)
                    tensors.update(_moved(tensors, f"holders.{number}.", plan))
    rows = [flat(tensors) for tensors in moved]
    vector = merge(rows, "mean" if combine == "mean" else "arithmetic", weights=weights)
    made = Delta.begin(model, deltas[0].placed(), torch.Generator().manual_seed(0))
    made.load_state_dict({**dict(deltas[reference].named_buffers()), **unflat(vector, moved[0])})
    return made


def transport(one: Tensor, other: Tensor, reg: float = 0.0) -> Tensor:
    """The plan ``[m, m]`` from the units of one adapter, ``[m, f]``, to those of another; it sums to 1.

    Raises:
        BadInput: with so little entropy for such costs no plan was found.
    """
    m = len(one)
    cost = torch.cdist(one.double(), other.double()).square()
    if not reg:
        return matching(cost)
    uniform = cost.new_full((m,), 1 / m)
    plan = sinkhorn(cost, reg, uniform, uniform, tol=1e-12, max_sweeps=10_000)
    if bool(((plan.sum(0) - uniform).abs() > 1e-6 / m).any()):
        raise BadInput(f"no plan was found for costs up to {float(cost.max()):g} with reg={reg}; raise it, or give 0")
    return plan


def unit_activations(delta: Delta, model: nn.Module, inputs: Any) -> list[Tensor]:
    """What goes into the hidden units of each change, ``[n, m]``: n items, or all of their tokens.

    Raises:
        BadInput: a change has no hidden units; two are at one site; a site was not called.
    """
    holders = list(delta.each())
    found: list[list[Tensor]] = [[] for _ in holders]
    if len({holder.site for holder in holders}) < len(holders):
        raise BadInput("two changes are at one site, so that what goes into the second is not known")

    def watch(number: int, holder: Holder) -> Any:
        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            t, change = holder.tensors, holder.change
            x = output if isinstance(change, Adapter) and change.at == "after" else args[0]
            before = functional.linear(x, t["D"], t.get("c")) if isinstance(change, Adapter) else x @ t["A"].mT
            found[number].append(before.flatten(0, -2))

        return model.get_submodule(holder.site).register_forward_hook(hook)

    handles = [watch(number, holder) for number, holder in enumerate(holders)]
    try:
        with torch.no_grad(), in_mode(False, model), delta.attached(model):
            model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    for holder, parts in zip(holders, found, strict=True):
        if not parts:
            raise BadInput(f"{holder.site} is never called with these inputs, so that it has no activations")
    return [torch.cat(parts) for parts in found]


def _all_activations(deltas: Sequence[Delta], model: nn.Module, inputs: Any) -> list[list[Tensor]]:
    if inputs is None:
        raise BadInput("units are matched by activations: give inputs, or align='weights'")
    for delta in deltas:
        for number in range(len(delta.holders)):
            _described(delta, number)
    return [unit_activations(delta, model, inputs) for delta in deltas]


def _reacts(activations: Tensor) -> bool:
    """Whether any unit tells the items ``[n, m]`` apart, rounding aside."""
    spread = activations.amax(0) - activations.amin(0)
    return bool((spread > 1e-5 * activations.abs().amax(0)).any())


def _described(delta: Delta, number: int) -> Tensor:
    """Every unit of a change as its weights ``[m, f]``."""
    holder = list(delta.each())[number]
    if type(holder.change) not in (Adapter, LoRA):
        raise BadInput(f"{holder.site} has {holder.change.key!r}; only adapters and LoRA have hidden units to match")
    rows = [t.reshape(len(t), -1) for name, t in holder.tensors.items() if name in ROWS]
    return torch.cat([*rows, *(t.mT for name, t in holder.tensors.items() if name in COLUMNS)], 1).detach()


def _moved(tensors: Mapping[str, Tensor], start: str, plan: Tensor) -> dict[str, Tensor]:
    """The tensors of one change with its units moved by ``plan``."""
    out, m = {}, len(plan)
    for name, tensor in tensors.items():
        if name.startswith(start):
            share = (m * plan).to(tensor)
            kind = name.removeprefix(start)
            out[name] = share @ tensor if kind in ROWS else tensor @ share.mT if kind in COLUMNS else tensor
    return out


@dataclass(frozen=True)
class MerA:
    """Few-shot learning that begins with adapters of other tasks, merged. See `handful.tune.mera`.

    Args:
        reduction: how many times narrower than the encoder an adapter is.
        lr, epochs, batch: of AdamW with a linear decay; the same for a task of the zoo and for the few examples.
        align, combine, reg: see `merge_adapters`.
        track: only members of this family.
        k: of those, so many at most, the nearest where a vector of the task is given.
    """

    reduction: float = 16.0
    lr: float = 1e-4
    epochs: float = 15
    batch: int = 32
    align: Align = "activations"
    combine: Literal["mean", "sum"] = "mean"
    reg: float = 0.0
    track: str | None = None
    k: int | None = None

    def recipe(self, changes: tuple[Placed, ...] = ()) -> Recipe:
        """How the zoo's members are trained: a fresh adapter behind the feed-forward of each block, or ``changes``."""
        adapter = Placed(Adapter(reduction=self.reduction, activation="relu"), Where(("down",)))
        return self._trained(changes or (adapter,))

    def merged(self, model: nn.Module, zoo: Zoo, inputs: Any, near: Tensor | None = None) -> Delta:
        """The adapter to begin with; the one member that fits, where there is one only.

        Args:
            model: the zoo's.
            zoo: of adapters.
            inputs: of the few examples.
            near: vector of the task, to choose members by; see `Zoo.chosen`.
        """
        members = [member.delta for member in zoo.chosen(self.track, near, self.k)]
        if len(members) == 1:
            return members[0]
        return merge_adapters(members, model, self.align, inputs=inputs, combine=self.combine, reg=self.reg)

    def fit(self, model: nn.Module, data: Data, zoo: Zoo, *, near: Tensor | None = None, seed: int = 0) -> Tuned:
        """Merge, and learn ``data`` from there; see `merged` and `handful.tune.tune`."""
        start = self.merged(model, zoo, data.take(torch.arange(len(data))), near)
        return tune(model, data, self._trained(tuple(start.placed()), From(start)), seed=seed)

    def baselines(self, zoo: Zoo, near: Tensor | None = None) -> dict[str, Recipe]:
        """What it is to be compared with, as recipes of the same budget.

        ``full`` tuning; a ``fresh`` adapter; each member alone, as ``single NAME``; ``fusion``, attention over the
        members' frozen adapters; ``average`` of what they add. See `handful.tune.fusion`.
        """
        members = zoo.chosen(self.track, near, self.k)
        single = {f"single {m.name}": self._trained(tuple(m.delta.placed()), From(m.delta)) for m in members}
        fused = {
            name: self._trained(fused.changes(), fused)
            for name, fused in (
                ("fusion", Fused(tuple(m.delta for m in members))),
                ("average", Fused(tuple(m.delta for m in members), attends=False)),
            )
        }
        return {"full": self.recipe(EVERYTHING), "fresh": self.recipe(), **single, **fused}

    def _trained(self, changes: tuple[Placed, ...], start: Any = None) -> Recipe:
        stage = Stage(epochs=self.epochs, lr=self.lr, batch=self.batch, clip=1.0)
        return Recipe(changes, stages=(stage,), readout=Linear, start=start)
