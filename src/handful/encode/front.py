"""The place in front of what a language model reads: empty, until a change (`handful.tune.front`) puts vectors there.

words     [n, d]                    read in front of the word embeddings, special tokens included
keys      [m, layers 2 heads w]     keys and values that every layer's attention sees in front of its own

A seq2seq model has `reader`, `writer` and `across` in place of `keys`: see `handful.encode.front_layers`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from handful.encode.front_layers import Front, of_seq2seq
from handful.errors import BadInput

_SHIFTED = ("roberta", "xlm-roberta", "camembert", "mpnet")
"""Families that count places from behind their padding: two of them are no text's."""


def places(config: Any) -> int | None:
    """How many tokens a model of that configuration has places for; ``None`` where that is not limited."""
    found = getattr(config, "max_position_embeddings", None)
    return int(found) - 2 * (getattr(config, "model_type", "") in _SHIFTED) if found else None


class Fronts(nn.Module):
    """The places in front of one model.

    Args:
        body: of `transformers`.
        seq2seq: whether it reads and writes.
    """

    keys: Front

    def __init__(self, body: Any, seq2seq: bool = False) -> None:
        super().__init__()
        config = body.config
        heads = int(getattr(config, "num_attention_heads", 0) or 0)
        self._layers = int(getattr(config, "num_hidden_layers", 0) or 0)
        self._heads = int(getattr(config, "num_key_value_heads", None) or heads)
        hidden = int(getattr(config, "hidden_size", 0) or 0)
        width = int(getattr(config, "head_dim", None) or (hidden // heads if heads else 0))
        self.words = Front(hidden)
        places = of_seq2seq(body) if seq2seq else {"keys": Front(2 * self._layers * self._heads * width)}
        for name, place in places.items():
            self.add_module(name, place)

    @property
    def ahead(self) -> int:
        """How many words are in front: so much further on everything stands in what the model gives."""
        return len(self.words.vectors)

    @property
    def used(self) -> bool:
        """Whether anything is in front."""
        return any(isinstance(place, Front) and len(place.vectors) for place in self.children())

    @contextmanager
    def holding(self, keys: Tensor) -> Iterator[None]:
        """With keys and values ``[m, layers 2 heads w]`` in front inside the block; nothing else may be there."""
        handle = self.keys.register_forward_hook(lambda module, given, out: torch.cat([out, keys]))
        try:
            yield
        finally:
            handle.remove()

    def join(self, inputs: dict[str, Any], body: Any) -> dict[str, Any]:
        """What the body is called with, from what it would be called with if nothing stood in front.

        Raises:
            BadInput: more places than the model has; the model takes no keys and values.
        """
        words = self.words.vectors
        keys = self.keys.vectors if "keys" in self._modules else words[:0]
        if not len(words) and not len(keys):
            return inputs
        ids, limit = inputs["input_ids"], places(body.config)
        total = ids.shape[1] + len(words) + len(keys)
        if limit is not None and total > limit:
            raise BadInput(
                f"a prompt has {ids.shape[1]} tokens and {len(words) + len(keys)} in front; the model has places for "
                f"{limit}: shorten it"
            )
        out = dict(inputs, attention_mask=_ahead(inputs["attention_mask"], len(words) + len(keys), 1))
        if len(words):
            table = body.get_input_embeddings()
            out["inputs_embeds"] = torch.cat([words.expand(len(ids), -1, -1), table(out.pop("input_ids"))], 1)
            if "token_type_ids" in out:
                out["token_type_ids"] = _ahead(out["token_type_ids"], len(words), 0)
        if len(keys):
            out[cache_name(body)] = self.cache(keys.expand(len(ids), -1, -1))
        return out

    def cache(self, keys: Tensor) -> Any:
        """Vectors of each row ``[B, m, layers 2 heads w]`` as the model takes keys and values in front of its own."""
        from transformers import DynamicCache

        made = DynamicCache()
        parts = keys.view(*keys.shape[:2], self._layers, 2, self._heads, -1).permute(2, 3, 0, 4, 1, 5)
        for layer, (k, v) in enumerate(parts):
            made.update(k, v, layer)
        return made

    def keys_of(self, cache: Any) -> Tensor:
        """What `cache` is made of, from what a model kept of B texts of m tokens ``[B, m, layers 2 heads w]``."""
        parts = torch.stack([torch.stack((layer.keys, layer.values)) for layer in cache.layers])
        return parts.permute(2, 4, 0, 1, 3, 5).flatten(2)


def _ahead(rows: Tensor, many: int, value: int) -> Tensor:
    return functional.pad(rows, (many, 0), value=value)


def cache_name(body: Any) -> str:
    """What the model calls the keys and values that it is given."""
    known = inspect.signature(getattr(body, "base_model", body).forward).parameters
    for name in ("cache", "past_key_values"):  # new and older transformers
        if name in known:
            return name
    raise BadInput(f"a {type(body).__name__} takes no keys and values in front of its own; put words in front instead")
