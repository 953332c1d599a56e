"""WCA: many crops of an image against many sentences of a class, each counting by how typical it is.

Paper 070: Li, Li, Erfani, Feng, Bailey, Liu, "Visual-Text Cross Alignment: Refining the Similarity Score in
Vision-Language Models", 2024. With unit x of the whole image, x_i of its crops, y_cj of the sentences of class c and
l_c of its label prompt:

    w_i = softmax_i(exp(image_scale) x.x_i),  v_cj = softmax_j(exp(text_scale) l_c.y_cj)
    score_c = sum_ij w_i v_cj x_i.y_cj = (sum_i w_i x_i) . (sum_j v_cj y_cj)

As coded, both sums are made unit first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from handful.adapt.base import Head
from handful.adapt.parameters import count, finite, one_of
from handful.adapt.two_towers import query_rows, text_vectors
from handful.core.distances import unit
from handful.core.task import ClassText, Query, State, Task
from handful.errors import BadInput
from handful.protocols import Needs


@dataclass(eq=False, repr=False, kw_only=True)
class WCA(Head):
    """Weighted crops against weighted sentences; examples, when given, are ignored.

    The features carry unit crops ``[n, P, D]`` as a view ``crops``, in the space of class text.

    Args:
        image_scale: logarithm of how sharply crops are told apart by their likeness to the whole image.
        text_scale: the same of sentences by their likeness to the label prompt.
        label_prompt: ``"first"``: of several vectors of a class, the first is its label prompt and no sentence;
            ``"mean"``: the mean of the sentences stands for it.
        normalize: make both sums unit.
        n_crops: draw that many crops with replacement, by ``random_state``, as the paper's repeated runs do; ``None``:
            all of them once.
    """

    key: ClassVar[str] = "wca"
    needs: ClassVar[Needs] = Needs(text=True, views=("crops",))
    shapes: ClassVar[Mapping[str, str]] = {"words": "C T"}
    open_classes: ClassVar[bool] = True
    open_rows: ClassVar[tuple[str, ...]] = ("words",)

    image_scale: float = 4.0
    text_scale: float = 2.0
    label_prompt: Literal["first", "mean"] = "first"
    normalize: bool = True
    n_crops: int | None = None

    def adapt(self, task: Task) -> State:
        """State: ``words [*b, C, D]``."""
        one_of("label_prompt", self.label_prompt, ("first", "mean"))
        finite("image_scale", self.image_scale, most=80)
        if self.n_crops is not None:
            count("n_crops", self.n_crops, 1)
        return {"words": self._words(*text_vectors(task))}

    def without_examples(self, task: Task, state: State, text: ClassText) -> State:
        """No class needs any."""
        return {"unseen_words": self._words(text.vectors.to(state["words"].dtype), text.mask)}

    def _words(self, vectors: Tensor, there: Tensor) -> Tensor:
        label = vectors[..., 0, :]
        if self.label_prompt == "mean":
            label = unit(vectors.sum(-2))
        elif there.shape[-1] > 1:
            alone = there.sum(-1, keepdim=True) <= 1  # its label prompt is all that such a class has
            there = there & (alone | (torch.arange(there.shape[-1], device=there.device) > 0))
        words = weighted_class_vectors(vectors, there, label, finite("text_scale", self.text_scale, most=80))
        return unit(words) if self.normalize else words

    def answer(self, state: State, query: Query) -> Tensor:
        """``s score``."""
        if "crops" not in query.views:
            raise BadInput("WCA needs features with a view 'crops'")
        crops = query.views["crops"].to(query.x.dtype)
        if self.n_crops is not None:
            draw = torch.Generator().manual_seed(0 if self.random_state is None else int(self.random_state))
            drawn = torch.randint(crops.shape[-2], (self.n_crops,), generator=draw)
            crops = crops[..., drawn.to(crops.device), :]
        seen = weighted_image_vector(query_rows(query), unit(crops), self.image_scale)
        return self.logit_scale * (unit(seen) if self.normalize else seen) @ state["words"].mT

    def leave_one_out(self, task: Task) -> Tensor | None:
        """Leaving an example out changes nothing."""
        return self.answer(self.adapt(task), Query(task.x, views=task.views))

    def view_widths(self) -> dict[str, int]:
        """See `Head.view_widths`."""
        return super().view_widths() | {"crops": self.state_["words"].shape[-1]}


def weighted_class_vectors(vectors: Tensor, there: Tensor, label: Tensor, text_scale: float) -> Tensor:
    """``sum_j v_cj y_cj`` ``[*b, C, D]``.

    Args:
        vectors: unit ``[*b, C, M, D]``.
        there: which there are ``[*b, C, M]``; a class without any gets a zero vector.
        label: unit label prompts ``[*b, C, D]``.
        text_scale: logarithm of the sharpness; minus infinity gives the plain mean.
    """
    likeness = math.exp(text_scale) * (vectors @ label[..., None])[..., 0]
    share = likeness.masked_fill(~there, -torch.inf).softmax(-1)
    return (torch.where(there, share, 0.0)[..., None, :] @ vectors)[..., 0, :]


def weighted_image_vector(x: Tensor, crops: Tensor, image_scale: float) -> Tensor:
    """``sum_i w_i x_i`` ``[*b, n, D]`` of unit images ``x [*b, n, D]`` and their unit ``crops [*b, n, P, D]``."""
    share = (math.exp(image_scale) * (crops @ x[..., None])[..., 0]).softmax(-1)
    return (share[..., None, :] @ crops)[..., 0, :]


def crop_boxes(
    width: int, height: int, n: int = 60, *, low: float = 0.5, high: float = 0.9, seed: int = 0
) -> np.ndarray:
    """``n`` random square crops of an image: ``[n, 4]`` integers, left, top, right, bottom.

    The side is uniform between ``low`` and ``high`` of the shorter side. The paper's setting is 0.5; its code, which
    does not pass the setting on, took 0.1.

    Raises:
        BadInput: shares that are no range, no crops, or an image whose crops would be smaller than 2 pixels.
    """
    if not 0 < low <= high <= 1:
        raise BadInput(f"crops are from low to high of the shorter side, 0 < low <= high <= 1, not {low} and {high}")
    count("n", n, 1)
    short = min(width, height)
    if int(low * short) < 2:
        raise BadInput(f"an image of {width} x {height} is too small for crops of {low:g} of its shorter side")
    draw = np.random.default_rng(seed)
    side = (draw.uniform(low, high, n) * short).astype(int)
    left, top = draw.integers(0, width - side + 1), draw.integers(0, height - side + 1)
    return np.stack([left, top, left + side, top + side], 1)
