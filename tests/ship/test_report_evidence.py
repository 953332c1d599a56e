"""Examples beside a report: short texts, small pictures that carry nothing but pixels, and never a failure."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_cards import full_card

from handful.read import from_arrays, read
from handful.ship.evidence import EACH, LENGTH, SIDE, Evidence, cut, make_evidence, mistaken, shown_rows, thumbnail


def jpeg(width: int, height: int, **options: object) -> bytes:
    """A photo-like picture: smooth colours."""
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([255 * x / width, 255 * y / height, np.full(x.shape, 90)], axis=2).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def test_texts_are_cut_and_on_one_line() -> None:
    data = from_arrays(["one\n two\t\tthree", "word " * 500], ["a", "b"])
    found = make_evidence(data, [1, 0])
    assert list(found) == [1, 0]
    assert found[0].text == "one two three"
    assert len(found[1].text or "") <= LENGTH
    assert (found[1].text or "").endswith("word…")
    assert found[0].thumbnail is None


def test_places_are_those_of_the_source(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,label\nhello,a\nbye,b\n", encoding="utf-8")
    found = make_evidence(read(tmp_path / "t.csv"), [1])
    assert found[1].where.endswith("t.csv row 3")


@pytest.mark.parametrize(("size", "expected"), [((640, 480), (96, 72)), ((28, 28), (84, 84)), ((60, 90), (60, 90))])
def test_thumbnails_are_small_and_tiny_pictures_are_enlarged(size: tuple[int, int], expected: tuple[int, int]) -> None:
    data = thumbnail(jpeg(*size))
    assert data is not None
    picture = Image.open(io.BytesIO(data))
    assert picture.size == expected
    assert picture.format in ("PNG", "JPEG")
    assert max(picture.size) <= SIDE
    assert len(data) < 10_000


def test_thumbnails_carry_nothing_but_pixels() -> None:
    exif = Image.Exif()
    exif[0x010E] = "at home, 12 Hill Road"
    data = thumbnail(jpeg(400, 300, exif=exif, comment=b"secret note"))
    assert data is not None
    assert b"Hill Road" not in data
    assert b"secret" not in data
    assert not Image.open(io.BytesIO(data)).getexif()


def test_what_cannot_be_read_shows_its_place_alone(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(jpeg(20, 20))
    data = read(tmp_path)
    (tmp_path / "a" / "1.jpg").write_bytes(b"no picture any more")
    found = make_evidence(data, range(2))
    assert {example.thumbnail is None for example in found.values()} == {True, False}
    assert all(example.where for example in found.values())


def test_features_have_nothing_to_show() -> None:
    found = make_evidence(from_arrays(np.eye(3), ["a", "b", "c"]), [2])
    assert (found[2].text, found[2].thumbnail) == (None, None)


def test_the_rows_that_a_report_shows() -> None:
    card = full_card()
    pairs = [(p["true"], p["predicted"]) for p in card["estimate"]["assessment"]["confused"]]
    confused = {pair: list(range(100 * i, 100 * i + 50)) for i, pair in enumerate(reversed(pairs), start=1)}
    rows = shown_rows(card, {**confused, ("never", "shown"): [7777]})
    assert rows == sorted(set(rows))
    assert {5, 9, 12, 40} < set(rows)
    for pair in pairs[:8]:
        assert set(confused[pair][:EACH]) <= set(rows)
        assert not set(confused[pair][EACH:]) & set(rows)
    assert 7777 not in rows
    assert shown_rows({}, confused) == []
    assert Evidence().items == {}


def test_mistaken_items_of_a_test() -> None:
    data = from_arrays([f"text {i}" for i in range(8)], ["a", "b"] * 4)
    answers = ["b", "b", "b", "a", "b", "b", "b", "b"]
    found = mistaken(data, answers, {"confused": [{"true": "a", "predicted": "b"}, {"true": "b", "predicted": "a"}]})
    assert {pair: [e.text for e in some] for pair, some in found.items()} == {
        ("a", "b"): ["text 0", "text 2", "text 4"],
        ("b", "a"): ["text 3"],
    }


def test_a_cut_text_ends_at_a_word_or_a_letter_never_a_blank() -> None:
    assert cut("a b", 2) == "a…"
    assert cut("ab", 2) == "ab"
    assert cut(" " * 10_000 + "x") == ""
