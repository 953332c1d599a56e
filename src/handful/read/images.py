"""Images as people have them, decoded to RGB or refused with a reason."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from handful.errors import BadInput
from handful.read.dataset import ImageFile
from handful.read.places import one_line, quoted

MAX_PIXELS = 100_000_000
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "TIFF", "GIF", "WEBP", "PPM")
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, TypeError, KeyError, IndexError, OverflowError, MemoryError,
           ZeroDivisionError, AttributeError, RuntimeError, struct.error, zlib.error, Image.DecompressionBombError,
           Warning)  # fmt: skip
"""What Pillow's decoders raise on damaged files, its warnings where somebody turned them into errors."""

# Pillow warns of many pixels and of odd notes inside files; `open_image` raises or the picture is whole.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


def open_image(item: Any, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The RGB image of an `ImageFile`, a path, encoded bytes, a Pillow image or an array of pixels.

    Turned upright by its EXIF data; transparent parts become white; 16-bit values are scaled to 8 bits (65535 is
    white), and so are floats (1 is white).

    Raises:
        BadInput: naming the image, when it is empty, damaged, cut short, none of the `FORMATS`, animated or of several
            pages, a single pixel, or has more than ``max_pixels``.
    """
    name, image = _opened(item, max_pixels)
    try:
        _check_size(image, max_pixels)
        if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
            raise _RefusedError("is animated or has several pages; save the one that counts as an image of its own")
        image.load()
        return _rgb(_upright(image))
    except _RefusedError as error:
        raise BadInput(f"image {name} {error}") from error
    except _BROKEN as error:
        raise BadInput(f"image {name} is damaged or cut short: {one_line(error, 120)}") from error


class _RefusedError(Exception):
    """What is wrong with an image; its name is added above."""


def _opened(item: Any, max_pixels: int) -> tuple[str, Image.Image]:
    """Name and image; of a file only the header is read so far."""
    if isinstance(item, Image.Image):
        return "in memory", item
    if isinstance(item, np.ndarray):
        return f"of shape {list(item.shape)}", Image.fromarray(_pixels(item))
    if isinstance(item, (str, Path)):
        item = ImageFile(str(item), path=Path(item))
    if isinstance(item, (bytes, bytearray)):
        item = ImageFile(f"of {len(item)} bytes", data=bytes(item))
    if not isinstance(item, ImageFile):
        raise BadInput(f"an image is needed: a path, bytes, a Pillow image or an array, not {type(item).__name__}")
    name, data = quoted(item.name, 200), item.read_bytes()
    if not data:
        raise BadInput(f"image {name} is empty (0 bytes)")
    try:
        return name, Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise BadInput(
            f"image {name} is not an image that can be read ({', '.join(FORMATS)}), or is damaged"
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadInput(
            f"image {name} has more than the {max_pixels:,} pixels that are read; make it smaller"
        ) from error
    except _BROKEN as error:
        raise BadInput(f"image {name} is damaged: {one_line(error, 120)}") from error


def _check_size(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise _RefusedError(
            f"has {width} x {height} pixels, more than the {max_pixels:,} that are read; make it smaller"
        )
    if width * height <= 1:
        raise _RefusedError("is a single pixel: there is nothing to see")


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except _BROKEN:  # the picture is whole, only the note on how the camera was held is not
        return image


def _rgb(image: Image.Image) -> Image.Image:
    """Eight bits of red, green and blue, on white."""
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        clear = image.convert("RGBA")
        white = Image.new("RGBA", clear.size, "white")
        return Image.alpha_composite(white, clear).convert("RGB")
    return image.convert("RGB")


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """Grey values of wide types as bytes.

    White is 65535 for integers and 1 for floats, or 255 for floats up to that; values beyond any of these have no fixed
    white, so they run from their lowest to their highest.
    """
    values = np.nan_to_num(values, posinf=0.0, neginf=0.0)
    whites = (65535.0,) if values.dtype.kind in "iu" else (1.0, 255.0)
    low, high = float(values.min()), float(values.max())
    white = next((white for white in whites if low >= 0 and high <= white), None)
    low, high = (low, high) if white is None else (0.0, white)
    scaled = (values.astype(np.float64) - low) * (255.0 / ((high - low) or 1.0))
    return np.rint(scaled).astype(np.uint8)


def _pixels(array: np.ndarray) -> np.ndarray:
    """An array as bytes ``[h, w]`` or ``[h, w, 3 or 4]``. Raises `BadInput` for shapes and types that are no image."""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))) or 0 in array.shape:
        raise BadInput(f"an array of shape {list(array.shape)} is no image; it needs [h, w], [h, w, 3] or [h, w, 4]")
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind not in "iuf":
        raise BadInput(f"an array of {array.dtype} is no image; it needs bytes, 16-bit integers or floats from 0 to 1")
    if array.dtype.kind == "i" and array.dtype.itemsize > 2 and array.min() >= 0 and array.max() <= 255:
        return array.astype(np.uint8)  # bytes in the type that integers have by default
    return _eight_bits(array)
