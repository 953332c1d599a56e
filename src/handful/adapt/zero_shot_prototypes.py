"""Prototypical networks without examples of the class: its prototype is a map of its signature.

Paper 092: Snell, Swersky, Zemel, "Prototypical Networks for Few-shot Learning", 2017, section 3.4. With signatures phi:

    q = x V,   c_k = (phi_k W) made unit,   logit_k = -|q - c_k|^2

V and W are learnt over episodes of 50 seen classes and 10 items of each: minimise the mean of -log softmax. When to
stop is found with some seen classes held out; then all are learnt from, for as long.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from handful.adapt.packed import uniform
from handful.adapt.parameters import count, finite
from handful.adapt.signatures import Known, Scaling, SignatureHead
from handful.core.distances import sqeuclidean, unit
from handful.core.losses import cross_entropy
from handful.core.task import State, places
from handful.core.train import Adam, descend
from handful.protocols import Needs

LOOKS = 20
"""How often held-out classes are asked."""
LEAST = 20
"""Seen classes from which some are held out: the loss on two or three says to stop at once where features are long."""


@dataclass(eq=False, repr=False, kw_only=True)
class ZeroShotPrototypes(SignatureHead):
    """Linear maps of features and of signatures into one space, where the nearest class answers.

    Args:
        scaling: of features; the paper takes them as they are.
        width: of the common space.
        episodes: how many at most.
        ways: classes an episode, all where there are fewer.
        queries: items a class and episode, likewise.
        held_out: share of the seen classes, at least two, that say after how many episodes to stop; none below
            20 classes, or where it is 0: then all episodes are made.
        lr: of Adam with a penalty of 1e-5.
    """

    key: ClassVar[str] = "zero-shot-prototypes"
    needs: ClassVar[Needs] = Needs(text=True, gradient=True, stochastic=True)
    shapes: ClassVar[Mapping[str, str]] = {**SignatureHead.shapes, "image": "D E", "words": "T E"}

    scaling: Scaling = "none"
    width: int = 1024
    episodes: int = 1000
    ways: int = 50
    queries: int = 10
    held_out: float = 0.2
    lr: float = 1e-4

    def learn(self, known: Known) -> State:
        """State: ``image [*b, D, E]``, ``words [*b, T, E]``."""
        for name, value in (("width", self.width), ("ways", self.ways), ("queries", self.queries)):
            count(name, value, 2 if name == "ways" else 1)
        count("episodes", self.episodes)
        finite("held_out", self.held_out, least=0, most=0.5)
        finite("lr", self.lr, above=0)
        last = known.y.new_full(known.y.shape[:-2], LOOKS, dtype=torch.long)
        apart = self._apart(known)
        if apart.any():
            losses = [
                episode_loss(x, w, known.x, known.s, known.y * apart[..., None, :], apart)
                for x, w in self._stages(known, known.seen & ~apart)
            ]
            last = torch.where(apart.any(-1), torch.stack(losses).argmin(0), LOOKS)
        found: list[Tensor] = []
        for i, stage in enumerate(self._stages(known, known.seen)):
            keep = (last == i)[..., None, None]
            found = [torch.where(keep, new, old) for new, old in zip(stage, found or stage, strict=True)]
            if bool((last <= i).all()):
                break
        return dict(zip(("image", "words"), found, strict=True))

    def compatibility(self, state: State, x: Tensor) -> Tensor:
        """``-|q - c_k|^2``."""
        return -sqeuclidean(x @ state["image"], unit(state["text"] @ state["words"]))

    def _apart(self, known: Known) -> Tensor:
        """Classes that are held out ``[*b, C]``."""
        order = torch.rand(known.seen.shape[-1], generator=torch.Generator().manual_seed(known.task.seed))
        n = known.seen.sum(-1, keepdim=True)
        some = (self.held_out * n).round().clamp_min(2) * float(self.held_out > 0)
        return known.seen & (places(order.to(n.device), known.seen) < torch.where(n >= LEAST, some, 0))

    def _stages(self, known: Known, classes: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Both maps at the start, and at each of the looks at held-out classes, the last after all episodes."""
        draw = torch.Generator().manual_seed(known.task.seed)
        batch, sizes = known.y.shape[:-2], (known.x.shape[-1], known.s.shape[-1])
        maps = [
            uniform((size, self.width), 1 / math.sqrt(size), draw).to(known.x).expand(*batch, -1, -1) for size in sizes
        ]
        update, rows = Adam(weight_decay=1e-5), known.y * classes[..., None, :]

        def losses(parameters: list[Tensor], step: Tensor) -> Tensor:
            chosen, y = self._episode(known, rows, classes, int(step))
            row, column = _present(y.sum(-1) > 0), _present(chosen)
            x, s, real = _at(known.x, row), _at(known.s, column), chosen.gather(-1, column)
            return episode_loss(parameters[0], parameters[1], x, s, _at(_at(y, row).mT, column).mT, real)

        steps = torch.arange(self.episodes).tensor_split(LOOKS)
        yield maps[0], maps[1]
        for part in steps:
            maps = descend(maps, losses, part, lambda step: self.lr, update)
            yield maps[0], maps[1]

    def _episode(self, known: Known, rows: Tensor, classes: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Classes of an episode ``[*b, C]`` and labels of what it asks ``[*b, N, C]``, drawn by place."""
        draw = torch.Generator().manual_seed(known.task.seed * 1_000_003 + step)
        n, c = rows.shape[-2:]
        by_class, by_row = (torch.rand(size, generator=draw, dtype=torch.float64).to(rows.device) for size in (c, n))
        chosen = classes & (places(by_class, classes) < self.ways)
        real, label = rows.sum(-1) > 0, rows.argmax(-1)
        size = (torch.nn.functional.one_hot(label, c) * real[..., None]).sum(-2)
        place = places(label + by_row, real) - (size.cumsum(-1) - size).gather(-1, label)  # within its class
        asked = real & (place < self.queries)
        return chosen, torch.where(asked[..., None] & chosen[..., None, :], rows, 0.0)


def episode_loss(image: Tensor, words: Tensor, x: Tensor, s: Tensor, y: Tensor, classes: Tensor) -> Tensor:
    """Mean of ``-log softmax_k(-|x V - c_k|^2)`` ``[*b]`` over the rows of ``y [*b, N, C]`` among ``classes [*b, C]``.

    Args:
        image: V ``[*b, D, E]``.
        words: W ``[*b, T, E]``.
        x: rows ``[*b, N, D]``.
        s: signatures ``[*b, C, T]``.

    Of ``-|q - c_k|^2 = 2 q.c_k - |q|^2 - 1`` the softmax sees the first term only, which is ``x (V c_k)``: so the rows
    are never mapped, and a step costs classes times D E, not rows.
    """
    prototypes = unit(s @ words)
    return cross_entropy(2 * x @ (image @ prototypes.mT), y, classes)


def _present(real: Tensor) -> Tensor:
    """Where ``real [*b, n]`` holds ``[*b, most]``, in order, as many as any task has; others fill up."""
    return real.to(torch.uint8).sort(dim=-1, descending=True, stable=True).indices[..., : int(real.sum(-1).max())]


def _at(rows: Tensor, index: Tensor) -> Tensor:
    """``rows [*b, n, d]`` at ``index [*b, k]``."""
    return rows.gather(-2, index[..., None].expand(*index.shape, rows.shape[-1]))
