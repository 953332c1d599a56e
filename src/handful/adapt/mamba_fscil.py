"""Mamba-FSCIL: feature maps through an input-dependent projector, to directions that are fixed for all classes to come.

Paper 161: Li et al., "Mamba-FSCIL: Dynamic Adaptation with Selective State Space Model for Few-Shot Class-Incremental
Learning", 2024. With E the unit columns of a simplex equiangular tight frame, F the map of an item and the branches of
`handful.adapt.ssm`:

    z       = branch1(F) + R mean(F) + branch2(F),   logit_k = e_k . unit(z)
    loss    = 10 / 2 mean_i (m_i (unit(z_i) . e_y - 1))^2

``fit`` trains branch1 and R with m = 1; branch2 starts with a closed gate and says nothing. `grow` trains branch2
alone, on the new maps and the mean map of every old class, with m_i^2 = (batch / classes in it) / examples of class y,
mixes of z in three of four steps, and with g the gate of branch2 before its activation

    + w_s |g of base items| / numbers in it - w_n |g of new items| / numbers in it
    + w_sep sum over r, B, C of mean |I - S|,   S the cosines of their means over base and over new items
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

import torch
from torch import Tensor

from handful.adapt import ssm
from handful.adapt.growing import Growing
from handful.adapt.inputs import PLACES
from handful.adapt.parameters import count, finite
from handful.core.distances import unit
from handful.core.etf import simplex_etf
from handful.core.gaussians import class_means
from handful.core.losses import real_rows
from handful.core.task import Query, State, Task, lowest
from handful.core.train import SGD, Clipped, Update, batches, cosine, descend
from handful.errors import BadInput
from handful.protocols import Needs

WEIGHT = 10.0
GROW_BATCH = 8
MOST = 1 << 22
"""Numbers of the state in one piece of the work when queries are answered."""


def dot_regression(z: Tensor, directions: Tensor, weight: Tensor, square: Tensor | None = None) -> Tensor:
    """``10 / 2`` times the mean of ``(m (unit(z) . e - 1))^2`` ``[*b]``.

    Args:
        z: rows ``[*b, n, W]``.
        directions: unit e of each row's class ``[*b, n, W]``.
        weight: ``[*b, n]``; 0 for rows that are not there.
        square: m^2 of each row; ``None``: 1.
    """
    gap = ((unit(z) * directions).sum(-1) - 1).square()
    gap = gap if square is None else gap * square
    return WEIGHT / 2 * (weight * gap).sum(-1) / weight.sum(-1).clamp_min(1e-30)


def separation(chosen: Tensor, base: Tensor, new: Tensor) -> Tensor:
    """``mean |I - S|`` of the mean over rows and places of ``chosen [*b, n, P, …]`` on ``base`` and ``new [*b, n]``."""
    sides = torch.stack([class_means(chosen.mean(-2), side[..., None])[0][..., 0, :] for side in (base, new)], -2)
    like = unit(sides) @ unit(sides).mT
    return (torch.eye(2).to(like) - like).abs().mean((-2, -1))


def class_squares(code: Tensor, weight: Tensor, ways: int) -> Tensor:
    """``(rows / classes that occur) / rows of the class`` of each row ``[*b, n]``."""
    each = (torch.nn.functional.one_hot(code, ways) * weight[..., None]).sum(-2)
    classes = (each > 0).sum(-1, keepdim=True).clamp_min(1)
    return (each.sum(-1, keepdim=True) / classes) / each.gather(-1, code).clamp_min(1e-30)


@dataclass(eq=False, repr=False, kw_only=True)
class MambaFSCIL(Growing):
    """Feature maps scanned by a state space model, to fixed directions of the classes; a second branch grows.

    Takes features with a view ``local [n, places, channels]``, square maps, and looks at nothing else.

    Args:
        slots: classes there will be at most; not more than ``width``.
        width: channels of the branches (the paper's 640 and 1024); ``None``: those of the maps, without R.
        states: of a channel (the paper's 256).
        rank: numbers a step is made of (the paper's 256).
        layers: of each branch before the scan, 2 or more.
        epochs, lr, batch_size: of ``fit``: SGD with momentum 0.9 and decay 5e-4, its rate a cosine between a warm-up
            and a cool-down.
        grow_steps, grow_lr: of `grow`, 8 maps a step.
        suppress: w_s, on base items.
        enhance: w_n, on new ones.
        separate: w_sep.
        mix: share of a row in a mix.
        mix_share: share of the steps of `grow` whose rows are mixed.
        clip: greatest length of a gradient; ``None``: any, as the paper has it.
    """

    key: ClassVar[str] = "mamba-fscil"
    needs: ClassVar[Needs] = Needs(views=("local",), gradient=True, stochastic=True)
    shapes: ClassVar[Mapping[str, str]] = {
        "frame": "W Z",
        "slot": "C",
        "base": "C",
        "mass": "C",
        "memory": "C P F",
        "residual": "Q F",
        **{f"{side}.{name}": axes for side in ("one", "two") for name, axes in ssm.SHAPES.items()},
    }
    one_by_one: ClassVar[bool] = False
    settled: ClassVar[bool] = False
    trains: ClassVar[bool] = True

    slots: int = 100
    width: int | None = 128
    states: int = 16
    rank: int = 16
    layers: int = 2
    epochs: int = 50
    lr: float = 0.25
    batch_size: int = 64
    grow_steps: int = 200
    grow_lr: float = 0.25
    suppress: float = 100.0
    enhance: float = 1e-5
    separate: float = 1e-3
    mix: float = 0.5
    mix_share: float = 0.75
    clip: float | None = 1.0

    def adapt(self, task: Task) -> State:
        """State: the ``frame [*b, W, Z]``, ``slot``, ``base`` and ``mass [*b, C]``, the mean map of each class ``memory
        [*b, C, P, F]``, R ``residual`` and the weights of both branches.
        """
        self._check_parameters()
        maps, weight = _maps(task), task.y.sum(-1)
        c, batch, (places, channels) = task.class_mask.shape[-1], maps.shape[:-3], maps.shape[-2:]
        if math.isqrt(places) ** 2 != places:
            raise BadInput(f"view 'local' has {places} places, which make no square map")
        seen = task.class_mask.reshape(-1, c).any(0)
        width = channels if self.width is None else self.width
        if int(seen.sum()) > self.slots or self.slots > width:
            raise BadInput(
                f"{int(seen.sum())} classes, slots={self.slots}, width={width}: take a slot for every class, and width "
                "at least as many as slots"
            )
        draw = torch.Generator().manual_seed(task.seed)
        sizes = (channels, places, width, self.states, self.rank, self.layers)
        sides = {
            f"{side}.{name}": tensor
            for side in ("one", "two")
            for name, tensor in ssm.start(*sizes, draw, silent=side == "two").items()
        }
        residual = torch.randn(width, channels, generator=draw, dtype=torch.float64) / channels**0.5
        fixed = {
            "frame": simplex_etf(width, self.slots, draw),
            "residual": residual[: 0 if self.width is None else width],
            "slot": torch.where(seen, seen.cumsum(0) - 1, 0),
        }
        state = {name: t.to(maps).expand(*batch, *t.shape) for name, t in {**sides, **fixed}.items()}
        mean, mass = class_means(maps.flatten(-2), task.y)
        state |= {"memory": mean.reshape(*batch, c, places, channels), "mass": mass, "base": task.class_mask.to(mass)}

        code, rest = task.y.argmax(-1), real_rows(task)
        names = [name for name in state if name.startswith(("one.", "residual")) and state[name].numel()]

        def losses(parameters: list[Tensor], rows: Tensor) -> Tensor:
            now = {**state, **dict(zip(names, parameters, strict=True))}
            z = _projected(now, maps[..., rows, :, :], two=False)
            return dot_regression(z, _directions(state, code[..., rows]), weight[..., rows])

        steps = list(batches(rest, self.epochs, self.batch_size, task.seed))
        rate = _rate(self.lr, len(steps), 100, 10)
        trained = descend([state[name] for name in names], losses, steps, rate, self._update(len(batch)))
        return {**state, **dict(zip(names, trained, strict=True))}

    def answer(self, state: State, query: Query) -> Tensor:
        """``e_k . unit(z)``; a class without examples gets the lowest logit."""
        maps = query.views["local"].to(state["frame"].dtype)
        _check_places(maps, state)
        each = 4 * state["one.decay"][..., 0].numel() * state["one.decay"].shape[-1]
        z = torch.cat([_projected(state, part) for part in torch.split(maps, max(1, MOST // each), -3)], -2)
        logits = unit(z) @ _directions(state, torch.arange(state["slot"].shape[-1], device=z.device)).mT
        return torch.where(state["mass"][..., None, :] > 0, logits, lowest(logits))

    def extend(self, state: State, task: Task, fresh: Tensor) -> State:
        """New classes take the next slots, and the second branch learns them. See `Growing.extend`.

        Raises:
            BadInput: more classes than slots, or maps of another size.
        """
        ways = len(fresh)
        if ways > self.slots:
            raise BadInput(f"{ways} classes, but slots={self.slots}: fit with a slot for every class to come")
        maps = _maps(task).to(state["frame"].dtype)
        _check_places(maps, state)
        mean, mass = class_means(maps.flatten(-2), task.y)
        slot = torch.where(fresh, (~fresh).sum() + fresh.cumsum(0) - 1, state["slot"])
        memory = torch.where(fresh[:, None, None], mean.reshape(state["memory"].shape), state["memory"])
        grown = {**state, "slot": slot.to(mean), "memory": memory, "mass": state["mass"] + mass}

        old = (~fresh).nonzero()[:, 0]
        everything = torch.cat([memory[old], maps], -3)
        code = torch.cat([old, task.y.argmax(-1)])
        weight = torch.ones_like(code, dtype=maps.dtype)
        base, draw = state["base"][code], torch.Generator().manual_seed(task.seed)
        names = [name for name in state if name.startswith("two.") and state[name].numel()]

        def losses(parameters: list[Tensor], rows: Tensor) -> Tensor:
            now = {**grown, **dict(zip(names, parameters, strict=True))}
            z, scanned = _both(now, everything[rows])
            square, wanted = class_squares(code[rows], weight[rows], ways), _directions(grown, code[rows])
            if float(torch.rand((), generator=draw)) < self.mix_share:
                other = torch.randperm(len(rows), generator=draw).to(rows.device)
                z = self.mix * z + (1 - self.mix) * z[other]
                loss = self.mix * dot_regression(z, wanted, weight[rows], square)
                loss = loss + (1 - self.mix) * dot_regression(z, wanted[other], weight[rows], square[other])
            else:
                loss = dot_regression(z, wanted, weight[rows], square)
            return loss + self._class_sensitive(scanned, base[rows])

        rows = torch.arange(len(code), device=maps.device)
        epochs = -(-self.grow_steps // -(-len(rows) // GROW_BATCH))
        steps = islice(batches(rows, epochs, GROW_BATCH, task.seed), self.grow_steps)
        rate = _rate(self.grow_lr, self.grow_steps, 5, 5)
        trained = descend([state[name] for name in names], losses, steps, rate, self._update(0))
        if not all(tensor.isfinite().all() for tensor in trained):
            raise BadInput(f"growing ran away: take a smaller grow_lr than {self.grow_lr} or clip than {self.clip}")
        return {**grown, **dict(zip(names, trained, strict=True))}

    def view_widths(self) -> dict[str, int]:
        """See `Head.view_widths`."""
        return {**super().view_widths(), "local": self.state_["one.rise"].shape[-1]}

    def view_places(self) -> dict[str, int]:
        """See `Head.view_places`."""
        return {**PLACES, "local": self.state_["one.place"].shape[-2]}

    def _class_sensitive(self, scanned: ssm.Scanned, base: Tensor) -> Tensor:
        """The losses on the gate and on what the second branch chooses by its input."""
        new, total = 1 - base, scanned.gate.new_zeros(())
        for strength, side in ((self.suppress, base), (-self.enhance, new)):
            part = scanned.gate[side > 0]
            total = total + strength * part.norm() / max(1, part.numel())
        if bool((base > 0).any()) and bool((new > 0).any()):
            total = total + self.separate * sum(separation(part, base, new) for part in scanned.chosen)
        return total

    def _update(self, batch: int) -> Update:
        step = SGD(0.9, 5e-4)
        return step if self.clip is None else Clipped(step, self.clip, batch)

    def _check_parameters(self) -> None:
        for name, least in (("slots", 2), ("states", 1), ("rank", 1), ("layers", 2), ("batch_size", 1)):
            count(name, getattr(self, name), least)
        for name in ("epochs", "grow_steps"):
            count(name, getattr(self, name))
        if self.width is not None:
            count("width", self.width, 2)
        for name in ("lr", "grow_lr", "suppress", "enhance", "separate"):
            finite(name, getattr(self, name), least=0)
        for name in ("mix", "mix_share"):
            finite(name, getattr(self, name), least=0, most=1)
        if self.clip is not None:
            finite("clip", self.clip, above=0)


def _maps(task: Task) -> Tensor:
    """The maps of the support ``[*b, N, P, F]``, zero on padding."""
    maps = task.views["local"].to(task.support.dtype)
    if maps.dim() != task.support.dim() + 1 or not maps.shape[-2] or not maps.shape[-1]:
        raise BadInput(f"view 'local' is maps [n, places, channels], not an array of shape {tuple(maps.shape)}")
    return torch.where(task.weight[..., None, None] > 0, maps, 0.0)


def _check_places(maps: Tensor, state: State) -> None:
    here, learnt = tuple(maps.shape[-2:]), tuple(state["memory"].shape[-2:])
    if here != learnt:
        raise BadInput(f"view 'local' has maps of shape {here}, but the head learnt from maps of shape {learnt}")


def _directions(state: State, code: Tensor) -> Tensor:
    """Unit e of the classes ``code [*b, n]`` ``[*b, n, W]``."""
    slot = state["slot"].long()
    where = slot.gather(-1, code.expand(*slot.shape[:-1], code.shape[-1]))
    frame = state["frame"].mT
    return frame.gather(-2, where[..., None].expand(*where.shape, frame.shape[-1]))


def _projected(state: State, maps: Tensor, *, two: bool = True) -> Tensor:
    if two:
        return _both(state, maps)[0]
    mean = maps.mean(-2)
    identity = ssm.linear(mean, state["residual"]) if state["residual"].shape[-2] else mean
    return ssm.branch(_side(state, "one"), maps).out + identity


def _both(state: State, maps: Tensor) -> tuple[Tensor, ssm.Scanned]:
    """z of both branches, and what the second one did."""
    scanned = ssm.branch(_side(state, "two"), maps)
    return _projected(state, maps, two=False) + scanned.out, scanned


def _side(state: State, side: str) -> dict[str, Tensor]:
    return {name: state[f"{side}.{name}"] for name in ssm.SHAPES}


def _rate(lr: float, steps: int, warm: int, cool: int) -> Callable[[int], float]:
    """A climb from a tenth, a cosine to a hundredth, and a thousandth at the end; the ends at most a tenth of all."""
    warm, cool = min(warm, steps // 10), min(cool, steps // 10)
    fall = cosine(lr, max(1, steps - cool), last=lr / 100)

    def rate(step: int) -> float:
        if step > steps - cool:
            return lr / 1000
        return fall(step) * (1 if step >= warm else 0.1 + 0.9 * step / warm)

    return rate
