"""Simplex equiangular tight frames: directions as far from each other as so many can be."""

from __future__ import annotations

import torch
from torch import Tensor

from handful.errors import BadInput


def simplex_etf(width: int, slots: int, draw: torch.Generator) -> Tensor:
    """Unit columns ``[width, slots]`` in float64, of which any two have the cosine ``-1 / (slots - 1)``.

        E = sqrt(S / (S - 1)) U (I - 11' / S),   U orthonormal, from the QR of a random matrix

    Raises:
        BadInput: fewer than two slots, or more than numbers in a direction.
    """
    if not 2 <= slots <= width:
        raise BadInput(f"a frame has 2 slots or more, at most as many as a direction has numbers, {width}, not {slots}")
    orthonormal: Tensor = torch.linalg.qr(torch.rand(width, slots, generator=draw, dtype=torch.float64)).Q
    centred: Tensor = orthonormal - orthonormal.mean(-1, keepdim=True)
    scale: float = (slots / (slots - 1)) ** 0.5
    return centred * scale
