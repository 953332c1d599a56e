"""Views of a test image: the image, random crops (mixed with distorted ones, as AugMix does), and variations of it.

    crop      a random part of it, made the tower's size (bilinear), mirrored half of the time
    AugMix    m crop + (1 - m) sum_i w_i chain_i(crop),  m uniform, w from a flat Dirichlet over three chains of one to
              three mild distortions (Hendrycks et al., AugMix, 2020)
    variation what a generator makes of the image, such as a diffusion model

Everything is drawn as the code of TPT and DiffTPT (116) draws it, from a generator that is passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from handful.encode.two_towers import TwoTowers
from handful.errors import BadInput
from handful.tune.crops import crop_boxes

BILINEAR, AFFINE = Image.Resampling.BILINEAR, Image.Transform.AFFINE


class Variations(Protocol):
    """Makes images that look like one."""

    def __call__(self, image: Image.Image, count: int, generator: torch.Generator) -> Sequence[Image.Image]:
        """``count`` of them."""
        ...


@dataclass(frozen=True)
class ImageViews:
    """``[1 + crops + varied, 3, side, side]`` of an image; see `handful.tune.views`.

    Args:
        towers: for which they are made.
        crops: how many random crops.
        augmix: mix distorted crops into them, as for fine-grained classes.
        variations: makes the others.
        varied: how many of those.
    """

    towers: TwoTowers
    crops: int = 63
    augmix: bool = False
    variations: Variations | None = None
    varied: int = 0

    def __post_init__(self) -> None:
        if self.crops < 0 or self.varied < 0 or self.crops + self.varied < 1:
            raise BadInput(f"{self.crops} crops and {self.varied} variations: there must be a view beside the image")
        if self.varied and self.variations is None:
            raise BadInput(f"{self.varied} variations of the image are asked for, but nothing that makes them is given")

    def __call__(self, item: Image.Image, generator: torch.Generator) -> Tensor:
        """See `handful.tune.at_test.Views`."""
        if not isinstance(item, Image.Image):
            raise BadInput(f"views are made of images as Pillow opens them, not of {type(item).__name__}")
        image = item.convert("RGB")
        views = [self.towers.pixels([image])]
        if self.crops:
            views.append(self._crops(image, generator))
        if self.varied and self.variations is not None:
            made = self.variations(image, self.varied, generator)
            if len(made) != self.varied:
                raise BadInput(f"{self.varied} variations of an image were asked for, and {len(made)} were made")
            views.append(self.towers.pixels(made))
        return torch.cat(views)

    def _crops(self, image: Image.Image, generator: torch.Generator) -> Tensor:
        side = self.towers.side
        boxes = crop_boxes(self.crops, image.height, image.width, generator).tolist()
        flips = (torch.rand(self.crops, generator=generator) < 0.5).tolist()
        parts = []
        for (top, left, height, width), flip in zip(boxes, flips, strict=True):
            part = image.crop((left, top, left + width, top + height)).resize((side, side), BILINEAR)
            parts.append(ImageOps.mirror(part) if flip else part)
        plain = self._pixels(parts)
        if not self.augmix:
            return plain
        chains = torch.stack([self._pixels([distorted(p, generator) for p in parts]) for _ in range(3)])
        share = -torch.rand(3, self.crops, generator=generator).clamp_min(1e-30).log()  # Dirichlet(1, 1, 1), not summed
        mixed = ((share / share.sum(0))[..., None, None, None] * chains).sum(0)
        m = torch.rand(self.crops, 1, 1, 1, generator=generator)
        return m * plain + (1 - m) * mixed

    def _pixels(self, images: Sequence[Image.Image]) -> Tensor:
        return self.towers.normalised(np.stack([np.asarray(image) for image in images]))


def distorted(image: Image.Image, generator: torch.Generator, severity: float = 1.0) -> Image.Image:
    """A chain of one to three distortions of an image, of those that AugMix draws from."""
    draw = partial(_uniform, generator)
    for _ in range(1 + int(draw(0, 3))):
        image = DISTORTIONS[int(draw(0, len(DISTORTIONS)))](image, draw(0.1, severity) / 10, draw(-1, 1) > 0)
    return image


def _uniform(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _moved(image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    return image.transform(image.size, AFFINE, matrix, resample=BILINEAR)


def _signed(level: float, back: bool) -> float:
    return -level if back else level


DISTORTIONS: tuple[Callable[[Image.Image, float, bool], Image.Image], ...] = (
    lambda image, level, back: ImageOps.autocontrast(image),
    lambda image, level, back: ImageOps.equalize(image),
    lambda image, level, back: ImageOps.posterize(image, 4 - int(4 * level)),
    lambda image, level, back: image.rotate(_signed(int(30 * level), back), resample=BILINEAR),
    lambda image, level, back: ImageOps.solarize(image, 256 - int(256 * level)),
    lambda image, level, back: _moved(image, (1, _signed(0.3 * level, back), 0, 0, 1, 0)),
    lambda image, level, back: _moved(image, (1, 0, 0, _signed(0.3 * level, back), 1, 0)),
    lambda image, level, back: _moved(image, (1, 0, _signed(int(image.width / 3 * level), back), 0, 1, 0)),
    lambda image, level, back: _moved(image, (1, 0, 0, 0, 1, _signed(int(image.height / 3 * level), back))),
)
"""Of an image, a level from 0 to 1 and a direction: contrast, histogram, fewer colours, rotation, inverted lights,
shear and shift both ways. AugMix's mildest draw levels up to a tenth."""


@dataclass(frozen=True)
class Distorted:
    """Strong distortions in the place of a generator, where there is none.

    Args:
        severity: 1 is as mild as AugMix in test-time tuning, 10 the strongest.
    """

    severity: float = 3.0

    def __call__(self, image: Image.Image, count: int, generator: torch.Generator) -> list[Image.Image]:
        """See `Variations`."""
        return [distorted(image, generator, self.severity) for _ in range(count)]


@dataclass(frozen=True)
class Diffused:
    """What an image-variation pipeline of ``diffusers`` makes, such as ``StableDiffusionImageVariationPipeline``.

    Args:
        pipeline: loaded; its weights are not part of this package.
        guidance: its guidance scale.
    """

    pipeline: Any
    guidance: float = 3.0

    def __call__(self, image: Image.Image, count: int, generator: torch.Generator) -> list[Image.Image]:
        """See `Variations`."""
        made = self.pipeline(image, guidance_scale=self.guidance, num_images_per_prompt=count, generator=generator)
        return list(made.images)
