"""Task vectors: what several models learnt, as rows ``[K, d]`` of differences from where they all began.

mean         sum_k w_k tau_k / sum_k w_k
arithmetic   lambda sum_k w_k tau_k                                    (Ilharco et al. 2023)
ties         lambda mean of those tau_k that have the elected sign     (Yadav et al., TIES-Merging, 2023)
             elected: the sign of sum_k tau_k, of each entry; where that is 0, the sign of most entries
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from handful.errors import BadInput

Method = Literal["mean", "arithmetic", "ties"]


def flat(tensors: Mapping[str, Tensor]) -> Tensor:
    """All numbers of ``tensors``, in the order of their names ``[d]``."""
    if not tensors:
        raise BadInput("there are no tensors, so that there is nothing to make a vector of")
    return torch.cat([tensors[name].detach().reshape(-1) for name in sorted(tensors)])


def unflat(vector: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `flat`, in the shapes and number formats of ``like``."""
    sizes = [like[name].numel() for name in sorted(like)]
    if vector.shape != (sum(sizes),):
        raise BadInput(f"a vector of shape {tuple(vector.shape)} does not fit tensors of {sum(sizes):,} numbers")
    parts = torch.split(vector, sizes)
    return {name: part.reshape(like[name].shape).to(like[name]) for name, part in zip(sorted(like), parts, strict=True)}


def largest(vector: Tensor, density: float) -> Tensor:
    """Which entries of ``vector [..., d]`` are among the share ``density`` of greatest magnitude, of each row.

    Those as large as the (d - int(d density))-th smallest are kept, itself too: int(d density) + 1 without ties.

    Raises:
        BadInput: density is not above 0 and at most 1.
    """
    if not 0 < density <= 1:
        raise BadInput(f"density is a share above 0, at most 1, not {density}")
    size, d = vector.abs(), vector.shape[-1]
    at = d - int(d * density)
    if not at:
        return torch.ones_like(size, dtype=torch.bool)
    return size >= size.kthvalue(at, dim=-1, keepdim=True).values


def merge(
    vectors: Tensor | Sequence[Tensor],
    method: Method = "mean",
    *,
    weights: Sequence[float] | None = None,
    density: float | None = None,
    scale: float = 1.0,
) -> Tensor:
    """One task vector ``[d]`` of several.

    Args:
        vectors: ``[K, d]``.
        method: see `handful.core.merging`.
        weights: w, one a vector; 1 each by default.
        density: the share of each vector that is kept before, see `largest`; all by default.
        scale: lambda.

    Raises:
        BadInput: no such method; vectors of several lengths, or none, or with numbers that are not finite; a weight too
            many or too few; weights of a mean that sum to 0.
    """
    if method not in get_args(Method):
        raise BadInput(f"vectors are merged by {', '.join(get_args(Method))}, not by {method!r}")
    if not len(vectors) or len({tuple(v.shape) for v in vectors}) > 1:
        raise BadInput(f"merging takes vectors of one length, not {sorted({tuple(v.shape) for v in vectors})}")
    rows = vectors if isinstance(vectors, Tensor) else torch.stack(list(vectors))
    if not bool(torch.isfinite(rows).all()):
        raise BadInput("a vector to be merged holds NaN or infinity")
    if weights is not None and len(weights) != len(rows):
        raise BadInput(f"{len(rows)} vectors, but {len(weights)} weights")
    w = rows.new_ones(len(rows)) if weights is None else rows.new_tensor(list(weights))
    if method == "mean" and not w.sum():
        raise BadInput(f"the weights of a mean must not sum to 0: {list(weights or [])}")
    rows = rows if density is None else rows * largest(rows, density)
    if method == "ties":
        agrees = rows.sign() == elected(rows)
        return scale * (w[:, None] * rows * agrees).sum(0) / agrees.sum(0).clamp_min(1)
    total = w @ rows
    return total / w.sum() if method == "mean" else scale * total


def elected(rows: Tensor) -> Tensor:
    """The sign ``[d]`` that the vectors ``[K, d]`` have together in each entry."""
    sign = rows.sum(0).sign()
    return torch.where(sign == 0, sign.sum().sign(), sign)
