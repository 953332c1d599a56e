"""How much of a picture a network sees: a part of it, the whole and its tiles.

A network reads a square of some 224 pixels a side, whatever the picture has. What is small in the picture is lost on
the way. ``crop`` leaves out what does not matter; ``tiles`` shows the picture part by part beside the whole of it.

Tiles are squares, as the network reads squares, spread evenly over the picture; where their shape asks for it they
overlap, so that together they show all of it (but of a picture longer than its tiles are many). The features of a
picture in r x c tiles are made of those of 1 + r c squares. What is in one tile only would drown in their plain mean,
so it is the power mean of exponent 3, cbrt(mean x^3), which lets strong channels speak (generalised-mean pooling,
Radenovic, Tolias and Chum, 2019): garments of 5 kinds, an eighth of a photograph high, 8 shots: 53 % correct from the
whole, 46 % by the plain mean with 3 x 3 tiles, 59 % by this one. ``aligned`` is the unit mean, to stay comparable with
text; ``local`` has the places of all squares, one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from handful.errors import BadInput

if TYPE_CHECKING:
    from PIL.Image import Image

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""
Crop = tuple[float, float, float, float]
"""Left, top, width, height: whole pixels, or shares of the picture where none is above 1."""

MOST_TILES = 64
"""A picture costs as much as that many and one."""


@dataclass(frozen=True)
class Frame:
    """What is shown of every picture; by default all of it at once.

    Args:
        crop: the part that counts, as left, top, width and height: in pixels, or in shares of the picture's width and
            height when no number is above 1.
        tiles: rows and columns.

    Raises:
        BadInput: numbers that can fit no picture.
    """

    crop: Crop | None = None
    tiles: tuple[int, int] | None = None

    @classmethod
    def of(cls, crop: Sequence[float] | None, tiles: Sequence[int] | None) -> Frame:
        """A frame of what a user asked for, checked; what asks for nothing is left out. Raises `BadInput`."""
        return cls(None if crop is None else _crop(crop), None if tiles is None else _tiles(tiles))

    @property
    def options(self) -> dict[str, Any]:
        """What differs from showing all at once, JSON-able."""
        asked = {"crop": self.crop, "tiles": self.tiles}
        return {name: list(value) for name, value in asked.items() if value is not None}

    @property
    def squares(self) -> int:
        """How many squares the network sees of a picture."""
        return 1 if self.tiles is None else 1 + self.tiles[0] * self.tiles[1]

    def cropped(self, image: Image) -> Image:
        """The part of ``image`` that counts. Raises `BadInput` naming its size when the crop lies outside."""
        return image if self.crop is None else image.crop(self.box(image.width, image.height))

    def box(self, width: int, height: int) -> tuple[int, int, int, int]:
        """The part that counts of a picture of that size. Raises `BadInput` when the crop lies outside."""
        if self.crop is None:
            return 0, 0, width, height
        x, y, w, h = self.crop
        if _shares(self.crop):
            x, y, w, h = x * width, y * height, w * width, h * height
        elif x + w > width or y + h > height:
            raise BadInput(f"crop {_said(self.crop)} lies outside a picture of {width} x {height} pixels")
        left, top = min(round(x), width - 1), min(round(y), height - 1)
        return left, top, max(round(x + w), left + 1), max(round(y + h), top + 1)

    def shown(self, box: Box) -> list[Box]:
        """What the network sees of ``box``: all of it, then the tiles, row by row."""
        if self.tiles is None:
            return [box]
        left, top, right, bottom = box
        rows, columns = self.tiles
        side = self.side(right - left, bottom - top)
        xs = np.linspace(left, right - side, columns) if columns > 1 else [(left + right - side) / 2]
        ys = np.linspace(top, bottom - side, rows) if rows > 1 else [(top + bottom - side) / 2]
        return [box, *((float(x), float(y), float(x) + side, float(y) + side) for y in ys for x in xs)]

    def side(self, width: float, height: float) -> float:
        """Pixels a side of the smallest square that is shown of a (cropped) picture."""
        rows, columns = self.tiles or (1, 1)
        return min(width, height) if self.tiles is None else min(width, height, max(width / columns, height / rows))

    def least(self, least: int) -> int | None:
        """Pixels a side that a JPEG must keep, for ``least`` of them to be left of every square; ``None`` for all."""
        if self.crop is not None and not _shares(self.crop):
            return None  # pixels are those of the whole picture
        width, height = self.crop[2:] if self.crop else (1.0, 1.0)
        rows, columns = self.tiles or (1, 1)
        return round(least * max(rows, columns) / min(width, height))

    def joined(self, output: str, features: np.ndarray) -> np.ndarray:
        """Features [n, views, …] of pictures, from those of the squares [n, views, squares, …]."""
        if self.squares == 1:
            return features[:, :, 0]
        if output == "local":
            return features.reshape(*features.shape[:2], -1, features.shape[-1])
        if output == "aligned":
            mean = features.mean(axis=2)
            return np.asarray(mean / np.linalg.norm(mean, axis=-1, keepdims=True), dtype=np.float32)
        return np.asarray(np.cbrt((features.astype(np.float64) ** 3).mean(axis=2)), dtype=np.float32)


WHOLE = Frame()


def _shares(crop: Crop) -> bool:
    return max(crop) <= 1


def _crop(crop: Sequence[float]) -> Crop | None:
    numbers = _numbers("crop", crop, 4, "x,y,w,h")
    left, top, width, height = numbers
    if min(left, top) < 0 or min(width, height) <= 0:
        raise BadInput(f"crop {_said(crop)}: x and y must be 0 or more, w and h above 0")
    if not _shares(numbers):
        if any(number != round(number) for number in numbers):
            raise BadInput(f"crop {_said(crop)} mixes pixels and shares; give whole pixels, or four numbers up to 1")
        return int(left), int(top), int(width), int(height)
    if max(left + width, top + height) > 1 + 1e-9:
        raise BadInput(f"crop {_said(crop)} lies outside the picture: x + w and y + h are at most 1, the whole of it")
    return None if numbers == (0, 0, 1, 1) else numbers


def _tiles(tiles: Sequence[int]) -> tuple[int, int] | None:
    rows, columns = _numbers("tiles", tiles, 2, "ROWSxCOLUMNS")
    if rows != round(rows) or columns != round(columns) or min(rows, columns) < 1 or rows * columns > MOST_TILES:
        raise BadInput(f"tiles {_said(tiles, 'x')}: rows and columns are whole numbers, {MOST_TILES} tiles at most")
    return None if rows * columns == 1 else (int(rows), int(columns))


def _numbers(what: str, values: Sequence[Any], count: int, form: str) -> tuple[Any, ...]:
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError) as error:
        raise BadInput(f"{what} is {values!r}; it has {count} numbers, {form}") from error
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise BadInput(f"{what} is {values!r}; it has {count} numbers, {form}")
    return numbers


def _said(values: Sequence[Any], between: str = ",") -> str:
    return between.join(f"{float(value):g}" for value in values)
