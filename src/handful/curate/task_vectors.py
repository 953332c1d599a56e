"""Vectors of data sets, to compare tasks by (114, What to Pre-Train on?, 2021; TaskEmb: Vu et al. 2020).

    SEmb, TextEmb   mean over texts of the mean over tokens of the last hidden states, of a sentence encoder or of a
                    plain language model; labels are not looked at
    TaskEmb         what the answers hinge on:   parameters   F = sum over batches of (d loss / d theta)^2 / n
                    activations  F = sum over batches of (sum over items and tokens of d loss / d h)^2 / tokens / n

The square in TaskEmb is of a batch's gradient, its loss a mean, and n counts examples, as in the authors' code: for
batches of B independent gradients F is about 1 / B^2 of the diagonal of the Fisher information
(`handful.tune.information`), and equal to it for B = 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from handful.core.late_interaction import Tokens
from handful.errors import BadInput, nearest
from handful.tune.delta import Delta, attached
from handful.tune.modes import in_mode
from handful.tune.recipe import Data, Readout
from handful.tune.sites import block_outputs, sites


@torch.no_grad()
def text_vector(tokens: Callable[[Any], Tokens], data: Data, batch: int = 32) -> Tensor:
    """SEmb or TextEmb of a data set ``[d]``.

    Args:
        tokens: from some inputs their last hidden states and which of them count, such as a tower's ``tokens``.
        data: the data set.
        batch: items at a time.

    Raises:
        BadInput: an item has no token.
    """
    total: Tensor | float = 0.0
    for rows in torch.split(torch.arange(len(data)), batch):
        states, mask = tokens(data.take(rows))
        mask = mask.to(states)
        length = mask.sum(1, keepdim=True)
        if not bool(length.all()):
            raise BadInput(f"item {int(rows[length[:, 0].argmin()])} has no token")
        total = total + ((states * mask[..., None]).sum(1) / length).double().sum(0)
    assert isinstance(total, Tensor)
    return total / len(data)


@dataclass(frozen=True)
class TaskEmb:
    """TaskEmb of a data set under a model; see `handful.curate.task_vectors`.

    Args:
        batch: examples a gradient, B.
        parameters: whether those that learnt (the delta's and the readout's) are looked at.
        layers: modules whose outputs are looked at; by default what goes into the last map of each attention, and what
            each transformer block gives.
        counts: which tokens count ``[B, T]`` of some inputs; all by default.
    """

    batch: int = 32
    parameters: bool = True
    layers: tuple[str, ...] | None = None
    counts: Callable[[Any], Tensor] | None = None

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise BadInput(f"a batch holds one example at least, not {self.batch}")

    def of(self, model: nn.Module, readout: Readout, data: Data, delta: Delta | None = None) -> dict[str, Tensor]:
        """F by component: the names of parameters, and of modules as ``NAME output`` or ``NAME input``.

        Args:
            model: read outside of training; nothing of it is changed.
            readout: learnt on the task.
            data: the data set, in its order.
            delta: what was learnt on the task.

        Raises:
            BadInput: there is no such layer, or it is never called; nothing is looked at.
        """
        learnt = {f"readout.{name}": p for name, p in readout.named_parameters()}
        if delta is not None:
            learnt |= {f"delta.{name}": p for name, p in delta.named_parameters()}
        leaves = learnt if self.parameters else {}
        places = self._places(model)
        if not leaves and not places:
            raise BadInput("no parameter and no layer is looked at, so that there is no embedding")
        found: dict[str, Tensor] = {}
        frozen = [(p, p.requires_grad) for p in (*model.parameters(), *learnt.values())]
        try:
            for p, _ in frozen:
                p.requires_grad_(False)
            for p in leaves.values():
                p.requires_grad_(True)
            with torch.enable_grad(), in_mode(False, model, readout), attached(delta, model):
                for rows in torch.split(torch.arange(len(data)), self.batch):
                    for name, value in self._squares(model, readout, data, rows, leaves, places).items():
                        found[name] = found.get(name, 0.0) + value
        finally:
            for p, needed in frozen:
                p.requires_grad_(needed)
        return {name: value / len(data) for name, value in found.items()}

    def _squares(
        self, model: nn.Module, readout: Readout, data: Data, rows: Tensor, leaves: dict[str, nn.Parameter],
        places: Sequence[tuple[str, str]],
    ) -> dict[str, Tensor]:  # fmt: skip
        """What one batch adds."""
        inputs = data.take(rows)
        kept, handles = _keeps(model, places)
        try:
            logits = readout(readout.look(model, inputs), model)
        finally:
            for handle in handles:
                handle.remove()
        targets = data.targets[rows].to(logits)
        loss = -(targets * logits.log_softmax(-1)).sum(-1).mean()
        for module, side in places:
            if f"{module} {side}" not in kept:
                raise BadInput(f"layer {module} is never called, so that it has no activations")
        values = [*leaves.values(), *kept.values()]
        every = torch.autograd.grad(loss, values, allow_unused=True, materialize_grads=True)
        out = {name: g.square() for name, g in zip(leaves, every, strict=False)}
        mask = None if self.counts is None else self.counts(inputs).flatten()
        for name, g in zip(kept, every[len(leaves) :], strict=True):
            flat = g.flatten(0, -2)
            count = torch.tensor(float(len(flat))) if mask is None else mask.sum()
            summed = flat.sum(0) if mask is None else (flat * mask[:, None]).sum(0)
            out[name] = summed.square() / count
        return out

    def _places(self, model: nn.Module) -> list[tuple[str, str]]:
        """Modules, and the side of them that is looked at."""
        modules = dict(model.named_modules())
        if self.layers is not None:
            for name in self.layers:
                if name not in modules:
                    raise BadInput(f"the model has no layer {name!r}{nearest(name, modules)}")
            return [(name, "output") for name in self.layers]
        attention = [(site.name, "input") for site in sites(model) if site.role == "o"]
        return attention + [(name, "output") for name in block_outputs(model)]


def _keeps(model: nn.Module, places: Sequence[tuple[str, str]]) -> tuple[dict[str, Tensor], list[Any]]:
    """What goes into, or comes out of, modules at their last call; and the hooks that keep it."""
    kept: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def before(module: nn.Module, args: tuple[Any, ...]) -> Any:
            h = args[0] if args[0].requires_grad else args[0].detach().requires_grad_()
            kept[f"{name} input"] = h
            return (h, *args[1:])

        def after(module: nn.Module, args: Any, output: Any) -> Any:
            h = output if isinstance(output, Tensor) else output[0]
            h = h if h.requires_grad else h.detach().requires_grad_()
            kept[f"{name} output"] = h
            return h if isinstance(output, Tensor) else (h, *output[1:])

        return before, after

    handles = []
    for name, side in places:
        module, (before, after) = model.get_submodule(name), keep(name)
        handles.append(
            module.register_forward_pre_hook(before) if side == "input" else module.register_forward_hook(after)
        )
    return kept, handles


def alike(one: dict[str, Tensor], other: dict[str, Tensor]) -> dict[str, float]:
    """Cosine of each component that both have, in one shape; readouts of tasks with other classes are left out.

    Raises:
        BadInput: they have no component in common; a component is 0 throughout.
    """
    out = {}
    for name in one:
        if name in other and one[name].shape == other[name].shape and not name.startswith("readout."):
            a, b = one[name].flatten().double(), other[name].flatten().double()
            if not a.any() or not b.any():
                raise BadInput(f"component {name} is 0 throughout, so that it has no direction")
            out[name] = float(torch.cosine_similarity(a, b, dim=0))
    if not out:
        raise BadInput("the two tasks have no component in common, so that they cannot be compared")
    return out
