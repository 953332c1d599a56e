"""What the tests of this room share."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
from PIL import Image

from handful.errors import BadInput


@pytest.fixture(scope="session")
def refused() -> Callable[..., AbstractContextManager[None]]:
    """``with refused("tickets.csv row 3", "label"):`` asserts a `BadInput` of one line that holds these texts."""

    @contextlib.contextmanager
    def check(*texts: str) -> Iterator[None]:
        with pytest.raises(BadInput) as caught:
            yield
        message = str(caught.value)
        assert caught.value.exit_code == 2
        assert len(message.splitlines()) == 1
        assert message.isprintable(), message
        for text in texts:
            assert text in message, message

    return check


@pytest.fixture(scope="session")
def picture() -> Callable[..., bytes]:
    """An encoded image of one colour: ``picture("PNG", "red", size=(4, 3), mode="RGB")``."""

    def encoded(
        kind: str = "PNG", colour: object = "red", size: tuple[int, int] = (4, 3), mode: str = "RGB", **options: object
    ) -> bytes:
        file = io.BytesIO()
        Image.new(mode, size, colour).save(file, kind, **options)  # type: ignore[arg-type]
        return file.getvalue()

    return encoded
