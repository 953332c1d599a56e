"""Copies of items are found, different items are left alone."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageEnhance

from handful.errors import BadInput
from handful.evaluate.duplicates import Conflict, conflicts, merge_units, near_duplicates
from handful.evaluate.near_texts import normal
from handful.read import ImageFile


def units_of(texts: list[str], features: np.ndarray | None = None) -> list[int]:
    features = np.eye(len(texts)) if features is None else features
    return near_duplicates(texts, features, "text").tolist()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Where is my card?", "where is my card"),
        ("Where is my card", "  where\tis\nmy  card!! "),
        ("ﬁnd Ｃａｒｄ №5", "find card no5"),
        ("Straße", "STRASSE"),
        ("it's - really - late…", "it s really late"),
        ("नमस्ते, दुनिया", "नमस्ते दुनिया"),
    ],
)
def test_texts_that_differ_in_form_only_are_one(one: str, other: str) -> None:
    assert units_of([one, "something else", other]) == [0, 1, 0]


@pytest.mark.parametrize(
    ("one", "other"), [("room 4", "room 5"), (":)", ":("), ("C++", "C"), ("3.5", "35"), ("a", "b"), ("", "?")]
)
def test_texts_that_say_something_else_are_two(one: str, other: str) -> None:
    same_direction = np.ones((2, 3))
    assert units_of([one, other], same_direction) == [0, 1]


def test_short_texts_are_one_where_the_encoder_agrees() -> None:
    texts = ["can you tell me why my card has been declined", "can you tell me why my card has been declined yet"]
    assert units_of(texts, np.array([[1.0, 0.0], [1.0, 0.1]])) == [0, 0]
    assert units_of(texts, np.array([[1.0, 0.0], [1.0, 0.5]])) == [0, 1]
    assert units_of(["how do I get my card", "why was my transfer slow"], np.ones((2, 2))) == [0, 1]


def test_long_texts_speak_for_themselves() -> None:
    letters = np.random.default_rng(0).choice(list("abcdefghijklmnopqrstuvwxyz"), (40, 6))
    words = ["".join(word) for word in letters]
    features = np.array([[1.0, 0.0], [1.0, 0.5]])
    assert units_of([" ".join(words), " ".join([*words[:20], "another", *words[21:]])], features) == [0, 0]
    assert units_of([" ".join(words), " ".join([*words[:20], *words[:20]])], features) == [0, 1]


def test_one_template_does_not_chain_everything() -> None:
    places = ["japan", "nigeria", "seattle", "venezuela", "ohio", "france", "peru", "texas"]
    texts = [f"what is the population of {place}" for place in places]
    close = np.ones((len(texts), 2)) + 0.01 * np.eye(len(texts), 2)
    assert units_of(texts, close) == list(range(len(texts)))


def test_letters_of_one_template_are_different_items() -> None:
    letter = "dear {0}, your order {1} has left our house today and will be with you within three days, " * 2
    names = ["ann", "robert", "li", "mohammed", "ines", "sofia", "john", "katarzyna"]
    texts = [letter.format(name, 7919 * i + 10000) for i, name in enumerate(names)]
    features = np.ones((9, 2))
    assert len(set(units_of([*texts, "what is this"], features))) == 9
    assert units_of([*texts, texts[3].replace("today", "to day")], features) == [*range(8), 3]


@given(st.lists(st.text(max_size=12), max_size=8))
def test_any_texts_have_units(texts: list[str]) -> None:
    features = np.random.default_rng(0).normal(size=(len(texts), 4))
    units = units_of(texts * 2, np.concatenate([features, features]))
    assert units[: len(texts)] == units[len(texts) :]
    for i, one in enumerate(texts):
        for j, other in enumerate(texts):
            assert units[i] == units[j] or not normal(one) or normal(one) != normal(other)


def drawing(seed: int, strokes: int = 3, size: int = 105) -> Image.Image:
    """A few thin strokes on an empty page."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (size, size), "white")
    pen = ImageDraw.Draw(image)
    for _ in range(strokes):
        points = rng.uniform(0.15, 0.85, (3, 2)) * size
        pen.line([(float(x), float(y)) for x, y in points], fill="black", width=2)
    return image


