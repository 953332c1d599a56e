"""CLIP-A-self: self-attention over a class' sentences learns which of them to trust.

Paper 033: Maniparambil, Vorster, Molloy, Murphy, McGuinness, O'Connor, "Enhancing CLIP with GPT-4: Harnessing Visual
Descriptions as Prompts", 2023. With T [M, D] the vectors of a class' M sentences:

    A = softmax((T Wq)(T Wk)' / sqrt(d)),  d = D / 4
    T' = LayerNorm(2 (r (A T Wv Wo + b) + (1 - r) T))
    logits_c = s z t_c,  t_c = the mean of T' made unit

What is learnt acts on sentences, not on classes, so that it serves classes that were not there: `SentenceAttention`.
What the paper compares with, a bottleneck on the mean sentence, is in `mean_sentence`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from handful.adapt.base import Head
from handful.adapt.mean_sentence import MeanAdapter, mean_sentence
from handful.adapt.packed import pack, uniform, unpack
from handful.adapt.parameters import count, finite, one_of
from handful.adapt.two_towers import item_rows, query_rows, text_vectors
from handful.core.distances import unit
from handful.core.losses import cross_entropy, real_rows
from handful.core.task import ClassText, Query, State, Task
from handful.core.train import SGD, batches, cosine, descend
from handful.errors import BadInput
from handful.protocols import Needs

WARMUP_LR = 1e-5
GAINS = (1.0, 1.0, 0.67, 0.67)
"""Of the first weights of query, key, value and output."""
Adapter = Literal["attention", "linear", "linear-residual"]
ADAPTERS = ("attention", "linear", "linear-residual")


@dataclass(frozen=True)
class SentenceAttention:
    """The module for sentences of one width; all its weights are one vector ``[*b, P]``."""

    width: int
    reduction: int = 4

    @property
    def sizes(self) -> list[tuple[int, ...]]:
        """Of Wq, Wk, Wv, Wo, b and of the layer norm's scale and shift, as `torch.nn` lays them out."""
        d, low = self.width, max(1, self.width // self.reduction)
        return [(low, d), (low, d), (low, d), (d, low), (d,), (d,), (d,)]

    def start(self, seed: int) -> Tensor:
        """Xavier's normal weights ``[P]`` in double precision; the output's bias uniform within 1 / sqrt(d)."""
        draw = torch.Generator().manual_seed(seed)
        low = self.sizes[0][0]
        parts = [
            torch.randn(size, generator=draw, dtype=torch.float64) * gain * math.sqrt(2 / sum(size))
            for size, gain in zip(self.sizes, GAINS, strict=False)
        ]
        parts.append(uniform((self.width,), 1 / math.sqrt(low), draw))
        parts += [torch.ones(self.width, dtype=torch.float64), torch.zeros(self.width, dtype=torch.float64)]
        return pack(parts)

    def attention(self, weights: Tensor, vectors: Tensor, there: Tensor) -> Tensor:
        """``A`` ``[*b, C, M, M]`` for sentences ``[*b, C, M, D]``, of which those of ``[*b, C, M]`` are there."""
        query, key, *_ = self._parts(weights)
        scores = (vectors @ query.mT) @ (vectors @ key.mT).mT / math.sqrt(query.shape[-2])
        return scores.masked_fill(~there[..., None, :], torch.finfo(scores.dtype).min).softmax(-1)

    def class_vectors(
        self, weights: Tensor, vectors: Tensor, there: Tensor, ratio: float, kept: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """``t_c`` ``[*b, C, D]``, zero for a class without sentences; ``kept``: what dropout keeps of A and of O."""
        *_, value, out, bias, scale, shift = self._parts(weights)
        attention = self.attention(weights, vectors, there)
        attention = attention if kept is None else attention * kept[0]
        o = attention @ (vectors @ value.mT) @ out.mT + bias[..., None, :]
        o = o if kept is None else o * kept[1]
        mixed = layer_norm(2 * (ratio * o + (1 - ratio) * vectors), (self.width,))
        mixed = mixed * scale[..., None, :] + shift[..., None, :]
        return unit(torch.where(there[..., None], mixed, 0.0).sum(-2))

    def _parts(self, weights: Tensor) -> list[Tensor]:
        """Matrices ``[*b, 1, ·, ·]`` and vectors ``[*b, 1, ·]``, the 1 standing for the classes."""
        return [part.unsqueeze(weights.dim() - 1) for part in unpack(weights, self.sizes)]


@dataclass(eq=False, repr=False, kw_only=True)
class VDT(Head):
    """Class text as learnt attention over several descriptions a class.

    What is learnt belongs to no class: ``predict(X, classes=...)`` answers for classes without examples too, by all
    their sentences.

    Args:
        adapter: ``"attention"`` over the sentences; or a bottleneck on their mean, ``"linear"`` in place of the mean,
            ``"linear-residual"`` mixed with it by ``ratio``.
        ratio: r, share of what the adapter says; 0.2 where the reference tunes it for birds, pets and flowers.
        length: of the sentences' vectors as attention sees them, which decides how sharply it can tell them apart. The
            reference takes CLIP's as they come, about 10 long; class text is unit here.
        dropout: on attention and on its output, while training.
        epochs: passes over the support, the first at a rate of 1e-5.
        lr: of SGD with momentum 0.9, falling to 0 by a cosine over the passes.
        batch_size: examples a step, their order drawn with ``random_state``.
    """

    key: ClassVar[str] = "vdt"
    needs: ClassVar[Needs] = Needs(text=True, gradient=True, stochastic=True)
    shapes: ClassVar[Mapping[str, str]] = {"words": "C T", "module": "P"}
    open_classes: ClassVar[bool] = True
    open_rows: ClassVar[tuple[str, ...]] = ("words",)

    adapter: Adapter = "attention"
    ratio: float = 0.2
    length: float = 10.0
    dropout: float = 0.5
    epochs: int = 10
    lr: float = 2e-3
    batch_size: int = 1

    @property
    def directions(self) -> bool:
        """Rows are made unit."""
        return True

    def adapt(self, task: Task) -> State:
        """State: ``words [*b, C, D]`` of the classes there are, and the ``module [*b, P]`` for others."""
        self._check()
        vectors, there = text_vectors(task)
        x, y, rows = item_rows(task), task.y, real_rows(task)
        each = math.ceil(len(rows) / self.batch_size)
        seeds = torch.Generator().manual_seed(task.seed)

        def losses(parameters: list[Tensor], seen: Tensor) -> Tensor:
            kept = self._kept(vectors, seeds) if self.dropout and self.adapter == "attention" else None
            words = self._words(parameters[0], vectors, there, kept)
            logits = self.logit_scale * x[..., seen, :] @ words.mT
            return cross_entropy(logits, y[..., seen, :], task.class_mask)

        by_pass = cosine(self.lr, max(1, self.epochs), warmup=1, warmup_lr=WARMUP_LR)
        module = SentenceAttention if self.adapter == "attention" else MeanAdapter
        start = module(vectors.shape[-1]).start(task.seed).to(x).expand(*x.shape[:-2], -1)
        steps = batches(rows, self.epochs, self.batch_size, task.seed)
        weights = descend([start], losses, steps, lambda step: by_pass(step // each), SGD(momentum=0.9))[0]
        return {"words": self._words(weights, vectors, there), "module": weights}

    def without_examples(self, task: Task, state: State, text: ClassText) -> State:
        """``words`` of other classes by the module."""
        return {"unseen_words": self._words(state["module"], text.vectors, text.mask)}

    def answer(self, state: State, query: Query) -> Tensor:
        """``s z t_c``."""
        return self.logit_scale * query_rows(query) @ state["words"].mT

    def class_vectors(self, sentences: Tensor) -> Tensor:
        """``t_c`` ``[K, D]`` of other classes from the vectors of their sentences ``[K, M, D]``, by the fitted module.

        Raises:
            BadInput: sentences of another width.
        """
        width = self.state_["words"].shape[-1]
        if sentences.dim() != 3 or sentences.shape[-1] != width:
            raise BadInput(f"sentences must be vectors [C, M, {width}], not of shape {tuple(sentences.shape)}")
        there = torch.ones(sentences.shape[:-1], dtype=torch.bool, device=sentences.device)
        weights = self.state_["module"]
        with torch.no_grad():
            return self._words(weights, unit(sentences.to(weights.dtype)), there)

    def _words(
        self, weights: Tensor, vectors: Tensor, there: Tensor, kept: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """``t_c`` of unit sentences ``[*b, C, M, D]``, of which those of ``[*b, C, M]`` are there."""
        vectors = self.length * vectors
        if self.adapter == "attention":
            return SentenceAttention(vectors.shape[-1]).class_vectors(weights, vectors, there, self.ratio, kept)
        ratio = 1.0 if self.adapter == "linear" else self.ratio
        return MeanAdapter(vectors.shape[-1]).class_vectors(weights, mean_sentence(vectors, there), ratio)

    def _kept(self, vectors: Tensor, seeds: torch.Generator) -> tuple[Tensor, Tensor]:
        """What dropout keeps ``[C, M, M]`` and ``[C, M, D]``; it does not depend on how many classes come after."""
        c, m, d = vectors.shape[-3:]
        draw = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=seeds)))
        drawn = torch.rand(c, m, m + d, generator=draw, dtype=torch.float64)
        kept = ((drawn >= self.dropout) / (1 - self.dropout)).to(vectors)
        return kept[..., :m], kept[..., m:]

    def _check(self) -> None:
        one_of("adapter", self.adapter, ADAPTERS)
        finite("ratio", self.ratio, least=0, most=1)
        finite("length", self.length, above=0)
        finite("dropout", self.dropout, least=0, below=1)
        finite("lr", self.lr, above=0)
        count("epochs", self.epochs)
        count("batch_size", self.batch_size, 1)
