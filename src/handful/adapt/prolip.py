"""ProLIP on features: the last projection of an image tower, tuned close to where it was.

Paper 010: Fahes, Vu, Bursuc, Pérez, de Charette, "Fine-Tuning CLIP's Last Visual Projector: A Few-Shot Cornucopia",
2024. With h the features before the projection P0, x = h P0 (+ b) after it, and W unit class text:

    z = (h P + b) made unit = (x + h (P - P0)) made unit
    min_P  CE(y, softmax(s z W')) + lambda |P - P0|^2,   lambda = 1 / K

Learnt is the change P - P0, for which P0 itself is not needed. Where nothing before the projection is known, the
paper's regularised linear adapter takes h = x: z = x (I + change). Joined with a cache: `prolip_tip`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from handful.adapt.base import Head
from handful.adapt.parameters import count, finite
from handful.adapt.two_towers import text_rows
from handful.core.distances import unit
from handful.core.losses import cross_entropy
from handful.core.task import ClassText, Query, State, Task
from handful.core.train import Adam, Update, cosine, descend
from handful.errors import BadInput
from handful.protocols import Needs


@dataclass(eq=False, repr=False, kw_only=True)
class LinearAdapter(Head):
    """A matrix on the features, close to the identity, that fits them to class text.

    The features are as the encoder gives them; class text is as wide as they are. What is learnt belongs to no class:
    ``predict(X, classes=...)`` answers for classes without examples too.

    Args:
        reg: lambda; ``"1/K"`` and ``"1/K2"`` take it from the mean number K of items a class, as the paper does where
            there is no validation set.
        epochs: passes over the support; of several rows of an item (augmented views) each pass sees one, in turn.
        lr: of Adam with epsilon 1e-4, falling to 0 by a cosine. The paper reports 1e-5 to 1e-2.
    """

    key: ClassVar[str] = "linear-adapter"
    needs: ClassVar[Needs] = Needs(text=True, gradient=True)
    shapes: ClassVar[Mapping[str, str]] = {"change": "B D", "words": "C D"}
    open_classes: ClassVar[bool] = True
    open_rows: ClassVar[tuple[str, ...]] = ("words",)

    reg: float | Literal["1/K", "1/K2"] = "1/K"
    epochs: int = 300
    lr: float = 1e-4

    @property
    def directions(self) -> bool:
        """What becomes of rows is made unit."""
        return True

    def adapt(self, task: Task) -> State:
        """State: ``change [*b, B, D]``, unit ``words [*b, C, D]``."""
        change = self._trained(task, [], lambda more: 0.0, Adam(eps=1e-4))[0]
        return {"change": change, "words": text_rows(task)}

    def without_examples(self, task: Task, state: State, text: ClassText) -> State:
        """The text as it is: the change belongs to no class."""
        return {"unseen_words": text.mean.to(state["words"].dtype)}

    def _trained(
        self, task: Task, more: list[Tensor], beside: Callable[[list[Tensor]], Tensor | float], update: Update
    ) -> list[Tensor]:
        """The change, and ``more`` parameters trained with it, by which ``beside`` adds to the logits."""
        count("epochs", self.epochs)
        finite("lr", self.lr, least=0)
        x, words = task.x, text_rows(task)
        if words.shape[-1] != x.shape[-1]:
            raise BadInput(f"class text has width {words.shape[-1]} but the features have {x.shape[-1]}")
        h = torch.where(task.weight[..., None] > 0, self._before(task.support, task.views), 0.0)
        strength, (turn, views) = self._strength(task), _views(task)

        def losses(parameters: list[Tensor], step: Tensor) -> Tensor:
            change, *others = parameters
            logits = self.logit_scale * unit(x + h @ change) @ words.mT + beside(others)
            shown = torch.where(((step + 1) % views == turn)[..., None], task.y * views[..., None], 0.0)
            return cross_entropy(logits, shown, task.class_mask) + strength * change.square().sum((-2, -1))

        start = x.new_zeros(*x.shape[:-2], h.shape[-1], x.shape[-1])
        rates = cosine(self.lr, max(1, self.epochs))
        return descend([start, *more], losses, torch.arange(self.epochs, device=x.device), rates, update)

    def answer(self, state: State, query: Query) -> Tensor:
        """``s z W'``."""
        z = query.x + self._before(query.x, query.views) @ state["change"]
        return self.logit_scale * unit(z) @ state["words"].mT

    def _before(self, x: Tensor, views: Mapping[str, Tensor]) -> Tensor:
        """What the matrix is applied to."""
        return x

    def _strength(self, task: Task) -> Tensor:
        shots = item_labels(task).sum((-2, -1)) / task.ways
        if self.reg == "1/K":
            return 1 / shots.clamp_min(1e-30)
        if self.reg == "1/K2":
            return 1 / shots.square().clamp_min(1e-30)
        if isinstance(self.reg, str):
            raise BadInput(f"reg is a number, '1/K' or '1/K2', not {self.reg!r}")
        return torch.full_like(shots, finite("reg", self.reg, least=0))