def photo(seed: int, size: int = 96) -> Image.Image:
    """Smooth colours and some grain."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)).resize((size, size), 3)
    grain = rng.normal(0, 8, (size, size, 3))
    return Image.fromarray(np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8))


def saved(image: Image.Image, kind: str = "PNG", **options: int) -> ImageFile:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return ImageFile("x", data=file.getvalue())


COPIES: dict[str, Callable[[Image.Image], Image.Image | ImageFile]] = {
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2), 3),
    "twice the size": lambda image: image.resize((image.width * 2, image.height * 2), 3),
    "compressed": lambda image: saved(image, "JPEG", quality=40),
    "paler": lambda image: ImageEnhance.Contrast(image).enhance(0.7),
    "another format": lambda image: saved(image, "BMP"),
}


@pytest.mark.parametrize("make", [drawing, photo])
@pytest.mark.parametrize("how", COPIES)
def test_copies_of_images_are_one(make: Callable[[int], Image.Image], how: str) -> None:
    images = [make(seed) for seed in range(6)]
    features = np.random.default_rng(0).normal(size=(6, 32))
    nearly = features + 0.2 * np.random.default_rng(1).normal(size=(6, 32))
    items = [*images, *(COPIES[how](image) for image in images)]
    units = near_duplicates(items, np.concatenate([features, nearly]), "image")
    assert units.tolist() == [*range(6), *range(6)]


@pytest.mark.parametrize("make", [drawing, photo])
def test_images_that_only_the_encoder_takes_for_one_are_two(make: Callable[[int], Image.Image]) -> None:
    features = np.ones((30, 4)) + 0.01 * np.random.default_rng(0).normal(size=(30, 4))
    assert len(set(near_duplicates([make(seed) for seed in range(30)], features, "image").tolist())) == 30


def test_one_picture_in_two_colours_is_two() -> None:
    page = np.full((64, 64, 3), 255, dtype=np.uint8)
    red, blue = page.copy(), page.copy()
    red[16:48, 16:48], blue[16:48, 16:48] = (205, 50, 50), (50, 50, 205)
    assert near_duplicates([red, blue], np.ones((2, 4)), "image").tolist() == [0, 1]


def test_blank_pictures_are_one() -> None:
    rng = np.random.default_rng(0)
    blank = [np.clip(rng.normal(128, 0.5, (64, 64, 3)), 0, 255).astype(np.uint8) for _ in range(3)]
    features = np.concatenate([np.ones((3, 4)), -np.ones((1, 4))])
    assert near_duplicates([*blank, np.asarray(photo(0))], features, "image").tolist() == [0, 0, 0, 1]


def test_pictures_of_one_scene_are_different_items() -> None:
    rng = np.random.default_rng(0)
    scene = np.asarray(photo(0), dtype=np.float64)
    shots = [np.clip(scene + rng.normal(0, 6, scene.shape), 0, 255).astype(np.uint8) for _ in range(20)]
    features = np.concatenate([np.ones((20, 4)), -np.ones((20, 4))]) + 0.01 * rng.normal(size=(40, 4))
    others = [np.asarray(photo(seed)) for seed in range(1, 21)]
    assert len(set(near_duplicates([*shots, *others], features, "image").tolist())) == 40


def test_an_image_that_is_gone_is_alone(tmp_path: Path) -> None:
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    photo(0).save(paths[0])
    items = [ImageFile(path.name, path=path) for path in (*paths, paths[0])]
    assert near_duplicates(items, np.ones((3, 4)), "image").tolist() == [0, 1, 0]
    with pytest.raises(BadInput):
        items[1].read_bytes()


def test_features_are_one_where_they_are_equal() -> None:
    x = np.array([[0.0, 1.0], [0.5, 1.0], [-0.0, 1.0], [0.5, 1.0000001], [0.5, 1.0]])
    assert near_duplicates(x, x, "features").tolist() == [0, 1, 0, 2, 1]


@pytest.mark.parametrize("modality", ["text", "image", "features"])
def test_few_items(modality: str) -> None:
    items = {"text": ["a"], "image": [photo(0)], "features": np.ones((1, 2))}[modality]
    assert near_duplicates(items, np.ones((1, 2)), modality).tolist() == [0]  # type: ignore[arg-type]
    assert near_duplicates(items[:0], np.ones((0, 2)), modality).tolist() == []  # type: ignore[arg-type]


def test_units_join_by_groups_and_duplicates() -> None:
    groups = ["p1", "p1", "p2", "p3", "p4", "p3"]
    assert merge_units(groups, np.array([0, 1, 1, 2, 3, 4])).tolist() == [0, 0, 0, 1, 2, 1]
    assert merge_units(None, np.array([7, 3, 7])).tolist() == [0, 1, 0]
    assert merge_units(np.array([5, 5]), np.array([0, 1])).tolist() == [0, 0]


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=14))
def test_joined_units_are_the_smallest_that_keep_both(pairs: list[tuple[int, int]]) -> None:
    groups, units = [g for g, _ in pairs], [u for _, u in pairs]
    joined = merge_units(groups, np.array(units, dtype=np.int64)).tolist()
    assert list(dict.fromkeys(joined)) == list(range(len(set(joined))))
    reached = [{i} for i in range(len(pairs))]
    for _ in pairs:
        reached = [
            {j for j, pair in enumerate(pairs) if any(pair[0] == pairs[k][0] or pair[1] == pairs[k][1] for k in some)}
            for some in reached
        ]
    assert [{j for j, unit in enumerate(joined) if unit == joined[i]} for i in range(len(pairs))] == reached


def test_duplicates_that_disagree() -> None:
    units = np.array([0, 1, 0, 2, 1, 3, 1, 2])
    labels = ["a", "b", "a", "c", "a", "d", None, None]
    assert conflicts(units, labels) == [Conflict((1, 4), ("b", "a"))]
    assert conflicts(np.array([1, 0, 0, 1]), ["a", "b", "c", "d"]) == [
        Conflict((0, 3), ("a", "d")),
        Conflict((1, 2), ("b", "c")),
    ]
    assert conflicts(np.arange(3), ["a", "b", "a"]) == []


@pytest.fixture(scope="module")
def banking(shared_data: Path) -> tuple[list[str], np.ndarray]:
    """Eight texts of each of the 77 classes, and a stand-in for features: hashed words."""
    with (shared_data / "banking77" / "train.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    order = np.random.default_rng(0).permutation(len(rows))
    taken: dict[str, list[str]] = {}
    for i in order:
        taken.setdefault(rows[i]["category"], []).append(rows[i]["text"])
    texts = [text for some in taken.values() for text in some[:8]]
    words = {word: i for i, word in enumerate(sorted({word for text in texts for word in normal(text).split()}))}
    features = np.zeros((len(texts), len(words)), dtype=np.float32)
    for row, text in enumerate(texts):
        for word in normal(text).split():
            features[row, words[word]] += 1
    return texts, features


def test_real_texts_given_three_times(banking: tuple[list[str], np.ndarray]) -> None:
    texts, features = banking
    units = near_duplicates(texts, features, "text")
    assert units.max() + 1 >= 0.99 * len(texts)
    three = np.random.default_rng(1).permutation(np.repeat(np.arange(len(texts)), 3))
    again = near_duplicates([texts[i] for i in three], features[three], "text")
    assert again.max() == units.max()
    assert len(set(zip(again.tolist(), units[three].tolist(), strict=True))) == units.max() + 1


def test_real_drawings_are_not_mistaken_for_each_other(shared_data: Path) -> None:
    with zipfile.ZipFile(shared_data / "omniglot" / "images_background_small1.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".png")][:300]
        items = [ImageFile(name, data=archive.read(name)) for name in names]
    close = np.ones((len(items), 4)) + 0.01 * np.random.default_rng(0).normal(size=(len(items), 4))
    assert len(set(near_duplicates(items, close, "image").tolist())) == len(items)
