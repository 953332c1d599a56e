"""LFA: one matrix turns image features towards class text, from features alone.

Paper 162: Ouali, Bulat, Martinez, Tzimiropoulos, "Black Box Few-Shot Adaptation for Vision-Language models", 2023. With
unit rows X, their class texts T = Y P:

    X'T = U S V',  W = U V',  W <- W - beta (W - I)            beta-Procrustes
    W is then trained by AdamW on noisy rows: adaptive re-ranking, see `lfa_losses`
    p = softmax(unit(z W) P' / 0.07)

Below full rank (fewer classes or examples than D) the rotation is free where no data are; here it is the one closest to
the identity there. Items and class text of models that never met may differ in width: the wider is then multiplied by
a Gaussian matrix first. Without labels: `lfa_unsupervised`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

import numpy as np
import torch
from sklearn.random_projection import GaussianRandomProjection
from torch import Tensor

from handful.adapt.base import Head
from handful.adapt.lfa_losses import LOSSES, TEMPERATURE, Kind
from handful.adapt.parameters import count, finite, one_of
from handful.adapt.two_towers import any_text_rows, item_rows, query_rows, text_rows
from handful.core.calibration import accuracy
from handful.core.distances import unit
from handful.core.task import Query, State, Task, mask_classes, places
from handful.core.train import AdamW, cosine, descend
from handful.errors import BadInput
from handful.protocols import Needs

BETAS, SPLITS, TRAINED = 25, 3, 0.8
LAST_LR = 1e-7
KEPT = 0.75
NUDGE = 1e-7


@dataclass(eq=False, repr=False, kw_only=True)
class LFA(Head):
    """A rotation towards class text, part of the way, then refined.

    Args:
        beta: how much of the identity is kept, 0 to 1; ``"cv"`` takes the best of 25 by three random splits of the
            support into 80 and 20 %.
        n_iter: steps of the refinement, 200 in the reference; 30 to 2000 there by data set.
        loss: ``"arerank"``, ``"csls"``, ``"contrastive"`` or ``"triplet"``.
        k: nearest classes that count.
        margin_scale: of the margins of ``"arerank"``.
        noise: standard deviation of what is added to the rows in every second step, on average.
        dropout: share of their numbers dropped in every second step, on average.
        orthogonal: after each step, ``"step"``: ``W <- (1 + b) W - b W W' W`` with b = 0.01, or ``"clip"``: singular
            values above 1 are made 1.
        matrix: ``"refined"``, or ``"average"`` over the steps, which starts at the identity: for other classes or
            domains than those of the support.
        project: bring the wider of features and class text to the width of the other by a fixed Gaussian matrix, for
            an image model and a text model that share no space (the paper takes beta 0.1 for them).
        lr: of AdamW, falling to 1e-7 by a cosine.
        weight_decay: of AdamW.

    What is learnt belongs to no class: ``predict(X, classes=...)`` answers for classes without examples too.
    """

    key: ClassVar[str] = "lfa"
    needs: ClassVar[Needs] = Needs(text=True, gradient=True, stochastic=True)
    shapes: ClassVar[Mapping[str, str]] = {"transform": "K K"}
    open_classes: ClassVar[bool] = True

    beta: float | Literal["cv"] = "cv"
    n_iter: int = 200
    loss: Kind = "arerank"
    k: int = 3
    margin_scale: float = 4.0
    noise: float = 0.035
    dropout: float = 0.05
    orthogonal: Literal["step", "clip"] | None = None
    matrix: Literal["refined", "average"] = "refined"
    lr: float = 5e-4
    weight_decay: float = 5e-4
    project: bool = False

    @property
    def directions(self) -> bool:
        """Rows are made unit."""
        return True

    def adapt(self, task: Task) -> State:
        """State: unit class ``text [*b, C, T]``, ``transform [*b, K, K]``, K the smaller width where there are two."""
        self._check()
        x, text = self._spaces(task)
        return self._state(task, *self._refined(task, x, text, self._turned(task, x, text), KEPT))

    def answer(self, state: State, query: Query) -> Tensor:
        """``unit(z W) P' / 0.07``."""
        z, text = query_rows(query), state["text"]
        if self.project:
            z, text = narrowed(z, text.shape[-1]), narrowed(text, z.shape[-1])
        return unit(z @ state["transform"]) @ text.mT / TEMPERATURE

    def view_widths(self) -> dict[str, int]:
        """None where widths may differ; else see `Head.view_widths`."""
        return {} if self.project else super().view_widths()

    def _prior(self, x: Tensor, views: Mapping[str, Tensor], text: Tensor) -> Tensor | None:
        return None if self.project else super()._prior(x, views, text)

    def _spaces(self, task: Task) -> tuple[Tensor, Tensor]:
        """Unit rows ``[*b, N, K]`` and class text ``[*b, C, K]``."""
        x = item_rows(task)
        if not self.project:
            return x, text_rows(task)
        text = any_text_rows(task)
        return narrowed(x, text.shape[-1]), narrowed(text, x.shape[-1])

    def _state(self, task: Task, refined: Tensor, average: Tensor) -> State:
        return {"text": any_text_rows(task), "transform": refined if self.matrix == "refined" else average}

    def _turned(self, task: Task, x: Tensor, text: Tensor) -> Tensor:
        """beta-Procrustes ``[*b, K, K]``."""
        return _mixed(procrustes(x, task.y @ text), self._beta(task, x, text)[..., None, None])

    def _refined(self, task: Task, x: Tensor, text: Tensor, start: Tensor, share: float) -> tuple[Tensor, Tensor]:
        """The matrix after all steps, each of which sees a ``share`` of the rows, and its average over them."""
        kept = _Kept(AdamW(weight_decay=self.weight_decay), self.orthogonal, self.n_iter)

        def losses(parameters: list[Tensor], step: Tensor) -> Tensor:
            seen, noise, factor = self._disturbed(task, int(step), x, share)
            y = torch.where(seen[..., None], task.y, 0.0)
            loss = LOSSES[self.loss]
            return loss(((x + noise) * factor) @ parameters[0], text, y, task.class_mask, self.k, self.margin_scale)

        rates = cosine(self.lr, max(1, self.n_iter), last=LAST_LR)
        refined = descend([start], losses, torch.arange(self.n_iter), rates, kept)[0]
        identity = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device).expand_as(refined)
        return refined, identity if kept.average is None else kept.average

    def _beta(self, task: Task, x: Tensor, text: Tensor) -> Tensor:
        like = x.new_ones(x.shape[:-2])
        if self.beta != "cv":
            return like * finite("beta", self.beta, least=0, most=1)
        betas = torch.linspace(0, 1, BETAS, dtype=x.dtype, device=x.device)
        score = torch.stack([self._score(task, x, text, train, betas) for train in _splits(task)]).sum(0)
        return betas[score.argmax(0)]

    def _score(self, task: Task, x: Tensor, text: Tensor, train: Tensor, betas: Tensor) -> Tensor:
        """Accuracy ``[25, *b]`` of each beta on the rows that ``train [*b, N]`` leaves out."""
        rotated = x @ procrustes(torch.where(train[..., None], x, 0.0), task.y @ text)
        steps = betas.reshape(-1, *[1] * x.dim())
        logits = unit((1 - steps) * rotated + steps * x) @ text.mT
        return accuracy(mask_classes(logits, task.class_mask), torch.where(train[..., None], 0.0, task.y))

    def _disturbed(
        self, task: Task, step: int, x: Tensor, share: float
    ) -> tuple[Tensor, Tensor | float, Tensor | float]:
        """Which rows the step sees ``[*b, N]``, what is added to them, and what they are multiplied by."""
        draw = torch.Generator().manual_seed(task.seed * 1_000_003 + step)
        coins = torch.rand(2, generator=draw, dtype=torch.float64)
        n, d = x.shape[-2:]
        drawn = torch.rand(n, 1 + 2 * d, generator=draw, dtype=torch.float64).to(x.device)
        real = task.weight > 0
        seen = places(drawn[:, 0], real) < (share * real.sum(-1, keepdim=True)).floor().clamp_min(1)
        noise = (2 * drawn[:, 1 : 1 + d] - 1).clamp(-1 + 1e-12, 1 - 1e-12).erfinv() * (math.sqrt(2) * self.noise)
        factor = (drawn[:, 1 + d :] >= self.dropout) / (1 - self.dropout)
        return seen & real, noise.to(x) if coins[0] > 0.5 else 0.0, factor.to(x) if coins[1] > 0.5 else 1.0

    def _check(self) -> None:
        if isinstance(self.beta, str) and self.beta != "cv":
            raise BadInput(f"beta is a number or 'cv', not {self.beta!r}")
        one_of("loss", self.loss, tuple(LOSSES))
        one_of("matrix", self.matrix, ("refined", "average"))
        if self.orthogonal is not None:
            one_of("orthogonal", self.orthogonal, ("step", "clip"))
        count("n_iter", self.n_iter)
        count("k", self.k, 1)
        finite("margin_scale", self.margin_scale, above=0)
        finite("noise", self.noise, least=0)
        finite("dropout", self.dropout, least=0, below=1)
        finite("lr", self.lr, above=0)
        finite("weight_decay", self.weight_decay, least=0)


