"""How an encoder looks at items, where that is not its usual way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from handful.encode.frames import WHOLE, Frame
from handful.encode.texts import Long, checked_long
from handful.errors import BadInput, nearest

NAMES = ("long", "crop", "tiles", "language_model")


@dataclass(frozen=True)
class Options:
    """What is read of long texts, what is shown of images, and whether a language model is meant as such."""

    long: Long = "first"
    frame: Frame = WHOLE
    language_model: bool = False

    @classmethod
    def of(
        cls,
        long: str = "first",
        crop: Sequence[float] | None = None,
        tiles: Sequence[int] | None = None,
        language_model: bool = False,
    ) -> Options:
        """As a user asks for them. Raises `BadInput` for values that make no sense."""
        made = cls(checked_long(long), Frame.of(crop, tiles), language_model is True)
        if made.language_model and made != cls(language_model=True):
            raise BadInput("a language model reads the beginning of a text; leave out --long, --crop and --tiles")
        return made

    @classmethod
    def of_mapping(cls, options: Mapping[str, Any]) -> Options:
        """As an encoder's ``options`` list them. Raises `BadInput` for a name that is not known."""
        unknown = sorted(set(options) - set(NAMES))
        if unknown:
            raise BadInput(f"encoders have no option {str(unknown[0])[:80]!r}{nearest(str(unknown[0]), NAMES)}")
        speaks = options.get("language_model", False)
        return cls.of(options.get("long", "first"), options.get("crop"), options.get("tiles"), speaks)

    def check(self, encoder: str, modality: str) -> None:
        """Raise `BadInput` when an option is meant for another kind of item than the encoder reads."""
        if modality == "text" and self.frame.options:
            raise BadInput(f"encoder {encoder!r} reads texts; only images have {' and '.join(self.frame.options)}")
        if modality == "image" and self.long != "first":
            raise BadInput(f"encoder {encoder!r} reads images; long is for texts")


USUAL = Options()
