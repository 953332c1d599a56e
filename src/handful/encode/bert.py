"""BERT as a sentence encoder, without padding.

Sentences of one batch lie end to end in one array [tokens, d]: every token-wise operation (all but attention) sees
only real tokens, and no mask is needed anywhere. Sorted by length, sentences of equal length are neighbours, so that
attention takes each such run as one dense array [sentences, length, …].

BERT (Devlin et al., 2019), post-norm: h <- LN(h + Attention(h)); h <- LN(h + W2 gelu(W1 h)). The sentence vector is the
mean of its token vectors, made unit (Reimers and Gurevych, 2019).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from handful.core.late_interaction import Tokens

EPSILON = 1e-12
"""Of every layer normalisation."""


@dataclass(frozen=True)
class Affine:
    """Weight and bias of a linear map or of a layer normalisation."""

    weight: Tensor
    bias: Tensor

    def linear(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight, self.bias)

    def norm(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, self.weight.shape, self.weight, self.bias, EPSILON)


@dataclass(frozen=True)
class Layer:
    """One block; query, key and value are one map [3 d, d]."""

    qkv: Affine
    out: Affine
    norm_attention: Affine
    up: Affine
    down: Affine
    norm_output: Affine


@dataclass(frozen=True)
class Run:
    """Neighbouring sentences of equal length: tokens ``start`` to ``start + count * length``."""

    start: int
    count: int
    length: int

    def of(self, x: Tensor) -> Tensor:
        """That part of ``x`` [tokens, w] as [count, length, w]."""
        return x[self.start : self.start + self.count * self.length].view(self.count, self.length, -1)


class SentenceBert:
    """The network, from the tensors of a published checkpoint.

    Args:
        tensors: by the names of ``transformers``' ``BertModel``.
        heads: of each attention.
        dtype: what layers are worked out in. Embeddings are added up, and means taken, in float32.
    """

    def __init__(self, tensors: Mapping[str, Tensor], heads: int, dtype: torch.dtype) -> None:
        def affine(*names: str) -> Affine:
            parts = ([tensors[f"{name}.{kind}"] for name in names] for kind in ("weight", "bias"))
            return Affine(*(torch.cat(part).to(dtype) for part in parts))

        def layer(at: str) -> Layer:
            return Layer(
                qkv=affine(*(f"{at}.attention.self.{name}" for name in ("query", "key", "value"))),
                out=affine(f"{at}.attention.output.dense"),
                norm_attention=affine(f"{at}.attention.output.LayerNorm"),
                up=affine(f"{at}.intermediate.dense"),
                down=affine(f"{at}.output.dense"),
                norm_output=affine(f"{at}.output.LayerNorm"),
            )

        depth = sum(name.endswith("intermediate.dense.bias") for name in tensors)
        self._words = tensors["embeddings.word_embeddings.weight"]
        # Every token is of type 0.
        self._places = (
            tensors["embeddings.position_embeddings.weight"] + tensors["embeddings.token_type_embeddings.weight"][0]
        )
        self._norm = affine("embeddings.LayerNorm")
        self._layers = [layer(f"encoder.layer.{index}") for index in range(depth)]
        self._heads, self._dtype = heads, dtype

    def __call__(self, sentences: Sequence[Sequence[int]]) -> Tensor:
        """Unit float32 vectors [n, d] of ``sentences``, token ids each, sorted by length."""
        h, runs = self._states(sentences)
        return functional.normalize(torch.cat([run.of(h).float().mean(1) for run in runs]), dim=1)

    def tokens(self, sentences: Sequence[Sequence[int]]) -> Tokens:
        """Token vectors of ``sentences``, sorted by length."""
        return padded(*self._states(sentences))

    def _states(self, sentences: Sequence[Sequence[int]]) -> tuple[Tensor, list[Run]]:
        runs = runs_of([len(sentence) for sentence in sentences])
        ids = torch.tensor([token for sentence in sentences for token in sentence])
        places = torch.cat([torch.arange(run.length).repeat(run.count) for run in runs])
        h = self._norm.norm((self._words[ids] + self._places[places]).to(self._dtype))
        for layer in self._layers:
            h = layer.norm_attention.norm(h + layer.out.linear(self._attention(layer.qkv.linear(h), runs)))
            h = layer.norm_output.norm(h + layer.down.linear(functional.gelu(layer.up.linear(h))))
        return h, runs

    def _attention(self, qkv: Tensor, runs: Sequence[Run]) -> Tensor:
        mixed = qkv.new_empty(len(qkv), qkv.shape[1] // 3)
        for run in runs:
            parts = run.of(qkv).view(run.count, run.length, 3, self._heads, -1)
            q, k, v = parts.permute(2, 0, 3, 1, 4)  # each [count, heads, length, w]
            run.of(mixed).copy_(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return mixed


def runs_of(lengths: Sequence[int]) -> list[Run]:
    """The runs of sentences sorted by length."""
    values, counts = torch.unique_consecutive(torch.tensor(lengths), return_counts=True)
    runs, start = [], 0
    for length, count in zip(values.tolist(), counts.tolist(), strict=True):
        runs.append(Run(start, count, length))
        start += count * length
    return runs


def padded(h: Tensor, runs: Sequence[Run]) -> Tokens:
    """Token vectors [tokens, d] that lie end to end, with a sentence a row."""
    longest = max(run.length for run in runs)
    rows = [functional.pad(run.of(h), (0, 0, 0, longest - run.length)) for run in runs]
    lengths = torch.cat([torch.full((run.count,), run.length) for run in runs])
    return Tokens(torch.cat(rows), (torch.arange(longest) < lengths[:, None]).float())
