"""Keys and values in front of those of one attention in every layer, where a model's own cache cannot bring them.

A seq2seq model has three attentions: of the reader to itself, of the writer to itself, and of the writer to what was
read. Its reader takes no cache, so that each attention is handed one of its own, which holds what is in front:

    attention(q, [P_k; k], [P_v; v])        P [n, layers 2 heads w], the same for every text

Masks are widened by n places that all see. Where scores go by distance (T5), what is in front stands n places before
the first token, as in the code of Liu et al., Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than
In-Context Learning, 2022; where places are numbered (BART), the text keeps its numbers.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from handful.errors import BadInput

FAMILIES = ("t5", "mt5", "umt5", "bart", "mbart", "pegasus")
"""Whose attentions take keys and values in front; a test compares each with attention written by hand."""

_OWN, _ACROSS = ("SelfAttention", "self_attn"), ("EncDecAttention", "encoder_attn")


class Front(nn.Module):
    """A module that gives its vectors ``[n, width]``: none by itself; changes of its output put some there.

    Args:
        width: of each.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(0, width))

    def forward(self, empty: Tensor) -> Tensor:
        """Takes ``weight``, which is empty, and gives what is there."""
        return empty

    @property
    def vectors(self) -> Tensor:
        """What is there, with the changes that are attached."""
        return self(self.weight)  # type: ignore[no-any-return]


class Behind:
    """A cache as one attention sees it: what is in front, then what its model's own cache keeps.

    Args:
        keys, values: ``[n, heads w]``.
        own: the model's cache of this attention, if it has one.
    """

    def __init__(self, keys: Tensor, values: Tensor, own: Any) -> None:
        self._parts, self._own = (keys, values), own

    def get_seq_length(self, layer_idx: int = 0) -> Any:
        """How many keys there are before those that come."""
        return len(self._parts[0]) + (0 if self._own is None else self._own.get_seq_length(layer_idx))

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, kwargs: Any = None) -> tuple[Tensor, Tensor]:
        """Keys and values ``[B, heads, L, w]``, with all that was before in front."""
        if self._own is not None:
            keys, values = self._own.update(keys, values, layer_idx)
        k, v = (part.to(keys).view(len(part), keys.shape[1], -1).transpose(0, 1).expand(len(keys), -1, -1, -1)
                for part in self._parts)  # fmt: skip
        return torch.cat([k, keys], 2), torch.cat([v, values], 2)


class LayerFront(Front):
    """Vectors ``[n, layers 2 heads w]`` that one attention in every layer sees in front of its own keys and values.

    Args:
        stack: the reader or the writer; what is in front is made once each time it is called.
        attentions: of its layers, in their order.
        writes: whether they are the writer's to itself: a token sees those before it, and the model may keep keys.
    """

    def __init__(self, stack: nn.Module, attentions: Sequence[nn.Module], writes: bool = False) -> None:
        maps: list[Any] = [getattr(one, "k", None) or one.k_proj for one in attentions]
        super().__init__(sum(2 * k.out_features for k in maps))
        self._layers, self._writes = len(attentions), writes
        self._made: list[Tensor] = []  # not as an attribute, which torch would take for a parameter of this
        stack.register_forward_pre_hook(self._make)
        stack.register_forward_hook(self._forget, always_call=True)
        for layer, one in enumerate(attentions):
            mask = "mask" if "mask" in _asks(one) else "attention_mask"
            one.register_forward_pre_hook(partial(self._put, layer, mask), with_kwargs=True)

    def _make(self, stack: Any, given: Any) -> None:
        self._made, how = [self.vectors], stack.config._attn_implementation
        if len(self._made[0]) and how not in ("eager", "sdpa"):
            raise BadInput(
                f"attention by {how!r} sees no keys and values in front; load the model with attn_implementation='sdpa'"
            )

    def _forget(self, stack: nn.Module, given: Any, out: Any) -> None:
        self._made = []

    def _put(self, layer: int, mask: str, module: Any, given: Any, named: dict[str, Any]) -> Any:
        made = self._made[0] if self._made else self.vectors  # a layer may be run again for its gradients
        if not len(made):
            return None
        keys, values = made.view(len(made), self._layers, 2, -1)[:, layer].unbind(1)
        own = named.get("cache") if self._writes else None
        behind = Behind(keys, values, getattr(own, "self_attention_cache", own))
        seen, many = named.get(mask), (given[0] if given else named["hidden_states"]).shape[1]
        if seen is not None:
            seen = functional.pad(seen, (len(made), 0), value=float(seen.dtype == torch.bool))
        elif self._writes:  # no mask says: each sees those before it
            before = behind.get_seq_length(module.layer_idx)
            seen = torch.ones(1, 1, many, before + many, dtype=torch.bool, device=made.device).tril(before)
            if module.config._attn_implementation == "eager":
                seen = torch.where(seen, 0.0, torch.finfo(made.dtype).min)
        return given, {**named, "cache": behind, mask: seen}


def of_seq2seq(body: Any) -> dict[str, Front]:
    """The places in a reader and a writer, by name; of no width where the model is of no family that is known."""
    reader, writer = body.get_encoder(), body.get_decoder()
    read, written, across = _named(reader, _OWN), _named(writer, _OWN), _named(writer, _ACROSS)
    known = body.config.model_type in FAMILIES
    if not known or not all("cache" in _asks(one) for one in (*read, *written, *across)):  # transformers before 5
        return {name: Front(0) for name in ("reader", "writer", "across")}
    return {
        "reader": LayerFront(reader, read),
        "writer": LayerFront(writer, written, writes=True),
        "across": LayerFront(writer, across),
    }


def _named(stack: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    return [module for name, module in stack.named_modules() if name.rpartition(".")[2] in names]


def _asks(module: nn.Module) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(module.forward).parameters
