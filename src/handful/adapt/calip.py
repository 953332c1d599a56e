"""CALIP: class text and the places of an image look at each other, without anything to learn.

Guo, Zhang, Qiu, Ma, Miao, He, Cui, "CALIP: Zero-Shot Enhancement of CLIP with Parameter-free Attention", 2023, which
paper 035 (SuS-X) compares with. With z the image, F its places, P the class text, all unit and in one space, and
A = 2 F P':

    P_a = softmax over places (A)' F,   F_a = softmax over classes (A) P
    v = mean over places of F_a + largest over places of F_a
    logits = s z P' + beta2 s z P_a' + beta3 s v P'
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from handful.adapt.base import Head
from handful.adapt.cache import Strength, search
from handful.adapt.two_towers import item_rows, query_rows, text_rows
from handful.core.distances import unit
from handful.core.task import Query, State, Task
from handful.errors import BadInput
from handful.protocols import Needs

GRID = (0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
TEXT, IMAGE = Strength("beta2", 1.12, GRID), Strength("beta3", 0.02, GRID)
SHARPNESS = 2.0


@dataclass(eq=False, repr=False, kw_only=True)
class CALIP(Head):
    """Zero-shot with attention between class text and the places of an image.

    The places are the view ``local``, in the space of class text (for CLIP: projected as the image is). Nothing is
    learnt but the two weights, where they are searched.

    Args:
        beta2: weight of the text that looked at the image, 1.12 as published for ImageNet; ``"loo"`` chooses among
            0.001 ... 5 by the examples, of which nothing else is learnt (1.12 where a class has a single item).
        beta3: weight of the image that looked at the text, 0.02; likewise.
    """

    key: ClassVar[str] = "calip"
    needs: ClassVar[Needs] = Needs(text=True, views=("local",))
    shapes: ClassVar[Mapping[str, str]] = {"beta2": "", "beta3": ""}
    open_classes: ClassVar[bool] = True

    beta2: float | Literal["loo"] = 1.12
    beta3: float | Literal["loo"] = 0.02

    @property
    def directions(self) -> bool:
        """Cosines only."""
        return True

    def adapt(self, task: Task) -> State:
        """State: unit class ``text [*b, C, D]``, ``beta2 [*b]``, ``beta3 [*b]``."""
        tried = [TEXT.tried(self.beta2), IMAGE.tried(self.beta3)]
        start, text = [TEXT.given(self.beta2), IMAGE.given(self.beta3)], text_rows(task)
        parts = self._parts(task, text)
        sets = (torch.stack([self._sum(parts, b2, b3) for b3 in tried[1]]) for b2 in tried[0])
        beta2, beta3 = search(sets, task, tried, start)
        return {"text": text, "beta2": beta2, "beta3": beta3}

    def answer(self, state: State, query: Query) -> Tensor:
        """``s z P' + beta2 s z P_a' + beta3 s v P'``."""
        parts = attention(query_rows(query), _places(query.views, query.x), state["text"])
        return self._sum(parts, state["beta2"][..., None, None], state["beta3"][..., None, None])

    def leave_one_out(self, task: Task) -> Tensor | None:
        """Leaving an example out changes nothing."""
        state = self.adapt(task)
        parts = self._parts(task, state["text"])
        return self._sum(parts, state["beta2"][..., None, None], state["beta3"][..., None, None])

    def held(self, state: State) -> Self:
        """With the weights that were chosen."""
        return replace(self, beta2=float(state["beta2"]), beta3=float(state["beta3"]))

    def view_widths(self) -> dict[str, int]:
        """See `Head.view_widths`: places are as wide as class text."""
        return super().view_widths() | {"local": self.state_["text"].shape[-1]}

    def _parts(self, task: Task, text: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        places = _places(task.views, task.support)
        real = (task.weight > 0)[..., None, None]
        return attention(item_rows(task), torch.where(real, places, 0.0), text)

    def _sum(self, parts: tuple[Tensor, Tensor, Tensor], beta2: Tensor | float, beta3: Tensor | float) -> Tensor:
        plain, by_text, by_image = parts
        return self.logit_scale * (plain + beta2 * by_text + beta3 * by_image)


def attention(z: Tensor, places: Tensor, text: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``z P'``, ``z P_a'`` and ``v P'`` ``[*b, n, C]``.

    Args:
        z: unit rows ``[*b, n, D]``.
        places: ``[*b, n, L, D]``, made unit here.
        text: unit class text ``[*b, C, D]``, zero for a class that is not there.

    Raises:
        BadInput: places of another width than the text.
    """
    if places.shape[-1] != text.shape[-1]:
        raise BadInput(
            f"CALIP compares places with class text: view 'local' has width {places.shape[-1]}, class text "
            f"{text.shape[-1]}; give places in the space of class text"
        )
    places = unit(places)
    a = SHARPNESS * places @ text.mT[..., None, :, :]  # [*b, n, L, C]
    seen = (places @ z[..., None]).mT @ a.softmax(-2)  # z P_a', without P_a
    gone = text.abs().sum(-1) == 0
    blended = a.masked_fill(gone[..., None, None, :], -torch.inf).softmax(-1) @ text[..., None, :, :]
    v = blended.mean(-2) + blended.amax(-2)
    return z @ text.mT, seen[..., 0, :], v @ text.mT


def _places(views: Mapping[str, Tensor], like: Tensor) -> Tensor:
    if "local" not in views:
        raise BadInput("CALIP needs features with a view 'local': the places of each image")
    return views["local"].to(like.dtype)
