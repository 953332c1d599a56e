"""Pairs of items that an encoder reads alike, the only ones worth a closer look, and which of them are copies.

Items of one kind may be alike in nearly everything and yet be different items: letters of one template, pictures of one
scene by one camera. There, all neighbours of an item are about as close as the nearest one; a copy is far closer.
"""

from __future__ import annotations

import numpy as np
import torch

LEAST = 0.75
"""Least cosine of features, once what all items have in common is taken off."""
MOST = 10
"""Neighbours an item has at most."""
CROWD = 5
"""Neighbours that are needed to tell a kind of item from copies of one."""
FEW = 8
"""How many items at the origin the mean is shrunk by: two items alone say nothing of what all have in common."""
BLOCK = 512


def neighbours(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows ``[p]`` and ``[p]`` of all pairs of features ``[n, d]`` that point the same way, in both directions."""
    x = torch.as_tensor(features, dtype=torch.float32)
    n, most = len(x), min(MOST, len(x) - 1)
    unit = torch.nn.functional.normalize(x - x.sum(dim=0) / (n + FEW), dim=1)
    found = []
    for start in range(0, n, BLOCK):
        cosine = unit[start : start + BLOCK] @ unit.T
        cosine.diagonal(start).fill_(-1.0)  # an item is no neighbour of itself
        value, closest = cosine.topk(most, dim=1)
        item = torch.arange(start, start + len(cosine))[:, None].expand_as(closest)
        found.append(torch.stack([item, closest])[:, value >= LEAST])
    a, b = torch.cat(found, dim=1).numpy()
    a, b = np.divmod(np.unique([a * n + b, b * n + a]), n)
    return a, b


def copies(row: np.ndarray, other: np.ndarray, distance: np.ndarray, *, most: float, share: float) -> np.ndarray:
    """Which of p pairs are copies ``[p]``: near, and far nearer than others in a crowd.

    Args:
        row, other: ``[p]``, pairs in both directions.
        distance: ``[p]``, NaN where it is not known.
        most: largest distance of a copy.
        share: how large it may be, as a share of the largest among the neighbours of an item that has `CROWD` of them.
    """
    n = int(row.max(initial=-1)) + 1
    farthest = np.zeros(n)
    np.maximum.at(farthest, row, np.nan_to_num(distance, nan=np.inf))
    limit = np.where(np.bincount(row, minlength=n) >= CROWD, np.minimum(most, share * farthest), most)
    near: np.ndarray = distance <= np.minimum(limit[row], limit[other])
    return near
