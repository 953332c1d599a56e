"""Images: how they are read, cut and shown to the network, and what the embedded encoder gives."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from handful.encode.conse import TOP, ConSE
from handful.encode.efficientnet import MEAN, SCALE, SHARE, SIZE, Lite0
from handful.encode.images import centre_square, decoded, image_content, view_box
from handful.encode.lite0 import MIDDLE, EfficientNetLite0, FoldedLite0, _relu6_, _rounded_keeping_sums
from handful.encode.weights import EFFICIENTNET_LITE0
from handful.errors import BadInput, BadItem
from handful.read.dataset import ImageFile


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    """A palace and a flower."""
    from sklearn.datasets import load_sample_images

    return [Image.fromarray(array) for array in load_sample_images().images]


@pytest.fixture(scope="module")
def exact() -> Lite0:
    return Lite0("float32")


@pytest.fixture(scope="module")
def network() -> EfficientNetLite0:
    model = EfficientNetLite0()
    model.load_state_dict(torch.load(EFFICIENTNET_LITE0.path(), weights_only=True))
    return model.eval()


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def test_the_network_knows_a_palace_and_a_daisy(exact: Lite0, photos: Sequence[Image.Image]) -> None:
    pooled = torch.from_numpy(exact.encode(photos, cache=False))
    best = exact._networks[1](pooled).argmax(1)
    assert [exact._conse._names[i] for i in best] == ["palace", "daisy"]


def test_outputs_fit_together(exact: Lite0, photos: Sequence[Image.Image]) -> None:
    found = exact.encode(photos, ("pooled", "middle", "local", "aligned"), cache=False)
    assert found["middle"].shape == (len(photos), 112)
    np.testing.assert_allclose(found["local"].mean(1), found["pooled"], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found["aligned"], axis=1), 1, atol=1e-6)
    scores = found["aligned"] @ exact.class_text(["a palace", "a flower"]).T
    assert scores.argmax(1).tolist() == [0, 1]


def test_pixels_go_through_the_plain_network_unchanged(
    exact: Lite0, network: EfficientNetLite0, photos: Sequence[Image.Image]
) -> None:
    pixels = [centre_square(photo, (0, 0, *photo.size), SIZE, SHARE) for photo in photos]
    x = (torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2) - MEAN) / SCALE
    with torch.no_grad():
        expected = network.maps(x).mean((2, 3))
    np.testing.assert_allclose(exact.encode(photos, cache=False), expected, atol=1e-4)


@pytest.mark.parametrize("size", [(224, 224), (97, 130)])
def test_folding_changes_nothing(network: EfficientNetLite0, size: tuple[int, int]) -> None:
    x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        expected = network.maps(x)
        middle = network._bn0(network._conv_stem(x)).clamp(0, 6)
        for block in network._blocks[: MIDDLE + 1]:
            middle = block(middle)
    found, found_middle = FoldedLite0(network, torch.float32).maps(x)
    assert found.shape == expected.shape
    torch.testing.assert_close(found_middle, middle, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_bfloat16_keeps_the_direction(exact: Lite0, photos: Sequence[Image.Image]) -> None:
    a, b = exact.encode(photos, cache=False), Lite0("bfloat16").encode(photos, cache=False)
    assert ((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min() > 0.99


def test_rounded_filters_keep_their_sums() -> None:
    weight = torch.randn(50, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    rounded = _rounded_keeping_sums(weight)
    assert torch.equal(rounded, rounded.to(torch.bfloat16).float())
    plain = weight.to(torch.bfloat16).float()
    error, plain_error = ((w - weight).sum((1, 2, 3)).abs().mean() for w in (rounded, plain))
    assert error < plain_error / 20
    assert (rounded - weight).abs().max() < 2**-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_relu6_in_place(dtype: torch.dtype) -> None:
    x = torch.tensor([-torch.inf, -7.5, -0.0, 0.0, 1e-30, 3.3, 5.97, 6.0, 6.03, 1e30, torch.inf]).to(dtype)
    expected = torch.nn.functional.relu6(x)
    assert torch.equal(_relu6_(x), expected)


def test_conse_is_the_mean_of_the_likeliest_names(exact: Lite0) -> None:
    conse = exact._conse
    logits = np.random.default_rng(0).normal(size=(3, 1000)).astype(np.float32) * 3
    for row, found in zip(logits, conse.image_vectors(logits), strict=True):
        p = np.exp(row) / np.exp(row).sum()
        likeliest = np.argsort(-p)[:TOP]
        weights = p[likeliest] / p[likeliest].sum()
        v = sum(w * conse.class_text([conse._names[i]])[0] for i, w in zip(likeliest, weights, strict=True))
        np.testing.assert_allclose(found, v / np.linalg.norm(v), atol=1e-5)


def test_a_sure_network_gives_its_class_name() -> None:
    conse = ConSE("float32")
    logits = np.zeros((1, 1000), np.float32)
    logits[0, 7] = 50
    np.testing.assert_allclose(conse.image_vectors(logits)[0], conse.class_text([conse._names[7]])[0], atol=1e-5)


def test_one_image_in_all_its_forms(exact: Lite0, photos: Sequence[Image.Image], tmp_path: Path) -> None:
    png = encoded(photos[1])
    (tmp_path / "flower.png").write_bytes(png)
    forms = [photos[1], np.asarray(photos[1]), png, tmp_path / "flower.png", str(tmp_path / "flower.png"),
             ImageFile("a flower", data=png)]  # fmt: skip
    vectors = exact.encode(forms, cache=False)
    np.testing.assert_allclose(vectors, np.broadcast_to(vectors[0], vectors.shape), atol=1e-6)


def test_an_array_of_images(exact: Lite0) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28), np.uint8)
    assert exact.encode(images, cache=False).shape == (3, 1280)


def test_palettes_tell_images_apart() -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    red = image_content(image)
    image.putpalette([0, 0, 0, 0, 0, 255])
    assert image_content(image) != red


def test_big_photographs_are_decoded_smaller(exact: Lite0, photos: Sequence[Image.Image]) -> None:
    jpeg = encoded(photos[0].resize((2560, 1708)), "JPEG", quality=95)
    assert decoded(jpeg, jpeg, 448).size == (1280, 854)
    assert decoded(jpeg, jpeg, 2000).size == (2560, 1708)
    whole = exact.encode([jpeg, np.asarray(decoded(jpeg, jpeg, 2000))], cache=False)
    a, b = whole / np.linalg.norm(whole, axis=1, keepdims=True)
    assert a @ b > 0.999


def test_a_photograph_held_sideways_is_turned() -> None:
    photo = Image.new("RGB", (2000, 1000))
    exif = Image.Exif()
    exif[0x0112] = 6
    jpeg = encoded(photo, "JPEG", exif=exif)
    assert decoded(jpeg, jpeg, 250).size == (250, 500)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (b"", "empty"),
        (b"\xff\xd8 no jpeg", "bytes"),
        ("missing.png", r"missing\.png"),
        (np.full((4, 4), np.nan), "NaN"),
        (np.zeros((2, 3, 4, 5)), r"\[2, 3, 4, 5\]"),
        (np.array([["a"]]), "no image"),
        (7, "int"),
        (ImageFile("cell B7"), "cell B7"),
    ],
)
def test_what_is_no_image_is_named_with_its_place(exact: Lite0, item: object, message: str) -> None:
    with pytest.raises(BadItem, match=message) as caught:
        exact.encode([Image.new("RGB", (9, 9)), item], cache=False)
    assert caught.value.index == 1 and "\n" not in str(caught.value)


def test_a_cut_jpeg_is_named_with_its_place(exact: Lite0, photos: Sequence[Image.Image]) -> None:
    jpeg = encoded(photos[0].resize((2000, 1400)), "JPEG")
    half = ImageFile("folder/half.jpg", data=jpeg[: len(jpeg) // 2])
    with pytest.raises(BadItem, match=r"item 2: image 'folder/half\.jpg'"):
        exact.encode([photos[0], photos[1], half], cache=False)
    vectors = exact.encode([half, photos[1]], ("pooled", "aligned"), cache=False, bad="nan")
    assert np.isnan(vectors["pooled"]).all(axis=1).tolist() == [True, False]
    assert np.isnan(vectors["aligned"]).all(axis=1).tolist() == [True, False]


def test_views_depend_on_the_image_alone(exact: Lite0, photos: Sequence[Image.Image]) -> None:
    both = exact.encode(photos, views=3, cache=False)
    assert both.shape == (2, 3, 1280)
    np.testing.assert_allclose(both[:, 0], exact.encode(photos, cache=False), atol=1e-5)
    np.testing.assert_allclose(both[1:], exact.encode(photos[1:], views=3, cache=False), atol=1e-5)
    assert not np.allclose(both[0, 1], both[0, 2], atol=1e-2)


def test_view_boxes_lie_inside_and_show_half_or_more() -> None:
    assert view_box(640, 480, 3, 0) == (0, 0, 640, 480)
    for view in range(1, 200):
        left, top, right, bottom = view_box(640, 480, 3, view)
        assert 0 <= left < right <= 640 + 1e-9 and 0 <= top < bottom <= 480 + 1e-9
        assert 0.5 <= (right - left) * (bottom - top) / (640 * 480) <= 1
        assert (right - left) / (bottom - top) == pytest.approx(640 / 480)
    assert view_box(640, 480, 3, 1) == view_box(640, 480, 3, 1) != view_box(640, 480, 4, 1)


def test_texts_have_no_views(exact: Lite0) -> None:
    with pytest.raises(BadInput, match="at least 1"):
        exact.encode([], views=0)
    with pytest.raises(BadInput, match="one view"):
        exact._conse._text.encode(["a"], views=2)


def test_unknown_output_names_those_there_are(exact: Lite0) -> None:
    with pytest.raises(BadInput, match="aligned, local, middle, pooled"):
        exact.encode([], "depth")  # type: ignore[arg-type]
