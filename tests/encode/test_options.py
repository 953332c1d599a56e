"""How an encoder looks at items: long texts in windows, parts of images, and what that makes of its identity."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from handful.encode import default_encoder, encoder
from handful.encode.base import unit
from handful.encode.frames import MOST_TILES, WHOLE, Frame
from handful.encode.images import decoded
from handful.encode.minilm import MAX_TOKENS, MiniLM
from handful.encode.options import Options
from handful.encode.texts import read_windows
from handful.errors import BadInput, BadItem

WORDS = ["word", "card", "money", "lost", "house"] * 120


@pytest.fixture(scope="module")
def first() -> MiniLM:
    return MiniLM("float32")


@pytest.fixture(scope="module")
def mean() -> MiniLM:
    return MiniLM("float32", long="mean")


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """Four quarters of different colours and textures, 400 x 600."""
    draw = np.random.default_rng(0)
    parts = [draw.integers(0, 256, (1, 1, 3)) + draw.integers(-60, 60, (200, 300, 3)) for _ in range(4)]
    return np.clip(np.vstack([np.hstack(parts[:2]), np.hstack(parts[2:])]), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "given", "options"),
    [
        ("minilm", {}, {}),
        ("minilm", {"long": "mean"}, {"long": "mean"}),
        ("efficientnet-lite0", {"crop": (0, 0, 1, 1), "tiles": (1, 1)}, {}),
        ("efficientnet-lite0", {"crop": (10, 20.0, 30, 40)}, {"crop": [10, 20, 30, 40]}),
        (
            "efficientnet-lite0",
            {"crop": [0.25, 0, 0.5, 1], "tiles": [2, 3]},
            {"crop": [0.25, 0, 0.5, 1], "tiles": [2, 3]},
        ),
    ],
)
def test_options_hold_what_is_not_usual_and_make_the_same_again(
    name: str, given: dict[str, Any], options: dict[str, Any]
) -> None:
    tower, plain = encoder(name, **given), encoder(name)
    assert tower.options == options
    assert encoder(name, **tower.options).identity == tower.identity
    assert (tower.identity == plain.identity) == (not options)
    assert tower.fingerprint.startswith(tower.identity)


def test_defaults_take_options_too() -> None:
    assert default_encoder("text", long="mean").options == {"long": "mean"}
    assert default_encoder("image", tiles=(2, 2)).options == {"tiles": [2, 2]}


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("minilm", {"long": "meen"}, "did you mean 'mean'"),
        ("minilm", {"crop": (0, 0, 9, 9)}, "'minilm' reads texts; only images have crop"),
        ("minilm", {"tiles": (2, 2)}, "reads texts"),
        ("efficientnet-lite0", {"long": "mean"}, "reads images; long is for texts"),
        ("efficientnet-lite0", {"crop": (0, 0, 0, 5)}, "w and h above 0"),
        ("efficientnet-lite0", {"crop": (-1, 0, 5, 5)}, "x and y must be 0 or more"),
        ("efficientnet-lite0", {"crop": (0.6, 0, 0.5, 1)}, "outside the picture"),
        ("efficientnet-lite0", {"crop": (0.5, 0, 300, 200)}, "mixes pixels and shares"),
        ("efficientnet-lite0", {"crop": (1, 2, 3)}, "4 numbers, x,y,w,h"),
        ("efficientnet-lite0", {"crop": "1,2,a,4"}, "4 numbers"),
        ("efficientnet-lite0", {"crop": (0, 0, float("nan"), 1)}, "4 numbers"),
        ("efficientnet-lite0", {"tiles": (0, 2)}, "whole numbers"),
        ("efficientnet-lite0", {"tiles": (1.5, 2)}, "tiles 1.5x2"),
        ("efficientnet-lite0", {"tiles": (9, 9)}, f"{MOST_TILES} tiles at most"),
        ("efficientnet-lite0", {"tiles": (2,)}, "ROWSxCOLUMNS"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(name: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        encoder(name, **given)
    assert "\n" not in str(caught.value)


def test_unknown_option_is_named() -> None:
    with pytest.raises(BadInput, match="no option 'tile'; did you mean 'tiles'"):
        Options.of_mapping({"tile": [2, 2]})


def test_a_long_text_is_the_mean_of_its_windows(first: MiniLM, mean: MiniLM) -> None:
    long, inside = " ".join(WORDS), MAX_TOKENS - 2
    assert len(first.pieces(WORDS)) == sum(first.pieces(WORDS))  # so that windows are cut between words
    windows = [" ".join(WORDS[at : at + inside]) for at in range(0, len(WORDS), inside)]
    weights = np.array([[len(window.split()) + 2] for window in windows])
    expected = unit((first.encode(windows, cache=False) * weights).sum(0, keepdims=True))
    np.testing.assert_allclose(mean.encode(["short", long], cache=False)[1:], expected, atol=1e-6)
    np.testing.assert_allclose(first.encode([long], cache=False), first.encode(windows[:1], cache=False), atol=1e-6)


def test_texts_within_the_limit_keep_their_bits(first: MiniLM, mean: MiniLM) -> None:
    texts = ["Where is my card?", "word " * (MAX_TOKENS - 2), "a refund", "word " * 100]
    assert mean.encode(texts, cache=False).tobytes() == first.encode(texts, cache=False).tobytes()


def test_the_end_of_a_long_text_counts(first: MiniLM, mean: MiniLM) -> None:
    texts = ["weather " * 300 + end for end in ("", "refund " * 300)]
    assert np.allclose(*first.encode(texts, cache=False), atol=1e-6)
    assert float(np.dot(*mean.encode(texts, cache=False))) < 0.95
    assert np.isfinite(mean.encode(["Where is my card? " * 400], cache=False)).all()


def test_windows_of_many_texts_find_their_owners() -> None:
    draw = np.random.default_rng(0)
    count = draw.integers(1, 9, 200)
    owner = np.repeat(np.arange(200), count)
    lengths = draw.integers(3, 257, len(owner))
    found = draw.normal(size=(len(owner), 5)).astype(np.float32)
    result = np.full((200, 5), np.nan)
    for positions, arrays in read_windows(owner, lengths.tolist(), lambda p: found[p], budget=2048, unit_length=False):
        assert isinstance(arrays, dict)
        result[positions] = arrays["pooled"][:, 0]
    expected = [np.average(found[owner == i], axis=0, weights=lengths[owner == i]) for i in range(200)]
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_hub_texts_are_read_in_windows_too(bert: Path) -> None:
    usual, mean = encoder(f"hf:{bert}"), encoder(f"hf:{bert}", long="mean")
    words = ["card", "refund", "cat", "dog", "photo"] * 14
    windows = [" ".join(words[at : at + 30]) for at in range(0, 70, 30)]  # 32 tokens, two of them around the words
    expected = np.average(usual.encode(windows, cache=False), axis=0, weights=[32, 32, 12])
    np.testing.assert_allclose(mean.encode(["cat", " ".join(words)], cache=False)[1], expected, atol=1e-5)
    np.testing.assert_allclose(mean.encode(["the cat"], cache=False), usual.encode(["the cat"], cache=False), atol=1e-6)
    assert mean.options == {"long": "mean"} and mean.identity == f'{usual.identity}:long="mean"'


def test_hub_encoders_refuse_what_is_for_other_items(bert: Path, vision: Path) -> None:
    with pytest.raises(BadInput, match="reads texts; only images have tiles"):
        encoder(f"hf:{bert}", tiles=(2, 2))
    with pytest.raises(BadInput, match="reads images; long"):
        encoder(f"hf:{vision}", long="mean")


@pytest.mark.parametrize("crop", [(300, 0, 300, 200), (0.5, 0, 0.5, 0.5)])
def test_a_crop_is_the_picture_cut(photo: np.ndarray, crop: Sequence[float]) -> None:
    outputs = ("pooled", "middle", "aligned")
    found = encoder("efficientnet-lite0", crop=crop).encode([photo], outputs, cache=False)
    expected = encoder("efficientnet-lite0").encode([np.ascontiguousarray(photo[:200, 300:])], outputs, cache=False)
    for output in outputs:
        np.testing.assert_allclose(found[output], expected[output], atol=1e-5)


def test_a_crop_outside_names_the_size_of_the_picture(photo: np.ndarray) -> None:
    tower = encoder("efficientnet-lite0", crop=(500, 0, 101, 50))
    with pytest.raises(BadItem, match="crop 500,0,101,50 lies outside a picture of 600 x 400 pixels") as caught:
        tower.encode([np.zeros((700, 700), np.uint8), photo], cache=False)
    assert caught.value.index == 1
    rows = tower.encode([np.zeros((700, 700), np.uint8), photo], cache=False, bad="nan")
    assert np.isnan(rows).all(axis=1).tolist() == [False, True]


def test_pixels_of_a_crop_are_those_of_the_whole_photograph() -> None:
    """A JPEG is decoded smaller where that loses nothing; a crop must not notice."""
    import io

    draw = np.random.default_rng(1)
    big = Image.fromarray(draw.integers(0, 256, (30, 40, 3), np.uint8)).resize((4000, 3000))
    out = io.BytesIO()
    big.save(out, "JPEG", quality=95)
    jpeg = out.getvalue()
    assert min(decoded(jpeg, jpeg, 448).size) < 1000
    assert decoded(jpeg, jpeg, Frame((100, 100, 500, 500)).least(448)).size == (4000, 3000)
    assert min(decoded(jpeg, jpeg, Frame((0.5, 0.5, 0.25, 0.25)).least(448)).size) == 3000
    assert min(decoded(jpeg, jpeg, Frame(tiles=(3, 3)).least(448)).size) == 1500
    pixels, shares = (
        encoder("efficientnet-lite0", crop=crop).encode([jpeg], cache=False)[0]
        for crop in ((1000, 750, 1000, 750), (0.25, 0.25, 0.25, 0.25))
    )
    assert pixels @ shares / np.linalg.norm(pixels) / np.linalg.norm(shares) > 0.999


@pytest.mark.parametrize(
    ("size", "tiles"), [((600, 400), (2, 3)), ((640, 480), (2, 2)), ((300, 900), (4, 2)), ((7, 5), (1, 2))]
)
def test_tiles_are_squares_that_show_all(size: tuple[int, int], tiles: tuple[int, int]) -> None:
    whole, *boxes = Frame(tiles=tiles).shown((0, 0, *size))
    assert whole == (0, 0, *size) and len(boxes) == tiles[0] * tiles[1]
    seen = np.zeros(size, bool)
    for left, top, right, bottom in boxes:
        assert right - left == pytest.approx(bottom - top)
        assert left >= -1e-9 and top >= -1e-9 and right <= size[0] + 1e-9 and bottom <= size[1] + 1e-9
        seen[round(left) : round(right), round(top) : round(bottom)] = True
    assert seen.all()


def test_features_in_tiles_are_power_means_over_the_squares(photo: np.ndarray) -> None:
    plain, tiled = (encoder("efficientnet-lite0", precision="float32", tiles=tiles) for tiles in (None, (2, 2)))
    boxes = Frame(tiles=(2, 2)).shown((0, 0, 600, 400))[1:]
    squares = [photo, *(np.asarray(Image.fromarray(photo).crop(tuple(map(int, box)))) for box in boxes)]
    outputs = ("pooled", "middle", "aligned", "local")
    parts, found = plain.encode(squares, outputs, cache=False), tiled.encode([photo], outputs, cache=False)
    for output in ("pooled", "middle"):
        np.testing.assert_allclose(found[output][0], np.cbrt((parts[output] ** 3).mean(0)), atol=0.03)
    np.testing.assert_allclose(found["aligned"], unit(parts["aligned"].mean(0, keepdims=True)), atol=0.02)
    assert found["local"].shape == (1, 5 * 49, 1280)
    squares = found["local"].reshape(5, 49, 1280).mean(1)
    np.testing.assert_allclose(np.cbrt((squares**3).mean(0)), found["pooled"][0], atol=1e-4)
    assert tiled.encode([], ("local",), cache=False).shape == (0, 245, 1280)


def test_tiles_and_views_go_together(vision: Path, photo: np.ndarray) -> None:
    plain, tiled = encoder(f"hf:{vision}"), encoder(f"hf:{vision}", tiles=(1, 2))
    found = tiled.encode([photo, photo[:100]], ("pooled", "local"), views=3, cache=False)
    one = plain.encode([photo], ("pooled", "local"), cache=False)
    assert found["pooled"].shape == (2, 3, 16)
    assert found["local"].shape == (2, 3, 3 * one["local"].shape[1], 16)
    np.testing.assert_allclose(found["local"][0, 0, : one["local"].shape[1]], one["local"][0], atol=1e-5)
    np.testing.assert_allclose(found["pooled"][:, 0], tiled.encode([photo, photo[:100]], cache=False), atol=1e-5)


def test_a_whole_frame_changes_nothing(photo: np.ndarray) -> None:
    assert WHOLE.shown((0, 0, 6, 4)) == [(0, 0, 6, 4)] and WHOLE.options == {} and WHOLE.least(448) == 448
    image = Image.fromarray(photo)
    assert WHOLE.cropped(image) is image


def test_no_cache_is_obeyed_by_class_names_as_well(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path))
    picture = np.zeros((8, 8), np.uint8)
    for name, item in (("minilm", "a text"), ("efficientnet-lite0", picture)):
        tower = encoder(name)
        tower.encode([item], tuple(tower.outputs - {"local"}), cache=False)
        tower.class_text(["a class"], cache=False)
    assert not list(tmp_path.glob("features*"))
    encoder("efficientnet-lite0").class_text(["a class"])
    assert list(tmp_path.glob("features*"))
