"""Random crops of pixels: what training on images sees, and what a test image is seen as at test time.

A crop has a share of the area drawn from ``scale`` and proportions drawn from ``ratio`` evenly in the logarithm; ten
tries, else the middle. It is resampled bicubically (a = -1/2, wider where it shrinks, as Pillow does) by a matrix a
side, all images at once:  crop = R x C'.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from handful.errors import BadInput

TRIES = 10
SCALE = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)


@dataclass(frozen=True)
class RandomCrop:
    """An augmentation of a recipe: a crop of each image, mirrored half of the time.

    Args:
        side: of the result; ``None`` is that of the pixels, which must be square then.
        scale: least and most of the area.
        ratio: least and most of width / height.
        flip: how often the crop is mirrored.
    """

    side: int | None = None
    scale: tuple[float, float] = SCALE
    ratio: tuple[float, float] = RATIO
    flip: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1] <= 1 or not 0 < self.ratio[0] <= self.ratio[1]:
            raise BadInput(f"scale {self.scale} are two shares of the area and ratio {self.ratio} two proportions")

    def __call__(self, inputs: Tensor | Sequence[Tensor], rows: Tensor, generator: torch.Generator) -> Tensor:
        """``[B, 3, side, side]`` of ``[B, 3, h, w]``, or of B images ``[3, h, w]`` of any size."""
        if not isinstance(inputs, Tensor):
            return torch.cat([self(image[None], rows, generator) for image in inputs])
        height, width = inputs.shape[-2:]
        if self.side is None and height != width:
            raise BadInput(f"pixels of {height} x {width} are not square: say which side crops are to have")
        boxes = crop_boxes(len(inputs), height, width, generator, self.scale, self.ratio)
        mirrored = torch.rand(len(inputs), generator=generator) < self.flip
        return cropped(inputs, boxes, self.side or height, mirrored)


def crop_boxes(
    count: int,
    height: int,
    width: int,
    generator: torch.Generator,
    scale: tuple[float, float] = SCALE,
    ratio: tuple[float, float] = RATIO,
) -> Tensor:
    """Top, left, height and width of crops ``[count, 4]``, whole pixels."""
    draw = torch.rand(4, count, TRIES, generator=generator, dtype=torch.float64)
    area = height * width * (scale[0] + (scale[1] - scale[0]) * draw[0])
    low, high = map(math.log, ratio)
    shape = (low + (high - low) * draw[1]).exp()
    w, h = (area * shape).sqrt().round(), (area / shape).sqrt().round()
    fits = (w >= 1) & (w <= width) & (h >= 1) & (h <= height)
    top, left = (draw[2] * (height - h + 1)).floor(), (draw[3] * (width - w + 1)).floor()
    first = fits.int().argmax(1, keepdim=True)
    boxes = torch.stack([x.gather(1, first)[:, 0] for x in (top, left, h, w)], 1).long()
    return torch.where(fits.any(1)[:, None], boxes, torch.tensor(_middle(height, width, ratio)))


def _middle(height: int, width: int, ratio: tuple[float, float]) -> tuple[int, int, int, int]:
    h, w = min(height, max(1, round(width / ratio[0]))), min(width, max(1, round(height * ratio[1])))
    return (height - h) // 2, (width - w) // 2, h, w


def cropped(pixels: Tensor, boxes: Tensor, side: int, mirrored: Tensor) -> Tensor:
    """What lies in each box ``[B, …, side, side]``, with a gradient.

    Args:
        pixels: ``[B, …, h, w]``.
        boxes: ``[B, 4]`` as `crop_boxes` gives them.
        side: of the results.
        mirrored: left and right exchanged ``[B]``.
    """
    top, left, height, width = boxes.to(pixels.device).unbind(1)
    rows = _resampling(top, height, pixels.shape[-2], side).to(pixels)
    columns = _resampling(left, width, pixels.shape[-1], side).to(pixels)
    columns = torch.where(mirrored.to(pixels.device)[:, None, None], columns.flip(1), columns)
    return torch.einsum("bih,b...hw,bjw->b...ij", rows, pixels, columns)


def _resampling(start: Tensor, length: Tensor, size: int, side: int) -> Tensor:
    """How much of each of ``size`` pixels is in each of ``side``, for pixels from ``start`` on ``[B, side, size]``."""
    step = length[:, None, None] / side
    centre = start[:, None, None] + (torch.arange(side, device=start.device)[:, None] + 0.5) * step
    place = torch.arange(size, device=start.device)
    distance = ((place + 0.5 - centre) / step.clamp_min(1.0)).abs()
    inside = (place >= start[:, None, None]) & (place < (start + length)[:, None, None])
    weight = torch.where(inside, _cubic(distance), 0.0)
    return weight / weight.sum(-1, keepdim=True)


def _cubic(x: Tensor, a: float = -0.5) -> Tensor:
    """Keys' kernel of a distance."""
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
