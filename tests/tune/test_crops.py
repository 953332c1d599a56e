"""Random crops against what torch makes of the same boxes, and what they are drawn from."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from handful.errors import BadInput
from handful.tune.crops import RandomCrop, crop_boxes, cropped


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("side", [9, 24, 60])
def test_a_crop_is_cut_and_then_resampled(side: int) -> None:
    pixels = torch.randn(5, 3, 40, 31, generator=gen())
    boxes = crop_boxes(5, 40, 31, gen(1))
    mirrored = torch.tensor([True, False, True, False, False])
    found = cropped(pixels, boxes, side, mirrored)
    for image, box, mirror, mine in zip(pixels, boxes.tolist(), mirrored, found, strict=True):
        top, left, h, w = box
        cut = image[None, :, top : top + h, left : left + w]
        theirs = functional.interpolate(cut, (side, side), mode="bicubic", antialias=True, align_corners=False)[0]
        torch.testing.assert_close(mine, theirs.flip(-1) if mirror else theirs, atol=1e-4, rtol=0)


def test_boxes_have_the_areas_and_proportions_asked_for() -> None:
    top, left, h, w = crop_boxes(4000, 200, 200, gen(2), (0.2, 0.6), (0.5, 2.0)).double().unbind(1)
    area, ratio = h * w / 200**2, w / h
    assert area.min() > 0.19 and area.max() < 0.61 and abs(area.mean() - 0.4) < 0.01
    assert ratio.min() > 0.48 and ratio.max() < 2.1 and abs(ratio.log().mean()) < 0.03
    assert (top >= 0).all() and (left >= 0).all() and (top + h <= 200).all() and (left + w <= 200).all()
    assert (top + h == 200).any() and (top == 0).any()


def test_what_never_fits_is_the_middle() -> None:
    assert crop_boxes(2, 10, 100, gen(), (1.0, 1.0)).tolist() == [[0, 43, 10, 13]] * 2
    assert crop_boxes(1, 100, 10, gen(), (1.0, 1.0)).tolist() == [[43, 0, 13, 10]]


def test_whole_images_stay_as_they_are() -> None:
    pixels = torch.randn(3, 3, 16, 16, generator=gen())
    whole = RandomCrop(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0)
    torch.testing.assert_close(whole(pixels, torch.arange(3), gen()), pixels, atol=1e-6, rtol=0)
    mirrored = RandomCrop(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=1.0)
    torch.testing.assert_close(mirrored(pixels, torch.arange(3), gen()), pixels.flip(-1), atol=1e-6, rtol=0)


def test_images_of_any_size_become_one_batch() -> None:
    images = [torch.randn(3, 20, 30, generator=gen()), torch.randn(3, 16, 16, generator=gen())]
    crop = RandomCrop(8)
    found = crop(images, torch.arange(2), gen(4))
    assert found.shape == (2, 3, 8, 8)
    torch.testing.assert_close(found, crop(images, torch.arange(2), gen(4)), atol=0, rtol=0)
    assert not torch.equal(found, crop(images, torch.arange(2), gen(5)))
    with pytest.raises(BadInput, match="not square"):
        RandomCrop()(images[0][None], torch.arange(1), gen())
    with pytest.raises(BadInput, match="two shares"):
        RandomCrop(scale=(0.5, 0.1))
