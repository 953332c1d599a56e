"""Tricks for few-shot class-incremental learning, each of which can be left out, on a projector of frozen features.

Paper 171: Roy, Park, Fahrezi, Etemad, "A Bag of Tricks for Few-Shot Class-Incremental Learning", 2024. The projector is
z = W2 silu(W1 x); ``fit`` trains it on the base classes, after which it is frozen, and every class, old or new, is the
mean of its examples' z: logit_k = scale cos(z, c_k). What is trained is the cross-entropy of scale cos(z, w_k), and

    supcon  contrast of the examples with each other, u = unit(H z):
            L_i = -1/|P(i)| sum_(p in P(i)) log(exp(u_i.u_p / tau) / sum_(a != i) exp(u_i.u_a / tau)),
            P(i) the other examples of the class
    etf     w_k are no weights but slots of a simplex equiangular tight frame, enough for all classes to come
    pseudo  mixes l x_i + (1 - l) x_j of examples of two classes, l in [0.4, 0.6], are classes of their own: they keep
            space free. With etf they stand on free slots
    subnet  growing tunes the share of the weights that mattered least to the base classes, smallest |weight gradient|

Without tricks there is no projector: class means of the features, which is paper 175's TEEN with ``alpha=0``. The
paper's other tricks (a larger encoder, self-supervision, rotated images) change the encoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from handful.adapt.growing import Growing, drawn_means
from handful.adapt.parameters import count, finite
from handful.adapt.teen import refuse_no_direction
from handful.adapt.tricks import least_important, partners, projected, supervised_contrast, with_virtual
from handful.core.distances import cosine, unit
from handful.core.etf import simplex_etf
from handful.core.gaussians import class_means
from handful.core.losses import cross_entropy, real_rows
from handful.core.task import Query, State, Task, lowest
from handful.core.train import SGD, batches, descend
from handful.core.train import cosine as falling
from handful.errors import BadInput, nearest
from handful.protocols import Needs

TRICKS = ("supcon", "etf", "pseudo", "subnet")
OF_ENCODERS = ("ssl", "rotation", "encoder")
MIX = (0.4, 0.6)


@dataclass(eq=False, repr=False, kw_only=True)
class FSCILTricks(Growing):
    """Class means that grow, on a small projector that was trained to leave room for them.

    Args:
        tricks: which, of ``supcon``, ``etf``, ``pseudo`` and ``subnet``; see the head of the file. Any of them brings
            the projector.
        width: numbers of a projected row, and of the layer between.
        slots: classes there will be at most, for ``etf``; not more than ``width``.
        scale: multiplies the cosines.
        tau: temperature of ``supcon``.
        epochs: passes over the base examples.
        lr: of SGD with momentum 0.9 and decay 5e-4, falling to 0 by a cosine.
        batch_size: examples of a step.
        share: of the weights that ``subnet`` tunes.
        grow_steps: steps of ``subnet``.
        grow_lr: their length.
        hold: strength of the penalty on the squared change of the weights.
    """

    key: ClassVar[str] = "fscil-tricks"
    needs: ClassVar[Needs] = Needs(gradient=True, stochastic=True)
    shapes: ClassVar[Mapping[str, str]] = {
        "prototype": "C E",
        "mass": "C",
        "slot": "C",
        "frame": "E S",
        "inner": "H D",
        "outer": "E H",
        "free_inner": "H D",
        "free_outer": "E H",
    }
    one_by_one: ClassVar[bool] = False
    settled: ClassVar[bool] = False
    trains: ClassVar[bool] = True

    tricks: tuple[str, ...] | list[str] = TRICKS
    width: int = 128
    slots: int = 100
    scale: float = 32.0
    tau: float = 0.07
    epochs: int = 100
    lr: float = 0.1
    batch_size: int = 512
    share: float = 0.1
    grow_steps: int = 20
    grow_lr: float = 1e-3
    hold: float = 1.0

    @property
    def directions(self) -> bool:
        """Cosines, and rows made as long as each other before the projector."""
        return True

    def adapt(self, task: Task) -> State:
        """State: ``prototype [*b, C, E]``, ``mass [*b, C]``, ``slot [*b, C]`` of each class, the ``frame [*b, E, S]``,
        the projector ``inner [*b, H, D]``, ``outer [*b, E, H]`` and which of its weights are free to change.
        """
        self._check_parameters()
        c = task.class_mask.shape[-1]
        batch, seen = task.x.shape[:-2], task.class_mask.reshape(-1, c).any(0)
        slot = torch.where(seen, seen.cumsum(0) - 1, 0).to(task.x).expand(*batch, c)
        if self.tricks:
            weights, frame = self._trained(task, seen.nonzero()[:, 0])
        else:
            d = task.x.shape[-1]
            weights = [task.x.new_zeros(*batch, *size) for size in ((0, d), (d, 0))] * 2
            frame = task.x.new_zeros(*batch, d, 0)
        mean, mass = class_means(projected(task.x, *weights[:2]), task.y)
        refuse_no_direction(mean, mass, task.x)
        names = ("inner", "outer", "free_inner", "free_outer")
        state = {"prototype": mean, "mass": mass, "slot": slot, "frame": frame}
        return {**state, **dict(zip(names, weights, strict=True))}

    def answer(self, state: State, query: Query) -> Tensor:
        """``scale cos(z, c_k)``; a class without examples gets the lowest logit."""
        logits = self.scale * cosine(projected(query.x, state["inner"], state["outer"]), state["prototype"])
        return torch.where(state["mass"][..., None, :] > 0, logits, lowest(logits))

    def extend(self, state: State, task: Task, fresh: Tensor) -> State:
        """New classes take the next slots; with ``subnet`` the free weights are tuned to them. See `Growing.extend`.

        Raises:
            BadInput: more classes than slots, or a class whose examples cancel out.
        """
        if "etf" in self.tricks and len(fresh) > self.slots:
            raise BadInput(f"{len(fresh)} classes, but slots={self.slots}: fit with a slot for every class to come")
        slot = torch.where(fresh, (~fresh).sum() + fresh.cumsum(0) - 1, state["slot"])
        weights = [state["inner"], state["outer"]]
        if "subnet" in self.tricks:
            weights = self._tuned(state, task, fresh, slot)
        mean, mass = class_means(projected(task.x, *weights), task.y)
        refuse_no_direction(mean, mass, task.x)
        prototype = torch.where(fresh[..., None], mean, state["prototype"])
        more = {"prototype": prototype, "mass": state["mass"] + mass, "slot": slot.to(mean)}
        return {**more, "inner": weights[0], "outer": weights[1]}

    def _trained(self, task: Task, real: Tensor) -> tuple[list[Tensor], Tensor]:
        """The projector, which of its weights are free, and the frame; ``real`` are the classes of any task."""
        n, draw, rest = len(real), torch.Generator().manual_seed(task.seed), real_rows(task)
        x, y, mask = task.x[..., rest, :], task.y[..., rest, :][..., real], task.class_mask[..., real]
        batch, d = x.shape[:-2], x.shape[-1]
        if "etf" in self.tricks and n > self.slots:
            raise BadInput(f"{n} classes, but slots={self.slots}: at least as many slots as there will be classes")
        inner = torch.randn(self.width, d, generator=draw, dtype=torch.float64) * (2 / d) ** 0.5
        outer, contrast, rows = (
            torch.randn(k, self.width, generator=draw, dtype=torch.float64) / self.width**0.5
            for k in (self.width, self.width, 2 * n)
        )
        frame, free = rows.new_zeros(self.width, 0), {"inner": inner, "outer": outer}
        if "etf" in self.tricks:
            frame = simplex_etf(self.width, self.slots, draw)
            rows = frame.T[: 2 * n]
        else:
            free["rows"] = rows
        if "supcon" in self.tricks:
            free["contrast"] = contrast
        partner, virtual = partners(n, draw, len(rows) - n if "pseudo" in self.tricks else 0)
        frame, fixed, *start = (t.to(x).expand(*batch, *t.shape) for t in (frame, rows, *free.values()))
        there = torch.cat([mask, mask & mask[..., partner]], -1)[..., : max(n, int(virtual.max()) + 1)]

        def losses(parameters: list[Tensor], seen: Tensor) -> Tensor:
            now = dict(zip(free, parameters, strict=True))
            inner, outer, rows = now["inner"], now["outer"], now.get("rows", fixed)
            z, target = projected(x[..., seen, :], inner, outer), y[..., seen, :]
            total = x.new_zeros(batch)
            if "supcon" in self.tricks:
                total = total + supervised_contrast(unit(z @ now["contrast"].mT), target, self.tau)
            if "pseudo" in self.tricks:
                share = MIX[0] + (MIX[1] - MIX[0]) * torch.rand(len(seen), 1, generator=draw).to(x)
                code = target.argmax(-1, keepdim=True)
                others = drawn_means(x, y, 1, draw)[..., partner, :]
                other = others.gather(-2, code.expand(*code.shape[:-1], d))
                mixed = projected(share * unit(x[..., seen, :]) + (1 - share) * unit(other), inner, outer)
                z = torch.cat([z, mixed], -2)
                target = with_virtual(target, code, virtual, there)
            logits = self.scale * cosine(z, rows[..., : target.shape[-1], :])
            return total + cross_entropy(logits, target, there[..., : target.shape[-1]])

        steps = list(batches(torch.arange(len(rest)), self.epochs, self.batch_size, task.seed))
        update = SGD(0.9, 5e-4)
        parameters = descend(start, losses, steps, falling(self.lr, max(1, len(steps))), update)
        with torch.enable_grad():
            last = [p.detach().requires_grad_() for p in parameters]
            loss = losses(last, torch.arange(len(rest), device=x.device)).sum()
            gradients = torch.autograd.grad(loss, last[:2])
        return [*parameters[:2], *least_important(parameters[:2], gradients, self.share)], frame

    def _tuned(self, state: State, task: Task, fresh: Tensor, slot: Tensor) -> list[Tensor]:
        """The projector after steps on its free weights, towards the slots of new classes (without ``etf``, towards
        where their means are).
        """
        weights, masks = [state["inner"], state["outer"]], [state["free_inner"], state["free_outer"]]
        target = class_means(projected(task.x, *weights), task.y)[0]
        if "etf" in self.tricks:
            target = state["frame"].mT[..., slot.long(), :]
        rows = torch.where(fresh[..., None], target, state["prototype"])
        there = fresh | (state["mass"] > 0)

        def losses(change: list[Tensor], _: Tensor) -> Tensor:
            moved = [w + m * c for w, m, c in zip(weights, masks, change, strict=True)]
            far = torch.stack([(m * c).square().sum((-2, -1)) for m, c in zip(masks, change, strict=True)]).sum(0)
            logits = self.scale * cosine(projected(task.x, *moved), rows)
            return cross_entropy(logits, task.y, there) + self.hold * far

        steps = torch.arange(self.grow_steps, device=task.x.device)
        zero = [torch.zeros_like(w) for w in weights]
        change = descend(zero, losses, steps, lambda _: self.grow_lr, SGD(0.9))
        return [w + m * c for w, m, c in zip(weights, masks, change, strict=True)]

    def _check_parameters(self) -> None:
        if not isinstance(self.tricks, (tuple, list)) or not all(isinstance(trick, str) for trick in self.tricks):
            raise BadInput(f"tricks: a list of {', '.join(TRICKS)}, () for none, not {self.tricks!r}")
        for trick in self.tricks:
            if trick in OF_ENCODERS:
                raise BadInput(f"tricks: {trick!r} changes the encoder; on features there are {', '.join(TRICKS)}")
            if trick not in TRICKS:
                raise BadInput(f"tricks: there is no {trick!r}{nearest(trick, TRICKS)}; there are {', '.join(TRICKS)}")
        for name in ("width", "slots"):
            count(name, getattr(self, name), 2)
        if "etf" in self.tricks and self.slots > self.width:
            raise BadInput(f"slots={self.slots} directions as far apart as can be need width={self.slots} or more")
        for name in ("batch_size", "epochs", "grow_steps"):
            count(name, getattr(self, name), int(name == "batch_size"))
        for name in ("scale", "tau"):
            finite(name, getattr(self, name), above=0)
        for name in ("lr", "grow_lr", "hold"):
            finite(name, getattr(self, name), least=0)
        finite("share", self.share, above=0, most=1)
