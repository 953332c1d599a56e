"""The weights of a small module as one vector, so that a model keeps one tensor whatever the module."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def unpack(weights: Tensor, sizes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """Parts ``[*b, *size]`` of ``weights [*b, P]``, P being the sum of all sizes."""
    parts = torch.split(weights, [math.prod(size) for size in sizes], -1)
    return [part.reshape(*weights.shape[:-1], *size) for part, size in zip(parts, sizes, strict=True)]


def pack(parts: Sequence[Tensor]) -> Tensor:
    """One vector ``[P]`` of parts without batch dimensions."""
    return torch.cat([part.flatten() for part in parts])


def uniform(size: tuple[int, ...], bound: float, draw: torch.Generator) -> Tensor:
    """Uniform between ``-bound`` and ``bound``, in double precision so that a seed gives the same in every one."""
    return bound * (2 * torch.rand(size, generator=draw, dtype=torch.float64) - 1)