@dataclass(eq=False, repr=False, kw_only=True)
class ProLIP(LinearAdapter):
    """The tuned last projection of an image tower, from features before and after it.

    The features are those after the projection, not made unit; those before it are their view ``pre``. What is learnt
    belongs to no class: ``predict(X, classes=...)`` answers for classes without examples too.

    Args:
        reg: lambda; ``"1/K"`` and ``"1/K2"`` take it from the mean number K of items a class, as the paper does where
            there is no validation set.
        epochs: passes over the support; of several rows of an item (augmented views) each pass sees one, in turn.
        lr: of Adam with epsilon 1e-4, falling to 0 by a cosine. The paper reports 1e-5 to 1e-2.
    """

    key: ClassVar[str] = "prolip"
    needs: ClassVar[Needs] = Needs(text=True, views=("pre",), gradient=True)

    def _trained(
        self, task: Task, more: list[Tensor], beside: Callable[[list[Tensor]], Tensor | float], update: Update
    ) -> list[Tensor]:
        lengths = task.x.norm(dim=-1)
        if bool(((lengths - 1).abs() < 1e-4)[task.weight > 0].all()):
            raise BadInput(
                "the features were made unit: ProLIP needs them as the projection gives them, or take 'linear-adapter'"
            )
        return super()._trained(task, more, beside, update)

    def projection(self, start: Tensor) -> Tensor:
        """The tuned projection ``[B, D]`` of the fitted head, from the one ``start`` the features came from."""
        change = self.state_["change"]
        if start.shape != change.shape:
            raise BadInput(f"a projection of shape {tuple(start.shape)}, not {tuple(change.shape)}")
        return start + change.to(start)

    def view_widths(self) -> dict[str, int]:
        """See `Head.view_widths`."""
        return super().view_widths() | {"pre": self.state_["change"].shape[-2]}

    def _before(self, x: Tensor, views: Mapping[str, Tensor]) -> Tensor:
        if "pre" not in views:
            raise BadInput("ProLIP needs features with a view 'pre': those before the projection")
        return views["pre"].to(x.dtype)


def item_labels(task: Task) -> Tensor:
    """Labels times weights of each item at its first row, zero at others ``[*b, N, C]``: the mean over its rows."""
    items, real = task.items, (task.weight > 0)[..., None]
    mean = items.total(task.y) / items.total(real.to(task.y.dtype)).clamp_min(1)
    return torch.where(items.first[..., None] & real, mean, 0.0)


def _views(task: Task) -> tuple[Tensor, Tensor]:
    """Which of its item's rows each row is, from 0, and how many the item has ``[*b, N]``."""
    same = task.items.same
    if same is None:
        return torch.zeros_like(task.item), torch.ones_like(task.item)
    earlier = torch.ones(same.shape[-2:], dtype=torch.bool, device=same.device).tril(-1)
    return (same & earlier).sum(-1), same.sum(-1)