def procrustes(x: Tensor, target: Tensor) -> Tensor:
    """The orthogonal W ``[*b, D, D]`` that takes rows ``x [*b, N, D]`` closest to ``target``, and is else closest to I.

    A small multiple of the identity decides what the data leave open.
    """
    product = x.double().mT @ target.double()
    scale = torch.linalg.matrix_norm(product)[..., None, None].clamp_min(1e-30)
    eye = torch.eye(x.shape[-1], dtype=product.dtype, device=x.device)
    u, _, vh = torch.linalg.svd(product / scale + NUDGE * eye)
    w: Tensor = u @ vh
    return w.to(x.dtype)


def narrowed(rows: Tensor, other: int) -> Tensor:
    """Unit ``rows [..., D]``; where D is above ``other``, projected to it by a Gaussian matrix, always the same."""
    if rows.shape[-1] <= other:
        return rows
    return unit(rows @ torch.as_tensor(_gaussian(rows.shape[-1], other)).to(rows))


@lru_cache(maxsize=4)
def _gaussian(wide: int, narrow: int) -> np.ndarray:
    """scikit-learn's of seed 0, as the reference takes it: ``[wide, narrow]``."""
    matrix: np.ndarray = GaussianRandomProjection(narrow, random_state=0).fit(np.zeros((1, wide))).components_.T
    return matrix


