"""Do two sets of vectors say the same of the same items?

Linear centred kernel alignment (Kornblith et al. 2019), X [n, d] and Y [n, e] with their means taken off:

    CKA(X, Y) = ||Y' X||_F^2 / (||X' X||_F ||Y' Y||_F)        1 up to a rotation and a scale, about 0 for unrelated ones
"""

from __future__ import annotations

import torch
from torch import Tensor

from handful.errors import BadInput


def linear_cka(x: Tensor, y: Tensor) -> Tensor:
    """CKA of ``x [*b, n, d]`` and ``y [*b, n, e]``: ``[*b]``, from 0 to 1; NaN where all vectors of a set are equal.

    Raises:
        BadInput: they are not of the same items, or hold numbers that are not finite.
    """
    if x.shape[:-1] != y.shape[:-1] or x.shape[-2] < 2:
        raise BadInput(f"vectors {tuple(x.shape)} and {tuple(y.shape)} are not of the same items, two at least")
    if not bool(torch.isfinite(x).all() and torch.isfinite(y).all()):
        raise BadInput("vectors to be aligned hold numbers that are not finite")
    x, y = (z.double() - z.double().mean(-2, keepdim=True) for z in (x, y))
    n, width = x.shape[-2], max(x.shape[-1], y.shape[-1])
    if n < width:  # by the products of items: the same sums, of a smaller square
        a, b = x @ x.mT, y @ y.mT
        return (a * b).sum((-2, -1)) / ((a * a).sum((-2, -1)) * (b * b).sum((-2, -1))).sqrt()
    cross, own, other = y.mT @ x, x.mT @ x, y.mT @ y
    return (cross**2).sum((-2, -1)) / ((own**2).sum((-2, -1)) * (other**2).sum((-2, -1))).sqrt()
