"""BERT as a module that can be tuned: the padding-free network of `handful.encode.bert`, its parameters in the open.

Names are those of ``transformers``' ``BertModel``, so that what is learnt about one fits the other. Query, key and value
are three maps here, each a site of its own; `handful.encode.bert` joins them for speed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from handful.encode.bert import EPSILON, runs_of


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
            self.embeddings = nn.Module()
            self.embeddings.word_embeddings = nn.Embedding(*words.shape)
            self.embeddings.position_embeddings = nn.Embedding(*places.shape)
            self.embeddings.token_type_embeddings = nn.Embedding(2, words.shape[1])
            self.embeddings.LayerNorm = nn.LayerNorm(words.shape[1], EPSILON)
            self.encoder = nn.Module()
            self.encoder.layer = nn.ModuleList(_Layer(words.shape[1], inner) for _ in range(depth))
        mine = {name: tensors[name].float().clone() for name in self.state_dict()}
        self.load_state_dict(mine, assign=True)
        self.heads, self.dropout = heads, dropout

    def forward(self, sentences: Sequence[Sequence[int]]) -> Tensor:
        """Unit vectors ``[n, d]``: the mean of each sentence's token vectors, made unit."""
        order = sorted(range(len(sentences)), key=lambda i: len(sentences[i]))
        runs = runs_of([len(sentences[i]) for i in order])
        ids = torch.tensor([token for i in order for token in sentences[i]])
        places = torch.cat([torch.arange(run.length).repeat(run.count) for run in runs])
        e = self.embeddings
        h = e.word_embeddings(ids) + e.position_embeddings(places) + e.token_type_embeddings.weight[0]
        h = self._drop(e.LayerNorm(h))
        for layer in self.encoder.layer:
            assert isinstance(layer, _Layer)
            at, q, k, v = layer.attention, *layer.parts(h)
            mixed = torch.cat([self._attend(*(run.of(x) for x in (q, k, v))) for run in runs])
            h = at.output.LayerNorm(h + self._drop(at.output.dense(mixed)))
            inner = functional.gelu(layer.intermediate.dense(h))
            h = layer.output.LayerNorm(h + self._drop(layer.output.dense(inner)))
        vectors = functional.normalize(torch.cat([run.of(h).mean(1) for run in runs]), dim=1)
        return vectors[torch.tensor(order).argsort()]

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """``[count · length, d]`` of ``[count, length, d]`` each."""
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (q, k, v))
        drop = self.dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(q, k, v, dropout_p=drop)
        return mixed.transpose(1, 2).flatten(2).flatten(0, 1)

    def _drop(self, x: Tensor) -> Tensor:
        return functional.dropout(x, self.dropout, self.training)


class _Layer(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.attention = nn.Module()
        self.attention.self = nn.Module()
        for name in ("query", "key", "value"):
            setattr(self.attention.self, name, nn.Linear(width, width))
        self.attention.output = _output(width, width)
        self.intermediate = nn.Module()
        self.intermediate.dense = nn.Linear(width, inner)
        self.output = _output(inner, width)

    def parts(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value of ``h [tokens, d]``."""
        at = self.attention.self
        return at.query(h), at.key(h), at.value(h)


def _output(into: int, width: int) -> nn.Module:
    block = nn.Module()
    block.dense = nn.Linear(into, width)
    block.LayerNorm = nn.LayerNorm(width, EPSILON)
    return block