def _mixed(w: Tensor, beta: Tensor) -> Tensor:
    return w - beta * (w - torch.eye(w.shape[-1], dtype=w.dtype, device=w.device))


def _splits(task: Task) -> Iterator[Tensor]:
    """Which rows ``[*b, N]`` are trained on; rows of one item stay together, and padding changes nothing."""
    draw = torch.Generator().manual_seed(task.seed)
    real, same = task.weight > 0, task.items.same
    for order in torch.rand(task.weight.shape[-1], SPLITS, generator=draw, dtype=torch.float64).to(real.device).mT:
        own = order.expand(real.shape) if same is None else order[same.to(torch.uint8).argmax(-1)]
        yield real & (places(own, real) < (TRAINED * real.sum(-1, keepdim=True)).floor().clamp_min(1))


class _Kept:
    """An update of the matrix that keeps it near the orthogonal ones, and its average over the steps."""

    def __init__(self, update: AdamW, orthogonal: str | None, n_iter: int) -> None:
        self.average: Tensor | None = None
        self._update, self._orthogonal, self._half, self._step = update, orthogonal, n_iter // 2, 0

    def __call__(self, parameters: list[Tensor], gradients: tuple[Tensor, ...], rate: float) -> None:
        self._update(parameters, gradients, rate)
        w = parameters[0]
        if self._orthogonal == "step":
            w.copy_(1.01 * w - 0.01 * w @ w.mT @ w)
        elif self._orthogonal == "clip":
            u, s, vh = torch.linalg.svd(w)
            w.copy_((u * s.clamp(0, 1)[..., None, :]) @ vh)
        eye = torch.eye(w.shape[-1], dtype=w.dtype, device=w.device)
        ramp = 1 - math.exp(-5 * min(self._step, self._half) / self._half) if self._half else 1.0
        momentum = 0.9 + 0.1 * ramp
        self.average = momentum * (eye if self.average is None else self.average) + (1 - momentum) * w
        self._step += 1
