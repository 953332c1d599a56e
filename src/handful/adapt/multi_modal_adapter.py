"""Multi-Modal Adapter: class texts and the image change each other a little, by attention across the two.

Paper 079: Seputis, Mihailov, Chatterjee, Xiao, "Multi-Modal Adapter for Vision-Language Models", 2024. For each image z
the sequence of its class texts t_1 … t_C and z itself goes through

    D -> 32 -> 128, multi-head attention on 128, 128 -> 32 -> GELU -> D,   giving a_1 … a_C and a_0
    z' = (r a_0 / |a_0| + (1 - r) z) made unit,  t'_c likewise with a_c
    logits_c = s z' . t'_c

Attention only crosses: texts look at the image, the image at the texts (``mask="block"``, the paper). The authors' code
adds 1 to the scores of crossing pairs and lets all others be (``"bias"``).

a_c is linear in the 32 numbers after GELU. Its length and its products with z' and t_c are taken there, so that no
tensor of images x classes x D is made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import gelu

from handful.adapt.base import Head
from handful.adapt.packed import pack, uniform, unpack
from handful.adapt.parameters import count, finite, one_of
from handful.adapt.two_towers import item_rows, query_rows, text_rows
from handful.core.distances import unit
from handful.core.losses import cross_entropy, real_rows
from handful.core.task import Query, State, Task
from handful.core.train import Adam, batches, descend
from handful.errors import BadInput
from handful.protocols import Needs

LOW = 32
BLOCK = 2**24
"""Numbers in the largest tensor of a part of the queries."""
Mask = Literal["block", "bias"]


@dataclass(frozen=True)
class CrossAttention:
    """The module for features of one width; all its weights are one vector ``[*b, P]``."""

    width: int
    inner: int = 128
    heads: int = 4
    mask: Mask = "block"

    @property
    def sizes(self) -> list[tuple[int, ...]]:
        """Weight and bias of: down, down, query key and value, output, up, up, as `torch.nn` lays them out."""
        d, m = self.width, self.inner
        layers = [(LOW, d), (m, LOW), (3 * m, m), (m, m), (LOW, m), (d, LOW)]
        return [size for out, into in layers for size in ((out, into), (out,))]

    def start(self, seed: int) -> Tensor:
        """Weights as `torch.nn` draws them, ``[P]`` in double precision."""
        draw, parts = torch.Generator().manual_seed(seed), []
        for i, (weight, bias) in enumerate(zip(self.sizes[::2], self.sizes[1::2], strict=True)):
            bound = 1 / math.sqrt(weight[1]) if i != 2 else math.sqrt(6 / sum(weight))
            inside = i in (2, 3)  # of the attention, whose biases start at 0
            parts += [uniform(weight, bound, draw), uniform(bias, 0.0 if inside else bound, draw)]
        return pack(parts)

    def hidden(self, weights: Tensor, z: Tensor, text: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """What comes after GELU: ``[*b, n, 32]`` for the images and ``[*b, n, C or 1, 32]`` for the texts of each.

        Args:
            weights: ``[*b, P]``.
            z: unit images ``[*b, n, D]``.
            text: unit class texts ``[*b, C, D]``.
            real: which classes are ``[*b, C]``.
        """
        down1, c1, down2, c2, qkv, c3, out, c4, up, c5, *_ = unpack(weights, self.sizes)

        def heads(x: Tensor) -> list[Tensor]:
            low = (x @ down1.mT + c1[..., None, :]) @ down2.mT + c2[..., None, :]
            inside = low @ qkv.mT + c3[..., None, :]
            split = (*inside.shape[:-1], self.heads, -1)
            return [part.reshape(split).transpose(-3, -2) for part in inside.chunk(3, -1)]

        def after(x: Tensor) -> Tensor:
            rows = x.flatten(-3, -2) if x.dim() > z.dim() else x
            rows = gelu((rows @ out.mT + c4[..., None, :]) @ up.mT + c5[..., None, :])
            return rows.reshape(*x.shape[:-1], LOW) if x.dim() > z.dim() else rows

        (qi, ki, vi), (qt, kt, vt) = heads(z), heads(text)  # [*b, heads, n or C, inner / heads]
        cross = 1.0 if self.mask == "bias" else 0.0
        scale = 1 / math.sqrt(qi.shape[-1])
        gone = ~real[..., None, None, :]
        to_text = (qi @ kt.mT * scale + cross).masked_fill(gone, -torch.inf)  # [*b, heads, n, C]
        if self.mask == "block":
            by_image = to_text.softmax(-1) @ vt
            by_text = vi.transpose(-3, -2).flatten(-2)[..., None, :]  # of one image there is but one to look at
            return after(by_image.transpose(-3, -2).flatten(-2)), after(by_text)
        own = (qi * ki).sum(-1, keepdim=True) * scale
        share = torch.cat([to_text, own], -1).softmax(-1)
        by_image = share[..., :-1] @ vt + share[..., -1:] * vi
        return after(by_image.transpose(-3, -2).flatten(-2)), after(_texts(qt, kt, vt, ki, vi, gone, scale, cross))

    def logits(self, weights: Tensor, z: Tensor, text: Tensor, real: Tensor, ratios: tuple[float, float]) -> Tensor:
        """Cosines ``z' . t'_c`` ``[*b, n, C]``; ``ratios`` are those of image and text."""
        *_, last, bias = unpack(weights, self.sizes)
        image, texts = self.hidden(weights, z, text, real)
        r, q = ratios
        z = unit(r * unit(image @ last.mT + bias[..., None, :]) + (1 - r) * z)
        gram, middle = last.mT @ last, (last.mT @ bias[..., None])[..., 0]
        squares = ((texts @ gram[..., None, :, :]) * texts).sum(-1) + 2 * (texts @ middle[..., None, :, None])[..., 0]
        length = (squares + bias.square().sum(-1)[..., None, None]).clamp_min(1e-12).sqrt()  # |a_c| [*b, n, C or 1]
        by_image = (texts * (z @ last)[..., None, :]).sum(-1) + (z @ bias[..., None])
        by_text = (
            texts * (text @ last)[..., None, :, :] if texts.shape[-2] > 1 else texts @ (text @ last).mT[..., None, :, :]
        )
        by_text = by_text.sum(-1) if texts.shape[-2] > 1 else by_text[..., 0, :]
        by_text = by_text + (text @ bias[..., None]).mT
        known = text.square().sum(-1)[..., None, :]
        top = q * by_image / length + (1 - q) * z @ text.mT
        size = q**2 + (1 - q) ** 2 * known + 2 * q * (1 - q) * by_text / length
        return top / size.clamp_min(1e-12).sqrt()


def _texts(
    q: Tensor, k: Tensor, v: Tensor, image_k: Tensor, image_v: Tensor, gone: Tensor, scale: float, cross: float
) -> Tensor:
    """What the texts see of each other and of each image, ``[*b, n, C, inner]``.

    Of the sums of a softmax, what concerns texts alone is the same for all images.
    """
    among = (q @ k.mT * scale).masked_fill(gone, -torch.inf)  # [*b, heads, C, C]
    most = among.amax(-1, keepdim=True)
    weight = (among - most).exp()
    total, seen = weight.sum(-1), weight @ v  # [*b, heads, C], [*b, heads, C, e]
    image = (q @ image_k.mT * scale + cross - most).clamp_max(80).exp().mT  # [*b, heads, n, C]
    both = seen[..., None, :, :] + image[..., None] * image_v[..., :, None, :]
    return (both / (total[..., None, :] + image)[..., None]).movedim(-4, -2).flatten(-2)


@dataclass(eq=False, repr=False, kw_only=True)
class MultiModalAdapter(Head):
    """A small attention layer between an image and the class texts.

    Training has no validation set to stop by: all passes are made. What is learnt belongs to no class:
    ``predict(X, classes=...)`` answers for classes without examples too, by their class text.

    Args:
        image_ratio: share of what attention says of the image.
        text_ratio: the same of the texts.
        mask: ``"block"`` as the paper says, ``"bias"`` as the authors coded it.
        inner: width of attention.
        heads: of attention.
        epochs: passes over the support.
        lr: of Adam with a penalty of 1e-4.
        batch_size: examples a step; with more than that, their order is drawn with ``random_state``.
    """

    key: ClassVar[str] = "multi-modal-adapter"
    needs: ClassVar[Needs] = Needs(text=True, gradient=True, stochastic=True)
    shapes: ClassVar[Mapping[str, str]] = {"module": "P"}
    open_classes: ClassVar[bool] = True

    image_ratio: float = 0.2
    text_ratio: float = 0.2
    mask: Mask = "block"
    inner: int = 128
    heads: int = 4
    epochs: int = 100
    lr: float = 1e-2
    batch_size: int = 64

    @property
    def directions(self) -> bool:
        """Rows are made unit."""
        return True

    def adapt(self, task: Task) -> State:
        """State: unit class ``text [*b, C, D]``, zero for a class that is padding, and the ``module [*b, P]``."""
        self._check()
        x, text, real = item_rows(task), text_rows(task), task.class_mask
        module, rows = self._module(x.shape[-1]), real_rows(task)

        def losses(parameters: list[Tensor], seen: Tensor) -> Tensor:
            cosines = module.logits(parameters[0], x[..., seen, :], text, real, self._ratios)
            return cross_entropy(self.logit_scale * cosines, task.y[..., seen, :], real)

        start = module.start(task.seed).to(x).expand(*x.shape[:-2], -1)
        steps = batches(rows, self.epochs, self.batch_size, task.seed)
        weights = descend([start], losses, steps, lambda step: self.lr, Adam(weight_decay=1e-4))[0]
        return {"text": text, "module": weights}

    def answer(self, state: State, query: Query) -> Tensor:
        """``s z' . t'_c``."""
        z, text = query_rows(query), state["text"]
        real = text.abs().sum(-1) > 0
        module = self._module(z.shape[-1])
        each = max(1, BLOCK // (text[..., 0].numel() * max(LOW, self.inner if self.mask == "bias" else LOW)))
        parts = [
            module.logits(state["module"], part, text, real, self._ratios) for part in torch.split(z, each, dim=-2)
        ]
        return self.logit_scale * torch.cat(parts, -2)

    @property
    def _ratios(self) -> tuple[float, float]:
        return self.image_ratio, self.text_ratio

    def _module(self, width: int) -> CrossAttention:
        return CrossAttention(width, self.inner, self.heads, self.mask)

    def _check(self) -> None:
        finite("image_ratio", self.image_ratio, least=0, most=1)
        finite("text_ratio", self.text_ratio, least=0, most=1)
        one_of("mask", self.mask, ("block", "bias"))
        count("heads", self.heads, 1)
        if count("inner", self.inner, 1) % self.heads:
            raise BadInput(f"inner must be a multiple of heads, {self.heads}, not {self.inner}")
        count("epochs", self.epochs)
        finite("lr", self.lr, above=0)
        count("batch_size", self.batch_size, 1)
