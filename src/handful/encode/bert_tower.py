"""BERT as a module that can be tuned: the padding-free network of `handful.encode.bert`, its parameters in the open.

Names are those of ``transformers``' ``BertModel``, so that what is learnt about one fits the other. Query, key and
value are three maps here, each a site of its own; `handful.encode.bert` joins them for speed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from handful.core.late_interaction import Tokens
from handful.encode.bert import EPSILON, Run, padded, runs_of


class BertTower(nn.Module):
    """Sentences, as lists of token ids, to unit vectors ``[n, d]`` with a gradient; in any order.

    Args:
        tensors: a checkpoint by the names of ``BertModel``.
        heads: of each attention.
        dropout: of embeddings, attention and both outputs of a layer, in training; BERT's own is 0.1.
    """

    def __init__(self, tensors: Mapping[str, Tensor], heads: int, dropout: float = 0.1) -> None:
        super().__init__()
        words = tensors["embeddings.word_embeddings.weight"]
        places = tensors["embeddings.position_embeddings.weight"]
        depth = sum(name.endswith("intermediate.dense.bias") for name in tensors)
        inner = tensors["encoder.layer.0.intermediate.dense.bias"].shape[0]
        with torch.device("meta"):
            self.embeddings = _Embeddings(words.shape[0], words.shape[1], len(places))
            self.encoder = _Stack(depth, words.shape[1], inner)
        mine = {name: tensors[name].float().clone() for name in self.state_dict()}
        self.load_state_dict(mine, assign=True)
        self.heads, self.dropout = heads, dropout

    def forward(self, sentences: Sequence[Sequence[int]]) -> Tensor:
        """Unit vectors ``[n, d]``: the mean of each sentence's token vectors, made unit."""
        h, runs, place = self._states(sentences)
        return functional.normalize(torch.cat([run.of(h).mean(1) for run in runs]), dim=1)[place]

    def tokens(self, sentences: Sequence[Sequence[int]]) -> Tokens:
        """Token vectors of each sentence."""
        h, runs, place = self._states(sentences)
        states, mask = padded(h, runs)
        return Tokens(states[place], mask[place])

    def _states(self, sentences: Sequence[Sequence[int]]) -> tuple[Tensor, list[Run], Tensor]:
        """Token vectors end to end, shortest sentence first; their runs; where each sentence of the input stands."""
        order = sorted(range(len(sentences)), key=lambda i: len(sentences[i]))
        runs = runs_of([len(sentences[i]) for i in order])
        ids = torch.tensor([token for i in order for token in sentences[i]])
        places = torch.cat([torch.arange(run.length).repeat(run.count) for run in runs])
        h = self._drop(self.embeddings(ids, places))
        for layer in self.encoder.layer:
            at = layer.attention
            q, k, v = at.self.query(h), at.self.key(h), at.self.value(h)
            mixed = torch.cat([self._attend(run.of(q), run.of(k), run.of(v)) for run in runs])
            h = at.output.LayerNorm(h + self._drop(at.output.dense(mixed)))
            inner = functional.gelu(layer.intermediate.dense(h))
            h = layer.output.LayerNorm(h + self._drop(layer.output.dense(inner)))
        return h, runs, torch.tensor(order).argsort()

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """``[count · length, d]`` of ``[count, length, d]`` each."""
        q, k, v = (x.view(*x.shape[:2], self.heads, -1).transpose(1, 2) for x in (q, k, v))
        drop = self.dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(q, k, v, dropout_p=drop)
        return mixed.transpose(1, 2).flatten(2).flatten(0, 1)

    def _drop(self, x: Tensor) -> Tensor:
        return functional.dropout(x, self.dropout, self.training)


class _Embeddings(nn.Module):
    def __init__(self, words: int, width: int, places: int) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(words, width)
        self.position_embeddings = nn.Embedding(places, width)
        self.token_type_embeddings = nn.Embedding(2, width)
        self.LayerNorm = nn.LayerNorm(width, EPSILON)

    def forward(self, ids: Tensor, places: Tensor) -> Tensor:
        """``[tokens, d]``; every token is of type 0."""
        added: Tensor = self.word_embeddings(ids) + self.position_embeddings(places)
        return cast(Tensor, self.LayerNorm(added + self.token_type_embeddings.weight[0]))


class _Stack(nn.Module):
    def __init__(self, depth: int, width: int, inner: int) -> None:
        super().__init__()
        self.layer: Sequence[_Layer] = nn.ModuleList(_Layer(width, inner) for _ in range(depth))  # type: ignore[assignment]


class _Layer(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.attention = _Attention(width)
        self.intermediate = _Intermediate(width, inner)
        self.output = _Output(inner, width)


class _Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.self = _Projections(width)
        self.output = _Output(width, width)


class _Projections(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))


class _Intermediate(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, inner)


class _Output(nn.Module):
    def __init__(self, into: int, width: int) -> None:
        super().__init__()
        self.dense, self.LayerNorm = nn.Linear(into, width), nn.LayerNorm(width, EPSILON)
