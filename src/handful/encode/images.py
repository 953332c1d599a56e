"""From an image to the pixels a network reads: which bytes it is, its versions, its centre."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL.Image import Image
from PIL.Image import open as open_header

from handful.encode.base import Batch, Job
from handful.encode.frames import WHOLE, Box, Frame
from handful.errors import BadInput
from handful.read.dataset import ImageFile
from handful.read.images import MAX_PIXELS, open_image

SMALLEST_PART = 0.5
"""Least share of the area that a random view shows."""


def image_content(item: Any) -> bytes:
    """The bytes that say what an image is: those of its file where there is one, else its pixels. Raises `BadInput`."""
    if isinstance(item, bytes):
        return item
    if isinstance(item, (str, Path)):
        item = ImageFile(str(item), path=Path(item))
    if isinstance(item, ImageFile):
        return item.read_bytes()
    if isinstance(item, np.ndarray) and item.dtype.kind == "f" and not np.isfinite(item).all():
        raise BadInput(f"an array of shape {list(item.shape)} has pixels that are NaN or infinite")
    image = open_image(item)
    return f"pixels|{image.width}|{image.height}|".encode() + image.tobytes()


def image_features(
    jobs: Sequence[Job],
    views: int,
    pixels: Callable[[Image, Sequence[Box]], np.ndarray],
    features: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    *,
    least: int,
    batch: int,
    frame: Frame = WHOLE,
) -> Iterator[Batch]:
    """Features of images, decoded side by side and then worked out together.

    Decoding and the network take turns: both use every thread PyTorch may have, and would only hinder each other.

    Args:
        jobs: the images.
        views: versions of each.
        pixels: what the network reads, [boxes, …], of an image and some boxes in it.
        features: by output an array [rows, …], of what the network reads, [rows, …].
        least: pixels a side of what is shown below which a JPEG is not made smaller while decoding it.
        batch: rows at a time and thread.
        frame: what is shown of each image.
    """
    import torch

    threads = torch.get_num_threads()
    rows = batch * threads
    images = max(rows // frame.squares, threads)  # at a time
    read = partial(_read, views=views, pixels=pixels, least=frame.least(least), frame=frame)
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(jobs), images):
            some = list(enumerate(pool.map(read, jobs[start : start + images]), start))
            yield from (([position], found) for position, found in some if isinstance(found, BadInput))
            good = {position: found for position, found in some if not isinstance(found, BadInput)}
            if not good:
                continue
            stacked = np.concatenate(list(good.values()))
            parts = [features(stacked[at : at + rows]) for at in range(0, len(stacked), rows)]
            whole = {output: np.concatenate([part[output] for part in parts]) for output in parts[0]}
            squares = (len(good), views, frame.squares)
            yield (
                list(good),
                {o: frame.joined(o, array.reshape(*squares, *array.shape[1:])) for o, array in whole.items()},
            )


def whole_images(
    items: Sequence[Any],
    pixels: Callable[[Image, Sequence[Box]], np.ndarray],
    *,
    least: int,
    frame: Frame = WHOLE,
) -> np.ndarray:
    """What the network reads of each item as a whole ``[n, …]``; arguments as `image_features`, tiles left out.

    Raises:
        BadInput: an item cannot be read.
    """

    def read(item: Any) -> np.ndarray:
        image = frame.cropped(decoded(item, image_content(item), frame.least(least)))
        whole: np.ndarray = pixels(image, [view_box(image.width, image.height, 0, 0)])[0]
        return whole

    return np.stack([read(item) for item in items])


def _read(
    job: Job,
    *,
    views: int,
    pixels: Callable[[Image, Sequence[Box]], np.ndarray],
    least: int | None,
    frame: Frame,
) -> np.ndarray | BadInput:
    try:
        image = frame.cropped(decoded(*job, least=least))
    except BadInput as problem:
        return problem
    seed = int.from_bytes(hashlib.blake2b(job[1], digest_size=8).digest(), "little")  # its own, not its neighbours'
    seen = [view_box(image.width, image.height, seed, view) for view in range(views)]
    return pixels(image, [box for view in seen for box in frame.shown(view)])


def decoded(item: Any, content: bytes, least: int | None) -> Image:
    """The RGB image of ``item``, whose `image_content` was read already. Raises `BadInput`.

    A JPEG may come at a half, a quarter or an eighth of its size, which takes a fraction of the time; both its sides
    then still have ``least`` pixels; with ``None`` it comes whole.
    """
    if not isinstance(item, (bytes, ImageFile, str, Path)):
        return open_image(item)
    smaller = None if least is None else _smaller_jpeg(content, least)
    if smaller is not None:
        with suppress(BadInput):  # said again below, with the image's name
            return open_image(smaller)
    if isinstance(item, bytes):
        return open_image(item)
    return open_image(ImageFile(item.name if isinstance(item, ImageFile) else str(item), data=content))


def _smaller_jpeg(content: bytes, least: int) -> Image | None:
    if not content.startswith(b"\xff\xd8"):
        return None
    try:
        image = open_header(io.BytesIO(content), formats=("JPEG",))
        too_many = image.width * image.height > MAX_PIXELS
        return None if too_many or image.draft(None, (least, least)) is None else image
    except Exception:  # whatever is wrong with the file, `open_image` says it better
        return None


def view_box(width: int, height: int, seed: int, view: int) -> Box:
    """What version ``view`` of an image shows: 0 all of it, others a part of half to all of its area, at random.

    The part has the image's proportions and depends on ``(seed, view)`` alone.
    """
    if view == 0:
        return (0.0, 0.0, float(width), float(height))
    draw = np.random.default_rng([seed, view])
    share = draw.uniform(SMALLEST_PART, 1.0) ** 0.5
    w, h = width * share, height * share
    left, top = draw.uniform(0, width - w), draw.uniform(0, height - h)
    return (left, top, left + w, top + h)


def centre_square(image: Image, box: Box, size: int, share: float) -> np.ndarray:
    """The middle of ``box`` as pixels [size, size, 3], uint8: a square of ``share`` of its shorter side, bicubic.

    One resampling of the part that is kept, instead of resizing everything and cutting afterwards.
    """
    left, top, right, bottom = box
    side = min(right - left, bottom - top) * share
    x, y = (left + right) / 2, (top + bottom) / 2
    kept = (x - side / 2, y - side / 2, x + side / 2, y + side / 2)
    return np.asarray(image.resize((size, size), 3, box=kept, reducing_gap=3.0))  # 3: bicubic
