"""What `open_image` makes of the images people have, and what it says of those it cannot take."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from handful.errors import BadInput
from handful.read import ImageFile, open_image


def _pixel(data, at=(0, 0)):
    image = open_image(data)
    assert image.mode == "RGB"
    return image.getpixel(at)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "WEBP", "JPEG", "PPM"])
@pytest.mark.parametrize("wrap", [bytes, lambda data: ImageFile("a", data=data)])
def test_formats(kind, wrap, picture):
    options = {"lossless": True} if kind == "WEBP" else {}
    red, green, blue = _pixel(wrap(picture(kind, (200, 30, 60), **options)))
    assert abs(red - 200) + abs(green - 30) + abs(blue - 60) < 12


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("1", 1, (255, 255, 255)),
        ("L", 100, (100, 100, 100)),
        ("LA", (0, 0), (255, 255, 255)),
        ("RGBA", (0, 0, 0, 0), (255, 255, 255)),
        ("RGBA", (200, 100, 0, 255), (200, 100, 0)),
        ("RGBA", (255, 0, 0, 128), (255, 127, 127)),
    ],
)
def test_modes_lie_on_white(mode, colour, expected, picture):
    assert _pixel(picture("PNG", colour, mode=mode)) == expected


def test_palette_with_a_transparent_entry():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30] + [0] * 750)
    for transparent, expected in ((None, (10, 20, 30)), (1, (255, 255, 255))):
        file = io.BytesIO()
        image.save(file, "PNG", **({} if transparent is None else {"transparency": transparent}))
        assert _pixel(file.getvalue()) == expected


def test_cmyk(picture):
    red, green, blue = _pixel(picture("JPEG", (0, 255, 255, 0), mode="CMYK", quality=95))
    assert red > 240
    assert green < 15
    assert blue < 15


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(kind):
    values = np.array([[0, 256, 32768, 65535]], dtype=np.uint16)
    file = io.BytesIO()
    Image.fromarray(values).save(file, kind)
    image = open_image(file.getvalue())
    assert [image.getpixel((x, 0))[0] for x in range(4)] == [0, 1, 128, 255]


def _png(width, height, bits, colour, rows):
    """A PNG written by hand, for what Pillow reads but does not write."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = zlib.compress(rows)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def test_sixteen_bit_colour():
    data = _png(2, 1, 16, 2, b"\0" + struct.pack(">6H", 65535, 32768, 0, 0, 0, 65535))
    assert _pixel(data) == (255, 128, 0)
    assert _pixel(data, (1, 0)) == (0, 0, 255)


def test_exif_rotation():
    image = Image.new("RGB", (40, 20), "red")
    image.paste("blue", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the stored left side is the top
    file = io.BytesIO()
    image.save(file, "JPEG", exif=exif, quality=95)
    upright = open_image(file.getvalue())
    assert upright.size == (20, 40)
    assert upright.getpixel((10, 5))[2] > 200
    assert upright.getpixel((10, 35))[0] > 200


def test_damaged_exif_does_not_lose_the_picture(picture):
    data = picture("JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12garbage")
    assert open_image(data).size == (4, 3)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.full((3, 4), 7, np.uint8), 7),
        (np.full((3, 4, 3), 7, np.uint8), 7),
        (np.full((3, 4, 1), 7, np.uint8), 7),
        (np.full((3, 4), True), 255),
        (np.full((3, 4), 65535, np.uint16), 255),
        (np.full((3, 4, 3), 0.5), 128),
        (np.full((3, 4), 16.0), 16),
        (np.full((3, 4), 200, np.int64), 200),
    ],
)
def test_arrays(array, expected):
    image = open_image(array)
    assert image.size == (4, 3)
    assert image.getpixel((0, 0)) == (expected,) * 3


def test_arrays_that_are_no_images(refused):
    for array in (np.zeros((3, 4, 5)), np.zeros(4), np.zeros((0, 4)), np.full((2, 2), "x")):
        with refused("is no image"):
            open_image(array)
    with refused("int"):
        open_image(3)


def test_pillow_images_and_paths(picture, tmp_path, refused):
    given_image = Image.new("RGBA", (4, 3))
    assert open_image(given_image).getpixel((0, 0)) == (255, 255, 255)
    assert given_image.mode == "RGBA"
    (tmp_path / "a.png").write_bytes(picture())
    assert open_image(tmp_path / "a.png").size == open_image(str(tmp_path / "a.png")).size == (4, 3)
    with refused("nothere.png", "cannot be read"):
        open_image(tmp_path / "nothere.png")
    with refused("row 3", "empty cell"):
        open_image(ImageFile("t.csv row 3"))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "GIF", "WEBP", "BMP"])
def test_cut_short(kind, refused):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    file = io.BytesIO()
    noise.save(file, kind)
    with refused("cats/a.x"):
        open_image(ImageFile("cats/a.x", data=file.getvalue()[: len(file.getvalue()) // 2]))


def test_empty_and_tiny_and_no_image(picture, refused):
    with refused("'a.png'", "0 bytes"):
        open_image(ImageFile("a.png", data=b""))
    with refused("'a.png'", "single pixel"):
        open_image(ImageFile("a.png", data=picture(size=(1, 1))))
    with refused("'a.png'", "not an image"):
        open_image(ImageFile("a.png", data=b"<svg></svg>"))
    assert open_image(picture(size=(1, 2))).size == (1, 2)


def test_giants(picture, refused, tmp_path):
    with refused("'a.png'", "200 x 100", "10,000"):
        open_image(ImageFile("a.png", data=picture(size=(200, 100))), max_pixels=10_000)
    for side in (10_500, 20_000, 2**31 - 1):  # beyond our limit; beyond Pillow's; beyond any memory
        with refused("'a.png'", "100,000,000"):
            open_image(ImageFile("a.png", data=_png(side, side, 8, 0, b"")))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animated(kind, refused):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    file = io.BytesIO()
    frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    with refused("'a.gif'", "animated"):
        open_image(ImageFile("a.gif", data=file.getvalue()))


def test_phone_pictures_with_a_second_one_inside():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    file = io.BytesIO()
    frames[0].save(file, "MPO", save_all=True, append_images=frames[1:])
    assert _pixel(file.getvalue())[0] > 200


def test_hostile_names_stay_on_one_line(refused):
    with refused("evil"):
        open_image(ImageFile("evil\n\x1b[31m\u202e.png", data=b"x"))


@settings(max_examples=150, deadline=None)
@given(data=st.data(), kind=st.sampled_from(["PNG", "JPEG", "TIFF", "GIF", "WEBP", "BMP"]))
def test_damaged_images_open_or_are_bad_input(data, kind, picture):
    blob = bytearray(picture(kind, size=(16, 16)))
    for _ in range(data.draw(st.integers(1, 5))):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    try:
        image = open_image(bytes(blob), max_pixels=1_000_000)
    except BadInput as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert image.mode == "RGB"
