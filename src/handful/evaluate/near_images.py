"""Images that are nearly the same picture: another size, another compression, a little brighter.

Neighbours by their features are looked at; what decides are small pictures of both, compared pixel by pixel. A
perceptual hash keeps one bit a frequency, so that sparse drawings on an empty page collide; small pictures do not.

Frames of a film, which are not independent but no copies either, are for the user to group.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from handful.encode.images import decoded, image_content
from handful.errors import BadInput
from handful.evaluate.neighbours import copies, neighbours

SIDE = 32
"""Pixels a side of the small pictures."""
FLAT = 4.0
"""Standard deviation, of 255 levels, below which a picture is not stretched: that would compare its noise."""
SAME = 0.04
"""Largest squared distance of small pictures of unit length: a correlation of 0.98."""
CLOSER = 0.05
"""The same as a share of the distance to other pictures of the kind."""
BLOCK = 4096


def near_images(items: Sequence[Any], features: np.ndarray) -> np.ndarray:
    """Pairs ``[p, 2]`` of images that are nearly the same picture.

    Args:
        items: n images, no two the same file.
        features: ``[n, d]`` of the images.
    """
    a, b = neighbours(features)
    opened = np.unique(a)
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # as many as decode pictures for the encoder
        small = np.array(list(pool.map(_small, [items[i] for i in opened])))
    at = np.searchsorted(opened, np.stack([a, b], axis=1))
    blocks = [at[start : start + BLOCK].T for start in range(0, len(at), BLOCK)]
    parts = [np.empty(0), *(np.square(small[i] - small[j]).sum(axis=1) for i, j in blocks)]
    same = copies(a, b, np.concatenate(parts), most=SAME, share=CLOSER)
    return np.stack([a[same], b[same]], axis=1)


def _small(item: Any) -> np.ndarray:
    """The picture in few pixels, ``[SIDE * SIDE * 3]``: each colour centred, of unit length; flat ones near 0.

    An item that cannot be read any more is unlike everything: NaN.
    """
    try:
        image = decoded(item, image_content(item), least=2 * SIDE)
    except BadInput:
        return np.full(SIDE * SIDE * 3, np.nan, dtype=np.float32)
    pixels = np.asarray(image.resize((SIDE, SIDE), 2), dtype=np.float32)  # 2: bilinear, over all pixels it stands for
    pixels = pixels - pixels.mean(axis=(0, 1))
    vector: np.ndarray = pixels.ravel() / max(float(np.linalg.norm(pixels)), FLAT * np.sqrt(pixels.size))
    return vector
