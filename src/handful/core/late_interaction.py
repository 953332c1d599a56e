"""Late interaction: two sequences of token vectors compared token by token, after each was read by itself.

    s(a -> b) = sum_{t in b} max_{u in a} <u, t>

Khattab and Zaharia, ColBERT, 2020 (MaxSim).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from handful.errors import BadInput


class Tokens(NamedTuple):
    """Token vectors of n sequences: ``states [n, T, d]``, ``mask [n, T]``, 1 for a token and 0 for padding."""

    states: Tensor
    mask: Tensor


def token_similarity(a: Tokens, b: Tokens, *, by_length: bool = True) -> Tensor:
    """``s(a_i -> b_j)`` of every pair ``[n_b, n_a]``.

    A pair with padding counts 0, so that no token of b scores below 0 against a sequence of a that is padded.

    Args:
        a: matched into.
        b: whose tokens are looked for.
        by_length: divide by the number of tokens of b.

    Raises:
        BadInput: a sequence has no token.
    """
    for name, some in (("a", a), ("b", b)):
        empty = (~some.mask.bool().any(1)).nonzero()[:, 0]
        if len(empty):
            raise BadInput(f"sequence {int(empty[0])} of {name} has no token")
    real_a, real_b = a.mask.bool(), b.mask.bool()
    both = real_a[None, :, :, None] & real_b[:, None, None, :]
    pairs = torch.einsum("aud,btd->baut", a.states, b.states).masked_fill(~both, 0.0)
    scores = pairs.max(2).values.sum(2)  # not `amax`, whose gradient needs all pairs again
    return scores / real_b.sum(1)[:, None] if by_length else scores
